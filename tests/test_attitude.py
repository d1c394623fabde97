"""The grid of attitudes covers its tolerance, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomatch.attitude import KNOWN, TOLD, Attitude, Steps, Tolerance

STEPS = Steps(10.0, 1.21)


def test_what_is_known_is_tried_alone() -> None:
    assert list(KNOWN.attitudes(STEPS)) == [TOLD]
    assert KNOWN.known
    assert KNOWN.spacing(STEPS) == (0, 0)


@given(
    turn=st.floats(0, 180),
    scale=st.floats(1, 2),
    at=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_every_attitude_within_a_tolerance_is_near_one_that_is_tried(
    turn: float, scale: float, at: tuple[float, float]
) -> None:
    tolerance = Tolerance(turn, scale)
    tried = list(tolerance.attitudes(STEPS))
    true = np.array([turn * at[0], np.log(scale) * at[1]])
    off = np.abs(np.array([(one.turn_deg, np.log(one.scale)) for one in tried]) - true)
    half = np.array([STEPS.turn_deg, np.log(STEPS.scale)]) / 2
    assert (off <= half + 1e-6).all(axis=1).any()
    assert (off <= np.array(tolerance.spacing(STEPS)) / 2 + 1e-6).all(axis=1).any()
    assert all(abs(one.turn_deg) <= turn and 1 / scale - 1e-9 <= one.scale <= scale + 1e-9 for one in tried)


def test_unknown_heading_goes_once_around() -> None:
    turns = sorted(one.turn_deg for one in Tolerance(180).attitudes(Steps(8, 1.2)))
    gaps = np.diff([*turns, turns[0] + 360])
    np.testing.assert_allclose(gaps, 8)
    assert TOLD in list(Tolerance(180).attitudes(Steps(8, 1.2)))


def test_user_tells_degrees_and_percent() -> None:
    assert Tolerance.told() == KNOWN
    assert Tolerance.told(10, 5) == Tolerance(10, 1.05)
    assert Tolerance.told(None, 100, any_turn=True) == Tolerance(180, 2)
    assert Tolerance(180).any_turn
    assert not Tolerance(10).any_turn
    assert Attitude() == TOLD
    assert Tolerance.told(None, 7).spacing(Steps(10, 1.1))[1] == pytest.approx(2 * np.log(1.07) / 2)


@given(turn=st.floats(-400, 400), log_scale=st.floats(-2, 2))
def test_moves_stay_within_the_tolerance(turn: float, log_scale: float) -> None:
    rough = Tolerance(10, 1.1)
    moved = rough.moved(Attitude(4.0, 1.05), turn, log_scale)
    assert moved.turn_deg == pytest.approx(np.clip(4 + turn, -10, 10))
    assert moved.scale == pytest.approx(np.clip(1.05 * np.exp(log_scale), 1 / 1.1, 1.1))
    around = Tolerance(180).moved(Attitude(170.0), turn, log_scale)
    assert -180 <= around.turn_deg < 180
    assert (around.turn_deg - 170 - turn) % 360 == pytest.approx(0, abs=1e-6) or (
        around.turn_deg - 170 - turn
    ) % 360 == pytest.approx(360)
    assert around.scale == 1
