"""Measures of localisation: recall by overlap, success within a radius, intervals, the area under the ROC curve."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

OVERLAP = 0.5  # intersection over union from which a tile shows the place of a window


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a share (Wilson 1927): (low, high); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    z = float(norm.ppf(0.5 + level / 2))
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low = middle - half if successes else 0.0  # where rounding would leave some 1e-18
    high = middle + half if successes < trials else 1.0
    return low, high


def overlap(offsets_px: ArrayLike, size_px: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of two equal rectangles, one moved against the other.

    Args:
        offsets_px: [... x 2] how far it is moved, columns and rows.
        size_px: (width, height) of the rectangles.
    """
    size = np.asarray(size_px, dtype=np.float64)
    common = np.clip(size - np.abs(offsets_px), 0, None).prod(axis=-1)
    return np.asarray(common / (2 * size.prod() - common))


def first_hit(candidates_px: NDArray[np.float64], truth_px: ArrayLike, size_px: ArrayLike, threshold: float) -> int:
    """Rank, from 1, of the first candidate that overlaps the truth by at least ``threshold``; 0 when none does.

    Args:
        candidates_px: [N x 2] corners, best first.
        truth_px: [2] corner.
        size_px: (width, height).
        threshold: intersection over union.
    """
    if not len(candidates_px):
        return 0
    hits = overlap(candidates_px - np.asarray(truth_px), size_px) >= threshold
    return int(hits.argmax()) + 1 if hits.any() else 0


def recall_at(ranks: ArrayLike, k: int) -> float:
    """Share of queries whose first hit ranks within ``k``; ranks [N] count from 1, 0 is none."""
    found = np.asarray(ranks)
    return float(np.mean((found >= 1) & (found <= k))) if found.size else 0.0


def calibration_error(probabilities: ArrayLike, happened: ArrayLike, bins: int = 10) -> float | None:
    """Expected calibration error over equal bins (Naeini et al. 2015): [N] in [0, 1], [N] bool; None without any."""
    said, hit = np.asarray(probabilities, dtype=np.float64), np.asarray(happened, dtype=np.float64)
    if not said.size:
        return None
    number = np.minimum((said * bins).astype(np.int64), bins - 1)
    sums = [np.bincount(number, values, bins) for values in (said, hit)]
    return float(np.abs(sums[0] - sums[1]).sum() / said.size)


def auroc(positives: ArrayLike, negatives: ArrayLike) -> float | None:
    """Probability that a positive scores above a negative, ties half (Mann & Whitney 1947); None where one is empty."""
    above, below = np.asarray(positives, dtype=np.float64), np.asarray(negatives, dtype=np.float64)
    if not (above.size and below.size):
        return None
    ranks = rankdata(np.concatenate([above, below]))
    wins = ranks[: above.size].sum() - above.size * (above.size + 1) / 2
    return float(wins / (above.size * below.size))
