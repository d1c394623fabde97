"""What the learned encoder's network is shown.

It sees an image at 1/4 resolution as orientation channels (``geomatch.structure``, in which the modalities already look
alike) and as the image itself in the units of its radiometry, so that nothing depends on how a map is cut into blocks.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.structure import CHANNELS, Gradients, grey

VERSION = 1  # raised whenever the same image gives other planes
PLANE_PX = 4  # side of a cell of the network's input
CELL_PX = 8  # and of its output
STANDARD = {"optical": (0.4, 0.25), "sar": (0.1, 0.5)}  # usual mean and deviation: stretched bands, ln amplitude
MAX_DEVIATION = 4.0
BANDS = {"optical": 3, "sar": 1}


def planes(
    image: NDArray[np.float32], valid: NDArray[np.bool_], modality: str, gradients: Gradients | None = None
) -> NDArray[np.float32]:
    """The network's input.

    Args:
        image: [B x H x W] optical bands in [0, 1], B 1 or 3, or one band of SAR log amplitude.
        valid: [H x W] known pixels.
        modality: "optical" or "sar".
        gradients: of the image's mean, where they are there already.

    Returns:
        [3 + 3 x h x w] for optical and [3 + 1 x h x w] for SAR at 1/4 resolution, h = ceil(H / 8) * 2; zero where
        nothing is known.
    """
    below, right = -valid.shape[0] % CELL_PX, -valid.shape[1] % CELL_PX
    if below or right:
        image = np.stack([cv2.copyMakeBorder(b, 0, below, 0, right, cv2.BORDER_REPLICATE) for b in image])
        valid = np.pad(valid, ((0, below), (0, right)))
        gradients = None  # of a smaller image
    oriented = (gradients or Gradients.of(grey(image), valid)).structure(PLANE_PX).values
    size = (valid.shape[1] // PLANE_PX, valid.shape[0] // PLANE_PX)

    def shrink(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), dtype=np.float32)

    if valid.all():
        share = np.ones((size[1], size[0]), np.float32)
        small = np.stack([shrink(band) for band in image])
    else:
        share = shrink(valid.astype(np.float32))
        small = np.stack([shrink(np.where(valid, band, np.float32(0))) for band in image])
        small /= np.maximum(share, np.float32(1e-6))
    middle, spread = STANDARD[modality]
    standard = np.clip((small - middle) / spread, -MAX_DEVIATION, MAX_DEVIATION) * (share > 0.5)
    if len(standard) != BANDS[modality]:
        standard = np.repeat(standard[:1], BANDS[modality], axis=0)
    return np.concatenate([oriented, standard.astype(np.float32)])


def plane_count(modality: str) -> int:
    """How many planes ``planes`` gives."""
    return CHANNELS + BANDS[modality]
