"""Pixels against pixels: features of strip and map at a fine cell, correlated around a found place.

It fixes the last fraction of a coarse cell, and its peak tells apart places that look alike at the coarse scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.correlate import NO_MATCH, Template, over, template
from geomatch.fusion import subpixel
from geomatch.map_pixels import Pixels
from geomatch.pixel_features import CELL_PX
from geomatch.query import fills_no_tile
from geomatch.strips import Strip
from geomatch.structure import Dense, cells_known
from geomatch.tiles import starts
from geomatch.windows import covered, cut_windows

SEARCH_PX = 16  # how far the coarse place may be off, two cells of the index
TRUST_PX = 8.0  # deviation of a Gaussian by which nearer peaks are preferred to farther ones (benchmarks/places.py)
MAX_WINDOWS = 16
ASIDE_CELLS = 4  # fine cells from the peak at which the correlation no longer belongs to it
CERTAIN = 1.5  # times what chance and the surroundings give
CONTESTED = 1.4  # peak ratio up to which the pixels decide between the best places (benchmarks/places.py)
FINE_WEIGHT = 1.5  # of the pixels' correlation against the features'; a false place's spreads half as much


@dataclass(frozen=True)
class Refined:
    """A place after refinement.

    Attributes:
        corner_px: [2] map pixel of the strip's first pixel.
        peak: mean correlation of the windows there.
        height: of the peak above the median of all within reach: learned features agree somewhat everywhere.
        aside: the highest within reach that does not belong to the peak: what a wrong place of such structure gives.
        spread: root mean square of all within reach, and on the map, that do not, about the median: along a shore,
            whose place along it nothing fixes, it is high, however many cells there are.
        cells: fine cells that were compared.
        chance: the height that a wrong place has, on the average.
        fixed: whether the peak lies within reach; if not, ``corner_px`` is the place that was asked about.
    """

    corner_px: NDArray[np.float64]
    peak: float
    height: float
    aside: float
    spread: float
    cells: int
    chance: float
    fixed: bool

    @property
    def certain(self) -> bool:
        """Whether the peak stands so far above its surroundings that no other place need be looked at."""
        return self.peak >= CERTAIN * self.aside and self.height >= CERTAIN * self.chance

    @property
    def standing(self) -> float:
        """The height in deviations of what is around it, or of what chance gives, whichever is more."""
        return self.height / max(self.spread, 1 / float(np.sqrt(max(1, self.cells))))


class Refiner:
    """Refines places of one strip.

    Args:
        strip: on the map's pixel grid.
        windows_px: [N x 2] first column and row of windows in the strip; taken to whole cells.
        size_px: side of a window; those at the strip's edge may be smaller.
        pixels: of the map, or of another optical image.
        most: so many of the windows are used, spread over them.

    Attributes:
        cells: fine cells that are compared, those of overlapping windows once; none where no window shows structure,
            and then there is nothing to refine.
        chance: the height of the peak that a wrong place has, on the average.
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
        chosen = np.linspace(0, len(windows_px) - 1, min(most, len(windows_px))).astype(int)
        first = windows_px[chosen] // CELL_PX * CELL_PX
        every = _Boxes(first, np.minimum(size_px, np.array(strip.image.shape[::-1]) - first))
        self._queries: list[list[Template | None]] = [[] for _ in first]
        for low, beyond, members in every.together(np.zeros_like(first), 0):
            part = np.s_[low[1] : beyond[1], low[0] : beyond[0]]
            for features in pixels.features:
                dense = features(strip.image[part], strip.valid[part], "sar")
                for number in members:
                    self._queries[number].append(template(every.within(dense, number, low)))
        shown = [number for number, (structural, *_) in enumerate(self._queries) if structural is not None]
        self._queries = [self._queries[number] for number in shown]
        self._windows = _Boxes(every.first_px[shown], every.size_px[shown])
        masks = [queries[0].mask for queries in self._queries if queries[0] is not None]
        self.cells_each = np.array([mask.sum() for mask in masks], np.float64)
        self.cells = covered(self._windows.first_px // CELL_PX, masks)
        every_chance = float(np.mean([features.chance_peak for features in pixels.features]))
        self.chance = every_chance / float(np.sqrt(max(1, self.cells)))
        self.middles_px = np.asarray(self._windows.first_px + size_px / 2, np.float64)

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
        # The trust chooses among peaks by how far they stand out; where the chosen one is highest, pixels alone say.
        summits = total == cv2.dilate(total, np.ones((3, 3), np.uint8))
        level = max(0.0, float(np.median(total)))
        trusted = np.where(summits, (total - level) * self._trust(start - corner_px), -np.inf)
        row, col = (int(i) for i in np.unravel_index(trusted.argmax(), total.shape))
        peak = max(0.0, float(total[row, col]))
        around = _aside(total, row, col)
        known = around[around != NO_MATCH]  # at the map's edge, what lies beyond it would make the peak stand out
        aside, height = max(0.0, float(around.max())), max(0.0, peak - level)
        spread = float(np.sqrt(np.square(known - level).mean())) if len(known) else peak
        found = partial(Refined, peak=peak, height=height, aside=aside, spread=spread, cells=self.cells)
        if not (peak > 0 and 0 < row < 2 * reach and 0 < col < 2 * reach):
            return found(corner_px, chance=self.chance, fixed=False)
        shift = np.array([col, row]) + subpixel(total, row, col) - reach
        return found(start + CELL_PX * shift, chance=self.chance, fixed=True)

    def surfaces(self, corner_px: NDArray[np.int64]) -> NDArray[np.float64]:
        """[N x s x s] correlation of every window at offsets of CELL_PX within SEARCH_PX of a place.

        Args:
            corner_px: [2] map pixel of the strip's first pixel, or [N x 2], one for each window.
        """
        side = 2 * (SEARCH_PX // CELL_PX) + 1
        corners = np.broadcast_to(corner_px, (len(self._queries), 2))
        out = np.full((len(self._queries), side, side), NO_MATCH, np.float64)
        for low, beyond, members in self._windows.together(corners, SEARCH_PX):
            grey, known = self._pixels.grey(*low.tolist(), *(beyond - low).tolist())
            if not known.any():
                continue
            fields = [features(grey, known, "optical") for features in self._pixels.features]
            for number in members:
                around = [self._windows.within(field, number, low - corners[number], SEARCH_PX) for field in fields]
                seen = zip(self._queries[number], around, strict=True)
                made = [_correlated(query, field)[:side, :side] for query, field in seen if query is not None]
                out[number] = np.mean(made, axis=0)
        return out

    @staticmethod
    def _trust(shift_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of the offsets by distance from the coarse place, which is ``-shift_px`` from the middle one."""
        offsets = np.arange(-SEARCH_PX, SEARCH_PX + 1, CELL_PX)
        across, down = offsets + shift_px[0], offsets + shift_px[1]
        distance2 = np.square(down)[:, None] + np.square(across)[None, :]
        return np.asarray(np.exp(-distance2 / (2 * TRUST_PX**2)))


@dataclass(frozen=True)
class _Boxes:
    """Windows of a strip.

    Attributes:
        first_px: [N x 2] first column and row, multiples of CELL_PX.
        size_px: [N x 2] width and height.
    """

    first_px: NDArray[np.int64]
    size_px: NDArray[np.int64]

    def together(
        self, corners_px: NDArray[np.int64], margin_px: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Blocks to be read: their first pixel [2], that beyond the last, and the windows that lie in each.

        Windows of one corner are read as one block where that is no more pixels than each by itself.

        Args:
            corners_px: [N x 2] where the strip's first pixel is taken to lie, for each window.
            margin_px: around every window.
        """
        low, beyond = corners_px + self.first_px - margin_px, corners_px + self.first_px + self.size_px + margin_px
        for corner in np.unique(corners_px, axis=0):
            members = np.nonzero((corners_px == corner).all(axis=1))[0]
            whole = low[members].min(axis=0), beyond[members].max(axis=0)
            apart = (beyond - low)[members].prod(axis=1).sum()
            if (whole[1] - whole[0]).prod() <= apart:
                yield *whole, members
            else:
                yield from ((low[one], beyond[one], members[at : at + 1]) for at, one in enumerate(members))

    def within(self, block: Dense, number: int, low_px: NDArray[np.int64], margin_px: int = 0) -> Dense:
        """A window of a block whose first pixel lies at ``low_px`` in the strip, and so much around it."""
        col, row = (self.first_px[number] - margin_px - low_px) // CELL_PX
        width, height = -(-self.size_px[number] // CELL_PX) + 2 * (margin_px // CELL_PX)
        return block.crop(int(col), int(row), int(width), int(height))


def _correlated(query: Template, field: Dense) -> NDArray[np.float32]:
    """Correlation of a window at every offset within a field of the map."""
    rms = float(np.sqrt(np.square(field.values).sum() / max(1, field.valid.sum())))
    return over(query, field, rms)


def _aside(surface: NDArray[np.float64], row: int, col: int) -> NDArray[np.float64]:
    """The entries at least ASIDE_CELLS from one."""
    rows, cols = (np.abs(np.arange(side) - at) for side, at in zip(surface.shape, (row, col), strict=True))
    return np.asarray(surface[np.maximum(rows[:, None], cols) >= ASIDE_CELLS])
