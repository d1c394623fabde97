"""Whether an image shows anything that could be matched: rules on one image alone."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

CELL_PX = 8
MIN_VALID = 0.25  # share of the smallest rectangle around what is known
MIN_KNOWN_PX = 1024  # 32 × 32
WHITE_NOISE = 3.5  # spread of cell means over what independent pixels of that spread give; multilooked speckle: 2.7
FLAT_SPREAD = 1e-4  # natural logarithm of amplitude
TEXTURED_GRADIENT = 0.01  # of optical grey in [0, 1], per pixel
TEXTURED_SHARE = 0.25  # of a window's cells


def unusable(log_amplitude: NDArray[np.float32], valid: NDArray[np.bool_]) -> str | None:
    """Why a SAR image shows nothing to match, or None.

    Nothing to match is: few valid pixels, or far apart from each other, no spread at all, or no more spread from cell
    to cell of 8 × 8 px than averaging independent speckle leaves. Open water with swell or a coast in it passes; the
    correlation judges it.

    Args:
        log_amplitude: [H x W], as ``SarRadiometry.log_amplitude`` gives it, so multilooked.
        valid: [H x W]; a narrow strip that lies aslant in it fills little of it.
    """
    known = int(valid.sum())
    share = known / max(1.0, _rectangle_px(valid))
    if known < min(MIN_KNOWN_PX, valid.size) or share < MIN_VALID:
        return f"only {known} pixels of the strip hold data, {share:.0%} of the rectangle around them"
    spread = float(log_amplitude[valid].std())
    if spread < FLAT_SPREAD:
        return "the strip is constant"
    means, whole = _cells(log_amplitude, valid)
    if whole.sum() > 1 and float(means[whole].std()) < WHITE_NOISE * spread / CELL_PX:
        return "the strip shows no structure beyond speckle"
    return None


def is_textured(grey: NDArray[np.float32], valid: NDArray[np.bool_]) -> bool:
    """Whether an optical window has land with something on it, as opposed to open water or a bare surface.

    A quarter of its cells of 8 × 8 px must have a mean gradient of at least 0.01 of the stretched range per pixel.

    Args:
        grey: [H x W] in [0, 1], stretched over the whole map.
        valid: [H x W].
    """
    smooth = cv2.GaussianBlur(grey, (7, 7), 1.2)
    gradient = cv2.magnitude(
        cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    )
    means, known = _cells(np.asarray(gradient, dtype=np.float32), valid)
    return bool(np.mean(known & (means >= TEXTURED_GRADIENT)) >= TEXTURED_SHARE)


def _rectangle_px(valid: NDArray[np.bool_]) -> float:
    """Area of the smallest rectangle, of any heading, around what is known."""
    rows = np.nonzero(valid.any(axis=1))[0]
    if not len(rows):
        return 0.0
    left, right = valid[rows].argmax(axis=1), valid.shape[1] - valid[rows, ::-1].argmax(axis=1)
    corners = [np.stack([cols, rows + below], axis=1) for below in (0, 1) for cols in (left, right)]
    _, (width, height), _ = cv2.minAreaRect(np.concatenate(corners).astype(np.float32))
    return float(width * height)


def _cells(image: NDArray[np.float32], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Means of whole cells, and which cells are valid throughout."""
    rows, cols = (max(1, side // CELL_PX) for side in image.shape)
    part = np.s_[: rows * CELL_PX, : cols * CELL_PX]

    def average(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.resize(plane[part], (cols, rows), interpolation=cv2.INTER_AREA), dtype=np.float32)

    return average(image), average(valid.astype(np.float32)) > 0.999
