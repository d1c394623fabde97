"""The transform that matches support, and how exactly it is known.

Robust estimation after MAGSAC++ (Barath et al. 2020, "MAGSAC++, a fast, reliable and accurate robust estimator"): the
noise is not known but bounded, and the weight of a point is its likelihood averaged over all noises up to the bound.
Transforms through random minimal sets are judged by that loss; the best are improved by iteratively reweighted least
squares with those weights, geometric ones for a homography. Which kind of transform the points support is decided as
by Torr's GRIC (1998, "Geometric motion segmentation and model selection"): bounded squared residuals over the noise's
variance, plus a price for every parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from geomatch.matching.chance import surprising
from geomatch.matching.matches import Matches
from geomatch.matching.transforms import (
    MINIMAL,
    PARAMETERS,
    Matrix,
    Model,
    Points,
    apply,
    jacobian,
    moved_by,
    through,
)

THRESHOLD_PX = 3.0  # residual of an inlier at most
TRIED, IMPROVED, ROUNDS = 2000, 8, 10
QUANTILE = 3.03  # of the residual, a Rayleigh variable: 99 % lie below as many deviations of each coordinate
LEAST_NOISE_PX = 0.1
AGREEING = 4  # inliers beyond those that fix the transform, at least
COLLINEAR, CLUSTERED = 0.05, 0.1  # of the spread across over along; of the spread over the image's half side
CHI2_95 = 5.991  # of two degrees of freedom
CHANCE = "no transform has more points that agree than chance gives"
_CHUNK = 1 << 21


@dataclass(frozen=True)
class Fit:
    """A transform from the SAR image to the optical one.

    Attributes:
        model: its kind.
        matrix: [3 x 3] pixels to pixels.
        inliers: [N] which matches agree.
        noise_px: deviation of a match in each coordinate.
        covariance: [P x P] of the parameters (``transforms.jacobian``).
        weakness: "", or why the transform is not to be trusted far from the points: "collinear" or "clustered".
    """

    model: Model
    matrix: Matrix
    inliers: NDArray[np.bool_]
    noise_px: float
    covariance: NDArray[np.float64]
    weakness: str = ""

    def at(self, points: Points) -> Points:
        """Where points [N x 2] of the SAR image lie in the optical one."""
        return apply(self.matrix, points)

    def covariance_at(self, point: Sequence[float]) -> NDArray[np.float64]:
        """[2 x 2] covariance, px², of where a point of the SAR image lies."""
        moves = jacobian(self.model, self.matrix, np.asarray(point, np.float64)[None])[0]
        return np.asarray(moves @ self.covariance @ moves.T)


@dataclass(frozen=True)
class NoFit:
    """That matches support no transform, and why."""

    reason: str


@dataclass(frozen=True)
class Ellipse:
    """An error ellipse.

    Attributes:
        semi_major_m, semi_minor_m: of 95 % probability, metres.
        azimuth_deg: of the major axis, clockwise from north, in [0, 180).
    """

    semi_major_m: float
    semi_minor_m: float
    azimuth_deg: float

    @classmethod
    def of(cls, covariance_px: NDArray[np.float64], ground: NDArray[np.float64]) -> Ellipse:
        """Of a covariance [2 x 2] in px² of a map, whose pixels ``ground`` [2 x 2] takes to metres east and north."""
        values, axes = np.linalg.eigh(ground @ covariance_px @ ground.T)
        minor, major = np.sqrt(CHI2_95 * np.maximum(values, 0)).tolist()
        east, north = axes[:, 1]
        return cls(major, minor, float(np.degrees(np.arctan2(east, north)) % 180))


def fit(
    matches: Matches,
    size_px: tuple[int, int],
    models: Sequence[Model] = ("translation", "similarity", "affine"),
    *,
    threshold_px: float = THRESHOLD_PX,
    seed: int = 0,
) -> Fit | NoFit:
    """The transform that most matches agree on.

    Args:
        matches: of a pair.
        size_px: width and height of the SAR image.
        models: kinds that are considered, the simpler before the richer; of ortho to ortho an affine one is the
            richest that there is a reason for.
        threshold_px: residual of an inlier at most.
        seed: of the random minimal sets.
    """
    if not len(matches):
        return NoFit(matches.reason or "no matches")
    if matches.doubt:
        return NoFit(matches.doubt)
    # A transform takes one point to one: of matches that share an optical point the surest is kept.
    kept = np.sort(np.unique(matches.optical_px, axis=0, return_index=True)[1])
    single = matches.some(kept)
    found: list[Fit] = []
    why = CHANCE
    for model in models:
        if len(single) < MINIMAL[model] + AGREEING:
            why = f"{len(single)} matches, too few to tell a {model} from chance"
            continue
        one = _robust(single, size_px, model, threshold_px, np.random.default_rng(seed))
        if one is not None and not (one.weakness and model in _ASKS_AREA):
            found.append(one)
    chosen = _chosen(found, single, threshold_px)
    if chosen is None:
        return NoFit(CHANCE if found else why)
    inliers = np.zeros(len(matches), bool)
    inliers[kept] = chosen.inliers
    return replace(chosen, inliers=inliers)


def _chosen(found: Sequence[Fit], matches: Matches, threshold_px: float) -> Fit | None:
    """The kind of transform that the points support, and not by chance; None where there is none.

    A simpler kind on which half as many points agree is not what the points say, but a part of them.
    """
    if not found:
        return None
    noise = min(one.noise_px for one in found)
    most = max(int(one.inliers.sum()) for one in found)
    for one in sorted(found, key=lambda one: _price(one, matches, noise, threshold_px)):
        if 2 * one.inliers.sum() >= most and (
            matches.placed or surprising(matches, one.matrix, one.model, threshold_px)
        ):
            return one
    return None


def _price(one: Fit, matches: Matches, noise_px: float, threshold_px: float) -> float:
    """Torr's criterion, without the term that transforms of the plane share."""
    squares = np.square(one.at(matches.sar_px) - matches.optical_px).sum(axis=1)
    bounded = np.minimum(np.nan_to_num(squares, nan=np.inf), threshold_px**2) / noise_px**2
    return float(bounded.sum() + PARAMETERS[one.model] * np.log(4 * len(matches)))


def _robust(
    matches: Matches, size_px: tuple[int, int], model: Model, threshold_px: float, rng: np.random.Generator
) -> Fit | None:
    """The transform of one kind with the least loss, or None where too few points agree."""
    source, target = matches.sar_px, matches.optical_px
    sets = _minimal_sets(len(source), MINIMAL[model], rng)
    tried = through(model, source[sets], target[sets])
    bound = threshold_px / QUANTILE
    gains = np.concatenate(
        [_gain(_residuals(part, source, target), bound).sum(axis=1) for part in _parts(tried, len(source))]
    )
    improved = [_improved(model, tried[i], source, target, bound) for i in np.argsort(-gains)[:IMPROVED]]
    matrix = max(improved, key=lambda one: float(_gain(_residuals(one, source, target), bound).sum()))
    residuals = _residuals(matrix, source, target)
    inliers = residuals <= threshold_px
    if inliers.sum() < MINIMAL[model] + AGREEING:
        return None
    weight = _weight(residuals, bound)
    freedom = max(2 * inliers.sum() - PARAMETERS[model], 1)
    noise = max(float(np.sqrt(np.square(residuals[inliers]).sum() / freedom)), LEAST_NOISE_PX)
    rows = jacobian(model, matrix, source[inliers])
    shares = weight[inliers] / weight.max()
    normal = np.einsum("nip,n,niq->pq", rows, shares, rows)
    middle = np.einsum("nip,n,niq->pq", rows, np.square(shares), rows)
    inverse = np.linalg.pinv(normal)
    covariance = matches.shared * noise**2 * inverse @ middle @ inverse
    return Fit(model, matrix, inliers, noise, covariance, _weakness(source[inliers], size_px))


def _improved(model: Model, matrix: Matrix, source: Points, target: Points, bound: float) -> Matrix:
    """A transform after iteratively reweighted least squares."""
    for _ in range(ROUNDS):
        weight = _weight(_residuals(matrix, source, target), bound)
        used = weight > 0
        if used.sum() < MINIMAL[model]:
            break
        rows = jacobian(model, matrix, source[used]) * np.sqrt(weight[used])[:, None, None]
        gap = (target[used] - apply(matrix, source[used])) * np.sqrt(weight[used])[:, None]
        step = np.linalg.lstsq(rows.reshape(-1, rows.shape[2]), gap.ravel(), rcond=None)[0]
        matrix = moved_by(model, matrix, np.asarray(step, np.float64))
    return matrix


def _minimal_sets(count: int, needed: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """[K x needed] numbers of points, different within a set."""
    if needed == 1:
        return np.arange(count)[:, None][:TRIED]
    return np.argpartition(rng.random((TRIED, count)), needed - 1, axis=1)[:, :needed]


def _parts(matrices: Matrix, points: int) -> list[Matrix]:
    return np.array_split(matrices, max(1, len(matrices) * points // _CHUNK))


def _residuals(matrix: Matrix, source: Points, target: Points) -> NDArray[np.float64]:
    """[... x N] distances in the optical image, infinite where there is no place."""
    distance = np.linalg.norm(apply(matrix, source) - target, axis=-1)
    return np.asarray(np.nan_to_num(distance, nan=np.inf))


def _weight(residuals: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """MAGSAC++'s weights for residuals of two coordinates, up to a factor; zero beyond QUANTILE times the bound.

    The upper incomplete gamma function of (n - 1) / 2, n = 2, is the square root of pi times erfc of the root.
    """
    return np.asarray(np.maximum(erfc(residuals / (np.sqrt(2) * bound)) - erfc(QUANTILE / np.sqrt(2)), 0))


def _gain(residuals: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """One less MAGSAC++'s loss, the integral of r times weight: 1 at no residual, 0 beyond QUANTILE times the bound."""
    steps = np.linspace(0, QUANTILE, _STEPS)
    slopes = steps * _weight(steps, 1.0)
    loss = np.concatenate([[0], np.cumsum((slopes[1:] + slopes[:-1]) / 2)])
    return np.asarray(1 - np.interp(residuals / bound, steps, loss / loss[-1]))


def _weakness(points: Points, size_px: tuple[int, int]) -> str:
    """Whether points lie along a line, or near each other."""
    across, along = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(points.T)), 0)).tolist()
    if along < CLUSTERED * min(size_px) / 2:
        return "clustered"
    return "collinear" if across < COLLINEAR * along else ""


_ASKS_AREA: tuple[Model, ...] = ("affine", "homography")
_STEPS = 200
