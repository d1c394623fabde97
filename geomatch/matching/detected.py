"""Detectors compared: which share of keypoints is found in both images of a pair, and how much of that is place.

Keypoints that crowd meet by chance. So beside the published measure, of each detector's strongest at one number, stand
two others: what is left of it when every keypoint is moved a few pixels at random, so that the crowd remains and the
places go; and the same share of keypoints that lie SPREAD_PX apart, as far as each detector has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomatch.matching.keypoints import Detector
from geomatch.matching.samples import Sample
from geomatch.matching.scores import REPEATED_PX, coverage, repeatability
from geomatch.matching.transforms import Points

SPREAD_PX = 8.0
MOVED_PX = (2 * REPEATED_PX, 6 * REPEATED_PX)  # at least and at most, of the control


@dataclass(frozen=True)
class Detected:
    """What a detector gave of a pair.

    Attributes:
        repeatability: share of keypoints repeated within 2 px.
        moved: the same of keypoints moved at random in the SAR image.
        keypoints: in an image, mean of both.
        coverage: share of cells that hold one, mean of both.
        spread_repeatability, spread_keypoints, spread_coverage: the same of keypoints SPREAD_PX apart.
    """

    repeatability: float
    moved: float
    keypoints: float
    coverage: float
    spread_repeatability: float
    spread_keypoints: float
    spread_coverage: float


def detected(detector: Detector, sample: Sample, most: int) -> Detected:
    """Keypoints of both images, at most so many of each."""
    size, truth = sample.sar.size_px, sample.to_optical

    def measured(apart_px: float) -> tuple[Points, Points, list[float]]:
        ours, theirs = (detector(side, most, apart_px).xy_px for side in (sample.sar, sample.optical))
        counts, covered = ([f(ours), f(theirs)] for f in (len, lambda points: coverage(points, size)))
        repeated = repeatability(ours, theirs, truth, size)
        return ours, theirs, [repeated, float(np.mean(counts)), float(np.mean(covered))]

    ours, theirs, (repeated, count, covered) = measured(0.0)
    moved = repeatability(_moved(ours, int(sample.digest[:16], 16)), theirs, truth, size)
    return Detected(repeated, moved, count, covered, *measured(SPREAD_PX)[2])


def summary(pairs: str, name: str, rows: Sequence[Detected]) -> dict[str, Any]:
    """Means over pairs, with 95 % intervals of the shares: the fields of ``Detected``, and ``NAME_ci``."""
    table = np.array([astuple(row) for row in rows])
    told: dict[str, Any] = {"pairs": pairs, "detector": name, "count": len(rows)}
    for field, column in zip(fields(Detected), table.T, strict=True):
        told[field.name] = float(column.mean())
        if field.name.endswith("repeatability") or field.name == "moved":
            told[f"{field.name}_ci"] = _interval(column)
    return told


def _moved(points: Points, seed: int) -> Points:
    """Points [N x 2], each moved so far in some direction that it is not where it was."""
    rng = np.random.default_rng(seed)
    turn, far = rng.uniform(0, 2 * np.pi, len(points)), rng.uniform(*MOVED_PX, len(points))
    return np.asarray(points + far[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1))


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % of a mean of shares, by the normal distribution; of a single one nothing is known."""
    if len(values) < 2:
        return 0.0, 1.0
    half = 1.96 * float(values.std(ddof=1)) / float(np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half
