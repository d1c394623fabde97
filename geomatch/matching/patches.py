"""Patches around keypoints, as networks take them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.matching.keypoints import Keypoints

FLAT = 1e-3  # deviation below which a patch is divided by this instead


def patches(
    image: NDArray[np.uint8] | NDArray[np.float32],
    keypoints: Keypoints,
    side_px: float,
    output_px: int,
    frames: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Square patches, resampled; upright where no frames are given.

    Args:
        image: [H x W].
        keypoints: N; a patch is centred on each, and sees the image mirrored beyond its edge.
        side_px: of what a patch shows.
        output_px: of the patch itself.
        frames: [N x 2 x 2] from directions in each patch to those in the image.

    Returns:
        [N x output x output] float32.
    """
    scale = side_px / output_px
    smooth = image.astype(np.float32)
    if scale > 1.2:  # as an area average does, before fewer pixels are taken
        smooth = np.asarray(cv2.GaussianBlur(smooth, (0, 0), 0.5 * scale), np.float32)
    size = (output_px, output_px)
    middle = (output_px - 1) / 2
    out = np.empty((len(keypoints), output_px, output_px), np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if frames is None:
        frames = np.broadcast_to(np.eye(2), (len(keypoints), 2, 2))
    for number, (centre, frame) in enumerate(zip(keypoints.xy_px - 0.5, frames, strict=True)):
        linear = scale * frame
        source = np.column_stack([linear, centre - linear.sum(axis=1) * middle])
        out[number] = cv2.warpAffine(smooth, source, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return out


def standardised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N x s x s] patches, each with its own mean removed and divided by its own deviation."""
    mean = values.mean(axis=(1, 2), keepdims=True)
    deviation = values.std(axis=(1, 2), keepdims=True)
    return np.asarray((values - mean) / np.maximum(deviation, FLAT), dtype=np.float32)
