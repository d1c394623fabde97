"""Vectors of all tiles, some rows at a time, and the FAISS structure that holds them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomatch.encoder import Encoder
from geomatch.errors import InputError, UsageError
from geomatch.structure import Dense
from geomatch.tiles import TileGrid, TileVectors, tile_vectors, vector_size

from .plan import PCA_EPSILON, PCA_POWER, BuildOptions, VectorPlan, plan_vectors

if TYPE_CHECKING:
    import faiss

ReadRows = Callable[[int, int], Dense]  # first row of cells, number of rows

SAMPLE_TILES = 20_000
CHUNK_VALUES = 1 << 21  # vector components at a time


def vectors_by_rows(
    read: ReadRows, tiles: TileGrid, cell_rows: int, cell_px: int, channels: int
) -> Iterator[tuple[int, int, NDArray[np.int32], TileVectors]]:
    """Vectors of the tiles, a few rows of tiles at a time: (rows done, rows in all, row starts, vectors)."""
    col_starts, row_starts = tiles.col_starts, tiles.row_starts
    per_row = len(col_starts) * vector_size(channels, tiles.size_px)
    step = max(1, CHUNK_VALUES // per_row)
    for first in range(0, len(row_starts), step):
        part = row_starts[first : first + step]
        top = int(part[0]) // cell_px
        bottom = min(cell_rows, -(-(int(part[-1]) + tiles.size_px) // cell_px) + 1)
        dense = read(top, bottom - top)
        yield (
            first,
            len(row_starts),
            part,
            tile_vectors(dense, col_starts, part - top * cell_px, tiles.size_px, cell_px),
        )


def fit_vectors(
    read: ReadRows, tiles: TileGrid, cell_rows: int, encoder: Encoder, options: BuildOptions
) -> tuple[faiss.Index, str]:
    """An empty FAISS index fitted to a sample of the map's tiles, and its factory string.

    Raises:
        InputError: no tile has enough valid pixels.
        UsageError: FAISS does not understand ``options.vectors``, or it cannot be trained on so few tiles.
    """

    total = len(tiles.col_starts) * len(tiles.row_starts)
    dimensions = vector_size(encoder.channels, tiles.size_px)
    plan = plan_vectors(total, dimensions, encoder.channels, options.vectors)
    sparse = replace(tiles, stride_px=tiles.stride_px * max(1, round(np.sqrt(total / SAMPLE_TILES))))
    sample = np.concatenate(
        [
            found.vectors[found.valid_fraction >= options.min_valid]
            for _, _, _, found in vectors_by_rows(read, sparse, cell_rows, encoder.cell_px, encoder.channels)
        ]
    )
    if not len(sample):
        raise InputError(
            f"no tile of the map has {options.min_valid:.0%} valid pixels",
            hint="check its nodata value and mask with gdalinfo, or lower --min-valid",
        )
    try:
        index = _index(plan, dimensions)
        index.train(sample)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UsageError(
            f"FAISS cannot make {str(plan)!r} of {len(sample)} tiles ({reason})", hint="leave --vectors at auto"
        ) from error
    return index, str(plan)


def _index(plan: VectorPlan, dimensions: int) -> faiss.Index:
    """An untrained FAISS index: PCA with half whitening, length one, then the coded vectors."""
    import faiss

    coded = faiss.index_factory(plan.components or dimensions, plan.coded, faiss.METRIC_INNER_PRODUCT)
    if not plan.components:
        return coded
    pca = faiss.PCAMatrix(dimensions, plan.components, PCA_POWER, False)
    pca.epsilon = PCA_EPSILON
    index = faiss.IndexPreTransform(coded)
    index.prepend_transform(faiss.NormalizationTransform(plan.components, 2.0))
    index.prepend_transform(pca)
    return index


def write_vectors(index: faiss.Index, file: Path) -> None:
    """Write the index; FAISS's own failures become OSError, as those of any other file are."""
    import faiss

    try:
        faiss.write_index(index, str(file))
    except RuntimeError as error:
        raise OSError(errno.EIO, "FAISS could not write the vectors", str(file)) from error
