"""The transform that matches support, and how exactly it is known.

Robust estimation after MAGSAC++ (Barath et al. 2020, "MAGSAC++, a fast, reliable and accurate robust estimator"): the
noise is not known but bounded, and the weight of a point is its likelihood averaged over all noises up to the bound.
Transforms through random minimal sets are judged by that loss; the best are improved by iteratively reweighted least
squares with those weights, geometric ones for a homography. Which kind of transform the points support is decided as
by Torr's GRIC (1998, "Geometric motion segmentation and model selection"): bounded squared residuals over the noise's
variance, plus a price for every parameter. Nothing is believed that cannot be (``limits``), that chance gives as well
(``chance``), or that leaves open where the corners lie (``accuracy``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from geomatch.matching.accuracy import CHI2_95, FLOOR_PX, INFLATION, apart, covariance_at, covariance_of, noise_of
from geomatch.matching.chance import surprising
from geomatch.matching.limits import Limits
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
AGREEING = 4  # inliers beyond those that fix the transform, at least
COLLINEAR, CLUSTERED = 0.05, 0.1  # of the spread across over along; of the spread over the image's half side
STRAY = 0.1  # of the points, that may lie away from all others
STEP_DEVIATION = 0.41  # of the difference of two places that are told in steps of one: the root of a sixth
OPEN = 0.15  # of the image's longer side: how far a corner may lie elsewhere, at 95 %
CHANCE = "no transform has more points that agree than chance gives"
ORTHO: tuple[Model, ...] = ("translation", "similarity", "affine")
LIMITS, ANY = Limits(), Limits(turn_deg=180, scale=10, stretch=10, mirrored=True)
BEYOND = "what the points agree on is turned, scaled, stretched or mirrored further than two images of one place can be"
_CHUNK = 1 << 21


@dataclass(frozen=True)
class Fit:
    """A transform from the SAR image to the optical one.

    Attributes:
        model: its kind.
        matrix: [3 x 3] pixels to pixels.
        inliers: [N] which matches agree.
        noise: [2 x 2] covariance of a match, px².
        covariance: [P x P] of the parameters of an affine transform, or of a homography where it is one.
        floor_px: deviation of where any point lies, however many matches there are.
        weakness: "", or why the transform is not to be trusted far from the points: "collinear" or "clustered".
    """

    model: Model
    matrix: Matrix
    inliers: NDArray[np.bool_]
    noise: NDArray[np.float64]
    covariance: NDArray[np.float64]
    floor_px: float
    weakness: str = ""

    def at(self, points: Points) -> Points:
        """Where points [N x 2] of the SAR image lie in the optical one."""
        return apply(self.matrix, points)

    def covariance_at(self, point: Sequence[float]) -> NDArray[np.float64]:
        """[2 x 2] covariance, px², of where a point of the SAR image lies."""
        spread = covariance_at(self.model, self.matrix, self.covariance, np.asarray(point, np.float64))
        return spread + self.floor_px**2 * np.eye(2)

    @property
    def noise_px(self) -> float:
        """Deviation of a match in a coordinate."""
        return float(np.sqrt(np.trace(self.noise) / 2))


@dataclass(frozen=True)
class NoFit:
    """That matches support no transform, and why."""

    reason: str


def fit(
    matches: Matches,
    size_px: tuple[int, int],
    models: Sequence[Model] = ORTHO,
    *,
    threshold_px: float = THRESHOLD_PX,
    limits: Limits = LIMITS,
    seed: int = 0,
) -> Fit | NoFit:
    """The transform that most matches agree on.

    Args:
        matches: of a pair.
        size_px: width and height of the SAR image.
        models: kinds that are considered, the simpler before the richer.
        threshold_px: residual of an inlier at most.
        limits: of what is considered.
        seed: of the random minimal sets.
    """
    if not len(matches) or matches.doubt:
        return NoFit(matches.doubt or matches.reason or "no matches")
    # A transform takes one point to one: of matches that share an optical point the surest is kept.
    kept = np.sort(np.unique(matches.optical_px, axis=0, return_index=True)[1])
    single = matches.some(kept)
    possible = [model for model in models if len(single) >= MINIMAL[model] + AGREEING]
    if not possible:
        return NoFit(f"{len(single)} different matches, too few to tell any transform from chance")
    search = _Search(single, size_px, threshold_px, limits)
    found = [one for model in possible if (one := search.best(model, np.random.default_rng(seed))) is not None]
    chosen = _chosen([one for one in found if not (one.weakness and one.model in _ASKS_AREA)], search, len(possible))
    if _beyond(search, chosen, possible, seed):
        return NoFit(BEYOND)
    if chosen is None:
        return NoFit(CHANCE)
    if (open_px := _open_px(chosen, size_px)) > OPEN * max(size_px):
        return NoFit(f"the points that agree leave open where its corners lie, by {open_px:.0f} px")
    inliers = np.zeros(len(matches), bool)
    inliers[kept] = chosen.inliers
    return replace(chosen, inliers=inliers)


def _beyond(search: _Search, chosen: Fit | None, possible: Sequence[Model], seed: int) -> bool:
    """Whether far more points, and more than by chance, agree on what is not within the limits.

    What is within them then are the few that any two transforms have in common, as those on the axis of a mirror.
    """
    richest = next((model for model in reversed(possible) if model in ORTHO), None)
    if richest is None:
        return False
    free = replace(search, limits=ANY).best(richest, np.random.default_rng(seed))
    if free is None or len(search.allowed(free.matrix[None])):
        return False
    more = chosen is None or free.inliers.sum() >= 2 * chosen.inliers.sum()
    return bool(more and surprising(search.matches, free.matrix, richest, search.threshold_px, len(possible)))


def _chosen(found: Sequence[Fit], search: _Search, kinds: int) -> Fit | None:
    """The kind of transform that the points support, and not by chance; None where there is none.

    A simpler kind on which half as many points agree is not what the points say, but a part of them.
    """
    if not found:
        return None
    matches, radius = search.matches, search.threshold_px
    noise = min(one.noise_px for one in found)
    most = max(int(one.inliers.sum()) for one in found)
    for one in sorted(found, key=lambda one: _price(one, matches, noise, radius)):
        if 2 * one.inliers.sum() >= most and (
            matches.placed or surprising(matches, one.matrix, one.model, radius, kinds)
        ):
            return one
    return None


def _open_px(one: Fit, size_px: tuple[int, int]) -> float:
    """How far the corner that is known worst may lie elsewhere, at 95 %."""
    spreads = [one.covariance_at(corner) for corner in _corners(size_px).tolist()]
    return float(np.sqrt(CHI2_95 * max(np.linalg.eigvalsh(spread)[-1] for spread in spreads)))


def _corners(size_px: tuple[int, int]) -> Points:
    width, height = size_px
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def _price(one: Fit, matches: Matches, noise_px: float, threshold_px: float) -> float:
    """Torr's criterion, without the term that transforms of the plane share."""
    squares = np.square(one.at(matches.sar_px) - matches.optical_px).sum(axis=1)
    bounded = np.minimum(np.nan_to_num(squares, nan=np.inf), threshold_px**2) / noise_px**2
    return float(bounded.sum() + PARAMETERS[one.model] * np.log(4 * len(matches)))


@dataclass(frozen=True)
class _Search:
    """For the transform with the least loss.

    Attributes:
        matches, size_px, threshold_px, limits: as of ``fit``.
    """

    matches: Matches
    size_px: tuple[int, int]
    threshold_px: float
    limits: Limits

    @property
    def bound(self) -> float:
        """Greatest deviation of the noise."""
        return self.threshold_px / QUANTILE

    def best(self, model: Model, rng: np.random.Generator) -> Fit | None:
        """The transform of one kind, or None where too few points agree on any that can be."""
        source, target = self.matches.sar_px, self.matches.optical_px
        sets = _minimal_sets(len(source), MINIMAL[model], rng)
        tried = self.allowed(through(model, source[sets], target[sets]))
        if not len(tried):
            return None
        gains = np.concatenate([self._gains(part) for part in _parts(tried, len(source))])
        first = tried[np.argsort(-gains, kind="stable")[:IMPROVED]]
        improved = self.allowed(np.stack([_improved(model, one, source, target, self.bound) for one in first]))
        if not len(improved):
            return None
        matrix = improved[int(self._gains(improved).argmax())]
        if (_residuals(matrix, source, target) <= self.threshold_px).sum() < MINIMAL[model] + AGREEING:
            return None
        return self._known(model, matrix)

    def allowed(self, matrices: Matrix) -> Matrix:
        """Those of [K x 3 x 3] that are within the limits all over the SAR image."""
        return matrices[self.limits.allow(matrices, np.vstack([_corners(self.size_px), np.array(self.size_px) / 2]))]

    def _gains(self, matrices: Matrix) -> NDArray[np.float64]:
        residuals = _residuals(matrices, self.matches.sar_px, self.matches.optical_px)
        return np.asarray(_gain(residuals, self.bound).sum(axis=-1))

    def _known(self, model: Model, matrix: Matrix) -> Fit:
        """A transform, and how exactly it is known."""
        matches = self.matches
        gaps = matches.optical_px - apply(matrix, matches.sar_px)
        residuals = _residuals(matrix, matches.sar_px, matches.optical_px)
        inliers = residuals <= self.threshold_px
        points, weight = matches.sar_px[inliers], _weight(residuals[inliers], self.bound)
        step = matches.step_px * STEP_DEVIATION
        noise = noise_of(gaps[inliers], np.ones(len(points)), PARAMETERS[model], step)
        weakness, core = _weakness(points, self.size_px)
        counted = core if weakness else np.ones(len(points), bool)  # a few stray ones do not fix what the others leave
        trust = weight[counted] * weight[counted].sum() / np.square(weight[counted]).sum()  # as exact as their mean
        alone = trust * apart(points[counted], matches.grain_px)
        covariance = covariance_of(model, matrix, points[counted], alone, INFLATION**2 * noise)
        return Fit(model, matrix, inliers, noise, covariance, max(matches.step_px / 2, FLOOR_PX), weakness)


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


def _weakness(points: Points, size_px: tuple[int, int]) -> tuple[str, NDArray[np.bool_]]:
    """Whether points lie along a line or near each other but for a few, and which of them are not those few."""
    far = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    core = far <= np.sort(far)[-1 - max(1, round(STRAY * len(points)))]
    across, along = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(points[core].T)), 0)).tolist()
    if along < CLUSTERED * min(size_px) / 2:
        return "clustered", core
    return "collinear" if across < COLLINEAR * along else "", core


_ASKS_AREA: tuple[Model, ...] = ("affine", "homography")
_STEPS = 200
