"""The picture of matches shows both images, and a line from each point to its own in the other."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from geomatch.matching.drawing import BLUISH_GREEN, GAP_PX, MAX_SIDE_PX, VERMILION, match_picture
from geomatch.matching.side import Side


def shown(pixel: NDArray[np.uint8], color: tuple[int, int, int]) -> bool:
    """Whether a smoothed line of a colour passes."""
    return bool(np.abs(pixel.astype(int) - color).max() < 90)


def grey(width: int, height: int, sar: bool) -> Side:
    image = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    return Side(image, np.ones(image.shape, bool), "sar" if sar else "optical")


def test_picture_has_both_images_and_lines_between_the_points() -> None:
    sar, optical = grey(60, 40, sar=True), grey(50, 70, sar=False)
    start = 60 + GAP_PX
    places = np.array([[10.5, 20.5], [30.5, 5.5]]), np.array([[40.5, 20.5], [20.5, 65.5]])
    picture = match_picture(sar, optical, *places, np.array([True, False]))
    assert picture.shape == (70, start + 50, 3)
    assert (picture[40:, :60] == 255).all()
    for col in (10, 35, start + 40):  # level, so it lies on one row
        assert shown(picture[20, col], BLUISH_GREEN)
    assert shown(picture[5, 30], VERMILION)
    assert shown(picture[65, start + 20], VERMILION)
    plain = match_picture(sar, optical, np.empty((0, 2)), np.empty((0, 2)), np.empty(0, bool))
    np.testing.assert_array_equal(plain[:40, :60, 0], sar.bytes)
    np.testing.assert_array_equal(plain[:, start:, 2], optical.bytes)


def test_large_images_are_drawn_smaller_and_their_lines_with_them() -> None:
    sar, optical = grey(2 * MAX_SIDE_PX, 200, sar=True), grey(100, 100, sar=False)
    picture = match_picture(sar, optical, np.array([[400.0, 100.0]]), np.array([[60.0, 100.0]]), np.array([True]))
    assert picture.shape[1] == pytest.approx(MAX_SIDE_PX + GAP_PX + 50)
    assert shown(picture[50, 202], BLUISH_GREEN)
    assert shown(picture[50, MAX_SIDE_PX + GAP_PX + 28], BLUISH_GREEN)
