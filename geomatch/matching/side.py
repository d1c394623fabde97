"""One image of a pair, as detectors, descriptors and networks see it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.nets.shapes import Modality

NAMES: dict[Modality, str] = {"optical": "optical", "sar": "SAR"}  # in messages
CLAHE_LIMIT, CLAHE_TILES = 2.0, 8
_DARK, _BRIGHT = 1.0, 99.0  # percentiles that become 0 and 255
_LEAST_RANGE = 1e-6


@dataclass(frozen=True)
class Side:
    """One image of a pair.

    Attributes:
        image: [H x W] float32: optical grey in [0, 1], or SAR log amplitude.
        valid: [H x W] known pixels.
        modality: which of the two it is.
    """

    image: NDArray[np.float32]
    valid: NDArray[np.bool_]
    modality: Modality

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        height, width = self.image.shape
        return width, height

    @property
    def blank(self) -> bool:
        """Whether nothing is known, or all that is known is the same."""
        known = self.image[self.valid]
        return known.size == 0 or float(np.ptp(known)) < _LEAST_RANGE

    @cached_property
    def bytes(self) -> NDArray[np.uint8]:
        """[H x W] its known range, 1st to 99th percentile, as 0 to 255; its median where it is not known."""
        known = self.image[self.valid]
        if known.size == 0:
            return np.zeros(self.image.shape, np.uint8)
        low, middle, high = (float(at) for at in np.percentile(known, [_DARK, 50.0, _BRIGHT]))
        filled = np.where(self.valid, self.image, np.float32(middle))
        unit = np.clip((filled - low) / max(high - low, _LEAST_RANGE), 0, 1)
        return np.rint(255 * unit).astype(np.uint8)

    @cached_property
    def equalised(self) -> NDArray[np.uint8]:
        """[H x W] ``bytes`` after contrast-limited adaptive histogram equalisation (Zuiderveld 1994)."""
        tool = cv2.createCLAHE(CLAHE_LIMIT, (CLAHE_TILES, CLAHE_TILES))
        return np.asarray(tool.apply(self.bytes), dtype=np.uint8)
