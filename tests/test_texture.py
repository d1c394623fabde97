"""What shows nothing is told, and what shows anything is not."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from geomatch.texture import is_textured, unusable

ALL = np.ones((200, 240), bool)


def speckle(looks: float, seed: int = 0) -> NDArray[np.float32]:
    power = np.random.default_rng(seed).gamma(looks, 1 / looks, ALL.shape)
    return (np.log(np.sqrt(power) + 0.1)).astype("float32")


def blocks(contrast: float) -> NDArray[np.float32]:
    steps = np.random.default_rng(1).choice([0.0, contrast], (10, 12))
    return np.kron(steps, np.ones((20, 20))).astype("float32")


@pytest.mark.parametrize("looks", [1, 4, 30])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_speckle_alone_is_unusable(looks: float, seed: int) -> None:
    assert unusable(speckle(looks, seed), ALL) == "the strip shows no structure beyond speckle"


@pytest.mark.parametrize("looks", [1, 4, 30])
def test_buildings_under_speckle_are_usable(looks: float) -> None:
    assert unusable(speckle(looks) + blocks(0.7), ALL) is None


def test_constant_and_little_data_are_unusable() -> None:
    assert unusable(np.full(ALL.shape, 3, np.float32), ALL) == "the strip is constant"
    some = np.zeros_like(ALL)
    assert unusable(blocks(1), some) == "only 0 pixels of the strip hold data, 0% of the rectangle around them"
    some[:20, :50] = True
    assert unusable(blocks(1), some) == "only 1000 pixels of the strip hold data, 100% of the rectangle around them"
    some[::5, ::2] = True
    assert re.match("only 5[0-9]{3} pixels .* 1[0-9]% of the rectangle", str(unusable(blocks(1), some)))


@pytest.mark.parametrize("heading_deg", [0, 20, 45, 70])
def test_narrow_strip_aslant_in_its_file_is_usable(heading_deg: float) -> None:
    """Ten times as long as wide and north up, it fills a sixth of its file."""
    rows, cols = np.mgrid[:600, :600] - 300.0
    turn = np.deg2rad(heading_deg)
    along, across = rows * np.cos(turn) + cols * np.sin(turn), cols * np.cos(turn) - rows * np.sin(turn)
    valid = (np.abs(along) < 280) & (np.abs(across) < 28)
    image = np.random.default_rng(0).choice([0.0, 0.7], (30, 30)).repeat(20, axis=0).repeat(20, axis=1)
    assert valid.mean() < 0.1
    assert unusable(image.astype("float32"), valid) is None
    sparse = valid & (np.random.default_rng(1).random(valid.shape) < 0.2)
    assert re.search(r"(19|20)% of the rectangle", str(unusable(image.astype("float32"), sparse)))


def test_scale_of_the_amplitude_does_not_matter() -> None:
    for image in (speckle(4), speckle(4) + blocks(0.7)):
        assert (unusable(image + 7, ALL) is None) == (unusable(image, ALL) is None)


def test_holes_count_for_nothing() -> None:
    image, valid = speckle(4) + blocks(0.7), ALL.copy()
    valid[50:120, 60:200] = False
    image[~valid] = 1e4
    assert unusable(image, valid) is None
    water = speckle(4)
    water[~valid] = 1e4
    assert unusable(water, valid) is not None


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (8, 8)])
def test_tiny_strips_are_judged_without_an_error(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).normal(size=shape).astype("float32")
    assert unusable(image, np.ones(shape, bool)) is None or shape != (8, 8)


def test_town_is_textured_and_water_is_not() -> None:
    rng = np.random.default_rng(0)
    town = np.kron(rng.random((20, 24)), np.ones((10, 10))).astype("float32")
    water = (0.2 + 0.005 * gaussian_filter(rng.normal(size=ALL.shape), 1)).astype("float32")
    assert is_textured(town, ALL)
    assert not is_textured(water, ALL)
    assert not is_textured(town, np.zeros_like(ALL))


def test_quarter_of_the_window_is_enough() -> None:
    town = np.kron(np.random.default_rng(0).random((20, 24)), np.ones((10, 10))).astype("float32")
    for share, expected in [(0.1, False), (0.5, True)]:
        part = town.copy()
        part[:, int(share * 240) :] = 0.5
        assert is_textured(part, ALL) == expected
