"""How exactly a fit knows where points lie: noise of the matches, what the points leave open, what no fit averages out.

The covariance of a transform follows from the residuals of the matches that agree, across and down with their
correlation, by weighted least squares. Three things keep it honest. Matches whose patches overlap err together: each
counts by the share of its patch that is its own. A translation or similarity that the points support does not say that
there is no turn, scale or shear, only that they show none: the covariance is of the affine transform, with what is
known of those before. And places that are told in steps, as cells of features are, are not known better than the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomatch.matching.chance import AT_ONCE
from geomatch.matching.transforms import Matrix, Model, Points, jacobian

SIMILAR, STRETCHED = 0.1, 0.02  # deviations of turn, radians, and scale; of shear and of one axis' scale
# The noise told is so much larger than the residuals', and no place is told better than so many pixels: so ellipses of
# 95 % hold the georeferenced middles of pairs of real scenes, as exact as that is (benchmarks/trust.py).
INFLATION, FLOOR_PX = 2.0, 2.0
CHI2_95 = 5.991  # of two degrees of freedom


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


def apart(points: Points, grain_px: float) -> NDArray[np.float64]:
    """[N] how much of a match each point [N x 2] is, its square of ``grain_px`` shared with those that overlap it."""
    met = [
        np.maximum(0, 1 - np.abs(part[:, None] - points[None]) / max(grain_px, 1e-9)).prod(axis=2).sum(axis=1)
        for part in np.array_split(points, max(1, -(-(len(points) ** 2) // AT_ONCE)))
    ]
    return np.asarray(1 / np.concatenate(met))


def noise_of(residuals: Points, weights: NDArray[np.float64], parameters: int, least_px: float) -> NDArray[np.float64]:
    """[2 x 2] covariance of matches about their transform, px², no axis of it below ``least_px``.

    Args:
        residuals: [N x 2].
        weights: [N] of them.
        parameters: of the transform, which took as many degrees of freedom.
        least_px: deviation.
    """
    freedom = max(2 * len(residuals) - parameters, 1) / (2 * len(residuals))
    spread = np.einsum("ni,n,nj->ij", residuals, weights, residuals) / (weights.sum() * freedom)
    values, axes = np.linalg.eigh(spread)
    return np.asarray(axes * np.maximum(values, least_px**2) @ axes.T)


def covariance_of(
    model: Model, matrix: Matrix, points: Points, weights: NDArray[np.float64], noise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[P x P] of the parameters of an affine transform, or of a homography where it is one (``transforms.jacobian``).

    Args:
        model, matrix: of the transform.
        points: [N x 2] that agree with it.
        weights: [N] how much of an independent match each is.
        noise: [2 x 2] of one.
    """
    rows = jacobian(general(model), matrix, points)
    information = np.einsum("nip,n,ij,njq->pq", rows, weights, np.linalg.inv(noise), rows)
    known = np.zeros_like(information)
    known[2:6, 2:6] = _BEFORE.T @ _BEFORE
    return np.asarray(np.linalg.pinv(information + known, hermitian=True))


def general(model: Model) -> Model:
    """The kind whose parameters are told."""
    return "homography" if model == "homography" else "affine"


def covariance_at(model: Model, matrix: Matrix, covariance: NDArray[np.float64], point: Points) -> NDArray[np.float64]:
    """[2 x 2] of where a point [2] lies, of ``covariance_of``."""
    rows = jacobian(general(model), matrix, np.asarray(point, np.float64)[None])[0]
    return np.asarray(rows @ covariance @ rows.T)


# Scale, turn, scale across less scale down, and shear, each in its deviations, of the four linear parameters.
_BEFORE = np.array(
    [
        [0.5 / SIMILAR, 0, 0, 0.5 / SIMILAR],
        [0, -0.5 / SIMILAR, 0.5 / SIMILAR, 0],
        [0.5 / STRETCHED, 0, 0, -0.5 / STRETCHED],
        [0, 0.5 / STRETCHED, 0.5 / STRETCHED, 0],
    ]
)
