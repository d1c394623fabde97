"""The tiles' vectors on disk: one or more FAISS files, searched as if they were one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomatch.threads import one_thread

if TYPE_CHECKING:
    import faiss

RERANKED = 4  # coded vectors looked at again per tile asked for; benchmarks/search.py


class Vectors:
    """Vectors in the order of the tiles, through all parts.

    Args:
        parts: FAISS indexes of inner product, fitted alike.
    """

    def __init__(self, parts: Sequence[faiss.Index]) -> None:
        self._parts = parts
        self._first = np.cumsum([0, *(part.ntotal for part in parts)])

    def __len__(self) -> int:
        """Number of vectors."""
        return int(self._first[-1])

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and numbers of the ``k`` nearest, best first: [Q x D] -> [Q x k], [Q x k]; -inf and 0 beyond them."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        with one_thread():
            found = [part.search(queries, min(k, part.ntotal)) for part in self._parts]
        scores = np.concatenate([np.where(ids >= 0, scores, -np.inf) for scores, ids in found], axis=1)
        ids = np.concatenate(
            [np.maximum(ids, 0) + first for (_, ids), first in zip(found, self._first, strict=False)], axis=1
        )
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = (np.take_along_axis(values, best, axis=1) for values in (scores, ids))
        return scores.astype(np.float32), np.where(np.isfinite(scores), ids, 0)


def read_part(file: Path) -> faiss.Index:
    """The FAISS index in a file; raises RuntimeError where there is none."""
    import faiss

    index = faiss.read_index(str(file))
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    if isinstance(inner, faiss.IndexRefine):
        inner.k_factor = RERANKED
    return index
