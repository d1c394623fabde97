"""Headings found among made-up places whose truth is known, and how they are halved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from geomatch.fusion import MAX_PEAKS, Poses
from geomatch.headings import FINALISTS, HEADINGS, Hypothesis, correct, distinct, try_headings
from geomatch.query import Query

MIDDLE = np.array([50.0, 40.0])


def asked(true_turn: float, turns: list[float], **places: tuple[float, float]) -> Any:
    """A strip that looks like its place the more, the nearer its turn is to the true one."""

    def ask(turn_deg: float) -> Query:
        turns.append(turn_deg)
        off = abs((turn_deg - true_turn + 180) % 360 - 180)
        scores = np.array([0.5 * np.exp(-np.square(off / 6)), 0.1])
        corners = np.array([places["right"], places["wrong"]]) - MIDDLE
        order = np.argsort(-scores)
        poses = Poses(corners[order], scores[order])
        return cast(
            Query,
            SimpleNamespace(
                windows=(1,),
                tiled=True,
                middle_px=MIDDLE,
                retrieve=lambda tiles: poses,
                verify=lambda given: given,
                scan=lambda: poses.best(1),
                nearby=lambda center: Poses((center - MIDDLE)[None], scores[:1] if center[0] < 500 else scores[1:]),
            ),
        )

    return ask


PLACES = {"right": (100.0, 200.0), "wrong": (900.0, 300.0)}


@pytest.mark.parametrize("true_turn", [0.0, 3.9, 123.4, 179.0, 356.1, 359.9])
def test_heading_is_found_within_the_last_step(true_turn: float) -> None:
    turns: list[float] = []
    ask = asked(true_turn, turns, **PLACES)
    tried = try_headings(ask, 32)
    assert len(turns) == HEADINGS
    assert len(tried) == 2  # one place is one, however many headings show it
    np.testing.assert_allclose(tried[0].center_px, PLACES["right"])
    assert abs((tried[0].turn_deg - true_turn + 180) % 360 - 180) <= 180 / HEADINGS
    best = correct(tried, ask, reach_px=140, cell_px=8)[0]
    last = 360 / HEADINGS / 2 ** len(FINALISTS)
    assert abs((best.turn_deg - true_turn + 180) % 360 - 180) <= last / 2 + 1e-9
    assert 0 <= best.turn_deg < 360


def test_long_strip_is_turned_until_its_ends_lie_within_a_cell() -> None:
    ask = asked(77.77, [], **PLACES)
    best = correct(try_headings(ask, 32), ask, reach_px=4000, cell_px=8)[0]
    assert np.radians(abs(best.turn_deg - 77.77)) * 4000 <= 8


def test_exhaustive_looks_at_all_of_the_map() -> None:
    assert len(try_headings(asked(10, [], **PLACES), 32, exhaustive=True)) == 2  # the wrong one far from the heading


def test_nothing_tried_is_nothing_found() -> None:
    def blank(turn_deg: float) -> Query:
        del turn_deg
        return cast(Query, SimpleNamespace(windows=()))

    assert try_headings(blank, 32) == []
    assert correct([], blank, 100, 8) == []


def test_distinct_keeps_the_best_of_near_places() -> None:
    rng = np.random.default_rng(0)
    made = [Hypothesis(0.0, rng.uniform(0, 300, 2), float(score)) for score in rng.random(200)]
    kept = distinct(made, 32)
    for i, one in enumerate(kept):
        assert all(np.abs(one.center_px - other.center_px).max() >= 32 for other in kept[:i])
        assert all(one.score <= other.score for other in kept[:i])
    for left in made:
        if not any(left is one for one in kept):
            assert any(np.abs(left.center_px - one.center_px).max() < 32 and one.score >= left.score for one in kept)
    far = [Hypothesis(0.0, np.array([100.0 * i, 0.0]), 1.0 / (i + 1)) for i in range(MAX_PEAKS + 9)]
    assert len(distinct(far, 32)) == MAX_PEAKS
