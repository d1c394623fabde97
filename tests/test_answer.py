"""What is read off the places, against numbers worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray

from geomatch.answer import Answers, Judged
from geomatch.attitude import Tolerance
from geomatch.fusion import Poses
from geomatch.geo import Grid, as_crs
from geomatch.refine import Refined


def judged(found: Poses, refined: Refined | None = None) -> Judged:
    return Judged.of(found, found.scores, 100.0, refined)


def places(*scores: float) -> Poses:
    return Poses(np.arange(2.0 * len(scores)).reshape(-1, 2), np.array(scores))


def look(
    height: float, *, spread: float = 0.1, fixed: bool = True, corner: tuple[float, float] = (7.5, 8.5)
) -> Refined:
    at: NDArray[np.float64] = np.array(corner)
    return Refined(at, height + 0.1, height, 2 * spread, spread, cells=400, chance=0.2, fixed=fixed)


def test_peak_ratio_is_of_best_and_runner_up() -> None:
    assert judged(places(0.8, 0.4, 0.2)).peak_ratio == pytest.approx(2)
    assert judged(places(0.4, 0.8)).peak_ratio == pytest.approx(0.5)
    assert judged(places(0.4)).peak_ratio == pytest.approx(math.exp(2))


def test_prominence_counts_deviations_of_the_others() -> None:
    others = np.array([0.5, 0.1, 0.3])
    signs = judged(places(0.9, *others)).signs
    assert signs.prominence == pytest.approx((0.9 - others.mean()) / others.std())


def test_lead_is_the_root_of_deviations_over_the_likeliest_other() -> None:
    """Of 100 cells a difference of 0.1 in the mean correlation is one deviation of what wrong places give."""
    assert judged(places(0.9, 0.3, 0.5)).signs.lead == pytest.approx(math.sqrt(10 * 0.4))
    assert judged(places(0.4, 0.4)).signs.lead == 0
    assert judged(places(0.4, 0.6, 0.3)).signs.lead == 0  # another is likelier than the one that was chosen


def test_place_without_others_leads_those_that_a_larger_map_would_have() -> None:
    best_of_64 = np.random.default_rng(0).standard_normal((20_000, 64)).max(axis=1).mean() / 10
    for few in ((0.9,), (0.9, 0.1)):
        assert judged(places(*few)).signs.lead == pytest.approx(math.sqrt(10 * (0.9 - best_of_64)), rel=0.01)
    assert judged(places(0.2)).signs.lead == 0
    pixels_too = Judged.of(places(0.9), np.array([0.9]), 100.0, by_chance=0.2)
    assert pixels_too.signs.lead == pytest.approx(math.sqrt(10 * (0.7 - best_of_64)), rel=0.01)


@pytest.mark.parametrize("others", [(), (0.2,), (0.2, 0.2)])
@pytest.mark.parametrize("refined", [None, look(0.3)])
def test_few_places_give_finite_signs(others: tuple[float, ...], refined: Refined | None) -> None:
    signs = judged(places(0.6, *others), refined).signs
    assert np.isfinite(signs.values()).all()
    assert signs.prominence > 0


def test_no_correlation_of_the_pixels_gives_finite_signs() -> None:
    signs = judged(places(0.6, 0.5), look(0.0, spread=0.0, fixed=False)).signs
    assert np.isfinite(signs.values()).all()


def test_place_is_that_of_the_pixels_where_they_were_looked_at() -> None:
    of_features = judged(places(0.6, 0.5))
    assert of_features.corner_px.tolist() == [0, 1]
    assert of_features.accuracy == "cell"
    of_pixels = judged(places(0.6, 0.5), look(0.3))
    assert of_pixels.corner_px.tolist() == [7.5, 8.5]
    assert of_pixels.accuracy == "pixel"
    assert judged(places(0.6), look(0.3, fixed=False)).accuracy == "cell"


def test_standing_counts_deviations_of_the_surroundings_or_of_chance() -> None:
    assert judged(places(0.6, 0.5), look(0.3, spread=0.1)).signs.standing == pytest.approx(3)
    assert judged(places(0.6, 0.5), look(0.3, spread=0.001)).signs.standing == pytest.approx(0.3 * 20)
    assert judged(places(0.6, 0.5)).signs.standing is None


def test_likely_places_are_told_where_the_answer_is_not_the_likeliest() -> None:
    """By the pixels, or among other attitudes: shares of 0.0175, 0.98 and less, 2000 and 800 px away."""
    grid = Grid(as_crs("EPSG:32633"), Affine(10, 0, 500_000, 0, -10, 5_000_000), 4000, 4000)
    index: Any = SimpleNamespace(grid=grid, encoder=SimpleNamespace(name="la3", cell_px=8))
    strip: Any = SimpleNamespace(
        notes=(),
        from_file=Affine.identity(),
        file_size=(200, 200),
        heading_deg=0.0,
        mirrored=False,
        tolerance=Tolerance(),
    )
    found = Poses(np.array([[100.0, 100], [2100, 100], [100, 900]]), np.array([0.3, 0.31, 0.2]))
    made = Judged.of(found, np.array([-1.3, 0.0, -2.5]), 1.0)
    window: Any = None
    evidence = Answers(index, strip, (), {}).placed([window], made).evidence
    assert [one.score for one in evidence.candidates] == [0.3, 0.31, 0.2]
    assert evidence.candidates[1].probability > 10 * evidence.candidates[0].probability
    assert evidence.likely_places == 1
    assert evidence.likely_within_m == pytest.approx(20_000, rel=0.01)
