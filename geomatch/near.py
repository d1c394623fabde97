"""Where a strip is known to be, roughly: a circle on the ground, outside of which no place is looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from shapely import Point, Polygon
from shapely.ops import nearest_points

from geomatch.errors import InputError, UsageError
from geomatch.geo import CRS84, WGS84, Grid, ground_jacobian, transform_points

HINT = "say --near LON,LAT,RADIUS in degrees and metres, like 11.57,48.14,2000"
_CRUMB_M = 1e-3  # below it a circle is a point
_DISTORTED = 1.5  # how much farther a place may be than the scale of a map at a circle's centre says


@dataclass(frozen=True)
class Disc:
    """A circle on the ground, on a map's pixel grid an ellipse.

    Attributes:
        center_px: [2] column and row.
        radius_m: metres.
        ground: [2 x 2] metres on the ground per pixel, as ``ground_jacobian`` has them; of the centre, and taken for
            those of all pixels.
    """

    center_px: NDArray[np.float64]
    radius_m: float
    ground: NDArray[np.float64]

    def holds(self, points_px: ArrayLike) -> NDArray[np.bool_]:
        """Which points [N x 2] lie in it: [N]."""
        away = (np.asarray(points_px, np.float64) - self.center_px) @ self.ground.T
        return np.asarray(np.linalg.norm(away, axis=-1) <= self.radius_m)

    def moved(self, by_px: ArrayLike) -> Disc:
        """The same circle elsewhere on the grid."""
        return replace(self, center_px=self.center_px + np.asarray(by_px, np.float64))

    def grown(self, reach_px: float) -> Disc:
        """A circle that reaches so many pixels farther, and no less in any direction."""
        return replace(self, radius_m=self.radius_m + reach_px * float(np.linalg.norm(self.ground, 2)))

    @property
    def reach_px(self) -> NDArray[np.float64]:
        """[2] columns and rows from the centre to its edges."""
        return np.asarray(self.radius_m * np.linalg.norm(np.linalg.inv(self.ground), axis=1))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The pixels around it: least and greatest column, least and greatest row, of those that an int32 can tell."""
        kept = np.iinfo(np.int32)
        edges = np.clip([self.center_px - self.reach_px, self.center_px + self.reach_px], kept.min, kept.max)
        (left, top), (right, bottom) = np.ceil(edges[0]).astype(int), np.floor(edges[1]).astype(int)
        return int(left), int(right), int(top), int(bottom)


@dataclass(frozen=True)
class Near:
    """A circle on the ground.

    Attributes:
        lon, lat: of its centre, degrees, WGS 84.
        radius_m: metres.

    Raises:
        UsageError: no such place, or no radius.
    """

    lon: float
    lat: float
    radius_m: float

    def __post_init__(self) -> None:
        if not (abs(self.lon) <= 180 and abs(self.lat) <= 90):
            raise UsageError(f"{self.lon:g}, {self.lat:g} is no longitude and latitude", where="--near", hint=HINT)
        if not _CRUMB_M <= self.radius_m < math.inf:
            raise UsageError(f"{self.radius_m:g} m is no radius", where="--near", hint=HINT)

    @classmethod
    def parse(cls, text: str) -> Near:
        """Of "LON,LAT,RADIUS"; raises UsageError where it is none."""
        try:
            lon, lat, radius_m = (float(part) for part in text.split(","))
        except ValueError:
            raise UsageError(f"{text!r} is no circle", where="--near", hint=HINT) from None
        return cls(lon, lat, radius_m)

    def on(self, grid: Grid) -> Disc:
        """The circle on a map.

        Raises:
            UsageError: it does not touch the map.
        """
        for disc in self._discs(grid):
            outline = Polygon((grid.corners_px - disc.center_px) @ disc.ground.T)
            nearest, _ = nearest_points(outline, Point(0, 0))
            if np.hypot(nearest.x, nearest.y) <= disc.radius_m and self._reaches(grid, disc, nearest):
                return disc
        what = f"within {self.radius_m:g} m of {self.lon:g}, {self.lat:g} there is nothing of the map"
        raise UsageError(what, where="--near", hint="geomatch index info prints the longitudes and latitudes of it")

    def _reaches(self, grid: Grid, disc: Disc, nearest: Point) -> bool:
        """Whether a point of the map, metres from the centre, is as near as the scale at the centre makes it.

        Of a centre off the map it may be another: towards the poles of Mercator all of the world is a few metres away.
        """
        at_px = disc.center_px + np.linalg.solve(disc.ground, [nearest.x, nearest.y])
        lon, lat = transform_points(grid.to_map(at_px), grid.crs, CRS84)
        _, _, metres = WGS84.inv(self.lon, self.lat, lon, lat)
        return bool(metres <= _DISTORTED * self.radius_m)

    def _discs(self, grid: Grid) -> Iterator[Disc]:
        """The circle; and, for maps that continue past the 180th meridian, the same shifted by a turn of the globe."""
        try:
            center = grid.to_pixel(transform_points([self.lon, self.lat], CRS84, grid.crs))
            disc = Disc(center, self.radius_m, ground_jacobian(grid, center))
        except InputError:  # outside of what the map's projection can show
            return
        # A pole, of which the projection makes a line; or on its edge, beyond which there are no numbers.
        if not (np.isfinite(disc.ground).all() and np.linalg.det(disc.ground)):
            return
        yield disc
        with suppress(InputError):
            ends = [(lon, lat) for lat in (self.lat, self.lat / 2 + 1) for lon in (-180, 180)]
            west, east, west_there, east_there = grid.to_pixel(transform_points(ends, CRS84, grid.crs))
            world = east - west
            if np.allclose(world, east_there - west_there):  # else the map does not go on: a cone, a disc
                yield disc.moved(world)
                yield disc.moved(-world)

    def __str__(self) -> str:
        return f"{self.radius_m:g} m of {self.lon:g}, {self.lat:g}"
