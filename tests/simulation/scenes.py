"""Scenes made by hand, for which the right picture is known beforehand."""

from __future__ import annotations

import numpy as np
from affine import Affine

from geomatch.simulation import City, Material

GSD_M = 0.5
EAST, NORTH = 500_000.0, 5_400_000.0


def flat(size_px: int = 400, material: Material = Material.GRASS) -> City:
    """A flat map of one material."""
    shape = (size_px, size_px)
    return City(
        np.zeros(shape, np.float32),
        np.full(shape, material, np.uint8),
        np.zeros(shape, np.uint8),
        Affine(GSD_M, 0.0, EAST, 0.0, -GSD_M, NORTH),
        "EPSG:32633",
        seed=0,
    )


def block(height_m: float, rows: slice, cols: slice, size_px: int = 400) -> City:
    """A flat-roofed building, bright from above, on grass."""
    city = flat(size_px)
    city.height_m[rows, cols] = height_m
    city.material[rows, cols] = Material.ROOF_FLAT
    city.variant[rows, cols] = 170
    return city


def beacon(row: int, col: int, size_px: int = 400) -> tuple[City, tuple[float, float]]:
    """A bright roof of three pixels a side, flat on water, and its centre in the map's CRS."""
    city = flat(size_px, Material.WATER)
    city.material[row - 1 : row + 2, col - 1 : col + 2] = Material.ROOF_TILE
    x, y = city.transform @ (col + 0.5, row + 0.5)
    return city, (float(x), float(y))
