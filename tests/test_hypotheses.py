"""Places at many attitudes: the best are those of the true one, whatever part of the strip finds them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from geomatch.attitude import Attitude, Steps, Tolerance
from geomatch.fusion import MAX_PEAKS, Poses
from geomatch.hypotheses import CORRELATED, Hypothesis, distinct, try_attitudes
from geomatch.query import Query

MIDDLE = np.array([50.0, 40.0])
ATTITUDES = list(Tolerance(180.0).attitudes(Steps(8.0, 1.2)))
RIGHT, WRONG = np.array([100.0, 200.0]), np.array([900.0, 300.0])


class Asked:
    """A strip that looks like its place the more, the nearer its attitude is to the true one; counts what it does."""

    def __init__(self, true_turn: float, right: float = 0.5, wrong: float = 0.1, width_deg: float = 6.0) -> None:
        self.true_turn, self.right, self.wrong, self.width_deg = true_turn, right, wrong, width_deg
        self.attitudes: list[Attitude] = []
        self.verified = 0

    def __call__(self, attitude: Attitude) -> Query:
        self.attitudes.append(attitude)
        off = aside(attitude, self.true_turn) / self.width_deg
        scores = np.array([self.right * np.exp(-(off**2)), self.wrong])
        corners = np.stack([RIGHT, WRONG]) - MIDDLE
        order = np.argsort(-scores)

        def verify(given: Poses) -> Poses:
            self.verified += len(given)
            return given

        made = SimpleNamespace(
            windows=(1,),
            tiled=True,
            extent=1.0,
            strip=SimpleNamespace(middle_px=MIDDLE),
            retrieve=lambda tiles: Poses(corners[order], scores[order]),
            verify=verify,
            scan=lambda: Poses(corners[order], scores[order]).best(1),
        )
        return cast(Query, made)


def blank(attitude: Attitude) -> Query:
    del attitude
    return cast(Query, SimpleNamespace(windows=(), tiled=True))


def aside(one: Attitude, turn_deg: float) -> float:
    return abs((one.turn_deg - turn_deg + 180) % 360 - 180)


@pytest.mark.parametrize("true_turn", [0.0, 3.9, 123.4, 179.0, -3.9, -179.9])
def test_place_is_found_at_the_attitude_next_to_the_true_one(true_turn: float) -> None:
    asked = Asked(true_turn)
    tried = try_attitudes([asked], ATTITUDES, 32)
    assert asked.attitudes == ATTITUDES
    assert len(tried) == 2  # one place is one, however many headings show it
    np.testing.assert_allclose(tried[0].center_px, RIGHT)
    assert aside(tried[0].attitude, true_turn) <= 4
    np.testing.assert_allclose(tried[1].center_px, WRONG)


def test_only_the_best_of_all_attitudes_are_correlated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomatch.hypotheses.CORRELATED", 3)
    asked = Asked(10.0)
    tried = try_attitudes([asked], ATTITUDES, 32)
    assert 3 <= asked.verified < 2 * len(ATTITUDES) < CORRELATED
    np.testing.assert_allclose(tried[0].center_px, RIGHT)


def test_another_part_is_asked_only_where_the_first_leaves_a_doubt() -> None:
    clear, other = Asked(10.0), Asked(10.0)
    try_attitudes([clear, other], ATTITUDES, 32)
    assert not other.attitudes
    doubtful = Asked(10.0, right=0.11)
    tried = try_attitudes([doubtful, other], ATTITUDES, 32)
    assert other.attitudes
    assert tried[0].probe == 1
    np.testing.assert_allclose(tried[0].center_px, RIGHT)


def test_smaller_extent_of_the_same_score_weighs_less() -> None:
    one, other = (Hypothesis(Attitude(), RIGHT, 0.4, extent=extent) for extent in (1.0, 0.8))
    assert other.weight == pytest.approx(0.8 * one.weight)


def test_exhaustive_looks_at_all_of_the_map() -> None:
    asked = Asked(10.0)
    tried = try_attitudes([asked], ATTITUDES, 32, exhaustive=True)
    assert len(tried) == 2  # the wrong one far from the heading
    assert asked.verified == 0


def test_nothing_tried_is_nothing_found() -> None:
    assert try_attitudes([blank, blank], ATTITUDES, 32) == []


def test_distinct_keeps_the_best_of_near_places() -> None:
    rng = np.random.default_rng(0)
    made = [Hypothesis(Attitude(), rng.uniform(0, 300, 2), float(score)) for score in rng.random(200)]
    kept = distinct(made, 32)
    for i, one in enumerate(kept):
        assert all(np.abs(one.center_px - other.center_px).max() >= 32 for other in kept[:i])
        assert all(one.score <= other.score for other in kept[:i])
    for left in made:
        if not any(left is one for one in kept):
            assert any(np.abs(left.center_px - one.center_px).max() < 32 and one.score >= left.score for one in kept)
    far = [Hypothesis(Attitude(), np.array([100.0 * i, 0.0]), 1.0 / (i + 1)) for i in range(MAX_PEAKS + 9)]
    assert len(distinct(far, 32)) == MAX_PEAKS
