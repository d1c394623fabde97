"""What the shape of a surface does to light and radar alike: slopes, and what stands in the way of what."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def slopes(height_m: Array, gsd_m: float) -> tuple[Array, Array]:
    """Return the slopes dh/dcol and dh/drow, [H, W] each, metres per metre, without those of walls.

    The forward and backward differences are combined by the minmod limiter (Roe, 1986): the smaller where they agree in
    sign, else zero. A roof keeps its pitch up to its edge, and a step between two flats has no slope on either side.
    """
    return _minmod(height_m, 1, gsd_m), _minmod(height_m, 0, gsd_m)


def _minmod(height_m: Array, axis: int, gsd_m: float) -> Array:
    """Return the limited slope along one axis; zero on the two border lines."""
    slope = np.zeros_like(height_m)
    lines, inner = np.moveaxis(height_m, axis, 0), np.moveaxis(slope, axis, 0)
    step = (lines[1:] - lines[:-1]) / np.float32(gsd_m)
    before, after = step[:-1], step[1:]
    smaller = np.minimum(np.abs(before), np.abs(after))
    inner[1:-1] = np.where(before * after > 0, np.copysign(smaller, before), 0)
    return slope


def wall_bearing(height_m: Array, smoothing_px: float = 1.5) -> Array:
    """Return the direction in which walls face, [H, W] radians from +col towards +row: downhill when smoothed.

    Smoothing gives the stair-step edge of a rasterised oblique wall one direction along its length.
    """
    smooth = cv2.GaussianBlur(height_m, (0, 0), smoothing_px)
    down_col = -cv2.Scharr(smooth, cv2.CV_32F, 1, 0)
    down_row = -cv2.Scharr(smooth, cv2.CV_32F, 0, 1)
    return np.asarray(cv2.phase(down_col, down_row), np.float32)


def horizon(level: Array) -> Array:
    """Return the highest level met before each sample along rows, [lines, samples]; minus infinity at the first.

    ``level`` is the distance of each sample from a plane through the rays, so that a sample is reached by the rays from
    the left exactly where its level is above the horizon.
    """
    before = np.empty_like(level)
    before[:, 0] = -np.inf
    np.maximum.accumulate(level[:, :-1], axis=1, out=before[:, 1:])
    return before
