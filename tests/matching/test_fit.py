"""Robust fits against transforms made by hand, OpenCV's estimators, and covariances by repetition."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from geomatch.matching.fit import Ellipse, Fit, NoFit, fit
from geomatch.matching.matches import Matches
from geomatch.matching.transforms import MINIMAL, MODELS, Model, apply, jacobian, moved_by, nearest, through

SIZE = (256, 256)
CORNERS = np.array([[0.0, 0.0], [256, 0], [256, 256], [0, 256]])
TRUTH: dict[Model, NDArray[np.float64]] = {
    "translation": np.array([[1, 0, 5.5], [0, 1, -3.25], [0, 0, 1.0]]),
    "similarity": np.array([[1.05, -0.1, 5.5], [0.1, 1.05, -3], [0, 0, 1.0]]),
    "affine": np.array([[1.05, -0.12, 5.5], [0.03, 0.93, -3], [0, 0, 1.0]]),
    "homography": np.array([[1.05, -0.1, 5.5], [0.05, 0.95, -3], [2e-4, -3e-4, 1.0]]),
}


def by_hand(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    out = []
    for x, y in points:
        u, v, w = matrix @ np.array([x, y, 1.0])
        out.append((u / w, v / w))
    return np.array(out)


def matches_of(
    matrix: NDArray[np.float64], *, wrong: float = 0.6, noise: float = 0.6, seed: int = 0, count: int = 300
) -> Matches:
    rng = np.random.default_rng(seed)
    source = rng.uniform(0, 256, (count, 2))
    target = by_hand(matrix, source) + rng.normal(0, noise, (count, 2))
    bad = rng.random(count) < wrong
    target[bad] = rng.uniform(0, 256, (int(bad.sum()), 2))
    return Matches(source, target, np.zeros(count), (count, count))


@pytest.mark.parametrize("model", MODELS)
def test_apply_is_the_matrix_product(model: Model) -> None:
    np.testing.assert_allclose(apply(TRUTH[model], CORNERS), by_hand(TRUTH[model], CORNERS))


@pytest.mark.parametrize("model", MODELS)
def test_minimal_sets_and_least_squares_give_the_transform_back(model: Model) -> None:
    rng = np.random.default_rng(1)
    sets = rng.uniform(0, 256, (5, MINIMAL[model], 2))
    target = np.array([by_hand(TRUTH[model], points) for points in sets])
    for found in through(model, sets, target):
        np.testing.assert_allclose(apply(found, CORNERS), by_hand(TRUTH[model], CORNERS), atol=1e-6)
    points = rng.uniform(0, 256, (30, 2))
    found = nearest(model, points, by_hand(TRUTH[model], points))
    np.testing.assert_allclose(apply(found, CORNERS), by_hand(TRUTH[model], CORNERS), atol=1e-6)


def test_points_that_determine_nothing_give_nan() -> None:
    same = np.zeros((1, 2, 2))
    assert np.isnan(through("similarity", same, same + 1)[0, 0, 0])


@pytest.mark.parametrize("model", MODELS)
def test_jacobian_is_the_difference_of_a_small_step(model: Model) -> None:
    points = np.array([[10.0, 20.0], [200.0, 90.0]])
    rows = jacobian(model, TRUTH[model], points)
    for number in range(rows.shape[2]):
        step = np.zeros(rows.shape[2])
        step[number] = 1e-7
        moved = apply(moved_by(model, TRUTH[model], step), points)
        np.testing.assert_allclose(
            rows[:, :, number], (moved - apply(TRUTH[model], points)) / 1e-7, atol=0.05, rtol=1e-3
        )


@pytest.mark.parametrize("model", MODELS)
def test_fit_finds_the_transform_and_its_kind_among_wrong_matches(model: Model) -> None:
    found = fit(matches_of(TRUTH[model]), SIZE, MODELS)
    assert isinstance(found, Fit)
    assert found.model == model
    assert np.abs(found.at(CORNERS) - by_hand(TRUTH[model], CORNERS)).max() < 1
    assert found.noise_px == pytest.approx(0.6, abs=0.15)
    assert found.weakness == ""


def test_fit_is_as_near_as_opencvs_magsac() -> None:
    truth = by_hand(TRUTH["affine"], CORNERS)
    ours, theirs = [], []
    for seed in range(12):
        matches = matches_of(TRUTH["affine"], seed=seed)
        found = fit(matches, SIZE, ("affine",))
        assert isinstance(found, Fit)
        ours.append(np.linalg.norm(found.at(CORNERS) - truth, axis=1).mean())
        other, _ = cv2.estimateAffine2D(
            matches.sar_px, matches.optical_px, method=cv2.USAC_MAGSAC, ransacReprojThreshold=3.0
        )
        theirs.append(np.linalg.norm(by_hand(np.vstack([other, [0, 0, 1]]), CORNERS) - truth, axis=1).mean())
    assert np.mean(ours) < 1.1 * np.mean(theirs)


def test_covariance_is_the_spread_over_repetitions() -> None:
    places, said = [], []
    for seed in range(80):
        found = fit(matches_of(TRUTH["similarity"], wrong=0.3, seed=seed, count=60), SIZE, ("similarity",))
        assert isinstance(found, Fit)
        places.append(found.at(CORNERS[:1])[0])
        said.append(found.covariance_at(CORNERS[0]))
    np.testing.assert_allclose(np.cov(np.array(places).T).trace(), np.mean(said, axis=0).trace(), rtol=0.45)


def test_matches_that_share_pixels_count_as_fewer() -> None:
    alone = matches_of(TRUTH["similarity"], wrong=0.3, seed=1, count=60)
    fits = [fit(replace(alone, shared=shared), SIZE, ("similarity",)) for shared in (1.0, 4.0)]
    assert all(isinstance(one, Fit) for one in fits)
    once, four = (one.covariance_at(CORNERS[0]) for one in fits if isinstance(one, Fit))
    np.testing.assert_allclose(four, 4 * once)


def test_chance_is_no_fit() -> None:
    rng = np.random.default_rng(0)
    matches = Matches(rng.uniform(0, 256, (30, 2)), rng.uniform(0, 256, (30, 2)), np.zeros(30), (30, 30))
    found = fit(matches, SIZE)
    assert isinstance(found, NoFit)
    assert "agree" in found.reason
    few = fit(matches.some(np.arange(3)), SIZE)
    assert isinstance(few, NoFit)
    assert few.reason.startswith("3 matches, too few")
    assert fit(Matches.none("the SAR image shows nothing"), SIZE) == NoFit("the SAR image shows nothing")


@pytest.mark.parametrize(("kind", "weakness"), [("line", "collinear"), ("corner", "clustered")])
def test_degenerate_points_support_no_affine_transform(kind: str, weakness: str) -> None:
    rng = np.random.default_rng(0)
    along = rng.uniform(0, 256, 60)
    source = np.stack([along, 0.5 * along + 20], axis=1) if kind == "line" else rng.uniform(0, 14, (60, 2))
    target = by_hand(TRUTH["similarity"], source) + rng.normal(0, 0.3, (60, 2))
    matches = Matches(source, target, np.zeros(60), (60, 60))
    found = fit(matches, SIZE)
    assert isinstance(found, Fit)
    assert found.weakness == weakness
    assert found.model in ("translation", "similarity")
    assert isinstance(fit(matches, SIZE, ("affine",)), NoFit)


def test_ellipse_of_a_covariance_on_the_ground() -> None:
    covariance = np.diag([4.0, 1.0])  # 2 px across, 1 px down
    ground = np.diag([10.0, -10.0])
    found = Ellipse.of(covariance, ground)
    assert found.semi_major_m == pytest.approx(20 * 2.4477, rel=1e-3)
    assert found.semi_minor_m == pytest.approx(10 * 2.4477, rel=1e-3)
    assert found.azimuth_deg == pytest.approx(90)
    turned = Ellipse.of(covariance, np.array([[0.0, 10.0], [10.0, 0.0]]))  # columns run north
    assert turned.azimuth_deg % 180 == pytest.approx(0, abs=1e-6)
