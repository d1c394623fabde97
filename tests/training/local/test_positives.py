"""How far positives are off the true places."""

from __future__ import annotations

import numpy as np
import pytest

from geomatch.errors import UsageError
from geomatch.training.local.positives import PositiveConfig, drawn_moves

COUNT = 3000
PUBLISHED = PositiveConfig((0.9, 1.15), [5, 10, 15], 8.0, exactly=True, one_of=True)


def scale_and_turn(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Of similarities [N x 2 x 2], the turn in degrees."""
    return np.hypot(frames[:, 0, 0], frames[:, 1, 0]), np.degrees(np.arctan2(frames[:, 1, 0], frames[:, 0, 0]))


def test_nothing_moves_where_nothing_is_asked_for() -> None:
    for config in (PositiveConfig(), PositiveConfig(one_of=True)):
        moves = drawn_moves(config, 5, np.random.default_rng(0))
        assert not moves.shift_px.any()
        np.testing.assert_array_equal(moves.frames, np.broadcast_to(np.eye(2), (5, 2, 2)))


def test_published_positives_are_scaled_or_turned_or_moved() -> None:
    moves = drawn_moves(PUBLISHED, COUNT, np.random.default_rng(0))
    scale, turn = scale_and_turn(moves.frames)
    moved = np.linalg.norm(moves.shift_px, axis=1)
    scaled, turned, shifted = ~np.isclose(scale, 1), np.abs(turn) > 1e-6, moved > 0
    assert (scaled.astype(int) + turned + shifted == 1).all()
    for done in (scaled, turned, shifted):
        assert done.mean() == pytest.approx(1 / 3, abs=0.03)
    np.testing.assert_allclose(moved[shifted], 8.0)
    assert (scale >= 0.9).all()
    assert (scale <= 1.15).all()
    assert sorted(set(np.round(turn[turned]).tolist())) == [-15, -10, -5, 5, 10, 15]
    assert np.abs(moves.shift_px[shifted].mean(axis=0)).max() < 0.8  # in every direction


def test_moves_are_composed_and_within_their_disc() -> None:
    config = PositiveConfig((0.9, 1.15), [5, 10, 15], 8.0)
    moves = drawn_moves(config, COUNT, np.random.default_rng(1))
    scale, turn = scale_and_turn(moves.frames)
    moved = np.linalg.norm(moves.shift_px, axis=1)
    assert moved.max() < 8
    assert (moved < 4).mean() == pytest.approx(1 / 4, abs=0.03)  # even over the disc
    assert (np.abs(turn) > 4.9).all()
    assert scale.min() < 0.91
    assert scale.max() > 1.14


@pytest.mark.parametrize(
    ("config", "where"),
    [(PositiveConfig((0.0, 1.0)), "scale"), (PositiveConfig((1.2, 0.9)), "scale"), (PositiveConfig(shift_px=-1), "px")],
)
def test_what_cannot_be_drawn_is_refused(config: PositiveConfig, where: str) -> None:
    with pytest.raises(UsageError, match=where):
        config.check()
