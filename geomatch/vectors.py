"""The tiles' vectors on disk: one or more FAISS files, searched as if they were one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geomatch.gallery import Gallery, Hits
from geomatch.index_files import Corners, Part, coded
from geomatch.near import Disc
from geomatch.threads import one_thread

DECODED = 1 << 14  # vectors at a time
AMPLE = 2  # times as many codes as a circle should hold the best of are asked of the parts that it touches
AT_ONCE = 8  # queries whose best are looked at again together
SPARE = 4  # times its share of the best that a part is asked for at first
Circle = tuple[bytes, float, bytes]  # what a ``Disc`` says


class Vectors(Gallery):
    """Vectors in the order of the tiles, through all parts.

    Args:
        parts: of inner product, fitted alike.
        corners_px: [N x 2] int32 first column and row of each tile, pixels of the map.
    """

    def __init__(self, parts: Sequence[Part], corners_px: Corners | NDArray[np.int32]) -> None:
        super().__init__(parts[0].index)
        self._parts, self._corners = parts, corners_px
        self._first = np.cumsum([0, *map(len, parts)])
        self._last_circle: tuple[Circle, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Number of vectors."""
        return int(self._first[-1])

    def search(self, queries: NDArray[np.float32], k: int, within: Disc | None = None) -> Hits:
        """As ``Gallery.search``; -inf and tile 0 beyond those that were found.

        Of a circle with few tiles these are decoded and compared one by one. Where that is more than the parts that it
        touches have to be asked for, these are searched, and what lies outside is left out: FAISS's fast-scan codes
        cannot be searched in part.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        asked = self.searched(queries)
        with one_thread():
            if within is None:
                scores, ids = self._all(asked, k)
            else:
                scores, ids = self._inside(asked, k, self._tiles_in(within))
        return Hits(scores, self._corners[ids], ids)

    def _all(self, asked: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores, ids = self._scanned(asked, self._wanted(k), range(len(self._parts)))
        if self._parts[0].reranked:
            scores, ids = self._again(asked, scores, ids)
        return scores[:, :k], ids[:, :k]

    def _tiles_in(self, within: Disc) -> NDArray[np.int64]:
        """Numbers of the tiles in a circle, in order.

        The last answer is kept, since many strips are asked of one circle.
        """
        circle = (within.center_px.tobytes(), within.radius_m, within.ground.tobytes())
        last = self._last_circle
        if last is None or last[0] != circle:
            corners = np.asarray(self._corners)
            left, right, top, bottom = within.box
            cols, rows = corners.T
            boxed = np.flatnonzero((cols >= left) & (cols <= right) & (rows >= top) & (rows <= bottom))
            self._last_circle = last = circle, boxed[within.holds(corners[boxed])]
        return last[1]

    def _inside(
        self, asked: NDArray[np.float32], k: int, among: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best of some tiles, numbers in order; fewer than ``k`` where there are no more."""
        k, wanted = min(k, len(among)), min(self._wanted(k), len(among))
        parts = np.flatnonzero(np.diff(np.searchsorted(among, self._first))).tolist()
        there = sum(len(self._parts[number]) for number in parts)
        asked_of_parts = AMPLE * wanted * there // max(1, len(among))
        if asked_of_parts < len(among):
            scores, ids = self._scanned(asked, asked_of_parts, parts)
            scores = np.where(_holds(among, ids), scores, -np.inf)
            if np.isfinite(scores).sum(axis=1).min() >= wanted:
                scores, ids = self._again(asked, *_best(scores, ids, wanted))
                return scores[:, :k], ids[:, :k]
        return self._among(asked, k, among)

    def _wanted(self, k: int) -> int:
        """How many of the best by their codes are looked at for ``k`` tiles."""
        return round(k * max(1.0, self._parts[0].reranked))

    def _scanned(
        self, asked: NDArray[np.float32], count: int, parts: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best by their codes, of some parts together: [Q x count], [Q x count], -inf and 0 beyond them.

        A search for many takes longer than one for few, and as a rule no part holds most of the best: each is asked for
        SPARE times its share first, and again for all where its last is as good as the last of the best.
        """
        few = min(count, SPARE * -(-count // len(parts)))
        found = [self._part(number, asked, few) for number in parts]
        scores, ids = _joined(found, count)
        if few < count:
            for at, (own, _) in enumerate(found):
                if own.shape[1] == few and (np.isfinite(own[:, -1]) & (own[:, -1] >= scores[:, -1])).any():
                    found[at] = self._part(parts[at], asked, count)
            scores, ids = _joined(found, count)
        return scores, ids

    def _part(
        self, number: int, asked: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best of a part by their codes, by the numbers of all."""
        scores, ids = self._parts[number].scan(asked, count)
        return np.where(ids >= 0, scores, -np.inf), np.maximum(ids, 0) + self._first[number]

    def _again(
        self, asked: NDArray[np.float32], scores: NDArray[np.float32], ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The same by their vectors in full, best first."""
        exact = np.empty(ids.shape, np.float32)
        for first in range(0, len(asked), AT_ONCE):
            rows = np.s_[first : first + AT_ONCE]
            every, at = np.unique(ids[rows], return_inverse=True)  # what several windows look at is read once
            vectors = self.stored(every)
            for row, query, places in zip(exact[rows], asked[rows], at.reshape(ids[rows].shape), strict=True):
                row[:] = (vectors @ query)[places]
        return _best(np.where(np.isfinite(scores), exact, -np.inf), ids, ids.shape[1])

    def _among(
        self, asked: NDArray[np.float32], k: int, among: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best of some tiles, each decoded."""
        import faiss

        if not k:
            return np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
        heap = faiss.ResultHeap(len(asked), k, keep_max=True)
        for first in range(0, len(among), DECODED):
            part = among[first : first + DECODED]
            scores, at = faiss.knn(asked, self.stored(part), min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
            heap.add_result(scores, part[at])
        heap.finalize()
        return heap.D, heap.I

    def stored(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of tiles as they are compared, decoded: [N] -> [N x D]."""
        found = np.empty((len(ids), coded(self._parts[0].index).d), np.float32)
        order = np.argsort(ids, kind="stable")
        bounds = np.searchsorted(ids[order], self._first)
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            some = order[bounds[number] : bounds[number + 1]]
            found[some] = self._parts[number].stored(ids[some] - self._first[number])
        return found


def _holds(among: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some numbers are among others, which are in order and one at least."""
    at = np.searchsorted(among, ids)
    return np.asarray(among[np.minimum(at, len(among) - 1)] == ids)


def _joined(
    found: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The ``count`` best of several answers to the same queries."""
    scores, ids = (np.concatenate(values, axis=1) for values in zip(*found, strict=True))
    return _best(scores, ids, count)


def _best(
    scores: NDArray[np.float32], ids: NDArray[np.int64], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The ``count`` best of each row [Q x N], best first; 0 for no vector."""
    if 2 * count < scores.shape[1]:  # sorting all of them takes as long as finding them
        some = np.sort(np.argpartition(-scores, count, axis=1)[:, :count], axis=1)
        scores, ids = np.take_along_axis(scores, some, axis=1), np.take_along_axis(ids, some, axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    kept = np.take_along_axis(scores, best, axis=1).astype(np.float32)
    return kept, np.where(np.isfinite(kept), np.take_along_axis(ids, best, axis=1), 0)
