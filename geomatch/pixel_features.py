"""Features at a cell of 2 px, by which the pixels of a strip are compared with those of a map around a found place.

Structure channels need no training and serve any sensor. Learned ones (``geomatch.nets.pixel_net``) are sharper where
the imagery is like that of their training; both are looked at, as the coarse features are.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch import defaults
from geomatch.backends import Runner, check_backend, load_runner
from geomatch.nets.shapes import Modality, PixelShape
from geomatch.structure import Dense, cells_known, structure
from geomatch.weights import Weights

CELL_PX = 2  # finer cells follow the speckle, coarser ones the cells that the index has already
NEIGHBOURHOOD_PX = 12.0  # deviation of the Gaussian over which brightness and contrast are equalised
CONTRAST_FLOOR = 0.2  # share of the image's contrast added to a neighbourhood's in the division
MAX_DEVIATION = 4.0
IN_8_BITS = "-int8"  # backends that know how to make an encoder's numbers so small; this network's stay as they are
_TINY = 1e-6


class PixelFeatures(Protocol):
    """Features of an image at CELL_PX.

    Attributes:
        chance_peak: height of the peak near a wrong place above the median there, times the root of the cells, on the
            average (benchmarks/chance.py).
    """

    @property
    def chance_peak(self) -> float: ...  # noqa: D102

    def __call__(self, image: NDArray[np.float32], valid: NDArray[np.bool_], modality: Modality) -> Dense:
        """Features of optical grey in [0, 1] or SAR log amplitude: [H x W] -> [C x ceil(H / 2) x ceil(W / 2)]."""
        ...


class StructuralPixels:
    """Structure channels (``geomatch.structure``), the same for both modalities."""

    chance_peak = 4.2

    def __call__(self, image: NDArray[np.float32], valid: NDArray[np.bool_], modality: Modality) -> Dense:
        """As ``PixelFeatures``."""
        del modality
        return structure(image, valid, CELL_PX)


STRUCTURAL: tuple[PixelFeatures, ...] = (StructuralPixels(),)


class LearnedPixels:
    """A trained ``PixelNet``.

    Args:
        weights: as ``Weights.find`` takes them; the network is not loaded before there is something to run it on.
        backend: as ``load_runner`` takes it.

    Raises:
        UsageError, InputError: there are no such weights, or no such backend.
    """

    chance_peak = 5.0

    def __init__(self, weights: str = defaults.PIXELS, backend: str = defaults.BACKEND) -> None:
        found = Weights.find(weights, PixelShape)
        check_backend(backend)
        self._sha256 = found.sha256

        @cache
        def runner() -> Runner:
            return load_runner(found, backend, exact=backend.endswith(IN_8_BITS))

        self._runner = runner

    def fingerprint(self) -> str:
        """The sha256 of the weights."""
        return self._sha256

    def __call__(self, image: NDArray[np.float32], valid: NDArray[np.bool_], modality: Modality) -> Dense:
        """As ``PixelFeatures``."""
        # Beside what is not known there is an edge that only the network sees.
        known = cells_known(valid, CELL_PX) if valid.all() else structure(image, valid, CELL_PX).valid
        values = self._runner()(standardised(image, valid)[None], modality)
        return Dense(values * known, known)


def standardised(image: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What a ``PixelNet`` is shown: an image less its local mean over its local deviation, zero where not known.

    Args:
        image: [H x W] in any unit.
        valid: [H x W].

    Returns:
        [H' x W'], sides made even by repeating the last row and column.
    """
    below, right = (side % CELL_PX for side in image.shape)
    if below or right:
        image = np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE), np.float32)
        valid = np.pad(valid, ((0, below), (0, right)))
    share = valid.astype(np.float32)
    weight = np.maximum(_blur(share), np.float32(_TINY))
    filled = np.where(valid, image, np.float32(0))
    apart = (filled - _blur(filled) / weight) * share
    squares = np.square(apart)
    usual = float(np.sqrt(squares.sum() / max(1.0, float(share.sum()))))
    spread = np.sqrt(_blur(squares) / weight) + np.float32(CONTRAST_FLOOR * usual + _TINY)
    return np.asarray(np.clip(apart / spread, -MAX_DEVIATION, MAX_DEVIATION), np.float32)


def _blur(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    side = 2 * int(2.5 * NEIGHBOURHOOD_PX) + 1
    blurred = cv2.GaussianBlur(plane, (side, side), NEIGHBOURHOOD_PX, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.float32)
