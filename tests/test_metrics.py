"""Measures against published numbers, plain loops and counted pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from geomatch.metrics import auroc, calibration_error, first_hit, overlap, recall_at, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_is_the_published_one(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_is_scipys_at_any_level() -> None:
    for successes, trials, level in [(3, 7, 0.9), (7, 7, 0.99), (0, 1, 0.5), (400, 500, 0.95)]:
        other = binomtest(successes, trials).proportion_ci(level, method="wilson")
        assert wilson(successes, trials, level) == pytest.approx((other.low, other.high), abs=1e-9)


def test_wilson_interval_of_nothing_is_all() -> None:
    assert wilson(0, 0) == (0, 1)


def test_wilson_interval_of_none_or_all_ends_there() -> None:
    for trials in range(1, 500):
        assert wilson(0, trials)[0] == 0
        assert wilson(trials, trials)[1] == 1


@given(st.integers(1, 500), st.data())
def test_wilson_interval_holds_the_share_within_zero_and_one(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1
    mirrored = wilson(trials - successes, trials)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


@given(
    st.lists(st.integers(0, 5), max_size=12),
    st.lists(st.integers(0, 5), max_size=12),
)
def test_auroc_is_the_share_of_pairs_in_order(above: list[int], below: list[int]) -> None:
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in above for b in below]
    assert auroc(above, below) == (pytest.approx(np.mean(wins)) if wins else None)


@pytest.mark.parametrize(
    ("size", "offset"), [((7, 5), (0, 0)), ((7, 5), (3, -2)), ((8, 8), (-8, 0)), ((4, 9), (1, 30))]
)
def test_overlap_is_that_of_counted_pixels(size: tuple[int, int], offset: tuple[int, int]) -> None:
    one, two = np.zeros((2, 100, 100), bool)
    one[40 : 40 + size[1], 40 : 40 + size[0]] = True
    two[40 + offset[1] : 40 + offset[1] + size[1], 40 + offset[0] : 40 + offset[0] + size[0]] = True
    assert overlap(offset, size) == pytest.approx((one & two).sum() / (one | two).sum())


def test_overlap_of_many_offsets_keeps_their_shape() -> None:
    offsets = np.array([[[0, 0], [50, 0]], [[0, 100], [-25, 0]]])
    np.testing.assert_allclose(overlap(offsets, (100, 100)), [[1, 1 / 3], [0, 0.6]])


def test_first_hit_counts_from_one_and_zero_is_none() -> None:
    candidates = np.array([[900.0, 0], [34, 0], [0, 0], [33, 0]])
    assert first_hit(candidates, (0, 0), (100, 100), 0.5) == 3  # a third of the side is the threshold
    assert first_hit(candidates[[0, 3]], (0, 0), (100, 100), 0.5) == 2
    assert first_hit(candidates[:2], (0, 0), (100, 100), 0.5) == 0
    assert first_hit(np.empty((0, 2)), (0, 0), (100, 100), 0.5) == 0
    assert first_hit(candidates, (900, 0), (100, 100), 1.0) == 1


@given(st.lists(st.integers(0, 8), max_size=20), st.integers(1, 9))
def test_recall_is_the_share_of_first_hits_within_k(ranks: list[int], k: int) -> None:
    hits = 0
    for rank in ranks:
        if rank != 0 and rank <= k:
            hits += 1
    assert recall_at(ranks, k) == (pytest.approx(hits / len(ranks)) if ranks else 0)


def test_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    said, happened = [0.05, 0.02, 0.95, 1.0, 0.91], [True, False, True, True, False]
    low, high = abs(0.07 / 2 - 1 / 2), abs((0.95 + 1.0 + 0.91) / 3 - 2 / 3)
    assert calibration_error(said, happened) == pytest.approx(2 / 5 * low + 3 / 5 * high)
    assert calibration_error([], []) is None
