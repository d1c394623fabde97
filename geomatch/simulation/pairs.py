"""Pairs from cities that are drawn while the run goes on: each new, none ever written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geomatch.errors import InputError
from geomatch.pairs import Pair
from geomatch.simulation import Look, Radar, Scene, make_city, render_north_up, render_optical
from geomatch.texture import is_textured

_TRIES = 200
_LAYOUTS = 2**31  # that are drawn in training; as many more are not


class SimulatedPairs:
    """Draws from one city after another.

    Each city has a ground sample distance, a heading and side of the radar, an incidence angle and a number of looks of
    its own. Cities are drawn from the generator that draws the crops, so a run's seed decides them.

    Args:
        size_px: side of a city.
        draws: from one city, before the next is made.
    """

    def __init__(self, size_px: int = 1536, draws: int = 60) -> None:
        self._size_px = size_px
        self._draws = draws
        self._left = 0
        self._city: Pair | None = None

    def draw(self, rng: np.random.Generator, side_px: int) -> Pair:
        """A crop with texture at a random place of the city at hand."""
        for _ in range(_TRIES):
            if (pair := _crop(self._current(rng), rng, side_px)) is not None:
                return pair
        raise InputError(f"simulated cities of {self._size_px} px show no texture", hint="use larger ones")

    def _current(self, rng: np.random.Generator) -> Pair:
        if self._city is None or self._left == 0:
            self._city, self._left = new_city(rng, self._size_px), self._draws
        self._left -= 1
        return self._city


@dataclass(frozen=True)
class CityPairs:
    """Draws from one city.

    Attributes:
        city: all of it.
    """

    city: Pair

    def draw(self, rng: np.random.Generator, side_px: int) -> Pair:
        """A crop with texture at a random place."""
        for _ in range(_TRIES):
            if (pair := _crop(self.city, rng, side_px)) is not None:
                return pair
        raise InputError("the simulated city shows no texture", hint="use another seed")


def _crop(city: Pair, rng: np.random.Generator, side_px: int) -> Pair | None:
    """A random part of a city, or None where it shows no texture."""
    size_px = city.valid.shape[0]
    side = min(side_px, size_px)
    row, col = (int(first) for first in rng.integers(size_px - side + 1, size=2))
    part = np.s_[row : row + side, col : col + side]
    pair = Pair(city.optical[:, *part], city.sar[:, *part], city.valid[part])
    return pair if is_textured(pair.optical.mean(axis=0), pair.valid) else None


def new_city(rng: np.random.Generator, size_px: int, *, unseen: bool = False) -> Pair:
    """A city as its optical and SAR images.

    Args:
        rng: decides its layout, its ground sample distance and its radar.
        size_px: its side.
        unseen: whether its layout is one that no training draws.
    """
    gsd_m = float(np.exp(rng.uniform(np.log(0.4), np.log(2.0))))
    city = make_city(size_px, gsd_m=gsd_m, seed=int(rng.integers(_LAYOUTS)) + (_LAYOUTS if unseen else 0))
    radar = Radar(
        incidence_deg=float(rng.uniform(25, 55)),
        look=Look.LEFT if rng.random() < 0.5 else Look.RIGHT,
        looks=float(rng.uniform(2, 8)),
    )
    heading_deg = float(rng.uniform(0, 360))
    power = render_north_up(Scene.of(city), city.transform, city.shape, radar, rng, heading_deg=heading_deg)
    amplitude = np.sqrt(power)
    optical = np.moveaxis(render_optical(city), -1, 0).astype(np.float32) / np.float32(255)
    return Pair(optical, (amplitude / np.median(amplitude))[None].astype(np.float32), np.ones(city.shape, bool))
