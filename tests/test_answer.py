"""What is read off the places, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from geomatch.answer import Judged
from geomatch.fusion import Poses
from geomatch.posterior import standings
from geomatch.refine import Refined


def judged(found: Poses, refined: Refined | None = None) -> Judged:
    return Judged.of(found, standings(found.scores, 100.0), 0.0, refined)


def places(*scores: float) -> Poses:
    return Poses(np.arange(2.0 * len(scores)).reshape(-1, 2), np.array(scores))


def look(peak: float, *, aside: float = 0.1, fixed: bool = True, corner: tuple[float, float] = (7.5, 8.5)) -> Refined:
    at: NDArray[np.float64] = np.array(corner)
    return Refined(at, peak, aside, cells=400, fixed=fixed)


def test_margin_is_the_logarithm_of_best_over_runner_up() -> None:
    assert judged(places(0.8, 0.4, 0.2)).signs.margin == pytest.approx(math.log(2))
    assert judged(places(0.4, 0.4)).signs.margin == pytest.approx(0)
    assert judged(places(0.4, 0.8)).signs.margin == pytest.approx(-math.log(2))


def test_prominence_counts_deviations_of_the_others() -> None:
    others = np.array([0.5, 0.1, 0.3])
    signs = judged(places(0.9, *others)).signs
    assert signs.prominence == pytest.approx((0.9 - others.mean()) / others.std())


@pytest.mark.parametrize("others", [(), (0.2,), (0.2, 0.2)])
@pytest.mark.parametrize("refined", [None, look(0.3)])
def test_few_places_give_finite_signs(others: tuple[float, ...], refined: Refined | None) -> None:
    signs = judged(places(0.6, *others), refined).signs
    assert np.isfinite(signs.values()).all()
    assert signs.prominence > 0


def test_no_correlation_of_the_pixels_gives_finite_signs() -> None:
    signs = judged(places(0.6, 0.5), look(0.0, aside=0.0, fixed=False)).signs
    assert np.isfinite(signs.values()).all()


def test_place_is_that_of_the_pixels_where_they_were_looked_at() -> None:
    of_features = judged(places(0.6, 0.5))
    assert of_features.corner_px.tolist() == [0, 1]
    assert of_features.accuracy == "cell"
    of_pixels = judged(places(0.6, 0.5), look(0.3))
    assert of_pixels.corner_px.tolist() == [7.5, 8.5]
    assert of_pixels.accuracy == "pixel"
    assert judged(places(0.6), look(0.3, fixed=False)).accuracy == "cell"


def test_lead_is_the_logarithm_of_the_peak_over_what_lies_aside() -> None:
    pixels = judged(places(0.6, 0.5), look(0.3, aside=0.1)).signs.pixels
    assert pixels is not None
    assert pixels.lead == pytest.approx(math.log(3))
    assert pixels.peak == pytest.approx(0.3 * 20)
