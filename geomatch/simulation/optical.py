"""The city as a camera sees it from straight above: an orthophoto with sun, shadows, haze and noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.simulation.city import City
from geomatch.simulation.materials import Material, colour_table, table_of
from geomatch.simulation.noise import fractal_noise
from geomatch.simulation.relief import Array, horizon, slopes

SKY_LIGHT = np.array([0.36, 0.40, 0.47], np.float32)  # share of the light that comes from the whole sky, RGB
HAZE_COLOUR = np.array([168.0, 178.0, 190.0], np.float32)
TRAMLINE_M = 7.0


@dataclass(frozen=True)
class Camera:
    """Light and air of a photograph.

    Attributes:
        sun_azimuth_deg: where the sun stands, clockwise from north.
        sun_elevation_deg: how high it stands above the horizon.
        haze: share of the light that is scattered by the air, 0 to 1.
        noise: standard deviation of the sensor's noise, in digital numbers.
        blur_px: standard deviation of the optics' point spread.
    """

    sun_azimuth_deg: float = 155.0
    sun_elevation_deg: float = 48.0
    haze: float = 0.08
    noise: float = 2.0
    blur_px: float = 0.6

    def __post_init__(self) -> None:
        if not 5.0 <= self.sun_elevation_deg <= 90.0:
            raise UsageError("the sun stands too low", where="sun_elevation_deg", hint="choose 5 to 90 degrees")
        if not (0.0 <= self.haze <= 1.0 and self.noise >= 0.0 and self.blur_px > 0.0):
            raise UsageError("haze, noise or blur is out of range", where="camera", hint="haze lies in 0 to 1")


def render_optical(city: City, camera: Camera | None = None) -> NDArray[np.uint8]:
    """Return the orthophoto, RGB [H, W, 3] uint8, on the city's grid.

    Colour by material and object, texture, Lambertian shading of sloped roofs under a sun and a blue sky (the sun alone
    is cast into shadow), then haze, blur and noise.
    """
    camera = camera or Camera()
    rng = np.random.default_rng((city.seed, 0x0B7))
    image = colour_table()[city.material, city.variant]
    image *= _texture(city, rng)[..., None]
    sun = _sun_on_slopes(city, camera) * sunlit(city.height_m, city.gsd_m, camera)
    image *= SKY_LIGHT + sun[..., None] * (1 - SKY_LIGHT)
    image *= np.float32(1.12 * (1 - camera.haze))
    image += np.float32(camera.haze) * HAZE_COLOUR
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), camera.blur_px), np.float32)
    image += np.float32(camera.noise) * rng.standard_normal(city.shape, np.float32)[..., None]
    return np.clip(np.rint(image, out=image), 0, 255, out=image).astype(np.uint8)


def sunlit(height_m: Array, gsd_m: float, camera: Camera) -> Array:
    """Return how much of each pixel [H, W] the sun reaches, 0 to 1; a height h shades h / tan(elevation) behind it.

    The heights are turned so that the rays run along rows, where a running maximum finds the shadows, and the mask is
    turned back.
    """
    rows, cols = height_m.shape
    if camera.sun_elevation_deg == 90.0:
        return np.ones_like(height_m)
    away = np.deg2rad(camera.sun_azimuth_deg + 180.0)  # direction of the rays over ground, clockwise from north
    ray = np.array([np.sin(away), -np.cos(away)])  # as (col, row)
    turn = np.array([[ray[0], -ray[1]], [ray[1], ray[0]]])  # ray frame to map
    side = int(np.ceil(np.hypot(rows, cols))) + 2
    centre = np.array([(cols - 1) / 2, (rows - 1) / 2])
    matrix = np.column_stack([turn, centre - turn @ np.full(2, (side - 1) / 2)])
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(height_m, matrix, (side, side), flags=flags)
    elevation = np.deg2rad(camera.sun_elevation_deg)
    along = np.arange(side, dtype=np.float32) * np.float32(gsd_m * np.sin(elevation))
    level = turned * np.float32(np.cos(elevation)) + along
    lit = (level >= horizon(level) - np.float32(0.05)).astype(np.float32)
    back = cv2.warpAffine(lit, matrix, (cols, rows), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(back, np.float32)


def _sun_on_slopes(city: City, camera: Camera) -> Array:
    """Return the sunlight on each pixel [H, W] by Lambert's law, 1 on flat ground."""
    azimuth, elevation = np.deg2rad(camera.sun_azimuth_deg), np.deg2rad(camera.sun_elevation_deg)
    slope_col, slope_row = slopes(city.height_m, city.gsd_m)
    towards_col, towards_row = np.float32(np.sin(azimuth)), np.float32(-np.cos(azimuth))
    climb = slope_col * towards_col + slope_row * towards_row
    cosine = (1 - climb / np.float32(np.tan(elevation))) / np.sqrt(1 + slope_col**2 + slope_row**2)
    return np.asarray(np.clip(cosine, 0, 1.6), np.float32)


def _texture(city: City, rng: np.random.Generator) -> Array:
    """Return the brightness [H, W] relative to the object's colour: grain, patches, and tramlines in the fields."""
    grain = table_of(lambda surface: surface.grain)[city.material]
    fine = fractal_noise(rng, city.shape, 2.0 / city.gsd_m, 2)
    patches = fractal_noise(rng, city.shape, 40.0 / city.gsd_m, 4)
    texture = 1 + grain * (np.float32(0.8) * fine + np.float32(0.6) * patches)
    direction = (np.arange(256) * np.float32(2.399963)).astype(np.float32)  # golden angle: neighbours look different
    fields = np.nonzero(city.material == Material.CROPS)
    bearing = direction[city.variant[fields]]
    rows, cols = (index.astype(np.float32) for index in fields)
    across = (np.cos(bearing) * cols + np.sin(bearing) * rows) * np.float32(city.gsd_m / TRAMLINE_M)
    texture[fields] -= np.float32(0.14) * ((across % 1) < np.float32(0.16))
    return texture
