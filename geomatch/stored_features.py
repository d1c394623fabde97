"""A map's features in their file, of which no more is read than is asked for, and no more kept than a bound."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from geomatch.correlate import Features
from geomatch.index_files import reading
from geomatch.raster import open_raster

BLOCK_CELLS = 256  # a side of what the file is made of, which is read at a time
KEPT_BYTES = 1 << 30


class StoredFeatures(Features):
    """Features that are read where they are looked at; threads may share them.

    Args:
        file: ``features.tif`` of an index; it stays open.
        rms: as of ``Features``.

    Raises:
        IndexFormatError: the file cannot be read; so do all methods.
    """

    def __init__(self, file: Path, rms: float) -> None:
        self.rms, self._file, self._one = rms, file, Lock()
        with reading(file):
            self._raster = open_raster(file)
        held = KEPT_BYTES // ((self._raster.count + 1) * BLOCK_CELLS**2)
        self._block = lru_cache(maxsize=max(1, held))(self._read)

    @property
    def shape(self) -> tuple[int, int, int]:
        """As ``Features``."""
        return self._raster.count, self._raster.height, self._raster.width

    def cells(self, first: NDArray[np.int64], beyond: NDArray[np.int64]) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        """As ``Features``."""
        (col0, row0), (col1, row1) = first.tolist(), beyond.tolist()
        values = np.empty((self.shape[0], max(0, row1 - row0), max(0, col1 - col0)), np.int8)
        valid = np.empty(values.shape[1:], bool)
        if not valid.size:
            return values, valid
        for row, col in product(_blocks(row0, row1), _blocks(col0, col1)):
            block, known = self._block(col, row)
            (top, down), (left, right) = _met(row0, row1, row), _met(col0, col1, col)
            here = np.s_[top - row0 : down - row0, left - col0 : right - col0]
            there = np.s_[top - row : down - row, left - col : right - col]
            values[:, *here], valid[here] = block[:, *there], known[there]
        return values, valid

    def _read(self, col0: int, row0: int) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        width, height = (min(BLOCK_CELLS, end - at) for end, at in zip(self.shape[:0:-1], (col0, row0), strict=True))
        with self._one, reading(self._file):
            patch = self._raster.read(col0, row0, width, height)
        return np.asarray(patch.data, np.int8), patch.valid


def _blocks(first: int, beyond: int) -> range:
    """Where the blocks begin that hold cells from one to before another."""
    return range(first // BLOCK_CELLS * BLOCK_CELLS, beyond, BLOCK_CELLS)


def _met(first: int, beyond: int, block: int) -> tuple[int, int]:
    """The cells from one to before another that lie in a block: the first, and the one after the last."""
    return max(first, block), min(beyond, block + BLOCK_CELLS)
