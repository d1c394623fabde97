"""One build: where it reads, and what it makes of a part of the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomatch.correlate import QUANTUM
from geomatch.encoder import Encoder, load_encoder
from geomatch.errors import InputError, UsageError
from geomatch.geo import Grid, check_even
from geomatch.imagery import Imagery, Orthomosaic
from geomatch.images import OpticalStretch
from geomatch.raster import Patch, Raster
from geomatch.structure import Dense
from geomatch.tiles import TileGrid

from .codes import Coder
from .kinds import AUTO, Kind
from .plan import BuildOptions, Window, window_of, working_scale
from .pooler import Pooler, Tiles
from .tables import table_rows
from .vectors import ReadCells, TilePart, check_kind, part_features

if TYPE_CHECKING:
    import faiss
    import pyarrow as pa

NO_FEATURE = -128


@dataclass(frozen=True)
class Encoded:
    """Features of a block of the map as the index keeps them.

    Attributes:
        values: [C x h x w] int8, features times 127, NO_FEATURE where invalid.
        energy: sum of their squares before rounding.
        known: valid cells.
    """

    values: NDArray[np.int8]
    energy: float
    known: int


@dataclass(frozen=True)
class TileRows:
    """Rows of the tile table.

    Attributes:
        done: tiles of the grid up to the last of them, those that are not kept too.
        table: as ``tables.table_rows`` gives it.
    """

    done: int
    table: pa.Table

    def __len__(self) -> int:
        """Number of tiles that are kept."""
        return int(self.table.num_rows)


@dataclass(frozen=True)
class TileShard:
    """Tiles that are kept, ready to be put behind those before them.

    Attributes:
        rows: of the tile table.
        codes: their vectors, coded.
    """

    rows: TileRows
    codes: faiss.Index


@dataclass(frozen=True)
class BuildJob:
    """Where a build reads, and how; attributes as they are planned from options.

    Attributes:
        raster: the orthomosaic at the working scale.
        scale: sides of its pixels in those of the orthomosaic.
        window: part that is indexed.
        grid: where that lies.
        tiles: over it.
        encoder, stretch: how pixels become features.
        options: of the build.
    """

    raster: Imagery
    scale: float
    window: Window
    grid: Grid
    tiles: TileGrid
    encoder: Encoder
    stretch: OpticalStretch
    options: BuildOptions

    @classmethod
    def plan(cls, raster: Orthomosaic, options: BuildOptions) -> BuildJob:
        """What an opened orthomosaic and options come to; raises as ``build_index``."""
        assert raster.grid is not None, "opened with need_grid"
        try:
            check_even(raster.grid.window(*window_of(raster.grid, options).box))
        except InputError as error:
            raise InputError(error.what, where=raster.name, hint=error.hint) from error
        for kind in options.kinds if options.vectors == AUTO else [Kind(options.vectors)]:
            check_kind(kind)
        scale, stretch = working_scale(raster.grid, options), OpticalStretch.fit(raster)
        scaled = raster.at_scale(scale)
        assert scaled.grid is not None, "resampled pixels lie somewhere too"
        window = window_of(scaled.grid, options)
        try:
            tiles = TileGrid(window.width, window.height, options.tile_px, options.stride_px)
        except UsageError as error:
            raise UsageError(error.what, where=raster.name, hint=error.hint) from error
        return cls(
            raster=scaled,
            scale=scale,
            window=window,
            grid=scaled.grid.window(window.col0, window.row0, window.width, window.height),
            tiles=tiles,
            encoder=load_encoder(options.encoder, options.backend),
            stretch=stretch,
            options=options,
        )

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of features."""
        cell = self.encoder.cell_px
        return -(-self.window.height // cell), -(-self.window.width // cell)

    def read(self, block: Window) -> tuple[Window, Patch]:
        """A block of the window, and its pixels with a margin, so that its features do not depend on the blocking."""
        halo = self.encoder.halo_px
        left, top = min(halo, block.col0), min(halo, block.row0)
        right = min(halo, self.window.width - block.col0 - block.width)
        bottom = min(halo, self.window.height - block.row0 - block.height)
        return block, self.raster.read(
            self.window.col0 + block.col0 - left,
            self.window.row0 + block.row0 - top,
            block.width + left + right,
            block.height + top + bottom,
            bands=self.stretch.bands,
        )

    def encode(self, seen: tuple[Window, Patch]) -> Encoded:
        """Features of a block that was read."""
        block, patch = seen
        halo, cell = self.encoder.halo_px, self.encoder.cell_px
        cells = -(-block.height // cell), -(-block.width // cell)
        if not patch.valid.any():  # between the rasters of a mosaic, it may be most blocks
            return Encoded(np.full((self.encoder.channels, *cells), NO_FEATURE, np.int8), 0.0, 0)
        left, top = min(halo, block.col0) // cell, min(halo, block.row0) // cell
        part = (left, top, cells[1], cells[0])
        dense = self.encoder.dense(self.stretch.bands_of(patch), patch.valid, "optical", part)
        values = np.where(dense.valid, np.rint(dense.values * 127), NO_FEATURE).astype(np.int8)
        return Encoded(values, float(np.square(dense.values).sum(dtype=np.float64)), int(dense.valid.sum()))

    def pooler(self, index: faiss.Index) -> Pooler:
        """What makes vectors of tiles as a fitted index compares them; the index is kept, and not filled meanwhile."""
        encoder = self.encoder
        return Pooler(index, encoder.channels, self.tiles.size_px, encoder.cell_px, self.options.min_valid)

    def pool(self, read: ReadCells, parts: Sequence[TilePart], pooler: Pooler) -> Tiles:
        """The tiles of some parts that have enough valid pixels, from features; one part's in memory at a time."""
        cell_px = self.encoder.cell_px
        return Tiles.joined(pooler(part, part_features(read, part, self.tiles, self.cells, cell_px)) for part in parts)

    def shard(self, tiles: Tiles, coder: Coder) -> TileShard:
        """Tiles coded, with their rows of the table."""
        corners = np.stack([tiles.cols, tiles.rows], axis=1) + (self.window.col0, self.window.row0)
        sources = self.raster.holders(corners, self.tiles.size_px)
        rows = table_rows(self.grid, self.tiles.size_px, tiles, sources)
        return TileShard(TileRows(tiles.done, rows), coder.code(tiles.searched))


def reader_of(features: Raster) -> ReadCells:
    """Reads features from the file that holds them."""

    def read(col0: int, row0: int, width: int, height: int) -> Dense:
        patch = features.read(col0, row0, width, height)
        values: NDArray[np.float32] = patch.data.astype(np.float32)
        values *= patch.valid
        values *= QUANTUM
        return Dense(values, patch.valid)

    return read
