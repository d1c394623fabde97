"""Channels of orientated gradients: the training-free features in which SAR and optical imagery look alike.

CFOG (Ye et al. 2019, "Fast and robust matching for multimodal remote sensing image registration", IEEE TGRS 57(11))
spreads every pixel's gradient over orientations folded to [0, pi) as ``|g| |cos(t - theta)|`` and averages. As a
function of ``t`` that curve has one constant and one double-angle term that matter; they hold 99 % of the variance of
eight sampled orientations. So three channels are kept per cell, the harmonics of the orientation curve (compare Liu et
al. 2014, "Rotation-invariant HOG descriptors using Fourier analysis", IJCV 106(3)):

    |g|,  |g| cos 2 theta,  |g| sin 2 theta

averaged over cells, divided by their local norm, and relieved of half of their own blur, so that broad brightness does
not outvote lines. ``benchmarks/channels.py`` compares the choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

VERSION = 1  # raised whenever the same image gives other features; indexes remember it
CHANNELS = 3

SMOOTH_PX = 1.2  # Gaussian on the image before its gradients: tames speckle, costs optical nothing
POOL_CELLS = 0.375  # Gaussian on the gradients before they are averaged, so that half a cell of shift matters less
NEIGHBOURHOOD_CELLS = 6.0  # Gaussian over which contrast is equalised
CONTRAST_FLOOR = 1.0  # share of the neighbourhood's contrast added to a cell's own in the division
BLUR_CELLS, BLUR_SHARE = 2.5, 0.5  # the blur, and how much of it is taken away
MIN_VALID = 0.5  # share of a cell's gradients that must be known
MEND_PX = 2  # holes are mended where at least half of the pixels this near are known

_GRADIENT_REACH_PX = 5  # radius of the smoothing and Sobel kernels together
_STRIP_ROWS = 48
_TINY = 1e-6  # keeps constant images at zero instead of dividing zero by zero


@dataclass(frozen=True)
class Dense:
    """Dense features of an image.

    Attributes:
        values: [C x h x w] float32, zero where not valid.
        valid: [h x w] which cells stand on enough known pixels.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def crop(self, col0: int, row0: int, width: int, height: int) -> Dense:
        """The ``width`` × ``height`` cells from (col0, row0) on; a view."""
        rows, cols = slice(row0, row0 + height), slice(col0, col0 + width)
        return Dense(self.values[:, rows, cols], self.valid[rows, cols])


@dataclass(frozen=True)
class Gradients:
    """What structure is made of, at cells of any size.

    Attributes:
        harmonics: [3 x H x W] gradient magnitude and its double-angle components.
        known: [H x W] 0 or 1, pixels whose gradient stands on known pixels alone.
    """

    harmonics: NDArray[np.float32]
    known: NDArray[np.float32]

    @classmethod
    def of(cls, image: NDArray[np.float32], valid: NDArray[np.bool_]) -> Gradients:
        """Of an image [H x W], of which ``valid`` [H x W] is known."""
        image, valid = _mended(image, valid)
        return cls(_harmonics(image), _known_gradients(valid))

    def structure(self, cell_px: int) -> Dense:
        """As the function ``structure``."""
        pooled, share = _pool(self.harmonics, self.known, cell_px)
        known = share >= MIN_VALID
        pooled *= known / np.maximum(share, _TINY)
        length = np.sqrt(np.square(pooled).sum(axis=0))
        around = _masked_blur(length[None], known, NEIGHBOURHOOD_CELLS)[0]
        pooled /= length + CONTRAST_FLOOR * around + _TINY
        pooled -= BLUR_SHARE * _masked_blur(pooled, known, BLUR_CELLS)
        pooled *= known
        return Dense(pooled, known)


def structure(image: NDArray[np.float32], valid: NDArray[np.bool_], cell_px: int = 8) -> Dense:
    """Orientation channels of an image, one vector of three per cell.

    Args:
        image: [H x W] optical grey in [0, 1] or SAR log amplitude; any unit, since contrast is equalised locally.
        valid: [H x W] known pixels.
        cell_px: side of a cell, an even number of pixels; a remainder at the right and lower edge makes its own cells.

    Returns:
        [3 x ceil(H / cell_px) x ceil(W / cell_px)] features, of length below one per cell.
    """
    return Gradients.of(image, valid).structure(cell_px)


def grey(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of bands [B x H x W]: [H x W]."""
    return bands[0] if len(bands) == 1 else np.asarray(bands.mean(axis=0, dtype=np.float32))


def cells_known(valid: NDArray[np.bool_], cell_px: int = 8) -> NDArray[np.bool_]:
    """Cells of which enough pixels are known: [H x W] -> [ceil(H / cell_px) x ceil(W / cell_px)]."""
    rows, cols = (-(-side // cell_px) for side in valid.shape)
    padded = np.pad(valid, ((0, rows * cell_px - valid.shape[0]), (0, cols * cell_px - valid.shape[1])))
    share = cv2.resize(padded.astype(np.float32), (cols, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(share >= MIN_VALID)


def reach_px(cell_px: int = 8) -> int:
    """How far a cell's features look beyond it: the halo of a block whose features must not depend on the blocking."""
    cells = _radius(NEIGHBOURHOOD_CELLS) + _radius(BLUR_CELLS) + 1
    return cells * cell_px + _GRADIENT_REACH_PX + MEND_PX


def _mended(image: NDArray[np.float32], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Small holes filled with the mean of the known pixels around them; a hole would cost the gradients about it."""
    if valid.all():
        return image, valid
    side = (2 * MEND_PX + 1,) * 2
    share = cv2.blur(valid.astype(np.float32), side, borderType=cv2.BORDER_REFLECT_101)
    mean = cv2.blur(np.where(valid, image, np.float32(0)), side, borderType=cv2.BORDER_REFLECT_101)
    known = np.asarray(valid | (share >= 0.5))
    filled = np.where(valid, image, mean / np.maximum(share, _TINY))
    return np.asarray(filled, dtype=np.float32), known


def _harmonics(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gradient magnitude and its double-angle components: [3 x H x W]."""
    out = np.empty((CHANNELS, *image.shape), np.float32)
    for top in range(0, len(image), _STRIP_ROWS):  # a few rows at a time, which stay in the cache
        strip, above = slice(top, top + _STRIP_ROWS), min(top, _GRADIENT_REACH_PX)
        smooth = _blur(image[top - above : strip.stop + _GRADIENT_REACH_PX], SMOOTH_PX)
        x, y = (
            cv2.Sobel(smooth, cv2.CV_32F, *order, scale=1 / 8, borderType=cv2.BORDER_REFLECT_101)[above:][:_STRIP_ROWS]
            for order in ((1, 0), (0, 1))
        )
        magnitude = out[0, strip]
        np.sqrt(x * x + y * y, out=magnitude)  # OpenCV's varies in the last bit with where arrays lie in memory
        per = 1 / np.maximum(magnitude, np.float32(1e-12))
        np.multiply(x * x - y * y, per, out=out[1, strip])
        np.multiply(np.float32(2) * x * y, per, out=out[2, strip])
    return out


def _known_gradients(valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Pixels whose gradient stands on known pixels alone: [H x W] 0 or 1."""
    if valid.all():
        return np.ones(valid.shape, np.float32)
    side = 2 * _GRADIENT_REACH_PX + 1
    kernel = np.ones((side, side), np.uint8)
    eroded: NDArray[np.float32] = cv2.erode(valid.astype(np.uint8), kernel, borderValue=1).astype(np.float32)
    return eroded


def _pool(
    channels: NDArray[np.float32], known: NDArray[np.float32], cell_px: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cell averages of the known channels, smoothed across cell borders, and each cell's known share."""
    height, width = known.shape
    rows, cols = -(-height // cell_px), -(-width // cell_px)
    below, right = rows * cell_px - height, cols * cell_px - width
    partial = bool(below or right or not known.all())

    def shrink(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        if below or right:
            plane = cv2.copyMakeBorder(plane, 0, below, 0, right, cv2.BORDER_CONSTANT, value=0).astype(np.float32)
        halves = _resized(plane, 2 * cols, 2 * rows)
        return _resized(_blur(halves, 2 * POOL_CELLS), cols, rows)

    share = shrink(known) if partial else np.ones((rows, cols), np.float32)
    return np.stack([shrink(plane * known if partial else plane) for plane in channels]), share


def _resized(plane: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    smaller = cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(smaller, dtype=np.float32)


def _masked_blur(planes: NDArray[np.float32], known: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Gaussian average over the known cells around each cell (normalised convolution, Knutsson & Westin 1993)."""
    weight = known.astype(np.float32)
    total = np.maximum(_blur(weight, sigma), _TINY)
    blurred = np.stack([_blur(plane * weight, sigma) for plane in planes])
    blurred /= total
    return blurred


def _blur(plane: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    side = 2 * _radius(sigma) + 1
    blurred = cv2.GaussianBlur(plane, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, dtype=np.float32)


def _radius(sigma: float) -> int:
    return max(1, round(2.5 * sigma))
