"""The tiles' vectors on disk: one or more FAISS files, searched as if they were one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomatch.gallery import Gallery, Hits
from geomatch.near import Disc
from geomatch.threads import one_thread

if TYPE_CHECKING:
    import faiss

DECODED = 1 << 14  # vectors at a time


class Vectors(Gallery):
    """Vectors in the order of the tiles, through all parts.

    Args:
        parts: FAISS indexes of inner product, fitted alike.
        corners_px: [N x 2] int32 first column and row of each tile, pixels of the map.
    """

    def __init__(self, parts: Sequence[faiss.Index], corners_px: NDArray[np.int32]) -> None:
        super().__init__(parts[0])
        self._parts, self._corners = parts, corners_px
        self._first = np.cumsum([0, *(part.ntotal for part in parts)])
        self._reranked = _reranked(parts[0])

    def __len__(self) -> int:
        """Number of vectors."""
        return int(self._first[-1])

    def search(self, queries: NDArray[np.float32], k: int, within: Disc | None = None) -> Hits:
        """As ``Gallery.search``; -inf and tile 0 beyond those that were found.

        Tiles within a circle are decoded and compared one by one, since FAISS's fast-scan codes cannot be searched in
        part, so that only they cost time.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if within is None:
            scores, ids = self._all(queries, k)
        else:
            among = np.nonzero(within.holds(self._corners))[0]
            scores, ids = self._among(queries, min(k, len(among)), among)
        return Hits(scores, self._corners[ids], ids)

    def _all(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        asked = self.searched(queries)
        with one_thread():
            scores, ids = self._scanned(asked, round(k * self._reranked))
            if self._reranked > 1:
                scores, ids = self._again(asked, scores, ids)
        return scores[:, :k], ids[:, :k]

    def _scanned(self, asked: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best by their codes, of all parts together: [Q x count], [Q x count], -inf and 0 beyond them."""
        found = [part.search(asked, min(count, part.ntotal)) for part in map(_scan, self._parts)]
        scores = np.concatenate([np.where(ids >= 0, scores, -np.inf) for scores, ids in found], axis=1)
        ids = np.concatenate(
            [np.maximum(ids, 0) + first for (_, ids), first in zip(found, self._first, strict=False)], axis=1
        )
        return _best(scores, ids, count)

    def _again(
        self, asked: NDArray[np.float32], scores: NDArray[np.float32], ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The same by their vectors in full, best first."""
        exact = np.array([self.stored(some) @ query for some, query in zip(ids, asked, strict=True)], np.float32)
        return _best(np.where(np.isfinite(scores), exact, -np.inf), ids, ids.shape[1])

    def _among(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        import faiss

        if not k:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        asked = self.searched(queries)
        heap = faiss.ResultHeap(len(asked), k, keep_max=True)
        with one_thread():
            for first in range(0, len(among), DECODED):
                part = among[first : first + DECODED]
                scores, at = faiss.knn(asked, self.stored(part), min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
                heap.add_result(scores, part[at])
            heap.finalize()
        return heap.D, heap.I

    def stored(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of tiles as they are compared, decoded: [N] -> [N x D]."""
        found = np.empty((len(ids), coded(self._parts[0]).d), np.float32)
        part = np.searchsorted(self._first, ids, side="right") - 1
        for number in np.unique(part):
            chosen = part == number
            found[chosen] = _decoded(coded(self._parts[number]), ids[chosen] - self._first[number])
        return found


def coded(index: faiss.Index) -> faiss.Index:
    """What holds the vectors, behind an index's transforms."""
    import faiss

    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index


def _reranked(index: faiss.Index) -> float:
    """How many codes are looked at again in full for every vector asked for; 1 where they are as good as there is."""
    import faiss

    held = coded(index)
    return float(held.k_factor) if isinstance(held, faiss.IndexRefine) else 1.0


def _scan(index: faiss.Index) -> faiss.Index:
    """What finds vectors by their codes, behind an index's transforms."""
    import faiss

    held = coded(index)
    return faiss.downcast_index(held.base_index) if isinstance(held, faiss.IndexRefine) else held


def _best(
    scores: NDArray[np.float32], ids: NDArray[np.int64], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The ``count`` best of each row [Q x N], best first, ties as they came; 0 for no vector."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    kept = np.take_along_axis(scores, best, axis=1).astype(np.float32)
    return kept, np.where(np.isfinite(kept), np.take_along_axis(ids, best, axis=1), 0)


def _decoded(index: faiss.Index, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    import faiss

    exact = faiss.downcast_index(index.refine_index) if isinstance(index, faiss.IndexRefine) else index
    if isinstance(exact, faiss.IndexIVF):
        exact.make_direct_map()
    return np.asarray(exact.reconstruct_batch(np.ascontiguousarray(ids)), np.float32)


def read_part(file: Path, *, mapped: bool = True) -> faiss.Index:
    """The FAISS index in a file.

    Args:
        file: that FAISS wrote.
        mapped: what is not looked at stays on disk; nothing can be added then.

    Raises:
        RuntimeError: there is none.
    """
    import faiss

    return faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
