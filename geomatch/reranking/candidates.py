"""The tiles that one window retrieves, with all that a re-ranker may look at: vectors, positions, correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomatch.correlate import Template, around
from geomatch.tile_index import TileIndex
from geomatch.tiles import POOL_PX

PARTS = 4  # to a side of a tile, by which it is told where query and tile agree


@dataclass(frozen=True)
class Candidates:
    """The k tiles nearest to the vector of one window, best first.

    Attributes:
        scores: [k] inner products of the searched vectors.
        corners_px: [k x 2] first column and row of each tile, pixels of the map.
        query: [D] the window's vector as it is searched, of length one.
        vectors: [k x D] the tiles', decoded.
        agreement: [k x PARTS x PARTS] what each part of the tile, in rows and columns, adds to its score.
        size_px: side of a tile.
        peaks: [k] correlation of the features at and next to each tile, or None where it was not computed.
    """

    scores: NDArray[np.float32]
    corners_px: NDArray[np.int32]
    query: NDArray[np.float32]
    vectors: NDArray[np.float32]
    agreement: NDArray[np.float32]
    size_px: int
    peaks: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """How many."""
        return len(self.scores)

    @property
    def tiles(self) -> NDArray[np.float32]:
        """[k x 2] positions in tiles, from their centroid: they do not depend on the map's place or extent."""
        places = self.corners_px.astype(np.float32) / self.size_px
        return np.asarray(places - places.mean(axis=0), np.float32)


def retrieve_candidates(
    index: TileIndex, vector: NDArray[np.float32], k: int, window: Template | None = None
) -> Candidates:
    """The tiles nearest to a window's vector; fewer than ``k`` of a map that has fewer.

    Args:
        index: of the map.
        vector: [P] pooled features of the window (``Query.vectors``).
        k: how many.
        window: its features, to correlate them with those at the tiles too.
    """
    hits = index.search(vector[None], k)
    kept = np.isfinite(hits.scores[0])
    tiles = hits.tiles[0][kept]
    query, vectors = index.vectors.searched(vector[None])[0], index.vectors.stored(tiles)
    corners = hits.corners_px[0][kept]
    return Candidates(
        scores=hits.scores[0][kept],
        corners_px=corners,
        query=query,
        vectors=vectors,
        agreement=agreement_of(index, query, vectors),
        size_px=index.manifest.tiles.size_px,
        peaks=None if window is None else peaks_at(index, window, corners),
    )


def agreement_of(index: TileIndex, query: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inner products of a query [D] with tiles [k x D], by parts of the tile: [k x PARTS x PARTS].

    With the rows of A as the axes of the search, q . t = (A^T q) . (A^+ t), and the components of the right side are
    those of the pooled features, which have a place in the tile. They do not depend on which axes a map was given.
    """
    ours, theirs = query, vectors
    if (axes := index.vectors.axes) is not None and (back := index.vectors.back) is not None:
        ours, theirs = query @ axes, vectors @ back
    pools = index.manifest.tiles.size_px // POOL_PX
    products = (ours * theirs).reshape(len(vectors), -1, pools, pools).sum(axis=1)
    edges = np.linspace(0, pools, PARTS + 1).astype(int)[:-1]
    return np.asarray(np.add.reduceat(np.add.reduceat(products, edges, axis=1), edges, axis=2), np.float32)


def peaks_at(index: TileIndex, window: Template, corners_px: NDArray[np.int32]) -> NDArray[np.float32]:
    """Highest correlation of a window's features with the map's at tiles [k x 2] and half a stride around: [k]."""
    cell = index.encoder.cell_px
    radius = -(-index.manifest.tiles.stride_px // (2 * cell))
    cols, rows = np.rint(corners_px / cell).astype(np.int64).T
    surfaces = around(window, index.features, cols, rows, radius)
    return np.asarray(surfaces.max(axis=(1, 2)), np.float32)
