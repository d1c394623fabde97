"""Detectors: what crowding alone gives is told apart from places that are found again."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from places import SIZE, pair, similarity

from geomatch.matching.detected import SPREAD_PX, Detected, detected, summary
from geomatch.matching.keypoints import BORDER_PX, Keypoints, thinned
from geomatch.matching.methods import CONTROL, detectors
from geomatch.matching.samples import Sample
from geomatch.matching.scores import repeatability
from geomatch.matching.side import Side

MOVE = similarity(0, 1.0, (4, -2))


class Fixed:
    """Finds what it was told to."""

    def __init__(self, sar: NDArray[np.float64], optical: NDArray[np.float64]) -> None:
        self._places = {"sar": sar, "optical": optical}

    def __call__(self, side: Side, most: int, apart_px: float = 0.0) -> Keypoints:
        found = Keypoints.at(self._places[side.modality])
        return found[thinned(found.xy_px, found.score, apart_px)][:most]


def test_thinned_is_what_a_loop_leaves() -> None:
    rng = np.random.default_rng(0)
    places, strength = rng.uniform(0, 60, (80, 2)), rng.permutation(80).astype(float)
    left: list[int] = []
    for number in sorted(range(80), key=lambda i: -strength[i]):
        if all(np.hypot(*(places[number] - places[other])) > 9 for other in left):
            left.append(number)
    assert thinned(places, strength, 9.0).tolist() == left
    assert thinned(places, strength, 0.0).tolist() == np.argsort(-strength).tolist()


def test_places_found_again_are_told_from_a_crowd() -> None:
    rng = np.random.default_rng(0)
    sample = Sample(*pair(MOVE), MOVE)
    exact = rng.uniform(40, 200, (60, 2))
    found = detected(Fixed(exact, exact + (4, -2)), sample, 60)
    assert found.repeatability == 1
    assert found.moved < 0.15
    crowd = Fixed(rng.uniform(100, 150, (240, 2)), rng.uniform(104, 154, (240, 2)) - (0, 6))
    found = detected(crowd, sample, 240)
    assert found.repeatability > 0.3
    assert found.moved > 0.7 * found.repeatability
    assert found.spread_keypoints < 40
    other = Sample(*pair(np.eye(3)), MOVE)
    assert detected(crowd, other, 240).moved != found.moved  # the moves are the sample's own


@pytest.mark.parametrize("name", detectors())
def test_detector_leaves_out_what_is_near_a_stronger_one(name: str) -> None:
    sar, _ = pair(np.eye(3))
    found = detectors()[name](sar, 100, SPREAD_PX)
    off = np.linalg.norm(found.xy_px[:, None] - found.xy_px[None], axis=2)
    assert len(found) > 30
    assert off[~np.eye(len(found), dtype=bool)].min() > SPREAD_PX
    assert (np.diff(found.score) <= 0).all()


def test_control_lies_where_the_learned_keypoints_crowd_but_not_at_them() -> None:
    sar, optical = pair(np.eye(3), seed=2)
    named = detectors()
    learned, noise = (named[name](sar, 200).xy_px for name in ("learned", CONTROL))
    np.testing.assert_array_equal(named[CONTROL](sar, 200).xy_px, noise)
    rng = np.random.default_rng(0)

    def near(places: NDArray[np.float64]) -> float:
        """Share that has a learned keypoint within 12 px."""
        return float((np.linalg.norm(places[:, None] - learned[None], axis=2).min(axis=1) < 12).mean())

    assert near(noise) > 0.7
    assert near(rng.uniform(0, SIZE, (500, 2))) < 0.3
    assert noise.min() > BORDER_PX
    again = named[CONTROL](optical, 200).xy_px
    assert repeatability(noise, again, np.eye(3), (SIZE, SIZE)) < 0.9


def test_summary_is_the_mean_with_an_interval() -> None:
    told = summary("set", "a", [Detected(0.1, 0.0, 10, 0.5, 0.2, 9, 0.5), Detected(0.3, 0.1, 20, 0.5, 0.2, 9, 0.5)])
    assert (told["pairs"], told["detector"], told["count"]) == ("set", "a", 2)
    assert told["repeatability"] == pytest.approx(0.2)
    assert told["keypoints"] == 15
    half = 1.96 * np.std([0.1, 0.3], ddof=1) / np.sqrt(2)
    assert told["repeatability_ci"] == pytest.approx((0.2 - half, 0.2 + half))
    assert told["spread_repeatability_ci"] == pytest.approx((0.2, 0.2))
