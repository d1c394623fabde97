"""Pixels against pixels: structure channels of strip and map at a fine cell, correlated around a found place.

It fixes the last fraction of a coarse cell, and its peak tells apart places that look alike at the coarse scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.correlate import NO_MATCH, Template, over, template
from geomatch.fusion import subpixel
from geomatch.imagery import Imagery
from geomatch.images import OpticalStretch
from geomatch.query import fills_no_tile
from geomatch.strips import Strip
from geomatch.structure import cells_known, structure
from geomatch.tiles import starts
from geomatch.windows import covered, cut_windows

CELL_PX = 2  # finer cells follow the speckle, coarser ones the cells that the index has already
SEARCH_PX = 16  # how far the coarse place may be off, two cells of the index
TRUST_PX = 8.0  # deviation of a Gaussian by which nearer peaks are preferred to farther ones (benchmarks/places.py)
MAX_WINDOWS = 16
ASIDE_CELLS = 4  # fine cells from the peak at which the correlation no longer belongs to it
CHANCE_PEAK = 4.2  # fine peak at a wrong place times the square root of the cells, on the average
CERTAIN = 1.5  # times what chance and the surroundings give
CONTESTED = 1.4  # peak ratio up to which the pixels decide between the best places (benchmarks/places.py)
FINE_WEIGHT = 1.5  # of the pixels' correlation against the features'; a false place's spreads half as much


class Pixels(Protocol):
    """An optical image, read by windows."""

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
    """

    raster: Imagery
    origin_px: tuple[int, int]
    stretch: OpticalStretch

    def grey(self, left: int, top: int, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """As ``Pixels``, in pixels of the indexed window."""
        first = (left + self.origin_px[0], top + self.origin_px[1])
        patch = self.raster.read(*first, width, height, bands=self.stretch.bands)
        return self.stretch.grey(patch), patch.valid


@dataclass(frozen=True)
class Refined:
    """A place after refinement.

    Attributes:
        corner_px: [2] map pixel of the strip's first pixel.
        peak: mean correlation of the windows there.
        aside: the highest within reach that does not belong to the peak: what a wrong place of such structure gives.
        spread: root mean square of all within reach, and on the map, that do not: along a shore, whose place along it
            nothing fixes, it is high, however many cells there are.
        cells: fine cells that were compared.
        fixed: whether the peak lies within reach; if not, ``corner_px`` is the place that was asked about.
    """

    corner_px: NDArray[np.float64]
    peak: float
    aside: float
    spread: float
    cells: int
    fixed: bool

    @property
    def certain(self) -> bool:
        """Whether the peak stands so far above its surroundings that no other place need be looked at."""
        return self.peak >= CERTAIN * max(self.aside, CHANCE_PEAK / float(np.sqrt(self.cells)))

    @property
    def standing(self) -> float:
        """The peak in deviations of what is around it, or of what chance gives, whichever is more."""
        return self.peak / max(self.spread, 1 / float(np.sqrt(max(1, self.cells))))


class Refiner:
    """Refines places of one strip.

    Args:
        strip: on the map's pixel grid.
        windows_px: [N x 2] first column and row of windows in the strip.
        size_px: side of a window.
        pixels: of the map, or of another optical image.
        most: so many of the windows are used, spread over them.

    Attributes:
        cells: fine cells that are compared, those of overlapping windows once; none where no window shows structure,
            and then there is nothing to refine.
        cells_each: [N] of each window that shows structure.
        middles_px: [N x 2] of these windows, in the strip.
    """

    cell_px, grid_px = CELL_PX, 1

    def __init__(
        self,
        strip: Strip,
        windows_px: NDArray[np.int64],
        size_px: int,
        pixels: Pixels,
        *,
        most: int = MAX_WINDOWS,
    ) -> None:
        self._pixels = pixels
        self._queries: list[tuple[NDArray[np.int64], Template]] = []
        for offset in windows_px[np.linspace(0, len(windows_px) - 1, min(most, len(windows_px))).astype(int)]:
            col, row = offset
            part = np.s_[row : row + size_px, col : col + size_px]
            query = template(structure(strip.image[part], strip.valid[part], CELL_PX))
            if query is not None:
                self._queries.append((offset, query))
        first_px = np.array([offset for offset, _ in self._queries]).reshape(-1, 2)
        self.cells_each = np.array([query.mask.sum() for _, query in self._queries], np.float64)
        self.cells = covered(first_px // CELL_PX, [query.mask for _, query in self._queries])
        self.middles_px = first_px + size_px / 2

    @classmethod
    def of(cls, strip: Strip, size_px: int, cell_px: int, pixels: Pixels | None) -> Refiner | None:
        """With windows of a size, or fewer of a smaller strip; None where there is nothing to look at."""
        if pixels is None:
            return None
        if fills_no_tile(strip, size_px, cell_px):  # one window for the correlation, several for the pixels
            height, width = strip.image.shape
            rows, cols = starts(height, min(size_px, height), size_px), starts(width, min(size_px, width), size_px)
            first = np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2).astype(np.int64)
        else:
            first = cut_windows(cells_known(strip.valid, cell_px), size_px // cell_px) * cell_px
        refiner = cls(strip, first, size_px, pixels)
        return refiner if refiner.cells else None

    def at(self, corner_px: NDArray[np.float64]) -> Refined:
        """Correlate around a place, right within SEARCH_PX: [2] map pixel of the strip's first pixel."""
        reach = SEARCH_PX // CELL_PX
        start = np.rint(corner_px).astype(np.int64)
        total = self.surfaces(start).mean(axis=0) if self._queries else np.zeros((2 * reach + 1, 2 * reach + 1))
        # The trust chooses among peaks; where the chosen one is highest, the pixels alone say.
        summits = total == cv2.dilate(total, np.ones((3, 3), np.uint8))
        trusted = np.where(summits, total * self._trust(start - corner_px), -np.inf)
        row, col = (int(i) for i in np.unravel_index(trusted.argmax(), total.shape))
        peak = max(0.0, float(total[row, col]))
        around = _aside(total, row, col)
        known = around[around != NO_MATCH]  # at the map's edge, what lies beyond it would make the peak stand out
        aside, spread = max(0.0, float(around.max())), float(np.sqrt(np.square(known).mean())) if len(known) else peak
        if not (peak > 0 and 0 < row < 2 * reach and 0 < col < 2 * reach):
            return Refined(corner_px, peak, aside, spread, self.cells, fixed=False)
        shift = np.array([col, row]) + subpixel(total, row, col) - reach
        return Refined(start + CELL_PX * shift, peak, aside, spread, self.cells, fixed=True)

    def surfaces(self, corner_px: NDArray[np.int64]) -> NDArray[np.float64]:
        """[N x s x s] correlation of every window at offsets of CELL_PX within SEARCH_PX of a place.

        Args:
            corner_px: [2] map pixel of the strip's first pixel, or [N x 2], one for each window.
        """
        places = np.broadcast_to(corner_px, (len(self._queries), 2))
        found = [self._surface(at + offset, query) for at, (offset, query) in zip(places, self._queries, strict=True)]
        return np.array(found, np.float64)

    @staticmethod
    def _trust(shift_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of the offsets by distance from the coarse place, which is ``-shift_px`` from the middle one."""
        offsets = np.arange(-SEARCH_PX, SEARCH_PX + 1, CELL_PX)
        across, down = offsets + shift_px[0], offsets + shift_px[1]
        distance2 = np.square(down)[:, None] + np.square(across)[None, :]
        return np.asarray(np.exp(-distance2 / (2 * TRUST_PX**2)))

    def _surface(self, first_px: NDArray[np.int64], query: Template) -> NDArray[np.float32]:
        """Correlation of one window at every cell within SEARCH_PX of a place."""
        side = 2 * (SEARCH_PX // CELL_PX) + 1
        height, width = query.mask.shape
        left, top = first_px - SEARCH_PX
        size = (width * CELL_PX + 2 * SEARCH_PX, height * CELL_PX + 2 * SEARCH_PX)
        grey, known = self._pixels.grey(int(left), int(top), *size)
        if not known.any():
            return np.full((side, side), NO_MATCH, np.float32)
        field = structure(grey, known, CELL_PX)
        rms = float(np.sqrt(np.square(field.values).sum() / max(1, field.valid.sum())))
        return over(query, field, rms)[:side, :side]


def _aside(surface: NDArray[np.float64], row: int, col: int) -> NDArray[np.float64]:
    """The entries at least ASIDE_CELLS from one."""
    rows, cols = (np.abs(np.arange(side) - at) for side, at in zip(surface.shape, (row, col), strict=True))
    return np.asarray(surface[np.maximum(rows[:, None], cols) >= ASIDE_CELLS])
