"""Streets: avenues across the whole city, and in every district a network of its own with blocks between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geomatch.simulation.canvas import Canvas
from geomatch.simulation.districts import District, Districts, Style
from geomatch.simulation.materials import Material

Line = NDArray[np.float64]

BRIDGE_HEIGHT_M = 6.0
SAMPLE_M = 8.0


@dataclass(frozen=True)
class Grid:
    """Ranges in metres of block length (along u), block depth (along v) and street width of a style."""

    length_m: tuple[float, float]
    depth_m: tuple[float, float]
    street_m: tuple[float, float]
    surface: Material = Material.ASPHALT


GRIDS: dict[Style, Grid] = {
    Style.PERIMETER: Grid((60.0, 130.0), (55.0, 90.0), (11.0, 16.0)),
    Style.TOWERS: Grid((110.0, 210.0), (90.0, 150.0), (10.0, 15.0)),
    Style.TERRACES: Grid((90.0, 190.0), (52.0, 66.0), (8.0, 11.0)),
    Style.HOUSES: Grid((90.0, 220.0), (52.0, 68.0), (7.0, 10.0)),
    Style.INDUSTRY: Grid((120.0, 260.0), (90.0, 160.0), (10.0, 14.0)),
    Style.PARK: Grid((90.0, 240.0), (90.0, 200.0), (3.0, 4.0), Material.PAVEMENT),
    Style.FIELDS: Grid((120.0, 340.0), (45.0, 150.0), (3.0, 5.0), Material.SOIL),
}


@dataclass(frozen=True)
class Block:
    """A rectangle of ground between streets: centre and half sides in metres, direction of its u side in radians."""

    district: District
    x: float
    y: float
    half_u: float
    half_v: float
    angle: float


def draw_avenues(canvas: Canvas, districts: Districts, rng: np.random.Generator) -> None:
    """Draw the boulevards between districts, a ring road and diagonal avenues; where they meet water, bridges."""
    water = canvas.material == Material.WATER
    border = districts.border_m
    canvas.cover((border < rng.uniform(7.0, 9.0)) & ~water, Material.PAVEMENT, int(rng.integers(256)))
    canvas.cover((border < rng.uniform(4.5, 6.0)) & ~water, Material.ASPHALT, int(rng.integers(256)))
    for line in _avenue_lines(rng, canvas.size_m):
        width = float(rng.uniform(14.0, 24.0))
        kerb, lanes = canvas.stroke([line], width + 7.0), canvas.stroke([line], width)
        canvas.cover(kerb & ~water, Material.PAVEMENT, int(rng.integers(256)))
        canvas.cover(lanes & ~water, Material.ASPHALT, int(rng.integers(256)))
        canvas.cover(lanes & water, Material.BRIDGE, int(rng.integers(256)), height_m=BRIDGE_HEIGHT_M)


def _avenue_lines(rng: np.random.Generator, size_m: float) -> Iterator[Line]:
    """Yield a ring around the centre, lobed so that no two are alike, and avenues that cross the map aslant."""
    centre = size_m * rng.uniform(0.35, 0.65, 2)
    turn = np.linspace(0, 2 * np.pi, max(int(size_m / SAMPLE_M), 48))
    radius = np.full_like(turn, size_m * rng.uniform(0.22, 0.36))
    for lobes in (2, 3, 5):
        radius *= 1 + rng.uniform(0.02, 0.12) * np.sin(lobes * turn + rng.uniform(0, 2 * np.pi))
    yield centre + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    for _ in range(int(rng.integers(2, 4)) + int(size_m / 1500)):
        through = size_m * rng.uniform(0.2, 0.8, 2)
        direction, bend = rng.uniform(0, np.pi), rng.uniform(-0.12, 0.12) / size_m
        along = np.arange(-1.5 * size_m, 1.5 * size_m, SAMPLE_M)
        ahead = np.array([np.cos(direction), np.sin(direction)])
        aside = np.array([-ahead[1], ahead[0]])
        yield through + along[:, None] * ahead + (bend * along**2)[:, None] * aside


def draw_streets(canvas: Canvas, districts: Districts, rng: np.random.Generator) -> list[Block]:
    """Draw the streets inside every district and return the blocks between them."""
    blocks: list[Block] = []
    for district in districts.members:
        grid = GRIDS[district.style]
        street_m = float(rng.uniform(*grid.street_m))
        lines, found = _lay_out(district, grid, street_m, canvas, rng)
        blocks += found
        inside = (districts.labels[district.window] == district.code) & canvas.free[district.window]
        coats = [(street_m, grid.surface)]
        if grid.surface is Material.ASPHALT:
            coats = [(street_m, Material.PAVEMENT), (0.66 * street_m, Material.ASPHALT)]
        for width_m, material in coats:
            mask = canvas.stroke(lines, width_m, district.window) & inside
            canvas.cover(mask, material, int(rng.integers(256)), window=district.window)
    return blocks


def _lay_out(
    district: District, grid: Grid, street_m: float, canvas: Canvas, rng: np.random.Generator
) -> tuple[list[Line], list[Block]]:
    """Lay rows of blocks over a district: the depth of a row and the lengths of its blocks are drawn anew."""
    rows, cols = district.window
    corners_x = np.array([cols.start, cols.stop]) * canvas.gsd_m - district.x
    corners_y = np.array([rows.start, rows.stop]) * canvas.gsd_m - district.y
    reach = float(np.hypot(np.abs(corners_x).max(), np.abs(corners_y).max()))
    lines: list[Line] = []
    blocks: list[Block] = []
    along = np.arange(-reach, reach + SAMPLE_M, SAMPLE_M)
    aligned = rng.random() < 0.5
    columns = _cuts(rng, reach, grid.length_m)
    levels = _cuts(rng, reach, grid.depth_m)
    for near, far in pairwise(levels.tolist()):
        lines.append(district.place(along, np.full_like(along, near)))
        if not aligned:
            columns = _cuts(rng, reach, grid.length_m)
        across = np.array([near, far])
        lines += [district.place(np.full(2, u), across) for u in columns]
        for left, right in pairwise(columns.tolist()):
            middle = 0.5 * (left + right)
            x, y = district.place(np.array(middle), np.array(0.5 * (near + far)))
            half_u, half_v = 0.5 * (right - left - street_m), 0.5 * (far - near - street_m)
            blocks.append(Block(district, float(x), float(y), half_u, half_v, district.tilt(middle)))
    return lines, blocks


def _cuts(rng: np.random.Generator, reach: float, spacing_m: tuple[float, float]) -> NDArray[np.float64]:
    """Return increasing positions from -reach to beyond reach, at spacings drawn from a range."""
    count = int(2 * reach / spacing_m[0]) + 3
    cuts = -reach - rng.uniform(0, spacing_m[1]) + np.concatenate([[0.0], np.cumsum(rng.uniform(*spacing_m, count))])
    return cuts[: int(np.searchsorted(cuts, reach)) + 2]
