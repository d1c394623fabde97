"""The last fraction of a cell: structure channels on the pixels of strip and map, correlated around the found place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomatch.correlate import NO_MATCH, over, template
from geomatch.fusion import subpixel
from geomatch.images import OpticalStretch
from geomatch.raster import Raster
from geomatch.strips import Strip
from geomatch.structure import structure

CELL_PX = 2  # finer cells follow the speckle, coarser ones the cells that the index has already
SEARCH_PX = 16  # how far the coarse place may be off, two cells of the index
MAX_WINDOWS = 9


@dataclass(frozen=True)
class Refined:
    """A place after refinement.

    Attributes:
        corner_px: [2] map pixel of the strip's first pixel.
        peak: mean correlation of the windows there.
    """

    corner_px: NDArray[np.float64]
    peak: float


def refine(
    strip: Strip,
    windows_px: NDArray[np.int64],
    size_px: int,
    corner_px: NDArray[np.float64],
    raster: Raster,
    origin_px: tuple[int, int],
    stretch: OpticalStretch,
) -> Refined | None:
    """Correlate windows of a strip with the map's pixels around a place.

    Args:
        strip: on the map's pixel grid.
        windows_px: [N x 2] first column and row of windows in the strip; MAX_WINDOWS of them are used.
        size_px: side of a window.
        corner_px: [2] map pixel of the strip's first pixel, right within SEARCH_PX.
        raster: the map.
        origin_px: column and row of the map's indexed window in the raster.
        stretch: its radiometry.

    Returns:
        The refined place, or None where the map's pixels show no clear peak within reach.
    """
    reach = SEARCH_PX // CELL_PX
    start = np.rint(corner_px).astype(np.int64)
    total = np.zeros((2 * reach + 1, 2 * reach + 1))
    used = windows_px[np.linspace(0, len(windows_px) - 1, min(MAX_WINDOWS, len(windows_px))).astype(int)]
    for col, row in used:
        part = np.s_[row : row + size_px, col : col + size_px]
        query = template(structure(strip.image[part], strip.valid[part], CELL_PX))
        if query is None:
            continue
        height, width = strip.image[part].shape
        left, top = start + (col, row) - SEARCH_PX + origin_px
        patch = raster.read(int(left), int(top), width + 2 * SEARCH_PX, height + 2 * SEARCH_PX, bands=stretch.bands)
        field = structure(stretch.grey(patch), patch.valid, CELL_PX)
        rms = float(np.sqrt(np.square(field.values).sum() / max(1, field.valid.sum())))
        total += over(query, field, rms)[: 2 * reach + 1, : 2 * reach + 1]
    total /= len(used)
    row, col = (int(i) for i in np.unravel_index(total.argmax(), total.shape))
    if total[row, col] <= max(0.0, NO_MATCH) or not (0 < row < 2 * reach and 0 < col < 2 * reach):
        return None
    shift = np.array([col, row]) + subpixel(total, row, col) - reach
    return Refined(start + CELL_PX * shift, float(total[row, col]))
