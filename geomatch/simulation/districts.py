"""Districts: the parts of a city that were each laid out in one go, with one orientation and one kind of building."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from geomatch.simulation.noise import fractal_noise

DISTRICT_SPACING_M = 380.0
COARSE_PX = 8


class Style(Enum):
    """How a district is built up."""

    PERIMETER = "perimeter"
    TOWERS = "towers"
    TERRACES = "terraces"
    HOUSES = "houses"
    INDUSTRY = "industry"
    PARK = "park"
    FIELDS = "fields"


# How likely each style is in the centre, around it, and at the outskirts.
STYLE_ODDS: dict[Style, tuple[float, float, float]] = {
    Style.PERIMETER: (0.60, 0.18, 0.02),
    Style.TOWERS: (0.18, 0.20, 0.08),
    Style.TERRACES: (0.08, 0.16, 0.10),
    Style.HOUSES: (0.00, 0.22, 0.28),
    Style.INDUSTRY: (0.04, 0.14, 0.20),
    Style.PARK: (0.10, 0.08, 0.06),
    Style.FIELDS: (0.00, 0.02, 0.26),
}


@dataclass(frozen=True)
class District:
    """One district: its code in the label raster, window, centre in metres, and the frame its streets are laid in.

    Streets along u are bowed sideways by ``bow_m * sin(2 pi u / bow_length_m)``; 0 leaves them straight.
    """

    code: int
    window: tuple[slice, slice]
    x: float
    y: float
    angle: float
    style: Style
    bow_m: float
    bow_length_m: float

    def place(self, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the map coordinates [N, 2] in metres of points of the district's frame."""
        bowed = v + self.bow_m * np.sin(2 * np.pi * u / self.bow_length_m)
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return np.stack([self.x + cosine * u - sine * bowed, self.y + sine * u + cosine * bowed], axis=-1)

    def tilt(self, u: float) -> float:
        """Return the direction on the map, in radians, of streets along u at a place along them."""
        slope = self.bow_m * 2 * np.pi / self.bow_length_m * np.cos(2 * np.pi * u / self.bow_length_m)
        return self.angle + float(np.arctan(slope))


@dataclass(frozen=True)
class Districts:
    """All districts, the raster [H, W] of their codes, and the distance [H, W] in metres to the next border."""

    members: tuple[District, ...]
    labels: NDArray[np.uint8]
    border_m: NDArray[np.float32]


def draw_districts(rng: np.random.Generator, size_px: int, gsd_m: float) -> Districts:
    """Divide the map into the Voronoi cells of jittered seeds, with borders bent by noise.

    The distance to a border is that to the bisector of the two nearest seeds, (d2^2 - d1^2) / (2 |s2 - s1|).
    """
    size_m = size_px * gsd_m
    per_side = int(np.clip(round(size_m / DISTRICT_SPACING_M), 2, 14))
    lattice = np.stack(np.meshgrid(np.arange(per_side), np.arange(per_side)), axis=-1).reshape(-1, 2)
    seeds = (lattice + rng.uniform(0.05, 0.95, lattice.shape)) * (size_m / per_side)

    coarse = -(-size_px // COARSE_PX)
    step = COARSE_PX * gsd_m
    axis = (np.arange(coarse) + 0.5) * step
    points = np.stack(np.meshgrid(axis, axis), axis=-1)
    for component in range(2):
        points[..., component] += 14.0 * fractal_noise(rng, (coarse, coarse), 220.0 / step, 2)
    distance, nearest = (np.asarray(found) for found in cKDTree(seeds).query(points, k=2))
    apart = np.linalg.norm(seeds[nearest[..., 1]] - seeds[nearest[..., 0]], axis=-1)
    border = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * np.maximum(apart, 1e-6))

    full = (coarse * COARSE_PX, coarse * COARSE_PX)
    labels = cv2.resize(nearest[..., 0].astype(np.uint8), full, interpolation=cv2.INTER_NEAREST)
    smooth = cv2.resize(border.astype(np.float32), full, interpolation=cv2.INTER_LINEAR)
    codes = np.ascontiguousarray(labels[:size_px, :size_px], np.uint8)
    border_m = np.ascontiguousarray(smooth[:size_px, :size_px], np.float32)
    return Districts(_members(rng, seeds, codes, size_m), codes, border_m)


def _members(
    rng: np.random.Generator, seeds: NDArray[np.float64], labels: NDArray[np.uint8], size_m: float
) -> tuple[District, ...]:
    """Give every district that is on the map a style, by its distance from the centre, and a frame."""
    centre = size_m * rng.uniform(0.3, 0.7, 2)
    zones = np.digitize(np.linalg.norm(seeds - centre, axis=-1) / size_m, [0.2, 0.45])
    styles = list(STYLE_ODDS)
    members = []
    windows = find_objects(labels.astype(np.int32) + 1)
    for code in np.unique(labels).tolist():
        rows, cols = windows[code]
        odds = np.array([STYLE_ODDS[style][zones[code]] for style in styles])
        style = styles[int(rng.choice(len(styles), p=odds / odds.sum()))]
        bow_m = float(rng.choice([0.0, 0.0, rng.uniform(8.0, 28.0)]))
        x, y = (float(value) for value in seeds[code])
        angle = float(rng.uniform(0, np.pi / 2))
        members.append(District(code, (rows, cols), x, y, angle, style, bow_m, float(rng.uniform(260.0, 600.0))))
    return tuple(members)
