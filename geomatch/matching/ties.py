"""Tie points of a placed strip: windows of it correlated with the optical image, each by itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomatch.fusion import subpixel
from geomatch.geo import apply_affine
from geomatch.map_pixels import Pixels
from geomatch.matching.matches import Matches
from geomatch.pixel_features import CELL_PX
from geomatch.refine import Refiner
from geomatch.strips import Strip
from geomatch.tiles import starts

TIE_PX, TIE_STRIDE_PX = 48, 24  # windows that give a tie point each
MOST = 200  # of them; a long strip's are spread over it
AGREED_PX = 6.0  # a tie point further from where the whole image lies is of another place
SURE = 1.05  # least peak ratio of a tie point
BLOB_CELLS = 2  # nearer entries belong to the peak


def tie_points(strip: Strip, corner_px: NDArray[np.float64], pixels: Pixels) -> Matches:
    """Where each window of a strip fits best near the place of the whole.

    Args:
        strip: on the optical image's pixel grid.
        corner_px: [2] where its first pixel was found to lie there.
        pixels: of the optical image.

    Returns:
        Matches of pixels of the strip's file with pixels of the optical image, scored by the ratio of the window's peak
        to the highest correlation beside it; or none, and why.
    """
    windows = grid_windows(strip, TIE_PX, TIE_STRIDE_PX)
    refiner = Refiner(strip, windows, TIE_PX, pixels, most=MOST)
    if not refiner.cells:
        return Matches.none("no window of the SAR image shows structure")
    corner = np.rint(corner_px).astype(np.int64)
    surfaces = refiner.surfaces(corner)
    half = surfaces.shape[1] // 2
    sar, optical, scores = [], [], []
    for middle, surface in zip(refiner.middles_px, surfaces, strict=True):
        row, col = (int(i) for i in np.unravel_index(surface.argmax(), surface.shape))
        shift = (np.array([col, row]) + subpixel(surface, row, col) - half) * CELL_PX
        ratio = _peak_ratio(surface, row, col)
        if ratio < SURE or np.abs(shift).max() > AGREED_PX:
            continue
        sar.append(apply_affine(~strip.from_file, middle))
        optical.append(corner + middle + shift)
        scores.append(ratio)
    found = (len(refiner.middles_px), len(refiner.middles_px))
    if not scores:
        return Matches.none("no window is sure of its place", found)
    order = np.argsort(-np.array(scores), kind="stable")
    places = np.array(sar)[order], np.array(optical)[order]
    return Matches(*places, np.array(scores)[order], found, grain_px=TIE_PX, placed=True)


def grid_windows(strip: Strip, size_px: int, stride_px: int) -> NDArray[np.int64]:
    """[N x 2] first column and row of windows of a grid of which at least half is known."""
    height, width = strip.image.shape
    rows, cols = (starts(side, min(size_px, side), stride_px) for side in (height, width))
    places = np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2).astype(np.int64)
    known = [strip.valid[row : row + size_px, col : col + size_px].mean() >= 0.5 for col, row in places]
    return np.asarray(places[np.array(known, bool)])


def _peak_ratio(surface: NDArray[np.float64], row: int, col: int) -> float:
    """The peak over the highest entry that does not belong to it; 0 where there is no peak within the surface."""
    if surface[row, col] <= 0 or not (0 < row < surface.shape[0] - 1 and 0 < col < surface.shape[1] - 1):
        return 0.0
    aside = surface.copy()
    aside[max(0, row - BLOB_CELLS) : row + BLOB_CELLS + 1, max(0, col - BLOB_CELLS) : col + BLOB_CELLS + 1] = 0
    return float(surface[row, col] / max(float(aside.max()), 1e-6))
