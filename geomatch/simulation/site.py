"""A block about to be built up, and what is found on any of them: yards, trees, parked cars, chimneys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geomatch.simulation.canvas import Box, Canvas
from geomatch.simulation.materials import Material
from geomatch.simulation.streets import Block


@dataclass(frozen=True)
class Site:
    """A block to be built up: where, on what, and the source of all chance. Lengths are metres."""

    canvas: Canvas
    block: Block
    rng: np.random.Generator

    def box(
        self,
        u: float,
        v: float,
        half_u: float,
        half_v: float,
        material: Material,
        *,
        height_m: float = 0.0,
        pitch: float = 0.0,
        turn: float = 0.0,
        variant: int | None = None,
    ) -> Box:
        """Return a box at (u, v) from the block's centre, turned by ``turn`` radians against its sides."""
        cosine, sine = np.cos(self.block.angle), np.sin(self.block.angle)
        x = self.block.x + float(cosine * u - sine * v)
        y = self.block.y + float(sine * u + cosine * v)
        tone = int(self.rng.integers(256)) if variant is None else variant
        return Box(x, y, half_u, half_v, self.block.angle + turn, material, tone, height_m, pitch)

    def yard(self, material: Material) -> None:
        """Cover the whole block with one material."""
        self.canvas.paint(self.box(0.0, 0.0, self.block.half_u, self.block.half_v, material))

    def tree(self, u: float, v: float, height_m: float) -> None:
        """Grow a tree at (u, v) from the block's centre."""
        spot = self.box(u, v, 0.0, 0.0, Material.TREES)
        radius = height_m * float(self.rng.uniform(0.28, 0.45))
        self.canvas.tree(spot.x, spot.y, radius, height_m, spot.variant)

    def trees(self, per_hectare: float, tallest_m: float = 13.0) -> None:
        """Grow trees at random places of the block."""
        area_ha = 4e-4 * self.block.half_u * self.block.half_v
        for _ in range(int(self.rng.poisson(per_hectare * area_ha))):
            u, v = self.rng.uniform(-1, 1, 2) * (self.block.half_u, self.block.half_v)
            self.tree(float(u), float(v), float(self.rng.uniform(4.0, tallest_m)))

    def street_trees(self, spacing_m: float) -> None:
        """Grow a row of trees along the block's two long sides."""
        for side in (-1.0, 1.0):
            if self.rng.random() < 0.6:
                for u in np.arange(-self.block.half_u, self.block.half_u, spacing_m):
                    if self.rng.random() < 0.8:
                        self.tree(float(u), side * (self.block.half_v + 1.0), float(self.rng.uniform(5.0, 9.0)))

    def roof_gear(self, roof: Box) -> None:
        """Set lift houses and ventilation on a flat roof."""
        for _ in range(int(self.rng.integers(0, 4))):
            half = self.rng.uniform(0.8, 2.4, 2)
            room = np.maximum(np.array([roof.half_u, roof.half_v]) - half - 1.0, 0.0)
            du, dv = self.rng.uniform(-1, 1, 2) * room
            cosine, sine = np.cos(roof.angle), np.sin(roof.angle)
            x, y = roof.x + float(cosine * du - sine * dv), roof.y + float(sine * du + cosine * dv)
            gear = Material.METAL if self.rng.random() < 0.4 else Material.ROOF_FLAT
            tone, height = int(self.rng.integers(256)), float(self.rng.uniform(1.0, 3.0))
            self.canvas.place(Box(x, y, float(half[0]), float(half[1]), roof.angle, gear, tone, height))

    def parking(self, u: float, v: float, half_u: float, half_v: float) -> None:
        """Pave a parking lot and fill its bays with cars, some left empty."""
        self.canvas.paint(self.box(u, v, half_u, half_v, Material.ASPHALT))
        filled = float(self.rng.uniform(0.3, 0.9))
        for row in np.arange(-half_v + 3.0, half_v - 2.5, 8.0):
            for bay in np.arange(-half_u + 1.5, half_u - 1.4, 2.7):
                if self.rng.random() < filled:
                    car = self.box(u + float(bay), v + float(row), 0.9, 2.2, Material.METAL, height_m=1.5)
                    if self.canvas.material_at(car.x, car.y) is Material.ASPHALT:
                        self.canvas.place(car)
