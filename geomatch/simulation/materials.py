"""What the ground is made of, and how each material looks to a camera and to a radar.

Radar numbers are X-band, VV, typical means after Ulaby and Dobson, "Handbook of Radar Scattering Statistics for
Terrain" (1989), read at 40 degrees: road surfaces about -19 dB, short vegetation -11 dB, trees -9 dB, bare soil -13 dB,
calm water below the noise. Roofs, facades and metal are not in the handbook; they are set so that city scenes have the
contrasts of metre-resolution spaceborne images: facades a few dB over grass, the corner at the foot of one 20 to 30 dB
over the street.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Material(IntEnum):
    """Codes of the ``material`` raster; zero is what an empty city is covered with."""

    GRASS = 0
    TREES = 1
    CROPS = 2
    SOIL = 3
    WATER = 4
    ASPHALT = 5
    PAVEMENT = 6
    ROOF_TILE = 7
    ROOF_FLAT = 8
    ROOF_METAL = 9
    METAL = 10
    BRIDGE = 11


@dataclass(frozen=True)
class Surface:
    """Optical and radar properties of one material.

    Attributes:
        palette: sRGB colours between which an object's colour is interpolated by its variant.
        grain: standard deviation of the optical texture, relative to the colour.
        sigma0_db: backscatter coefficient at 40 degrees of local incidence, in dB.
        cosine_power: n of the generalised cosine law sigma0 ~ cos(incidence)^n (2 is Lambert's law, 1 a volume).
        spread_db: half-range over which sigma0 differs from object to object.
        upright_db: backscatter of a vertical face of an object with this top, seen head-on, in dB.
        corner: power reflectivity of the face in a corner with the ground, 0 for what makes no corner.
        mirror: power reflectivity of the material as the ground of such a corner.
    """

    palette: tuple[tuple[int, int, int], ...]
    grain: float
    sigma0_db: float
    cosine_power: float
    spread_db: float = 0.0
    upright_db: float = -8.0
    corner: float = 0.0
    mirror: float = 0.3


SURFACES: dict[Material, Surface] = {
    Material.GRASS: Surface(((74, 98, 48), (104, 122, 62), (132, 136, 78)), 0.10, -11.5, 1.5, 1.0),
    Material.TREES: Surface(((36, 58, 30), (58, 80, 40), (76, 92, 46)), 0.16, -9.5, 1.0, 1.0, -10.0),
    Material.CROPS: Surface(((78, 112, 46), (150, 150, 80), (196, 178, 112), (112, 96, 60)), 0.06, -11.0, 1.5, 4.0),
    Material.SOIL: Surface(((150, 122, 88), (176, 150, 112), (120, 98, 74)), 0.08, -13.0, 2.5, 3.0),
    Material.WATER: Surface(((40, 62, 66), (58, 84, 84), (74, 92, 78)), 0.03, -24.0, 6.0, mirror=0.6),
    Material.ASPHALT: Surface(((78, 78, 80), (112, 110, 108), (150, 146, 140)), 0.05, -19.0, 3.5, 1.0, mirror=0.5),
    Material.PAVEMENT: Surface(((140, 136, 128), (176, 170, 160), (196, 188, 172)), 0.06, -16.0, 3.0, 2.0, mirror=0.6),
    Material.ROOF_TILE: Surface(
        ((150, 78, 54), (176, 100, 70), (112, 66, 52), (86, 80, 80)), 0.08, -10.0, 2.0, 3.0, -8.0, corner=0.7
    ),
    Material.ROOF_FLAT: Surface(
        ((70, 70, 72), (122, 120, 116), (206, 202, 196), (160, 150, 132)), 0.05, -12.5, 2.5, 4.0, -7.0, corner=1.0
    ),
    Material.ROOF_METAL: Surface(
        ((186, 192, 198), (120, 138, 152), (232, 232, 230), (96, 120, 104)), 0.03, -15.0, 4.0, 4.0, -8.0, corner=1.2
    ),
    Material.METAL: Surface(
        ((230, 230, 232), (40, 42, 48), (150, 30, 30), (60, 80, 130), (180, 182, 186)),
        0.04,
        0.0,
        1.0,
        4.0,
        2.0,
        corner=1.5,
    ),
    Material.BRIDGE: Surface(((150, 146, 140), (176, 172, 164)), 0.04, -15.0, 3.0, 1.0, -7.0, corner=0.8),
}


def table_of(value: Callable[[Surface], float]) -> NDArray[np.float32]:
    """Return the property of every material as a lookup table [materials], indexed by material code."""
    return np.array([value(SURFACES[material]) for material in Material], np.float32)


def colour_table() -> NDArray[np.float32]:
    """Return the colour of every material and variant, [materials, 256, 3] in 0..255."""
    table = np.empty((len(Material), 256, 3), np.float32)
    for material in Material:
        palette = np.array(SURFACES[material].palette, np.float32)
        stops = np.linspace(0, 255, len(palette))
        for channel in range(3):
            table[material, :, channel] = np.interp(np.arange(256), stops, palette[:, channel])
    return table


def sigma0_table(seed: int) -> NDArray[np.float32]:
    """Return sigma0 at 40 degrees of every material and variant, linear power, [materials, 256].

    Which variants are bright to the radar is drawn apart from their colours, so that brightness in one modality says
    nothing about brightness in the other within a material.
    """
    draw = np.random.default_rng((seed, 0x5A4)).uniform(-1.0, 1.0, (len(Material), 256))
    level_db = table_of(lambda s: s.sigma0_db)[:, None] + table_of(lambda s: s.spread_db)[:, None] * draw
    return (10.0 ** (level_db / 10.0)).astype(np.float32)
