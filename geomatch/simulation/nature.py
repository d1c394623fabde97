"""What was there before the city: a river, lakes, woods."""

from __future__ import annotations

import numpy as np

from geomatch.simulation.canvas import Canvas
from geomatch.simulation.materials import Material
from geomatch.simulation.noise import fractal_noise


def draw_ground(canvas: Canvas, rng: np.random.Generator) -> None:
    """Cover the map with grass of slowly varying tone, and some bare soil."""
    shape = canvas.free.shape
    tone = fractal_noise(rng, shape, 90.0 / canvas.gsd_m, 4)
    canvas.variant[:] = np.clip(128 + 50 * tone, 0, 255).astype(np.uint8)
    bare = fractal_noise(rng, shape, 60.0 / canvas.gsd_m, 4) > 1.7
    canvas.material[bare] = Material.SOIL


def draw_water(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a meandering river with grassy or paved banks, and lakes."""
    size_m = canvas.size_m
    direction = rng.uniform(0, np.pi)
    ahead = np.array([np.cos(direction), np.sin(direction)])
    aside = np.array([-ahead[1], ahead[0]])
    along = np.arange(-size_m, size_m, 6.0)
    sway = np.zeros_like(along)
    for length_m in (1.1 * size_m, 520.0, 210.0):
        sway += rng.uniform(0.03, 0.07) * length_m * np.sin(2 * np.pi * along / length_m + rng.uniform(0, 2 * np.pi))
    through = size_m * rng.uniform(0.25, 0.75, 2)
    line = through + along[:, None] * ahead + sway[:, None] * aside
    width_m = float(rng.uniform(24.0, 60.0))
    bank = Material.PAVEMENT if rng.random() < 0.5 else Material.GRASS
    tone = int(rng.integers(256))
    canvas.cover(canvas.stroke([line], width_m + 14.0), bank, tone)
    canvas.cover(canvas.stroke([line], width_m), Material.WATER, tone)
    relief = fractal_noise(rng, canvas.free.shape, 260.0 / canvas.gsd_m, 3)
    canvas.cover(relief > 2.3, Material.WATER, tone)


def draw_woods(canvas: Canvas, rng: np.random.Generator) -> None:
    """Grow woods where nothing was built, with a canopy of uneven height."""
    shape = canvas.free.shape
    extent = fractal_noise(rng, shape, 120.0 / canvas.gsd_m, 4) > 1.35
    wooded = extent & canvas.free & np.isin(canvas.material, (Material.GRASS, Material.SOIL))
    canopy = 11.0 + 3.0 * fractal_noise(rng, shape, 7.0 / canvas.gsd_m, 2)
    canvas.height_m[wooded] = np.maximum(canopy, 3.0)[wooded]
    canvas.material[wooded] = Material.TREES
