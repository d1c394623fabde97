"""A similarity is read back from surfaces that were drawn where it moves the parts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from geomatch.agreement import agreed

NORTH_UP = np.diag([1.0, -1.0])
ARMS = np.array([[x, y] for x in (-150.0, -50.0, 50.0, 150.0) for y in (-100.0, 0.0, 100.0)])
BOTH = (True, True)


def drawn(
    offsets_px: NDArray[np.float64], cell_px: int = 2, reach: int = 8, width_px: float = 4.0
) -> NDArray[np.float64]:
    """Surfaces with a round peak at an offset each: [N x 2] -> [N x s x s]."""
    at = np.arange(-reach, reach + 1) * cell_px
    across = at[None, None, :] - offsets_px[:, 0, None, None]
    down = at[None, :, None] - offsets_px[:, 1, None, None]
    return np.asarray(0.3 * np.exp(-(across**2 + down**2) / (2 * 4.0**2)))


def turned(arms: NDArray[np.float64], turn_deg: float, scale: float) -> NDArray[np.float64]:
    """How far a clockwise turn and a scale move points of a north-up image."""
    sine, cosine = np.sin(np.radians(turn_deg)), np.cos(np.radians(turn_deg))
    return np.asarray(scale * arms @ np.array([[cosine, -sine], [sine, cosine]]).T - arms)


@pytest.mark.parametrize(("turn", "scale"), [(0.0, 1.0), (1.7, 1.0), (-1.1, 1.02), (0.4, 0.98)])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.7, -1.9)])
def test_turn_scale_and_shift_come_back(turn: float, scale: float, shift: tuple[float, float]) -> None:
    found = agreed(drawn(turned(ARMS, turn, scale) + shift), ARMS, cell_px=2, ground=NORTH_UP, free=BOTH, most=0.04)
    assert found.turn_deg == pytest.approx(turn, abs=0.1)
    assert np.exp(found.log_scale) == pytest.approx(scale, abs=0.002)
    assert found.shift_px == pytest.approx(shift, abs=0.3)


def test_turn_is_one_on_the_ground() -> None:
    ground = np.diag([0.5, 1.0])  # south up, and pixels half as wide as high
    clockwise = np.array([[0.0, 1.0], [-1.0, 0.0]])  # of east and north, per radian
    offsets = ARMS @ (np.linalg.inv(ground) @ clockwise @ ground).T * np.radians(1.5)
    found = agreed(drawn(offsets), ARMS, cell_px=2, ground=ground, free=BOTH, most=0.04)
    assert found.turn_deg == pytest.approx(1.5, abs=0.15)


def test_parts_that_show_another_place_are_outvoted() -> None:
    offsets = turned(ARMS, 1.2, 1.0)
    offsets[::4] = [12.0, -9.0]
    found = agreed(drawn(offsets), ARMS, cell_px=2, ground=NORTH_UP, free=BOTH, most=0.04)
    assert found.turn_deg == pytest.approx(1.2, abs=0.2)
    assert np.abs(found.shift_px).max() < 1


@pytest.mark.parametrize("free", [(True, False), (False, True), (False, False)])
def test_what_was_told_stays(free: tuple[bool, bool]) -> None:
    found = agreed(drawn(turned(ARMS, 1.5, 1.02)), ARMS, cell_px=2, ground=NORTH_UP, free=free, most=0.04)
    assert (abs(found.turn_deg) > 1) == free[0]
    assert (abs(found.log_scale) > 0.01) == free[1]


def test_no_turn_moves_a_part_out_of_its_surface() -> None:
    arms = ARMS * 20
    found = agreed(drawn(np.zeros_like(arms)), arms, cell_px=2, ground=NORTH_UP, free=BOTH, most=1.0)
    assert np.abs(turned(arms, found.turn_deg, np.exp(found.log_scale))).max() <= 16


def test_one_part_alone_only_shifts() -> None:
    found = agreed(drawn(np.array([[3.0, -2.0]])), np.zeros((1, 2)), cell_px=2, ground=NORTH_UP, free=BOTH, most=0.04)
    assert found.shift_px == pytest.approx([3, -2], abs=0.3)
