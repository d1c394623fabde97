"""Vectors of all tiles, some rows at a time, and the FAISS structure that holds them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from geomatch.encoder import Encoder
from geomatch.errors import InputError, UsageError
from geomatch.structure import Dense
from geomatch.tiles import TileGrid, TileVectors, tile_vectors, vector_size

from .plan import PCA_EPSILON, PCA_POWER, BuildOptions, VectorPlan, plan_vectors

if TYPE_CHECKING:
    import faiss

ReadRows = Callable[[int, int], Dense]  # first row of cells, number of rows

SAMPLE_TILES, SAMPLE_VALUES = 20_000, 25_000_000  # at most; the second of vectors of thousands of components
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
    sampled = min(SAMPLE_TILES, SAMPLE_VALUES // dimensions)
    sparse = replace(tiles, stride_px=tiles.stride_px * max(1, round(np.sqrt(total / sampled))))
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
        index = _index(plan, sample)
        index.train(sample)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UsageError(
            f"FAISS cannot make {str(plan)!r} of {len(sample)} tiles ({reason})", hint="leave --vectors at auto"
        ) from error
    return index, str(plan)


def _index(plan: VectorPlan, sample: NDArray[np.float32]) -> faiss.Index:
    """A FAISS index whose codes are not trained yet: PCA with half whitening, length one, then the coded vectors."""
    import faiss

    coded = faiss.index_factory(plan.components or sample.shape[1], plan.coded, faiss.METRIC_INNER_PRODUCT)
    if not plan.components:
        return coded
    index = faiss.IndexPreTransform(coded)
    index.prepend_transform(faiss.NormalizationTransform(plan.components, 2.0))
    index.prepend_transform(_half_whitening(sample, plan.components))
    return index


def _half_whitening(sample: NDArray[np.float32], components: int) -> faiss.LinearTransform:
    """PCA, each component divided by the square root of its deviation.

    FAISS's own computes all components, which takes long for vectors of thousands.
    """
    import faiss

    dimensions = sample.shape[1]
    mean = sample.mean(axis=0)
    centred = sample - mean
    covariance = centred.T @ centred / len(sample)
    variances, axes = eigh(covariance, subset_by_index=(dimensions - components, dimensions - 1))
    rows = (axes * np.power(np.maximum(variances, 0) + PCA_EPSILON, PCA_POWER)).T[::-1].astype(np.float32)
    transform = faiss.LinearTransform(dimensions, components, True)
    faiss.copy_array_to_vector(np.ascontiguousarray(rows).ravel(), transform.A)
    faiss.copy_array_to_vector(-rows @ mean, transform.b)
    transform.is_trained = True
    return transform


def write_vectors(index: faiss.Index, file: Path) -> None:
    """Write the index; FAISS's own failures become OSError, as those of any other file are."""
    import faiss

    try:
        faiss.write_index(index, str(file))
    except RuntimeError as error:
        raise OSError(errno.EIO, "FAISS could not write the vectors", str(file)) from error
