"""How probability is shared among places, against Bayes' rule written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomatch.posterior import needed, shares, standings

SUPPORTS = st.lists(st.floats(-1, 2), min_size=1, max_size=20).map(np.array)


def test_shares_are_bayes_rule_for_normal_correlations() -> None:
    """At a wrong place z has mean 0, at the right one m, both of deviation 1; every place is as likely before."""
    z, mean = [5.0, 4.0, 1.0], 3.0
    ratios = [math.exp(-((value - mean) ** 2) / 2) / math.exp(-(value**2) / 2) for value in z]
    expected = [ratio / sum(ratios) for ratio in ratios]
    cells = 400.0
    found = shares(standings(np.array(z) / math.sqrt(cells), cells), sharpness=mean)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_windows_of_one_strip_multiply_their_likelihoods() -> None:
    windows = np.array([[0.5, 0.4], [0.3, 0.35], [0.6, 0.2]])
    product = np.prod([shares(standings(one, 100.0), 1.0) for one in windows], axis=0)
    together = shares(standings(windows.mean(axis=0), 300.0), 1.0)
    alone = np.log(product[0] / product[1])
    assert np.log(together[0] / together[1]) == pytest.approx(alone / math.sqrt(3))


@given(SUPPORTS, st.floats(1, 1e5))
def test_shares_sum_to_one_and_keep_the_order(supports: np.ndarray, cells: float) -> None:
    found = shares(standings(supports, cells))
    assert found.sum() == pytest.approx(1)
    assert found.argmax() == pytest.approx(supports.argmax()) or found.max() == pytest.approx(found[supports.argmax()])


@given(SUPPORTS)
def test_places_that_are_needed_hold_the_level(supports: np.ndarray) -> None:
    found = shares(standings(supports, 25.0))
    count = needed(found)
    best = np.sort(found)[::-1]
    assert best[:count].sum() >= 0.95 - 1e-9
    assert count == 1 or best[: count - 1].sum() < 0.95
