"""Matches of a pair as a picture: both images side by side, a line from each point to where it lies in the other."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.matching.side import Side

GAP_PX = 8
MAX_SIDE_PX = 1200  # of either image in the picture
BLUISH_GREEN, VERMILION = (0, 158, 115), (213, 94, 0)  # of Okabe & Ito's palette


def match_picture(
    sar: Side, optical: Side, sar_px: NDArray[np.float64], optical_px: NDArray[np.float64], agreeing: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """The SAR image left, the optical one right, lines of matches that agree in green, of others in red.

    Args:
        sar, optical: the images.
        sar_px, optical_px: [N x 2] matches, pixels of either.
        agreeing: [N] with the transform.

    Returns:
        [H x W x 3] red, green, blue.
    """
    widest = max(*sar.size_px, *optical.size_px)
    scale = min(1.0, MAX_SIDE_PX / widest)
    left, right = _shown(sar, scale), _shown(optical, scale)
    height = max(left.shape[0], right.shape[0])
    start = left.shape[1] + GAP_PX
    picture = np.full((height, start + right.shape[1], 3), 255, np.uint8)
    picture[: left.shape[0], : left.shape[1]] = left[..., None]
    picture[: right.shape[0], start:] = right[..., None]
    for kind, color in ((False, VERMILION), (True, BLUISH_GREEN)):
        for number in np.nonzero(agreeing == kind)[0]:
            first = np.rint(sar_px[number] * scale - 0.5).astype(int)
            second = np.rint(optical_px[number] * scale - 0.5).astype(int) + (start, 0)
            cv2.line(picture, first.tolist(), second.tolist(), color, 1, cv2.LINE_AA)
    return picture


def _shown(side: Side, scale: float) -> NDArray[np.uint8]:
    width, height = side.size_px
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(side.bytes, size, interpolation=cv2.INTER_AREA), np.uint8)
