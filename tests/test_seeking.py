"""Attitudes of strips cut from a town by a transform made by hand are found to a fraction of a degree and percent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from towns import Town, moved, pixel_centres, radar_at, view

from geomatch.attitude import Attitude, Tolerance
from geomatch.locator import Locator
from geomatch.seeking import FeatureParts, Seeker
from geomatch.strips import NORTH_UP, RawStrip, Strip

CENTRE = (380.0, 400.0)


@pytest.fixture(scope="module")
def locator(town_index: Path) -> Locator:
    return Locator.open(town_index)


def raw_strip(town: Town, to_map: Affine, size: tuple[int, int], tolerance: Tolerance) -> RawStrip:
    """A strip of which nothing is told but that its pixels are the map's, give or take the tolerance."""
    image = np.log(radar_at(town.bands, moved(to_map, pixel_centres(*size))) + 0.1).astype("float32")
    return RawStrip(image, np.ones(image.shape, bool), np.eye(2), NORTH_UP, tolerance)


def turn_off(one: Attitude, turn_deg: float) -> float:
    return abs((one.turn_deg - turn_deg + 180) % 360 - 180)


CASES: dict[str, tuple[float, float, tuple[int, int], Tolerance]] = {
    "any heading": (123.4, 1.0, (300, 260), Tolerance(180)),
    "rough heading and scale": (-8.3, 1.07, (260, 300), Tolerance(10, 1.1)),
    "rough scale": (0.0, 0.93, (300, 300), Tolerance(0, 1.1)),
    "long, any heading, scale within a factor of two": (217.0, 0.62, (180, 900), Tolerance(180, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_attitude_and_place_are_found(name: str, town: Town, locator: Locator) -> None:
    turn, scale, size, tolerance = CASES[name]
    raw = raw_strip(town, view(CENTRE, turn, scale, *size), size, tolerance)
    best = Seeker(locator.index, locator.pixels, exhaustive=False).places(raw)[0]
    assert turn_off(best.attitude, turn) < 0.4
    assert best.attitude.scale == pytest.approx(scale, rel=0.006)
    assert best.center_px == pytest.approx(CENTRE, abs=1.5)
    assert best.look is not None
    if not tolerance.turn_deg:
        assert best.attitude.turn_deg == 0
    if tolerance.scale == 1:
        assert best.attitude.scale == 1


def test_features_alone_find_it_to_a_cell(town: Town, locator: Locator) -> None:
    raw = raw_strip(town, view(CENTRE, 77, 1, 300, 300), (300, 300), Tolerance(180))
    best = Seeker(locator.index, None, exhaustive=False).places(raw)[0]
    assert turn_off(best.attitude, 77) < 1.5
    assert best.center_px == pytest.approx(CENTRE, abs=6)
    assert best.look is None


def test_whole_map_finds_what_the_vectors_find(town: Town, locator: Locator) -> None:
    raw = raw_strip(town, view(CENTRE, 77, 1, 240, 240), (240, 240), Tolerance(180))
    quick, slow = (
        Seeker(locator.index, locator.pixels, exhaustive=exhaustive).places(raw)[0] for exhaustive in (False, True)
    )
    assert turn_off(slow.attitude, quick.attitude.turn_deg) < 0.2
    assert slow.center_px == pytest.approx(quick.center_px, abs=1)


def test_parts_fit_where_they_lie(town: Town, locator: Locator) -> None:
    to_map = Affine.translation(208, 240)
    image = np.log(radar_at(town.bands, moved(to_map, pixel_centres(320, 280))) + 0.1).astype("float32")
    strip = Strip(image, np.ones(image.shape, bool), Affine.identity(), (320, 280))
    parts = FeatureParts(strip, locator.index)
    assert len(parts.middles_px) >= 6
    surfaces = parts.surfaces(np.array([208, 240]))
    half = surfaces.shape[1] // 2
    assert (highest(surfaces) == half).mean() > 0.8
    aside = highest(parts.surfaces(np.array([208 + 16, 240 - 8])))  # two cells right of it, one above
    assert (aside == [half - 2, half + 1]).mean() > 0.8


def highest(surfaces: NDArray[np.float64]) -> NDArray[np.int64]:
    """[N x s x s] -> [N x 2] column and row of each highest entry."""
    rows, cols = np.unravel_index(surfaces.reshape(len(surfaces), -1).argmax(axis=1), surfaces.shape[1:])
    return np.stack([cols, rows], axis=1)


def test_strip_without_data_has_no_parts(locator: Locator) -> None:
    strip = Strip(np.zeros((200, 200), np.float32), np.zeros((200, 200), bool), Affine.identity(), (200, 200))
    assert FeatureParts(strip, locator.index).middles_px.shape == (0, 2)
