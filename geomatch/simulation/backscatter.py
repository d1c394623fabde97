"""What a radar gets back from one azimuth line after the other: the physics behind :mod:`geomatch.simulation.sar`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geomatch.simulation.city import City
from geomatch.simulation.materials import Material, sigma0_table, table_of
from geomatch.simulation.noise import fractal_noise
from geomatch.simulation.relief import Array, horizon, slopes, wall_bearing

LEAST_WALL_M = 0.8
GROUND_RMS_SLOPE = 0.16
CORNER_GAIN = 4.0
CORNER_FLOOR = 0.02  # what balconies, window frames and rough walls return at any angle, relative to a head-on corner
STOREY_M = 3.0
PARKED_M = 1.6
FOLIAGE_M = 0.7  # roughness of a canopy, which spreads its layover as the depth of a volume would
REFERENCE_COSINE = float(np.cos(np.deg2rad(40.0)))


@dataclass(frozen=True)
class Lines:
    """A scene sampled along azimuth lines, each raster [lines, samples], samples ordered away from the radar.

    Attributes:
        height_m: height above ground.
        material: material code.
        sigma0: backscatter coefficient at 40 degrees, linear.
        glint: how much brighter or darker than the average of its kind a wall is, linear.
        slope: slope of the surface along the samples, positive where it falls towards the radar.
        area: true over horizontal area of the surface.
        facing: cosine of the angle, over ground, between a wall's normal and the direction to the radar.
    """

    height_m: Array
    material: NDArray[np.uint8]
    sigma0: Array
    glint: Array
    slope: Array
    area: Array
    facing: Array


@dataclass(frozen=True)
class Scene:
    """A city prepared for rendering: rasters [H, W] that depend neither on the heading nor on the incidence."""

    height_m: Array
    material: NDArray[np.uint8]
    sigma0: Array
    glint: Array
    slope_col: Array
    slope_row: Array
    bearing: Array
    transform: Affine
    tallest_m: float

    @classmethod
    def of(cls, city: City) -> Scene:
        """Prepare a city; half of the parked cars differ from those in its orthophoto, as between any two days."""
        rng = np.random.default_rng((city.seed, 0x5CE))
        texture_db = 1.2 * fractal_noise(rng, city.shape, 14.0 / city.gsd_m, 3)
        glint_db = 3.0 * fractal_noise(rng, city.shape, 2.0 / city.gsd_m, 1)
        city = _some_time_later(city, rng)
        leafy = city.material == Material.TREES
        glint_db += rng.uniform(-5.0, 5.0, 256).astype(np.float32)[city.variant]
        glint_db[leafy] = 0
        slope_col, slope_row = slopes(city.height_m, city.gsd_m)
        slope_col[leafy] = slope_row[leafy] = 0  # a volume has no face
        foliage = rng.standard_normal(city.shape, np.float32) * np.float32(FOLIAGE_M)
        height = np.where(leafy, np.maximum(city.height_m + foliage, 0), city.height_m)
        return cls(
            height_m=height,
            material=city.material,
            sigma0=sigma0_table(city.seed)[city.material, city.variant] * _from_db(texture_db),
            glint=_from_db(glint_db),
            slope_col=slope_col,
            slope_row=slope_row,
            bearing=wall_bearing(city.height_m),
            transform=city.transform,
            tallest_m=float(height.max()),
        )

    @property
    def gsd_m(self) -> float:
        """Ground sample distance in metres."""
        return float(self.transform.a)

    def sample(self, matrix: NDArray[np.float64], size: tuple[int, int]) -> Lines:
        """Return the scene along lines: ``size`` is (samples, lines), ``matrix`` their pixel centres to the scene's.

        The nearest pixel is taken, so that walls stay upright. Beyond the map the ground is flat and returns nothing.
        """

        def nearest(raster: Array) -> Array:
            return np.asarray(cv2.warpAffine(raster, matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP))

        along = (matrix[:, 0] / np.hypot(*matrix[:, 0])).astype(np.float32)
        slope_col, slope_row, bearing = nearest(self.slope_col), nearest(self.slope_row), nearest(self.bearing)
        return Lines(
            nearest(self.height_m),
            np.asarray(cv2.warpAffine(self.material, matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)),
            nearest(self.sigma0),
            nearest(self.glint),
            along[0] * slope_col + along[1] * slope_row,
            np.sqrt(1 + slope_col**2 + slope_row**2),
            -along[0] * np.cos(bearing) - along[1] * np.sin(bearing),
        )


def _some_time_later(city: City, rng: np.random.Generator) -> City:
    """Return the city as it stands when the radar passes: half of what was parked has left."""
    left = (rng.random(256) < 0.5)[city.variant] & (city.material == Material.METAL) & (city.height_m <= PARKED_M)
    height, material = city.height_m.copy(), city.material.copy()
    height[left] = 0
    material[left] = Material.ASPHALT
    return replace(city, height_m=height, material=material)


@dataclass(frozen=True)
class Echoes:
    """Scatterers: the line of each, its ground range in metres from the first sample's near edge, its power."""

    line: NDArray[np.intp]
    range_m: Array
    power: Array


@dataclass(frozen=True)
class Geometry:
    """Incidence angle of the rays, its functions, and the spacing of samples along a line."""

    incidence: float
    step_m: float

    @property
    def sine(self) -> np.float32:
        """Sine of the incidence."""
        return np.float32(np.sin(self.incidence))

    @property
    def cosine(self) -> np.float32:
        """Cosine of the incidence."""
        return np.float32(np.cos(self.incidence))

    @property
    def tangent(self) -> np.float32:
        """Tangent of the incidence."""
        return np.float32(np.tan(self.incidence))


def _from_db(level_db: Array) -> Array:
    """Return decibels as linear power."""
    return np.asarray(np.exp(np.float32(np.log(10.0) / 10.0) * level_db), np.float32)


def returns(lines: Lines, incidence: float, bin_m: float, samples_per_bin: int) -> Array:
    """Return the power in every ground-range bin, [lines, samples / samples_per_bin]; flat ground gives its sigma0.

    Args:
        lines: the scene, sampled at ``bin_m / samples_per_bin``.
        incidence: angle of the rays against the vertical, in radians.
        bin_m: size of a ground-range bin in metres.
        samples_per_bin: samples to a bin; more than one leaves no gaps where slopes are stretched.
    """
    geometry = Geometry(incidence, bin_m / samples_per_bin)
    count, samples = lines.height_m.shape
    x = (np.arange(samples, dtype=np.float32) + np.float32(0.5)) * np.float32(geometry.step_m)
    skyline = horizon(x * geometry.cosine + lines.height_m * geometry.sine)
    walls = _walls(lines, skyline, geometry)
    parts = [_patches(lines, x, skyline, geometry), _facades(walls, geometry, bin_m), _corners(walls, geometry)]
    bins = samples // samples_per_bin
    total = np.zeros(count * bins)
    for part in parts:
        place = part.range_m / np.float32(bin_m) - np.float32(0.5)
        low = np.floor(place).astype(np.intp)
        share = place - low
        for index, weight in ((low, 1 - share), (low + 1, share)):
            kept = (index >= 0) & (index < bins)
            flat = part.line[kept] * bins + index[kept]
            total += np.bincount(flat, weight[kept] * part.power[kept], count * bins)
    return (total / bin_m).reshape(count, bins).astype(np.float32)


def _patches(lines: Lines, x: Array, skyline: Array, geometry: Geometry) -> Echoes:
    """Return what lit ground, roofs and canopies send back: sigma0 by the generalised cosine law, times their area."""
    level = x * geometry.cosine + lines.height_m * geometry.sine
    facing = (geometry.cosine + lines.slope * geometry.sine) / lines.area  # cosine of the local incidence
    lit = (level >= skyline - np.float32(0.05)) & (facing > 0)
    line, sample = np.nonzero(lit)
    power = table_of(lambda surface: surface.cosine_power)[lines.material[lit]]
    law = (facing[lit] / np.float32(REFERENCE_COSINE)) ** power
    energy = lines.sigma0[lit] * law * lines.area[lit] * np.float32(geometry.step_m)
    return Echoes(line, x[sample] - lines.height_m[lit] / geometry.tangent, energy)


@dataclass(frozen=True)
class Walls:
    """Upright faces that the radar sees, one entry for each line that crosses one, all [walls].

    ``low_m`` is where the wall stands, ``lit_m`` where its lit part begins and ``top_m`` where it ends.
    """

    line: NDArray[np.intp]
    x_m: Array
    low_m: Array
    lit_m: Array
    top_m: Array
    facing: Array
    glint: Array
    top: NDArray[np.uint8]
    ground: NDArray[np.uint8]


def _walls(lines: Lines, skyline: Array, geometry: Geometry) -> Walls:
    """Return the faces where the height jumps up between two samples, cut to the part above the shadow line."""
    step = np.float32(geometry.step_m)
    rise = np.zeros_like(lines.height_m)
    rise[:, 1:] = lines.height_m[:, 1:] - lines.height_m[:, :-1] - lines.slope[:, 1:] * step
    line, sample = np.nonzero(rise > LEAST_WALL_M)
    x = sample.astype(np.float32) * step
    low, top = lines.height_m[line, sample - 1], lines.height_m[line, sample]
    lit = np.maximum(low, (skyline[line, sample] - x * geometry.cosine) / geometry.sine)
    seen = lit < top
    line, sample = line[seen], sample[seen]
    return Walls(
        line,
        x[seen],
        low[seen],
        lit[seen],
        top[seen],
        np.clip(lines.facing[line, sample], 0, 1),
        lines.glint[line, sample],
        lines.material[line, sample],
        lines.material[line, sample - 1],
    )


def _facades(walls: Walls, geometry: Geometry, bin_m: float) -> Echoes:
    """Return what the faces send back themselves, storey by storey, laid over from foot to top."""
    lit_m = walls.top_m - walls.lit_m
    pieces = np.maximum(np.ceil(1.5 * lit_m / (geometry.tangent * np.float32(bin_m))), 1).astype(np.intp)
    wall = np.repeat(np.arange(len(pieces)), pieces)
    piece = np.arange(len(wall)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    length = (lit_m / pieces)[wall]
    z = walls.lit_m[wall] + (piece + np.float32(0.5)).astype(np.float32) * length
    upright = 10.0 ** (table_of(lambda surface: surface.upright_db) / 10.0)
    windows = np.float32(0.4) + np.float32(1.2) * np.cos(np.float32(np.pi / STOREY_M) * z) ** 2
    gamma = upright[walls.top] * walls.glint * walls.facing
    energy = gamma[wall] * windows * length * geometry.sine
    return Echoes(
        walls.line[wall], (walls.x_m[wall] - z / geometry.tangent).astype(np.float32), energy.astype(np.float32)
    )


def _corners(walls: Walls, geometry: Geometry) -> Echoes:
    """Return the double bounces, all of which have the range of the foot of their wall."""
    reflectivity = (
        table_of(lambda surface: surface.corner)[walls.top] * table_of(lambda surface: surface.mirror)[walls.ground]
    )
    skew = geometry.tangent**2 * (1 - walls.facing**2)
    lobe = np.exp(-skew / np.float32(2 * GROUND_RMS_SLOPE**2)) + np.float32(CORNER_FLOOR)
    height = walls.top_m - walls.lit_m
    strength = height * geometry.tangent * walls.facing * (1 + skew) * lobe
    energy = np.float32(CORNER_GAIN) * reflectivity * walls.glint * strength
    return Echoes(walls.line, walls.x_m - walls.low_m / geometry.tangent, energy.astype(np.float32))
