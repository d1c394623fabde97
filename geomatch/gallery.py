"""The tiles that a query is compared with, wherever their vectors are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geomatch.near import Disc

if TYPE_CHECKING:
    import faiss


@dataclass(frozen=True)
class Hits:
    """Nearest tiles of some vectors, best first.

    Attributes:
        scores: [Q x k] inner product with the query, -inf beyond the number of tiles.
        corners_px: [Q x k x 2] int32 first column and row of each tile, pixels of the map.
        tiles: [Q x k] numbers of the tiles.
    """

    scores: NDArray[np.float32]
    corners_px: NDArray[np.int32]
    tiles: NDArray[np.int64]


class Gallery(ABC):
    """Vectors of all tiles by their numbers, with the tiles' corners.

    Args:
        fitted: a FAISS index whose transforms vectors go through before they are compared.
    """

    def __init__(self, fitted: faiss.Index) -> None:
        self._fitted = fitted

    @abstractmethod
    def __len__(self) -> int:
        """Number of tiles."""

    @abstractmethod
    def search(self, queries: NDArray[np.float32], k: int, within: Disc | None = None) -> Hits:
        """The ``k`` tiles nearest to each query.

        Args:
            queries: [Q x P] pooled features, before the transforms.
            k: how many.
            within: the circle that the corners of the tiles looked at lie in, pixels of the map; default all tiles.
        """

    @abstractmethod
    def stored(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of tiles as they are compared: [N] -> [N x D]."""

    def searched(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors [Q x P] as they are compared, after the transforms of the search: [Q x D]."""
        return searched(self._fitted, queries)

    @cached_property
    def axes(self) -> NDArray[np.float32] | None:
        """[D x P] of the linear transform before the search without its offset; None where there is none."""
        import faiss

        for transform in transforms(self._fitted):
            if isinstance(transform, faiss.LinearTransform):
                return matrix(transform)
        return None

    @cached_property
    def back(self) -> NDArray[np.float32] | None:
        """[D x P] that takes searched vectors to what they were made of, apart from what ``axes`` leave out."""
        return None if self.axes is None else np.asarray(np.linalg.pinv(self.axes).T, np.float32)


def transforms(index: faiss.Index) -> list[faiss.VectorTransform]:
    """What is done to vectors before they are compared; parts of the index, which has to be kept with them."""
    import faiss

    if not isinstance(index, faiss.IndexPreTransform):
        return []
    chain: Any = index.chain  # a vector of C++'s
    return [faiss.downcast_VectorTransform(chain.at(i)) for i in range(chain.size())]


def searched(index: faiss.Index, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [N x P] as an index compares them, after its transforms: [N x D]."""
    return transformed(transforms(index), vectors)


def transformed(chain: Sequence[faiss.VectorTransform], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [N x P] after some transforms: [N x D].

    numpy multiplies the matrices: the BLAS in FAISS's wheels takes processors that came after it for one of 2004.
    """
    import faiss

    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    for transform in chain:
        if isinstance(transform, faiss.LinearTransform):
            vectors = vectors @ matrix(transform).T
            vectors += offset(transform)
        else:
            vectors = transform.apply(vectors)
    return vectors


def matrix(transform: faiss.LinearTransform) -> NDArray[np.float32]:
    """[D x P]."""
    import faiss

    return np.asarray(faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in))


def offset(transform: faiss.LinearTransform) -> NDArray[np.float32]:
    """[D]."""
    import faiss

    return (
        np.asarray(faiss.vector_to_array(transform.b)) if transform.have_bias else np.zeros(transform.d_out, np.float32)
    )
