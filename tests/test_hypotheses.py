"""Attitudes found among made-up places whose truth is known, and how they are halved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from geomatch.attitude import Attitude, Tolerance
from geomatch.fusion import MAX_PEAKS, Poses
from geomatch.hypotheses import FINALISTS, Hypothesis, correct, distinct, polish, try_attitudes
from geomatch.query import Query
from geomatch.refine import Refined

MIDDLE = np.array([50.0, 40.0])
ANY = Tolerance(180.0)
WIDTH = np.array([6.0, 0.07])  # degrees, and logarithm of the scale, within which the strip looks like its place


def asked(truth: Attitude, asked_for: list[Attitude], **places: tuple[float, float]) -> Any:
    """A strip that looks like its place the more, the nearer its attitude is to the true one."""

    def ask(attitude: Attitude) -> Query:
        asked_for.append(attitude)
        off = np.array([aside(attitude, truth), np.log(attitude.scale / truth.scale)])
        # Of a strip at a smaller scale fewer cells correlate higher by chance.
        scores = np.array([0.5 * np.exp(-np.square(off / WIDTH).sum()), 0.1]) / attitude.scale
        corners = np.array([places["right"], places["wrong"]]) - MIDDLE
        order = np.argsort(-scores)
        poses = Poses(corners[order], scores[order])
        return cast(
            Query,
            SimpleNamespace(
                windows=(1,),
                tiled=True,
                strip=SimpleNamespace(middle_px=MIDDLE),
                retrieve=lambda tiles: poses,
                verify=lambda given: given,
                scan=lambda: poses.best(1),
                nearby=lambda center: Poses((center - MIDDLE)[None], scores[:1] if center[0] < 500 else scores[1:]),
            ),
        )

    return ask


def aside(one: Attitude, other: Attitude) -> float:
    return abs((one.turn_deg - other.turn_deg + 180) % 360 - 180)


PLACES = {"right": (100.0, 200.0), "wrong": (900.0, 300.0)}
LAST = 1 / 2 ** len(FINALISTS)


@pytest.mark.parametrize("true_turn", [0.0, 3.9, 123.4, 179.0, -3.9, -179.9])
def test_any_heading_is_found_within_the_last_step(true_turn: float) -> None:
    truth, tried_at = Attitude(true_turn), list[Attitude]()
    ask = asked(truth, tried_at, **PLACES)
    tried = try_attitudes(ask, ANY, 32)
    assert len(tried_at) == 45
    assert {attitude.scale for attitude in tried_at} == {1.0}
    assert len(tried) == 2  # one place is one, however many headings show it
    np.testing.assert_allclose(tried[0].center_px, PLACES["right"])
    assert aside(tried[0].attitude, truth) <= 4
    best = correct(tried, ask, ANY, reach_px=140, cell_px=8)[0]
    assert aside(best.attitude, truth) <= 8 * LAST / 2
    assert aside(best.attitude, truth) < 0.1  # read between the steps, where the score is nearly a parabola
    assert best.attitude.scale == 1


@pytest.mark.parametrize(("turn", "scale"), [(0.0, 1.0), (9.5, 1.08), (-6.0, 0.92), (3.3, 1.099)])
def test_rough_attitude_is_found_in_both(turn: float, scale: float) -> None:
    truth, tried_at, tolerance = Attitude(turn, scale), list[Attitude](), Tolerance(10.0, 1.1)
    ask = asked(truth, tried_at, **PLACES)
    tried = try_attitudes(ask, tolerance, 32)
    assert len(tried_at) == 6  # three headings, two scales
    best = correct(tried, ask, tolerance, reach_px=140, cell_px=8)[0]
    assert aside(best.attitude, truth) < 0.1
    assert best.attitude.scale == pytest.approx(scale, rel=0.002)


@pytest.mark.parametrize("tolerance", [Tolerance(10, 1.1), Tolerance(10), Tolerance(0, 1.1)])
def test_pixels_polish_what_was_not_told_and_leave_the_rest(tolerance: Tolerance) -> None:
    truth = np.array([2.3, np.log(1.03)])
    center = np.array([5.0, 6.0])

    def look_at(attitude: Attitude, center_px: Any) -> Hypothesis:
        off = np.array([attitude.turn_deg, np.log(attitude.scale)]) - truth
        peak = 0.2 * np.exp(-np.square(off / (2.0, 0.03)).sum()) / attitude.scale
        return Hypothesis(attitude, center_px, 0.3, Refined(center_px, float(peak), 0.0, 100, fixed=True))

    found = polish(look_at(Attitude(), center), look_at, tolerance)
    assert found.attitude.turn_deg == pytest.approx(2.3 if tolerance.turn_deg else 0, abs=0.05)
    assert np.log(found.attitude.scale) == pytest.approx(truth[1] if tolerance.scale != 1 else 0, abs=0.002)
    np.testing.assert_allclose(found.center_px, center)


def test_place_without_a_peak_is_left_as_it_is() -> None:
    def look_at(attitude: Attitude, center_px: Any) -> Hypothesis:
        return Hypothesis(attitude, center_px, 0.3, Refined(center_px, 0.1, 0.1, 100, fixed=False))

    one = look_at(Attitude(1.0, 1.02), np.zeros(2))
    assert polish(one, look_at, Tolerance(10, 1.1)).attitude == one.attitude


def test_long_strip_is_turned_until_its_ends_lie_within_a_cell() -> None:
    truth = Attitude(77.77)
    ask = asked(truth, [], **PLACES)
    best = correct(try_attitudes(ask, ANY, 32), ask, ANY, reach_px=4000, cell_px=8)[0]
    assert np.radians(aside(best.attitude, truth)) * 4000 <= 8


def test_exhaustive_looks_at_all_of_the_map() -> None:
    tried = try_attitudes(asked(Attitude(10), [], **PLACES), ANY, 32, exhaustive=True)
    assert len(tried) == 2  # the wrong one far from the heading


def test_nothing_tried_is_nothing_found() -> None:
    def blank(attitude: Attitude) -> Query:
        del attitude
        return cast(Query, SimpleNamespace(windows=()))

    assert try_attitudes(blank, ANY, 32) == []
    assert correct([], blank, ANY, 100, 8) == []


def test_place_that_nothing_resembles_aside_keeps_its_attitude() -> None:
    def blank(attitude: Attitude) -> Query:
        del attitude
        return cast(Query, SimpleNamespace(windows=()))

    one = Hypothesis(Attitude(8.0, 1.05), np.array([3.0, 4.0]), 0.4)
    (kept,) = correct([one], blank, Tolerance(180, 1.1), 100, 8)
    assert kept == one


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
