"""The grid of tiles over a map, and the vectors of those tiles pooled from dense features.

A tile's vector is its features averaged over a grid of square pools. Pools are box averages along rows and columns, so
the vectors of all tiles at any stride come out of two sparse matrix products over features that were computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.structure import Dense

TILE_PX = 200
STRIDE_PX = 16  # benchmarks/stride.py: wider strides lose recall at once
POOL_PX = 16
MIN_POOL_VALID = 0.25  # share of a pool's cells that must be valid for it to count
MIN_TILE_VALID = 0.5  # share of a tile's cells that must be valid for it to be kept

_TINY = 1e-9


@dataclass(frozen=True)
class TileGrid:
    """Tiles of ``size_px`` every ``stride_px`` over a map of ``width`` × ``height`` px.

    The last row and column of tiles lie flush with the edge of the map, so that every pixel is covered.

    Raises:
        UsageError: the map is smaller than a tile, or the stride is not positive.
    """

    width: int
    height: int
    size_px: int = TILE_PX
    stride_px: int = STRIDE_PX

    def __post_init__(self) -> None:
        if self.stride_px < 1 or self.size_px < 2 * POOL_PX:  # one pool less its own mean tells nothing
            raise UsageError(
                f"tiles of {self.size_px} px every {self.stride_px} px are not possible",
                hint=f"take a stride of at least 1 and a size of at least {2 * POOL_PX}",
            )
        if min(self.width, self.height) < self.size_px:
            raise UsageError(
                f"{self.width} × {self.height} px is smaller than a tile of {self.size_px} × {self.size_px} px",
                hint="use a larger map or choose smaller tiles with --tile",
            )

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.col_starts) * len(self.row_starts)

    @property
    def col_starts(self) -> NDArray[np.int32]:
        """First pixel column of every column of tiles."""
        return starts(self.width, self.size_px, self.stride_px)

    @property
    def row_starts(self) -> NDArray[np.int32]:
        """First pixel row of every row of tiles."""
        return starts(self.height, self.size_px, self.stride_px)


def starts(length: int, size: int, stride: int) -> NDArray[np.int32]:
    """Starts of intervals of ``size`` every ``stride`` within ``length``; the last one ends where it ends."""
    regular = np.arange(0, length - size + 1, stride, dtype=np.int32)
    return regular if regular[-1] == length - size else np.append(regular, np.int32(length - size))


@dataclass(frozen=True)
class TileVectors:
    """Pooled features of the tiles at every crossing of some rows and columns.

    Attributes:
        vectors: [R x K x D] float32, of length one, or zero where the tile has nothing to show.
        valid_fraction: [R x K] share of each tile's area that is valid.
    """

    vectors: NDArray[np.float32]
    valid_fraction: NDArray[np.float32]


def vector_size(channels: int, size_px: int) -> int:
    """Components of a tile's pooled vector."""
    return channels * (size_px // POOL_PX) ** 2


def tile_vectors(
    dense: Dense, col_starts: NDArray[np.int32], row_starts: NDArray[np.int32], size_px: int, cell_px: int
) -> TileVectors:
    """Vectors of the tiles at the crossings of columns and rows.

    Each channel's mean over the tile is removed, since it tells the kind of land and not the place, and the vector is
    brought to length one, so that the inner product of two vectors is their normalised correlation.

    Args:
        dense: [C x h x w] features.
        col_starts: [K] first pixel columns of tiles.
        row_starts: [R] first pixel rows of tiles.
        size_px: side of a tile, pixels.
        cell_px: side of a feature cell, pixels.
    """
    channels, height, width = dense.values.shape
    pools = size_px // POOL_PX
    if not dense.valid.any():  # between the rasters of a mosaic, it may be most of the map
        size = vector_size(channels, size_px)
        shape = len(row_starts), len(col_starts)
        return TileVectors(np.zeros((*shape, size), np.float32), np.zeros(shape, np.float32))
    to_rows = pooling(tuple(row_starts.tolist()), height, pools, size_px, cell_px)
    to_cols = pooling(tuple(col_starts.tolist()), width, pools, size_px, cell_px)

    def pool(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        pooled: NDArray[np.float32] = (to_cols @ (to_rows @ plane).T).T
        return pooled.reshape(len(row_starts), pools, len(col_starts), pools).transpose(0, 2, 1, 3)

    share = pool(dense.valid.astype(np.float32))
    counts = np.asarray(share >= MIN_POOL_VALID, np.float32)[:, :, None]
    pooled = np.empty((len(row_starts), len(col_starts), channels, pools, pools), np.float32)
    for channel, plane in enumerate(dense.values):
        pooled[:, :, channel] = pool(plane)
    weight = counts / np.maximum(share, _TINY)[:, :, None]
    known = np.maximum(counts.sum(axis=(3, 4), keepdims=True), 1)
    partial = bool(np.abs(weight - 1).max() > _TINY)
    if partial:
        pooled *= weight
    pooled -= np.einsum("rkcij->rkc", pooled)[..., None, None] / known  # numpy's sum over two axes is slower
    if partial:
        pooled *= counts
    vectors = pooled.reshape(len(row_starts), len(col_starts), channels * pools * pools)
    length = np.sqrt(np.einsum("rkd,rkd->rk", vectors, vectors))[..., None]
    vectors /= np.maximum(length, _TINY)
    return TileVectors(vectors, share.mean(axis=(2, 3), dtype=np.float32))


@lru_cache(maxsize=64)
def pooling(offsets: tuple[int, ...], cells: int, pools: int, size_px: int, cell_px: int) -> sp.csr_array:
    """Averages over pools along one axis, of tiles that begin at ``offsets``, pixels, from cells.

    Returns:
        [len(offsets) * pools x cells], each row the overlap of one pool with each cell.
    """
    margin = (size_px - pools * POOL_PX) / 2
    low = (np.asarray(offsets)[:, None] + margin + np.arange(pools) * POOL_PX).ravel() / cell_px
    high = low + POOL_PX / cell_px
    reach = int(np.ceil(POOL_PX / cell_px)) + 1
    cell = np.floor(low)[:, None] + np.arange(reach)
    overlap = np.clip(np.minimum(high[:, None], cell + 1) - np.maximum(low[:, None], cell), 0, None)
    row = np.repeat(np.arange(len(low)), reach)
    inside = (overlap.ravel() > 0) & (cell.ravel() < cells)
    weight = overlap.ravel()[inside] * (cell_px / POOL_PX)
    return sp.csr_array(
        (weight.astype(np.float32), (row[inside], cell.ravel()[inside].astype(np.int64))), shape=(len(low), cells)
    )
