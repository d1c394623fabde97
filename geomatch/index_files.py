"""The large files of an index, of which no more is read than is asked for: the tiles' vectors and corners.

A file of vectors holds codes, which a search goes through, and of most kinds the vectors in full behind them, of which
it wants thousands that lie anywhere. Through a mapping each of these costs a fault, and stays in memory; read by their
places in the file they do neither.
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geomatch.errors import GeomatchError, IndexFormatError
from geomatch.manifest import REBUILD

if TYPE_CHECKING:
    import faiss

AHEAD_BYTES = 10 << 20  # more than transforms and codes of 100,000 tiles take where there are vectors in full behind
HEADER_BYTES = 1 << 20  # more than what stands before the codes of further parts
_K_FACTOR_BYTES = 4
_MANY_FILES = 64  # more than these, and the system's limit of open files may be met
_TOO_MANY = os.strerror(errno.EMFILE)


def let_open(count: int) -> None:
    """Have the system let this process hold as many files open as it may, where it is about to open many."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count > _MANY_FILES:
        with suppress(ValueError, OSError):  # some systems have a limit of their own below the one they tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def reading(file: Path) -> Iterator[Path]:
    """Turns whatever a library says about an unreadable file of the index into one IndexFormatError that names it."""
    try:
        yield file
    except (GeomatchError, OSError, RuntimeError, ValueError, KeyError) as error:
        reason = error.what if isinstance(error, GeomatchError) else str(error).splitlines()[0]
        hint = "let the process open more files (ulimit -n)" if _TOO_MANY in reason else REBUILD
        raise IndexFormatError(f"cannot be read ({reason})", where=file, hint=hint) from error


class Corners:
    """First column and row of each tile, pixels of the map; read in groups as they are asked for.

    Args:
        file: the table of the tiles.

    Raises:
        IndexFormatError: the file cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        with reading(file):
            self._table = pq.ParquetFile(file)
            described = self._table.metadata
            counts = [described.row_group(number).num_rows for number in range(described.num_row_groups)]
        self._first = np.cumsum([0, *counts])
        self._read: dict[int, NDArray[np.int32]] = {}
        self._every: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        """Number of tiles."""
        return int(self._first[-1])

    def __getitem__(self, tiles: NDArray[np.int64]) -> NDArray[np.int32]:
        """Of tiles of any shape [...]: [... x 2]."""
        found = np.empty((*tiles.shape, 2), np.int32)
        groups = np.searchsorted(self._first, tiles, side="right") - 1
        for number in np.unique(groups).tolist():
            chosen = groups == number
            found[chosen] = self._group(number)[tiles[chosen] - self._first[number]]
        return found

    def __array__(self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None) -> NDArray[np.int32]:
        """Of all tiles: [N x 2]."""
        if self._every is None:
            every = [self._group(number) for number in range(len(self._first) - 1)]
            self._every = np.concatenate([np.empty((0, 2), np.int32), *every])
            self._read = {number: self._every[slice(*self._first[number : number + 2])] for number in self._read}
        return self._every.astype(dtype or np.int32, copy=bool(copy))

    def _group(self, number: int) -> NDArray[np.int32]:
        if number not in self._read:
            with reading(self._file):
                columns = self._table.read_row_group(number, columns=["col", "row"]).combine_chunks()
                # pyarrow's own way to numpy imports pandas first, where that is installed
                self._read[number] = np.column_stack(
                    [np.from_dlpack(columns[name].chunk(0)) for name in ("col", "row")]
                )
        return self._read[number]


class Rows:
    """Codes of one size, one behind the other, in a file that stays open.

    Args:
        file: to read.
        first: byte at which the codes begin.
        size: bytes of a code.
    """

    def __init__(self, file: Path, first: int, size: int) -> None:
        self._first, self._size = first, size
        self._file = os.open(file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """[N x bytes] codes by their numbers [N]; those that follow on each other are read at once."""
        size, file = self._size, self._file
        follows = np.zeros(len(ids), bool)
        follows[1:] = ids[1:] == ids[:-1] + 1
        begins = np.flatnonzero(~follows)
        counts = np.append(begins[1:], len(ids)) - begins
        runs = list(zip((counts * size).tolist(), (self._first + ids[begins] * size).tolist(), strict=True))
        if runs and not _is_in_memory(file, runs[len(runs) // 2][1]):
            for length, place in runs:  # a disk has them sooner when it is asked for all at once
                os.posix_fadvise(file, place, length, os.POSIX_FADV_WILLNEED)
        read = b"".join([os.pread(file, length, place) for length, place in runs])
        return np.frombuffer(read, np.uint8).reshape(len(ids), size)

    @property
    def size(self) -> int:
        """Bytes of a code."""
        return self._size


@dataclass(frozen=True)
class Part:
    """Vectors of some tiles.

    Attributes:
        index: of FAISS; that of the first part has the transforms before the search.
        rows: codes of the vectors in full; None where the index holds them, or has none but those that it searches.
    """

    index: faiss.Index
    rows: Rows | None = None

    def __len__(self) -> int:
        """Number of vectors."""
        return int(self.index.ntotal)

    @property
    def reranked(self) -> float:
        """How many codes are looked at again in full for each vector asked for; 0 where there is no more than they."""
        import faiss

        held = coded(self.index)
        return float(held.k_factor) if isinstance(held, faiss.IndexRefine) else 0.0

    @property
    def share_of_codes(self) -> float:
        """How much of a further part's file is codes that a search goes through; 0 where that is not known."""
        import faiss

        held = coded(self.index)
        codes = faiss.downcast_index(held.base_index) if isinstance(held, faiss.IndexRefine) else held
        if self.rows is None or not isinstance(codes, faiss.IndexFastScan):
            return 0.0
        size = int(cast(Any, codes).code_size)  # of which the hints know nothing
        return size / (size + self.rows.size)

    @cached_property
    def _exact(self) -> faiss.Index:
        return in_full(self.index)

    def scan(self, asked: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best by their codes, after the transforms: [Q x k] inner products and numbers, -1 beyond those found."""
        import faiss

        held = coded(self.index)
        codes = faiss.downcast_index(held.base_index) if isinstance(held, faiss.IndexRefine) else held
        scores, ids = codes.search(asked, min(count, len(self)))
        return scores, ids

    def stored(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors as they are compared, decoded: [N] -> [N x D]."""
        import faiss

        exact = self._exact
        if self.rows is not None:
            return np.asarray(exact.sa_decode(self.rows[ids]), np.float32)
        if isinstance(exact, faiss.IndexIVF):
            exact.make_direct_map()
        return np.asarray(exact.reconstruct_batch(np.ascontiguousarray(ids)), np.float32)


def read_part(file: Path, first: Part | None = None) -> Part:
    """The vectors in a file. What FAISS maps of it stays on disk, and nothing can be added.

    Args:
        file: to read.
        first: part of the index, where this is a further one: it tells how much of a file its codes are.

    Raises:
        IndexFormatError: the file cannot be read.
    """
    import faiss

    with reading(file):
        share = 0.0 if first is None else first.share_of_codes
        _fetch(file, HEADER_BYTES + round(share * file.stat().st_size) if share else AHEAD_BYTES)
        index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        return Part(index, _rows_of(file, index))


def _fetch(file: Path, size: int) -> None:
    """Have the system read the beginning of a file at once: FAISS maps files in a way that reads page by page."""
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, size, os.POSIX_FADV_WILLNEED)


def _is_in_memory(file: int, place: int) -> bool:
    """Whether the system has a byte of an open file without asking the disk; true where it does not say."""
    if not hasattr(os, "RWF_NOWAIT"):
        return True
    try:
        os.preadv(file, [bytearray(1)], place, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # this file system does not know
        return True
    return True


def _rows_of(file: Path, index: faiss.Index) -> Rows | None:
    """The vectors in full of an index that looks at its codes again, where they are the last thing in its file."""
    import faiss

    exact = in_full(index)
    flat = isinstance(exact, (faiss.IndexScalarQuantizer, faiss.IndexFlat))
    if not (flat and isinstance(coded(index), faiss.IndexRefine)):
        return None
    size = exact.sa_code_size()
    return Rows(file, file.stat().st_size - _K_FACTOR_BYTES - index.ntotal * size, size)


def coded(index: faiss.Index) -> faiss.Index:
    """What holds the vectors, behind an index's transforms."""
    import faiss

    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index


def in_full(index: faiss.Index) -> faiss.Index:
    """What holds the vectors as well as there is, behind an index's transforms."""
    import faiss

    held = coded(index)
    return faiss.downcast_index(held.refine_index) if isinstance(held, faiss.IndexRefine) else held
