"""The SAR image stands where the transform says, in every other square."""

from __future__ import annotations

import numpy as np
from checkerboards import SQUARE_PX, board, registered

from geomatch.matching.matches import Matches
from geomatch.matching.samples import Sample
from geomatch.matching.side import Side

EVERY = np.ones((96, 96), bool)
RAMP = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (96, 1))


def test_squares_alternate_and_follow_the_transform() -> None:
    moved = np.array([[1, 0, 5], [0, 1, 0], [0, 0, 1.0]])  # 5 px to the right in the optical image
    sample = Sample(Side(RAMP, EVERY, "sar"), Side(RAMP.T.copy(), EVERY, "optical"), np.eye(3))
    picture = board(sample, moved)
    rows, cols = np.indices(EVERY.shape) // SQUARE_PX
    odd = (rows + cols) % 2 == 1
    odd[:, :5] = False  # where the moved SAR image is not known
    np.testing.assert_array_equal(picture[~odd], sample.optical.bytes[~odd])
    np.testing.assert_allclose(picture[odd].astype(int), np.roll(sample.sar.bytes, 5, axis=1)[odd], atol=1)


def test_no_fit_is_told() -> None:
    sample = Sample(Side(RAMP, EVERY, "sar"), Side(RAMP, EVERY, "optical"), np.eye(3))
    assert registered(sample, lambda sar, optical: Matches.none("nothing here")) == (None, "nothing here")


def test_transform_that_is_not_believed_is_drawn_and_told() -> None:
    sample = Sample(Side(RAMP, EVERY, "sar"), Side(RAMP, EVERY, "optical"), np.eye(3))
    points = np.random.default_rng(0).uniform(0, 96, (9, 2))
    matches = Matches(points, points + (12.0, 0.0), np.ones(9), (9, 9), doubt="by chance")
    picture, told = registered(sample, lambda sar, optical: matches)
    assert told == "12 px, not believed"
    assert picture is not None
