"""Where the pixels of a map are read from, and by what they are compared with a strip's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geomatch.imagery import Imagery
from geomatch.images import OpticalStretch
from geomatch.pixel_features import STRUCTURAL, PixelFeatures


class Pixels(Protocol):
    """An optical image, read by windows.

    Attributes:
        features: by which its pixels are compared; those of the first say which cells are known.
    """

    @property
    def features(self) -> Sequence[PixelFeatures]: ...  # noqa: D102

    def grey(self, left: int, top: int, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """[height x width] grey in [0, 1], and which pixels are known; none beyond the edge."""
        ...


@dataclass(frozen=True)
class MapPixels:
    """Where the pixels of the indexed map are.

    Attributes:
        raster: the orthomosaic.
        origin_px: column and row of the indexed window in it.
        stretch: its radiometry.
        features: as of ``Pixels``.
    """

    raster: Imagery
    origin_px: tuple[int, int]
    stretch: OpticalStretch
    features: Sequence[PixelFeatures] = STRUCTURAL

    def grey(self, left: int, top: int, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """As ``Pixels``, in pixels of the indexed window."""
        first = (left + self.origin_px[0], top + self.origin_px[1])
        patch = self.raster.read(*first, width, height, bands=self.stretch.bands)
        return self.stretch.grey(patch), patch.valid
