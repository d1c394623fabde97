"""A strip at one heading: its features, its windows, and what they find in an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomatch import fusion
from geomatch.correlate import template
from geomatch.fusion import NOWHERE, Poses, Window
from geomatch.strips import Strip
from geomatch.structure import Dense
from geomatch.tiles import tile_vectors
from geomatch.windows import covered, cut_windows

if TYPE_CHECKING:
    from geomatch.tile_index import TileIndex

MIN_SHARE = 3  # the windows of a strip share the tiles asked for, but each has this part of them at least
SMALL_TILES = 0.75  # a strip of less area than this share of a tile fills no tile, however its bounding box turns out
_NEARBY_PX = 32  # how far a place may move when its heading is corrected, to either side


def fills_no_tile(strip: Strip, tile_px: int, cell_px: int) -> bool:
    """Whether a strip is smaller than a tile, whose vectors then cannot find it."""
    cells = -(-min(strip.valid.shape) // cell_px)
    return cells < tile_px // cell_px or strip.area_px < SMALL_TILES * tile_px**2


@dataclass(frozen=True)
class Query:
    """A strip ready for an index.

    Attributes:
        index: that is asked.
        strip: on the map's pixel grid.
        dense: its features.
        windows: the parts of it that show anything, none where nothing does.
        tiled: whether the windows are of the size of tiles, so that the tiles' vectors can find them.
    """

    index: TileIndex
    strip: Strip
    dense: Dense
    windows: tuple[Window, ...]
    tiled: bool

    @classmethod
    def of(cls, index: TileIndex, strip: Strip) -> Query:
        """Encode a strip and cut it into windows; a strip smaller than a tile is one window."""
        dense = index.encoder.dense(strip.image[None], strip.valid, "sar")
        tile, size = index.manifest.tiles, index.manifest.tiles.size_px // index.encoder.cell_px
        small = fills_no_tile(strip, tile.size_px, index.encoder.cell_px)
        if small:
            parts = [(np.zeros(2, np.int64), dense)]
        else:
            places = cut_windows(dense.valid, size)
            parts = [(place, dense.crop(int(place[0]), int(place[1]), size, size)) for place in places]
        made = [(place, template(part)) for place, part in parts]
        windows = tuple(Window(place, ready) for place, ready in made if ready is not None)
        return cls(index, strip, dense, windows, tiled=not small)

    @property
    def cells(self) -> float:
        """Cells of its windows that are compared, those of overlapping ones once."""
        first = np.array([window.cell for window in self.windows]).reshape(-1, 2)
        return float(covered(first, [window.template.mask for window in self.windows]))

    @property
    def extent(self) -> float:
        """Square root of the area of its windows, in sides of a tile."""
        side = self.index.manifest.tiles.size_px // self.index.encoder.cell_px
        return float(np.sqrt(self.cells)) / side

    @property
    def vectors(self) -> NDArray[np.float32]:
        """[N x P] of its windows, as those of tiles; only of a tiled one."""
        tile, cell = self.index.manifest.tiles, self.index.encoder.cell_px
        size = tile.size_px // cell
        first = np.zeros(1, np.int32)
        made = [
            tile_vectors(self.dense.crop(col, row, size, size), first, first, tile.size_px, cell).vectors[0]
            for col, row in (window.cell.tolist() for window in self.windows)
        ]
        return np.concatenate(made)

    def retrieve(self, tiles: int) -> Poses:
        """Poses that the tiles nearest to its windows' vectors speak for, best first; so many tiles of all windows."""
        count = max(tiles // MIN_SHARE, tiles // len(self.windows))
        reach_px = float(np.hypot(*self.strip.middle_px)) + self.index.manifest.tiles.size_px
        hits = self.index.search(self.vectors, count, reach_px)
        if not hits.tiles.size:
            return NOWHERE
        offsets_px = np.array([window.cell for window in self.windows]) * self.index.encoder.cell_px
        return fusion.vote(hits, offsets_px, self.index.manifest.tiles.stride_px)

    def verify(self, retrieved: Poses) -> Poses:
        """Retrieved poses by their correlation."""
        return self._verified(retrieved, self.index.manifest.tiles.stride_px)

    def nearby(self, center_px: NDArray[np.float64]) -> Poses:
        """The best pose near one place of its centre, map pixels; none where nothing there resembles it."""
        return self._verified(Poses((center_px - self.strip.middle_px)[None], np.ones(1)), _NEARBY_PX).best(1)

    def scan(self) -> Poses:
        """Poses by correlation with the whole map, or with as much of it as the index's circle lets the strip cover."""
        field, cell = self.index.features, self.index.encoder.cell_px
        limit = np.array(field.shape[:0:-1])
        first, beyond = np.zeros(2, np.int64), limit
        if self.index.disc is not None:
            reach = self.index.disc.reach_px + self.strip.middle_px
            first, beyond = (
                np.clip(np.floor(edge / cell).astype(np.int64) + more, 0, limit)
                for edge, more in ((self.index.disc.center_px - reach, -1), (self.index.disc.center_px + reach, 2))
            )
        found = fusion.scan(self.windows, field.part(first, beyond), field.rms, cell_px=cell)
        return self._allowed(Poses(found.corners_px + first * cell, found.scores))

    def _verified(self, poses: Poses, bin_px: int) -> Poses:
        cell = self.index.encoder.cell_px
        return self._allowed(fusion.verify(poses, self.windows, self.index.features, bin_px=bin_px, cell_px=cell))

    def _allowed(self, poses: Poses) -> Poses:
        """Those at which the strip's middle lies in the index's circle."""
        if self.index.disc is None:
            return poses
        inside = self.index.disc.holds(poses.corners_px + self.strip.middle_px)
        return Poses(poses.corners_px[inside], poses.scores[inside])
