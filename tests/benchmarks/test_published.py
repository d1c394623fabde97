"""The published registration is the similarity of all matches, whether it is believed or not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from published import plain, published_transform, registered, row, told_apart

from geomatch.matching.matches import Matches
from geomatch.matching.samples import Sample
from geomatch.matching.side import Side

TRUTH = np.array([[0.95, -0.1, 7.0], [0.1, 0.95, -4.0], [0, 0, 1.0]])
SIDE = Side(np.random.default_rng(0).random((96, 96)).astype(np.float32), np.ones((96, 96), bool), "sar")
SAMPLE = Sample(SIDE, SIDE, TRUTH)


def matches(matrix: NDArray[np.float64], count: int = 20) -> Matches:
    points = np.random.default_rng(1).uniform(0, 96, (count, 2))
    there = points @ matrix[:2, :2].T + matrix[:2, 2]
    return Matches(points, there, np.ones(count), (count, count), doubt="by chance")


def test_doubt_does_not_keep_the_transform_from_being_taken() -> None:
    found = published_transform(matches(TRUTH))
    assert found is not None
    np.testing.assert_allclose(found, TRUTH, atol=1e-9)
    assert published_transform(matches(TRUTH, 1)) is None


def test_pair_is_told_as_it_is_registered() -> None:
    off = TRUTH.copy()
    off[:2, 2] += (9.0, 12.0)
    made = [registered(SAMPLE, lambda sar, optical, by=by: matches(by)) for by in (TRUTH, off)]  # type: ignore[misc]
    made.append(registered(SAMPLE, lambda sar, optical: Matches.none("nothing here")))
    assert [one.corners_px for one in made] == pytest.approx([0, 15, np.inf], abs=1e-6)
    assert [one.right for one in made] == [20, 0, 0]
    assert [one.redundant for one in made] == [18, 18, 0]
    assert made[0].rms_px == pytest.approx((0, 0), abs=1e-6)
    told = row("set, method", made)
    assert told[1:6] == ["3", "0.333 [0.061, 0.792]", "15", "13.3", "6.67"]
    assert row("set, method", made[2:])[3:8] == ["–", "0", "0", "–", "–"]
    assert told_apart("method", made) == "method, RMS_all: 0.00 px of 1 right ones, 0.00 px of 1 wrong ones"
    assert [one["corners_px"] is None for one in json.loads(json.dumps([plain(one) for one in made]))] == [
        False,
        False,
        True,
    ]
    assert "NaN" not in json.dumps([plain(one) for one in made])
