"""Tiles' vectors as an index compares them, pooled and projected at once.

A tile's vector has thousands of components, of which the index's PCA makes some hundreds. Both pooling and the PCA are
linear: where all cells are valid, the long vectors are not written at all. For every column of pools, those of all
tiles are averaged and multiplied by that column's part of the PCA, while they are in the processor's cache; the
products add up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg.blas import sgemm

from geomatch.gallery import matrix, offset, transformed, transforms
from geomatch.tiles import POOL_PX, pooling, tile_vectors

from .vectors import PartFeatures, TilePart

if TYPE_CHECKING:
    import faiss

_TINY = 1e-9


@dataclass(frozen=True)
class Tiles:
    """Tiles that are kept.

    Attributes:
        done: tiles of the grid up to the last of them.
        searched: [N x D] their vectors after the transforms of the search.
        cols, rows: [N] first pixel.
        valid_fraction: [N].
    """

    done: int
    searched: NDArray[np.float32]
    cols: NDArray[np.int32]
    rows: NDArray[np.int32]
    valid_fraction: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Iterable[Tiles]) -> Tiles:
        """Those of several parts, one or more, in order."""
        found = list(parts)
        columns = zip(*((part.searched, part.cols, part.rows, part.valid_fraction) for part in found), strict=True)
        return cls(found[-1].done, *map(np.concatenate, columns))


class Pooler:
    """Makes the vectors of those tiles that have enough valid pixels.

    Args:
        index: fitted; its transforms are those of the vectors.
        channels: features per cell.
        size_px: side of a tile.
        cell_px: side of a cell.
        min_valid: least share of valid pixels.
    """

    def __init__(self, index: faiss.Index, channels: int, size_px: int, cell_px: int, min_valid: float) -> None:
        import faiss

        self._index, self._size_px, self._cell_px, self._min_valid = index, size_px, cell_px, min_valid
        self._pools = size_px // POOL_PX
        self._transforms = transforms(index)
        self._pieces: NDArray[np.float32] | None = None
        if self._transforms and isinstance(first := self._transforms[0], faiss.LinearTransform):
            axes = matrix(first).reshape(-1, channels, self._pools, self._pools)
            # For every column of pools, a matrix from its pools' channels to the components.
            self._pieces = np.ascontiguousarray(axes.transpose(3, 2, 1, 0)).reshape(self._pools, -1, len(axes))
            self._offset = offset(first)

    def __call__(self, part: TilePart, seen: PartFeatures) -> Tiles:
        """The tiles of a part, of whose features some may not be valid."""
        if self._pieces is not None and seen.dense.valid.all():
            valid_fraction = np.ones((len(part.row_starts), len(part.col_starts)), np.float32)
            keep = valid_fraction >= self._min_valid
            searched = transformed(self._transforms[1:], self._projected(self._pieces, seen) + self._offset)
        else:
            found = tile_vectors(seen.dense, seen.col_starts, seen.row_starts, self._size_px, self._cell_px)
            valid_fraction = found.valid_fraction
            keep = valid_fraction >= self._min_valid
            searched = transformed(self._transforms, found.vectors[keep])
        rows, cols = np.nonzero(keep)
        return Tiles(
            part.done + keep.size, searched, part.col_starts[cols], part.row_starts[rows], valid_fraction[keep]
        )

    def _projected(self, pieces: NDArray[np.float32], seen: PartFeatures) -> NDArray[np.float32]:
        """What ``tile_vectors`` gives where all is valid, times the axes of the PCA: [N x D], row by row."""
        pools, cells = self._pools, seen.dense.values
        channels, height, width = cells.shape
        tall, wide = len(seen.row_starts), len(seen.col_starts)
        down = pooling(tuple(seen.row_starts.tolist()), height, pools, self._size_px, self._cell_px)
        across = pooling(tuple(seen.col_starts.tolist()), width, pools, self._size_px, self._cell_px)
        last = cv2.merge(list(cells)).reshape(height, width * channels)
        pooled_down = _turned((down @ last).reshape(tall * pools, width, channels))  # width x (tiles, pools) x channels
        mean_down = (_mean_of(down, pools) @ last).reshape(tall, width, channels).transpose(1, 0, 2)
        means = (_mean_of(across, pools) @ mean_down.reshape(width, -1)).reshape(wide, tall, 1, channels)
        means = np.repeat(means, pools, axis=2).reshape(wide, -1)
        projected = np.zeros((wide * tall, pieces.shape[2]), np.float32)
        squares = np.zeros(wide * tall, np.float32)
        flat = pooled_down.reshape(width, -1)
        for column, piece in enumerate(pieces):
            pooled = across[column::pools] @ flat
            pooled -= means
            pooled = pooled.reshape(wide * tall, -1)
            squares += np.einsum("nd,nd->n", pooled, pooled)
            projected = sgemm(1, piece.T, pooled.T, 1, projected.T, overwrite_c=True).T  # += pooled @ piece, in place
        projected /= np.maximum(np.sqrt(squares), _TINY)[:, None]
        return np.ascontiguousarray(projected.reshape(wide, tall, -1).swapaxes(0, 1)).reshape(wide * tall, -1)


def _turned(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """[R x K x C] -> [K x R x C], a cell's channels moved as one."""
    one = np.dtype((np.void, cells.shape[2] * cells.itemsize))
    turned = np.empty((cells.shape[1], cells.shape[0], cells.shape[2]), cells.dtype)
    turned.view(one)[..., 0] = cells.view(one)[..., 0].T
    return turned


def _mean_of(pools: sp.csr_array, count: int) -> NDArray[np.float32]:
    """The mean of a tile's ``count`` pools along an axis, as ``pooling`` gives them: [tiles x cells]."""
    whole: NDArray[np.float32] = pools.toarray().reshape(-1, count, pools.shape[1]).mean(axis=1)
    return whole
