"""What matching is judged by: correct matches, keypoints found again, and where the fit puts the corners.

Published names: NC matches, NCM correct ones, CMR their ratio (Mei); matching precision MP, which is the same ratio,
and matching score MS, correct matches over keypoints (Zhang et al. 2023); RMS_all over all matches' residuals to their
own least-squares fit, RMS_LOO with each left out of it, N_red how many of them are redundant (Gonçalves et al. 2009,
"Measures for an objective evaluation of the geometric correction process quality"; as Ma et al. 2017 report them).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomatch.matching.matches import Matches
from geomatch.matching.transforms import MINIMAL, Matrix, Model, Points, apply, nearest

CORRECT_PX = 5.0
REPEATED_PX = 2.0
CELL_PX = 16


def correct(matches: Matches, to_optical: Matrix, radius_px: float = CORRECT_PX) -> NDArray[np.bool_]:
    """[N] which matches are right within a radius in the optical image."""
    return np.asarray(np.linalg.norm(apply(to_optical, matches.sar_px) - matches.optical_px, axis=1) <= radius_px)


def corner_error_px(found: Matrix, truth: Matrix, size_px: tuple[int, int]) -> float:
    """Mean distance in the optical image between where two transforms put the corners of the SAR image."""
    width, height = size_px
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    return float(np.linalg.norm(apply(found, corners) - apply(truth, corners), axis=1).mean())


def repeatability(sar_px: Points, optical_px: Points, to_optical: Matrix, size_px: tuple[int, int]) -> float:
    """Share of keypoints that have one of the other image within REPEATED_PX, each of them taken once.

    Args:
        sar_px, optical_px: [N x 2] and [M x 2] keypoints; those outside of the other image do not count.
        to_optical: [3 x 3] the true transform.
        size_px: width and height of both images.
    """
    moved = apply(to_optical, sar_px)
    moved = moved[_inside(moved, size_px)]
    there = optical_px[_inside(apply(np.asarray(np.linalg.inv(to_optical)), optical_px), size_px)]
    fewest = min(len(moved), len(there))
    if not fewest:
        return 0.0
    distance = np.linalg.norm(moved[:, None] - there[None], axis=2)
    taken = 0
    rows, cols = np.nonzero(distance <= REPEATED_PX)
    free_row, free_col = np.ones(len(moved), bool), np.ones(len(there), bool)
    for row, col in sorted(zip(rows.tolist(), cols.tolist(), strict=True), key=lambda at: float(distance[at])):
        if free_row[row] and free_col[col]:
            free_row[row] = free_col[col] = False
            taken += 1
    return taken / fewest


def coverage(points: Points, size_px: tuple[int, int]) -> float:
    """Share of an image's cells of CELL_PX that hold one of the points [N x 2]: how evenly they are spread."""
    cells = np.unique((points // CELL_PX).astype(np.int64), axis=0)
    width, height = size_px
    return len(cells) / (-(-width // CELL_PX) * -(-height // CELL_PX))


def residual_rms(matches: Matches, model: Model) -> tuple[float, float]:
    """RMS_all and RMS_LOO of matches about their least-squares transform; NaN where they are too few."""
    count = len(matches)
    if count <= MINIMAL[model] + 1:
        return float("nan"), float("nan")
    source, target = matches.sar_px, matches.optical_px
    every = np.linalg.norm(apply(nearest(model, source, target), source) - target, axis=1)
    left_out = []
    for number in range(count):
        others = np.arange(count) != number
        matrix = nearest(model, source[others], target[others])
        left_out.append(np.linalg.norm(apply(matrix, source[number : number + 1]) - target[number]))
    return float(np.sqrt(np.square(every).mean())), float(np.sqrt(np.square(left_out).mean()))


def redundant(count: int, model: Model) -> int:
    """N_red of so many matches: those beyond the fewest that the transform needs, which alone tell how well it fits."""
    return max(0, count - MINIMAL[model])


def _inside(points: Points, size_px: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(((points >= 0) & (points < size_px)).all(axis=1))
