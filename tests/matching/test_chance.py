"""False alarms by a plain sum over the binomial distribution, and what they tell of true and random matches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from geomatch.matching.chance import false_alarms, surprising
from geomatch.matching.matches import Matches

SHIFT = np.array([[1.0, 0, 12], [0, 1, -7], [0, 0, 1]])


def matched(sar: NDArray[np.float64], optical: NDArray[np.float64], grain_px: float = 1.0) -> Matches:
    return Matches(sar, optical, np.ones(len(sar)), (len(sar), len(sar)), grain_px=grain_px)


def drawn(count: int, right: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places of matches in squares of their own, of which the first few follow SHIFT and the others anything."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation(400)[:count]
    sar = 10 * np.stack([cells % 20, cells // 20], axis=1) + rng.uniform(1, 9, (count, 2))
    optical = rng.uniform(0, 200, (count, 2))
    optical[:right] = sar[:right] + SHIFT[:2, 2] + rng.uniform(-1, 1, (right, 2))
    return sar, optical


@pytest.mark.parametrize(("count", "right"), [(5, 5), (40, 6), (60, 3), (120, 40)])
def test_expected_number_is_the_sum_over_the_distribution(count: int, right: int) -> None:
    sar, optical = drawn(count, right)
    radius = 3.0
    moved = sar + SHIFT[:2, 2]
    agree = [float(np.hypot(*(moved[i] - optical[i]))) <= radius for i in range(count)]
    others = sum(
        float(np.hypot(*(moved[i] - optical[j]))) <= radius for i in range(count) for j in range(count) if i != j
    )
    single = max(others, 1) / (count * (count - 1))
    tail = sum(
        math.comb(count - 1, hits) * single**hits * (1 - single) ** (count - 1 - hits)
        for hits in range(sum(agree) - 1, count)
    )
    found = false_alarms(matched(sar, optical, grain_px=10), SHIFT, "translation", radius, kinds=2)
    assert found == pytest.approx(2 * count * tail, rel=1e-9)


def test_true_matches_surprise_and_random_ones_do_not() -> None:
    assert surprising(matched(*drawn(60, 20), grain_px=10), SHIFT, "translation", 3.0)
    assert not surprising(matched(*drawn(60, 0), grain_px=10), SHIFT, "translation", 3.0)


def test_matches_that_crowd_in_one_square_count_once() -> None:
    sar, optical = drawn(60, 20)
    sar[:20] = sar[0] + np.linspace(0, 0.5, 20)[:, None]
    optical[:20] = sar[:20] + SHIFT[:2, 2]
    assert not surprising(matched(sar, optical, grain_px=10), SHIFT, "translation", 3.0)
