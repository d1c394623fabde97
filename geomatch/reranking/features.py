"""Candidates as a graph: what a node and an edge know, for ``geomatch.nets.reranker``.

Nothing in it depends on the map's place, its extent, the axes of its vectors or the encoder's channels, so that one
network serves every index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomatch.nets.shapes import RerankerShape
from geomatch.reranking.candidates import PARTS, Candidates

if TYPE_CHECKING:
    from torch_geometric.data import Data

EDGE_VALUES = 7
FALL = 0.5  # tiles over which the weight of an edge falls to 1/e
RANKED = 100.0  # a rank is told in hundreds
_FEW = 1e-6


def node_values(shape: RerankerShape) -> int:
    """Values of a node."""
    return 4 + (PARTS**2 + 2) * shape.agreement + 2 * shape.peaks + 2 * (shape.positions == "embedding")


def nodes_of(candidates: Candidates, shape: RerankerShape) -> NDArray[np.float32]:
    """[k x node_values(shape)] of candidates, which must have peaks where the shape asks for them."""
    scores = candidates.scores
    spread = float(scores.std()) + _FEW
    known = [
        scores,
        10 * (scores - scores.max()),
        (scores - scores.mean()) / spread,
        np.arange(len(scores)) / RANKED,
    ]
    if shape.agreement:
        parts = candidates.agreement.reshape(len(scores), -1) * PARTS**2
        known += [*parts.T, parts.min(axis=1), parts.std(axis=1)]
    if shape.peaks:
        assert candidates.peaks is not None, "retrieved without correlation"
        known += [candidates.peaks, 10 * (candidates.peaks - candidates.peaks.max())]
    if shape.positions == "embedding":
        known += list(candidates.tiles.T)
    return np.stack(known, axis=1).astype(np.float32)


def edges_of(candidates: Candidates, shape: RerankerShape) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Edges [2 x E] from neighbours to nodes, and what they know, [E x EDGE_VALUES].

    That is: the offset across and down, in tiles; its length; exp(-length / FALL); the cosine of the vectors; by how
    much the neighbour scores higher; and whether it is a neighbour in position.
    """
    places = candidates.tiles
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    vectors = candidates.vectors / (np.linalg.norm(candidates.vectors, axis=1, keepdims=True) + _FEW)
    cosine = vectors @ vectors.T
    near = shape.near if shape.positions in ("offsets", "edges") else 0
    from_near, to_near = _nearest(apart, near)
    from_alike, to_alike = _nearest(-cosine, shape.alike if near else shape.alike + shape.near)
    sources, targets = np.concatenate([from_near, from_alike]), np.concatenate([to_near, to_alike])
    offset = places[sources] - places[targets]
    distance = apart[sources, targets]
    if shape.positions != "offsets":
        offset, distance = np.zeros_like(offset), np.zeros_like(distance)
    known = np.column_stack(
        [
            offset,
            distance,
            np.exp(-distance / FALL),
            cosine[sources, targets],
            10 * (candidates.scores[sources] - candidates.scores[targets]),
            np.arange(len(sources)) < len(from_near),
        ]
    )
    return np.stack([sources, targets]), known.astype(np.float32)


def graph_of(candidates: Candidates, shape: RerankerShape) -> Data:
    """The graph of some candidates: ``x``, ``edge_index``, ``edge_attr``, and ``score`` [k] beside them."""
    import torch
    from torch_geometric.data import Data

    edges, known = edges_of(candidates, shape)
    return Data(
        x=torch.from_numpy(nodes_of(candidates, shape)),
        edge_index=torch.from_numpy(edges),
        edge_attr=torch.from_numpy(known),
        score=torch.from_numpy(candidates.scores.astype(np.float32)),
    )


def _nearest(apart: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ``count`` nearest others of each of k, fewer where there are fewer: sources and targets."""
    others = apart.copy()
    np.fill_diagonal(others, np.inf)
    count = min(count, len(apart) - 1)
    found = np.argsort(others, axis=1, kind="stable")[:, :count]
    return found.ravel().astype(np.int64), np.repeat(np.arange(len(apart), dtype=np.int64), count)
