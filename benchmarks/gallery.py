"""Feature fields and vectors of the benchmarks' maps, made by geomatch's own code. A library, nothing to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import common
import numpy as np
from common import Area, SarWindows
from numpy.typing import NDArray

from geomatch import tiles
from geomatch.correlate import QUANTUM, Field
from geomatch.encoder import Encoder, StructuralEncoder
from geomatch.index import vectors as fitting
from geomatch.index.build import BuildOptions, build_index
from geomatch.index.job import reader_of
from geomatch.locator import Locator
from geomatch.manifest import FEATURES
from geomatch.raster import open_raster
from geomatch.structure import Dense
from geomatch.tile_index import TileIndex
from geomatch.tiles import TileGrid, tile_vectors

SIZE_PX = tiles.TILE_PX
CELL_PX = StructuralEncoder.cell_px
ENCODER = StructuralEncoder()


@contextmanager
def setting(*changes: tuple[object, str, object]) -> Iterator[None]:
    """Module constants set for the block: (module, name, value); what was computed from the old ones is forgotten."""
    with ExitStack() as stack:
        for module, name, value in changes:
            stack.enter_context(patch.object(module, name, value))
        tiles.pooling.cache_clear()
        yield
    tiles.pooling.cache_clear()


def field_of(data: Path, area: Area, encoder: str = common.STRUCTURAL) -> Field:
    """Features of an area as its index holds them."""
    folder = common.BENCH / "gallery"
    map_file = common.area_file(data, area, folder)
    options = BuildOptions(encoder=encoder)
    index: TileIndex = build_index(map_file, map_file.with_suffix(".gmi"), options, overwrite=True)
    return index.features


def as_dense(field: Field) -> Dense:
    return Dense(field.values * field.valid * QUANTUM, field.valid)


def gallery_vectors(dense: Dense, grid: TileGrid, min_valid: float) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Pooled vectors [N x D] and corners [N x 2] of the tiles with enough valid area."""
    vectors, corners = [], []
    for block in fitting.tile_blocks(dense.crop, grid, dense.valid.shape, CELL_PX, len(dense.values)):
        at_rows, at_cols = np.nonzero(block.found.valid_fraction >= min_valid)
        vectors.append(block.found.vectors[at_rows, at_cols])
        corners.append(np.stack([block.col_starts[at_cols], block.row_starts[at_rows]], axis=1))
    return np.concatenate(vectors), np.concatenate(corners)


def vectors_in_full(
    index: TileIndex, searched: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """Vectors [N x D] and corners [N x 2] of all tiles, some at a time, made from an index's features.

    Args:
        index: of them.
        searched: what makes vectors [N x P] of tiles such as are compared; default the index's.
    """
    searched = searched or index.vectors.searched
    size, cell = index.manifest.tiles, index.encoder.cell_px
    grid = TileGrid(index.grid.width, index.grid.height, size.size_px, size.stride_px)
    with open_raster(index.path / FEATURES) as raster:
        read = reader_of(raster)
        for block in fitting.tile_blocks(read, grid, index.manifest.cells, cell, index.encoder.channels):
            rows, cols = np.nonzero(block.found.valid_fraction >= BuildOptions().min_valid)
            corners = np.stack([block.col_starts[cols], block.row_starts[rows]], axis=1)
            yield searched(block.found.vectors[rows, cols]), corners


def query_features(
    sar: SarWindows, corners: NDArray[np.int64], size: int = SIZE_PX, *, encoder: Encoder = ENCODER
) -> list[Dense]:
    strips = [sar.strip(corner, size) for corner in corners]
    return [encoder.dense(strip.image[None], strip.valid, "sar") for strip in strips]


def query_vectors(queries: list[Dense]) -> NDArray[np.float32]:
    """[Q x D], as the locator makes them of windows of a tile's size."""
    first = np.zeros(1, np.int32)
    return np.concatenate([tile_vectors(query, first, first, SIZE_PX, CELL_PX).vectors[0] for query in queries])


def ranks(
    corners: NDArray[np.int32], ids: NDArray[np.int64], truth: NDArray[np.int64], within_px: float
) -> NDArray[np.int64]:
    """Rank from 1 of the first retrieved tile whose corner is within ``within_px`` per axis of the true one; 0: none.

    Args:
        corners: [N x 2] of the tiles.
        ids: [Q x k] retrieved, best first, -1 for none.
        truth: [Q x 2].
        within_px: tolerance.
    """
    off = np.abs(corners[np.maximum(ids, 0)] - truth[:, None]).max(axis=2)
    hit = (off <= within_px) & (ids >= 0)
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)


def block_locators(data: Path, encoders: Iterable[str]) -> Iterator[tuple[str, Locator]]:
    """Each encoder with the locator of an index of the validation block that it made, there while it is used."""
    with TemporaryDirectory() as name:
        map_file = common.area_file(data, common.LA_VAL, Path(name))
        for encoder in encoders:
            index = Path(name) / f"{encoder.replace(':', '-')}.gmi"
            build_index(map_file, index, BuildOptions(encoder=encoder))
            yield encoder, Locator.open(index)
