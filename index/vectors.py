"""Vectors of all tiles, some at a time, and the FAISS index that is fitted to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from geomatch.encoder import Encoder
from geomatch.errors import InputError, UsageError
from geomatch.index_files import coded, in_full
from geomatch.structure import Dense
from geomatch.tiles import TileGrid, TileVectors, tile_vectors, vector_size

from .codes import layers
from .kinds import PCA_DIMENSIONS, Kind, VectorPlan, fitting
from .plan import BLOCK_PX

if TYPE_CHECKING:
    import faiss

ReadCells = Callable[[int, int, int, int], Dense]  # first column and row of cells, columns, rows

SAMPLE_TILES, SAMPLE_VALUES = 20_000, 25_000_000  # at most; the second of vectors of thousands of components
ENOUGH = 0.25  # of them; of a map of which less is valid, tiles nearer to each other are taken
CHUNK_VALUES = 1 << 21  # vector components at a time
PCA_POWER = -0.25  # half whitening: strong components count less, weak ones are not blown up into noise
PCA_EPSILON = 1e-7  # added to the variances, which lie around 1e-3, so that none is zero or below


@dataclass(frozen=True)
class TileBlock:
    """Tiles at the crossings of some rows and columns of the grid.

    Attributes:
        col_starts, row_starts: [K], [R] first pixel columns and rows.
        found: [R x K x D] their vectors.
    """

    col_starts: NDArray[np.int32]
    row_starts: NDArray[np.int32]
    found: TileVectors


@dataclass(frozen=True)
class TilePart:
    """Rows and columns of tiles whose vectors are made at a time.

    Attributes:
        done: tiles of the parts before.
        col_starts, row_starts: [K], [R] first pixel columns and rows.
    """

    done: int
    col_starts: NDArray[np.int32]
    row_starts: NDArray[np.int32]

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.row_starts) * len(self.col_starts)


def tile_parts(tiles: TileGrid, channels: int) -> list[TilePart]:
    """All tiles, as many at a time as CHUNK_VALUES allows, in squares, whose tiles share most of what they show.

    However far tiles lie apart, those of a part lie on no more of the map than is encoded at a time, or it is one tile.
    """
    at_once = max(1, CHUNK_VALUES // vector_size(channels, tiles.size_px))
    most = 1 + max(0, BLOCK_PX - tiles.size_px) // tiles.stride_px
    across = min(most, len(tiles.col_starts), max(math.isqrt(at_once), at_once // len(tiles.row_starts)))
    down = min(most, at_once // across)
    made, done = [], 0
    for rows in _pieces(tiles.row_starts, down):
        for cols in _pieces(tiles.col_starts, across):
            made.append(TilePart(done, cols, rows))
            done += len(made[-1])
    return made


@dataclass(frozen=True)
class PartFeatures:
    """What the tiles of a part show.

    Attributes:
        dense: features.
        col_starts, row_starts: [K], [R] first pixel columns and rows of the tiles in them.
    """

    dense: Dense
    col_starts: NDArray[np.int32]
    row_starts: NDArray[np.int32]


def part_features(
    read: ReadCells, part: TilePart, tiles: TileGrid, cells: tuple[int, int], cell_px: int
) -> PartFeatures:
    """Features under the tiles of a part.

    Args:
        read: gives features.
        part: of ``tile_parts``.
        tiles: the grid.
        cells: rows and columns of features that there are.
        cell_px: side of a cell.
    """
    (top, bottom), (left, right) = (
        (int(starts[0]) // cell_px, min(limit, -(-(int(starts[-1]) + tiles.size_px) // cell_px) + 1))
        for starts, limit in zip((part.row_starts, part.col_starts), cells, strict=True)
    )
    dense = read(left, top, right - left, bottom - top)
    return PartFeatures(dense, part.col_starts - left * cell_px, part.row_starts - top * cell_px)


def tile_blocks(
    read: ReadCells, tiles: TileGrid, cells: tuple[int, int], cell_px: int, channels: int
) -> Iterator[TileBlock]:
    """Vectors of all tiles, part by part; arguments as of ``part_features`` and ``tile_parts``."""
    for part in tile_parts(tiles, channels):
        seen = part_features(read, part, tiles, cells, cell_px)
        found = tile_vectors(seen.dense, seen.col_starts, seen.row_starts, tiles.size_px, cell_px)
        yield TileBlock(part.col_starts, part.row_starts, found)


def _pieces(values: NDArray[np.int32], length: int) -> Iterator[NDArray[np.int32]]:
    for first in range(0, len(values), length):
        yield values[first : first + length]


@dataclass(frozen=True)
class Sample:
    """Tiles spread over the map.

    Attributes:
        vectors: [N x D], about SAMPLE_TILES at most.
        of_tiles: how many tiles the map has about, those with enough valid pixels.
    """

    vectors: NDArray[np.float32]
    of_tiles: int


def sample_vectors(
    read: ReadCells, tiles: TileGrid, cells: tuple[int, int], encoder: Encoder, min_valid: float
) -> Sample:
    """Vectors of tiles spread over the map, to fit a FAISS index to; the denser, the less of the map is valid.

    Raises:
        InputError: no tile has enough valid pixels.
    """
    wanted = min(SAMPLE_TILES, SAMPLE_VALUES // vector_size(encoder.channels, tiles.size_px))
    apart = max(1, round(np.sqrt(len(tiles) / wanted)))
    while True:
        sparse = replace(tiles, stride_px=tiles.stride_px * apart)
        sample = np.concatenate(
            [
                block.found.vectors[block.found.valid_fraction >= min_valid]
                for block in tile_blocks(read, sparse, cells, encoder.cell_px, encoder.channels)
            ]
        )
        if apart == 1 or len(sample) >= ENOUGH * wanted:
            break
        apart //= 2
    if not len(sample):
        raise InputError(
            f"no tile of the map has {min_valid:.0%} valid pixels",
            hint="check its nodata value and mask with gdalinfo, or lower --min-valid",
        )
    return Sample(sample, round(len(tiles) * len(sample) / len(sparse)))


def fit_vectors(plan: VectorPlan, sample: NDArray[np.float32]) -> faiss.Index:
    """An empty FAISS index fitted to a sample of the map's vectors, [N x D].

    Raises:
        UsageError: FAISS does not understand the plan, or cannot be trained on so few.
    """
    try:
        index = _index(plan, sample)
        index.train(sample)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UsageError(
            f"FAISS cannot make {str(plan)!r} of {len(sample)} tiles ({reason})", hint="leave --vectors at auto"
        ) from error
    return index


def check_kind(kind: Kind) -> None:
    """Find out before the work whether FAISS can make a kind, and give its vectors back by their numbers.

    Raises:
        UsageError: it cannot.
    """
    import faiss

    try:
        made = faiss.index_factory(PCA_DIMENSIONS, fitting(kind, PCA_DIMENSIONS).coded, faiss.METRIC_INNER_PRODUCT)
        faiss.clone_index(made)
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].rpartition(": ")[2]
        hint = "write it as FAISS's index_factory takes it, or leave --vectors at auto"
        raise UsageError(f"FAISS knows no kind of vectors {kind.coded!r} ({reason})", hint=hint) from error
    for layer in layers(coded(made)):
        other_codes = isinstance(layer, faiss.IndexFastScan) and not isinstance(layer, faiss.IndexPQFastScan)
        if isinstance(layer, (faiss.IndexIDMap, faiss.IndexNSG)) or other_codes:
            hint = "take another one, or leave --vectors at auto"
            raise UsageError(f"vectors {kind.coded!r} cannot be put together from parts", hint=hint)
    exact = in_full(made)
    turned = isinstance(made, faiss.IndexPreTransform) and isinstance(exact, faiss.IndexIVF)
    if turned or isinstance(exact, (faiss.IndexIVFFastScan, cast(Any, faiss).IndexIVFFlatDedup)):
        hint = "add ,Refine(SQfp16), which keeps them in full"
        raise UsageError(f"vectors {kind.coded!r} cannot be read back one by one", hint=hint)


def _index(plan: VectorPlan, sample: NDArray[np.float32]) -> faiss.Index:
    """A FAISS index whose codes are not trained yet: PCA with half whitening, length one, then the coded vectors."""
    import faiss

    coded = faiss.index_factory(plan.components or sample.shape[1], plan.kind.coded, faiss.METRIC_INNER_PRODUCT)
    _set_search(coded, plan.kind)
    if not plan.components:
        return coded
    index = faiss.IndexPreTransform(coded)
    index.prepend_transform(faiss.NormalizationTransform(plan.components, 2.0))
    index.prepend_transform(_half_whitening(sample, plan.components))
    return index


def _set_search(coded: faiss.Index, kind: Kind) -> None:
    """How it is searched, which its file will tell."""
    import faiss

    if isinstance(coded, faiss.IndexRefine):
        coded.k_factor = kind.reranked
        coded = faiss.downcast_index(coded.base_index)
    if isinstance(coded, faiss.IndexIVF):
        coded.nprobe = max(1, round(kind.probes * coded.nlist))


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
