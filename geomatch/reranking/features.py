"""Candidates as a graph: what a node and an edge know, for ``geomatch.nets.reranker``.

Nothing in it depends on the map's place, its extent, the axes of its vectors or the encoder's channels, so that one
network serves every index. Scores, vectors and agreement may carry gradients, for training with the encoder in one run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch_geometric.data import Data

from geomatch.nets.shapes import RerankerShape
from geomatch.reranking.candidates import PARTS, Candidates

EDGE_VALUES = 7
FALL = 0.5  # tiles over which the weight of an edge falls to 1/e
RANKED = 100.0  # a rank is told in hundreds
_FEW = 1e-6


@dataclass(frozen=True)
class Nodes:
    """Candidates as tensors, best first; attributes as those of ``Candidates``.

    Attributes:
        scores: [k].
        tiles: [k x 2] positions in tiles, from their centroid.
        vectors: [k x D].
        agreement: [k x PARTS x PARTS].
        peaks: [k], or None.
    """

    scores: Tensor
    tiles: Tensor
    vectors: Tensor
    agreement: Tensor
    peaks: Tensor | None = None

    @classmethod
    def of(cls, candidates: Candidates) -> Nodes:
        """Without gradients."""
        arrays = (candidates.scores, candidates.tiles, candidates.vectors, candidates.agreement)
        scores, tiles, vectors, agreement = (torch.from_numpy(array.astype("float32")) for array in arrays)
        peaks = None if candidates.peaks is None else torch.from_numpy(candidates.peaks.astype("float32"))
        return cls(scores, tiles, vectors, agreement, peaks)


def node_values(shape: RerankerShape) -> int:
    """Values of a node."""
    return 4 + (PARTS**2 + 2) * shape.agreement + 2 * shape.peaks + 2 * (shape.positions == "embedding")


def values_of(nodes: Nodes, shape: RerankerShape) -> Tensor:
    """[k x node_values(shape)] of candidates, which must have peaks where the shape asks for them."""
    scores = nodes.scores
    rank = torch.arange(len(scores), device=scores.device) / RANKED
    spread = scores.std(correction=0) + _FEW
    known = [scores, 10 * (scores - scores.max()), (scores - scores.mean()) / spread, rank]
    if shape.agreement:
        parts = nodes.agreement.flatten(1) * PARTS**2
        known += [*parts.unbind(1), parts.amin(dim=1), parts.std(dim=1, correction=0)]
    if shape.peaks:
        assert nodes.peaks is not None, "retrieved without correlation"
        known += [nodes.peaks, 10 * (nodes.peaks - nodes.peaks.max())]
    if shape.positions == "embedding":
        known += list(nodes.tiles.unbind(1))
    return torch.stack(known, dim=1)


def edges_of(nodes: Nodes, shape: RerankerShape) -> tuple[Tensor, Tensor]:
    """Edges [2 x E] from neighbours to nodes, and what they know, [E x EDGE_VALUES].

    That is: the offset across and down, in tiles; its length; exp(-length / FALL); the cosine of the vectors; by how
    much the neighbour scores higher; and whether it is a neighbour in position.
    """
    places = nodes.tiles
    apart = torch.linalg.norm(places[:, None] - places[None], dim=2)
    vectors = functional.normalize(nodes.vectors, dim=1, eps=_FEW)
    cosine = vectors @ vectors.T
    near = shape.near if shape.positions in ("offsets", "edges") else 0
    by_place = _nearest(apart, near)
    by_vector = _nearest(-cosine.detach(), shape.alike if near else shape.alike + shape.near)
    edges = torch.cat([by_place, by_vector], dim=1)
    sources, targets = edges
    offset, distance = places[sources] - places[targets], apart[sources, targets]
    if shape.positions != "offsets":
        offset, distance = torch.zeros_like(offset), torch.zeros_like(distance)
    known = [
        *offset.unbind(1),
        distance,
        torch.exp(-distance / FALL),
        cosine[sources, targets],
        10 * (nodes.scores[sources] - nodes.scores[targets]),
        (torch.arange(edges.shape[1], device=edges.device) < by_place.shape[1]).float(),
    ]
    return edges, torch.stack(known, dim=1)


def graph_of(nodes: Nodes, shape: RerankerShape) -> Data:
    """The graph of some candidates: ``x``, ``edge_index``, ``edge_attr``, and ``score`` [k] beside them."""
    edges, known = edges_of(nodes, shape)
    return Data(x=values_of(nodes, shape), edge_index=edges, edge_attr=known, score=nodes.scores)


def _nearest(apart: Tensor, count: int) -> Tensor:
    """The ``count`` nearest others of each of k, fewer where there are fewer: [2 x k * count] sources and targets."""
    others = apart + torch.diag(torch.full((len(apart),), torch.inf, device=apart.device))
    count = min(count, len(apart) - 1)
    found = torch.sort(others, dim=1, stable=True).indices[:, :count]
    targets = torch.arange(len(apart), device=apart.device).repeat_interleave(count)
    return torch.stack([found.reshape(-1), targets])
