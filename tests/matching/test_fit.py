"""Robust fits against transforms made by hand, OpenCV's estimators, and covariances by repetition."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from geomatch.matching.accuracy import FLOOR_PX, INFLATION, Ellipse, apart, noise_of
from geomatch.matching.fit import Fit, NoFit, fit
from geomatch.matching.limits import Limits
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


def averaged(found: Fit, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the matches leave open of a point, without what is added for pairs of real images."""
    return (found.covariance_at(point) - found.floor_px**2 * np.eye(2)) / INFLATION**2


def test_covariance_is_the_spread_over_repetitions() -> None:
    places, said = [], []
    for seed in range(80):
        found = fit(matches_of(TRUTH["affine"], wrong=0.3, seed=seed, count=60), SIZE, ("affine",))
        assert isinstance(found, Fit)
        places.append(found.at(CORNERS[:1])[0])
        said.append(averaged(found, CORNERS[0]))
    np.testing.assert_allclose(np.cov(np.array(places).T).trace(), np.mean(said, axis=0).trace(), rtol=0.45)


def test_noise_across_is_not_noise_down() -> None:
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 256, (60, 2))
    noise = np.array([[0.9, 0.3], [0.3, 0.4]])
    target = source + [5, 3] + rng.multivariate_normal((0, 0), noise, 60)
    found = fit(Matches(source, target, np.zeros(60), (60, 60), step_px=0.1), SIZE)
    assert isinstance(found, Fit)
    np.testing.assert_allclose(found.noise, noise, atol=0.2)
    np.testing.assert_allclose(averaged(found, np.array([128.0, 128])), noise / 60, atol=noise[0, 0] / 60)


def test_noise_is_never_less_than_what_can_be_told() -> None:
    exact = noise_of(np.zeros((20, 2)), np.ones(20), 2, 0.4)
    np.testing.assert_allclose(exact, 0.16 * np.eye(2))
    source = np.stack(np.meshgrid(*[np.arange(6, 256, 40.0)] * 2), axis=-1).reshape(-1, 2)
    found = [
        fit(Matches(source, source + 4, np.zeros(len(source)), (49, 49), step_px=step), SIZE) for step in (1.0, 8.0)
    ]
    least = [np.sqrt(np.linalg.eigvalsh(one.covariance_at((128, 128)))[0]) for one in found if isinstance(one, Fit)]
    assert least[0] >= FLOOR_PX
    assert least[1] >= 8 / 2


def test_matches_that_overlap_count_as_one() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat(rng.uniform(0, 256, (20, 2)).round(-2) + np.arange(20)[:, None] * 500, 5, axis=0)
    np.testing.assert_allclose(apart(points, 48), 0.2)
    far = np.stack([np.arange(0, 500, 48.0), np.zeros(11)], axis=1)
    np.testing.assert_allclose(apart(far, 48), 1)
    np.testing.assert_allclose(apart(np.array([[0.0, 0], [24, 0]]), 48), 1 / 1.5)  # half of the squares is shared
    alone = matches_of(TRUTH["affine"], wrong=0.3, seed=1, count=60)
    copies = alone.some(np.repeat(np.arange(60), 4))
    copies = replace(copies, optical_px=copies.optical_px + np.tile(np.arange(4), 60)[:, None] * 1e-6)
    fits = [fit(replace(one, grain_px=1e-3), SIZE, ("affine",)) for one in (alone, copies)]
    once, four = (averaged(one, CORNERS[0]) for one in fits if isinstance(one, Fit))
    np.testing.assert_allclose(four, once, rtol=0.1)


def test_points_that_show_no_turn_do_not_exclude_one() -> None:
    """A translation that matches in a part of the image support is not exact far from them."""
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 60, (40, 2))
    matches = Matches(source, source + rng.normal(0, 0.5, (40, 2)), np.zeros(40), (40, 40))
    found = fit(matches, SIZE, ("translation",))
    assert isinstance(found, Fit)
    near, far = (np.sqrt(averaged(found, np.array(at)).trace()) for at in ((30.0, 30.0), (256.0, 256.0)))
    assert far > 6 * near
    # As much as an affine transform through the same points says, but for what is known of shear and stretch.
    free = fit(matches, SIZE, ("affine",))
    assert isinstance(free, Fit)
    assert far == pytest.approx(np.sqrt(averaged(free, np.array([256.0, 256])).trace()), rel=0.1)


def test_chance_is_no_fit() -> None:
    rng = np.random.default_rng(0)
    matches = Matches(rng.uniform(0, 256, (30, 2)), rng.uniform(0, 256, (30, 2)), np.zeros(30), (30, 30))
    found = fit(matches, SIZE)
    assert isinstance(found, NoFit)
    assert "agree" in found.reason
    few = fit(matches.some(np.arange(3)), SIZE)
    assert isinstance(few, NoFit)
    assert few.reason == "3 different matches, too few to tell any transform from chance"
    six = fit(matches.some(np.arange(6)), SIZE)
    assert isinstance(six, NoFit)
    assert "affine" not in six.reason
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


def test_a_corner_is_not_an_area_for_two_stray_points() -> None:
    rng = np.random.default_rng(0)
    source = np.r_[rng.uniform(0, 12, (40, 2)), [[250, 250], [5, 250]]]
    matches = Matches(source, source + [3, 4] + rng.normal(0, 0.3, source.shape), np.zeros(42), (42, 42))
    found = fit(matches, SIZE)
    if isinstance(found, Fit):
        assert found.weakness == "clustered"
        assert found.model != "affine"
        assert np.sqrt(averaged(found, np.array([256.0, 256])).trace()) > 2


def test_corners_that_the_points_leave_open_are_no_fit() -> None:
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 12, (40, 2))
    matches = Matches(source, source + rng.normal(0, 1.0, (40, 2)), np.zeros(40), (40, 40), grain_px=48, placed=True)
    found = fit(matches, SIZE)
    assert isinstance(found, NoFit)
    assert "leave open where its corners lie" in found.reason


UNLIKELY = {
    "mirrored": np.array([[-1, 0, 256], [0, 1, 0], [0, 0, 1.0]]),
    "turned": np.array([[0, -1, 256], [1, 0, 0], [0, 0, 1.0]]),
    "far too large": np.diag([2.0, 2.0, 1.0]),
    "far too small": np.diag([0.5, 0.5, 1.0]),
    "stretched": np.diag([1.3, 0.9, 1.0]),
    "sheared": np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1.0]]),
}


@pytest.mark.parametrize("what", UNLIKELY)
def test_what_cannot_be_is_no_fit(what: str) -> None:
    matches = matches_of(UNLIKELY[what], wrong=0.2, noise=0.3)
    found = fit(matches, SIZE)
    assert isinstance(found, NoFit)
    assert "further than two images of one place can be" in found.reason
    free = Limits(turn_deg=180, scale=3, stretch=2, mirrored=what == "mirrored")
    assert isinstance(fit(matches, SIZE, limits=free), Fit)


def test_limits_are_those_of_the_singular_values() -> None:
    rng = np.random.default_rng(0)
    matrices = np.tile(np.eye(3), (400, 1, 1))
    matrices[:, :2, :2] += rng.normal(0, 0.3, (400, 2, 2))
    limits, points = Limits(turn_deg=20, scale=1.3, stretch=1.4), CORNERS[:1]
    for matrix, said in zip(matrices, limits.allow(matrices, points), strict=True):
        turn, (high, low), other = np.linalg.svd(matrix[:2, :2])
        rotation = turn @ other
        angle = np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0]))
        right = np.linalg.det(matrix[:2, :2]) > 0 and abs(angle) <= 20 and high / low <= 1.4
        assert said == (right and 1 / 1.3 <= np.sqrt(high * low) <= 1.3)


def test_limits_hold_everywhere_under_a_homography() -> None:
    near, far = TRUTH["homography"], np.array([[1, 0, 0], [0, 1, 0], [4e-3, 0, 1.0]])
    assert Limits().allow(np.stack([near, far]), CORNERS).tolist() == [True, False]


def test_ellipse_of_a_covariance_on_the_ground() -> None:
    covariance = np.diag([4.0, 1.0])  # 2 px across, 1 px down
    ground = np.diag([10.0, -10.0])
    found = Ellipse.of(covariance, ground)
    assert found.semi_major_m == pytest.approx(20 * 2.4477, rel=1e-3)
    assert found.semi_minor_m == pytest.approx(10 * 2.4477, rel=1e-3)
    assert found.azimuth_deg == pytest.approx(90)
    turned = Ellipse.of(covariance, np.array([[0.0, 10.0], [10.0, 0.0]]))  # columns run north
    assert turned.azimuth_deg % 180 == pytest.approx(0, abs=1e-6)
