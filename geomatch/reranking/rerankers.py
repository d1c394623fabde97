"""Re-rankers: from the candidates of a window to a new score of each. A new one is a function and a line below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.reranking.candidates import Candidates

EXPANDED, EXPANSION_POWER = 5, 3.0  # of query expansion: how many, and of their scores
SUPPORT_TILES, SUPPORT = 0.1, 0.3  # of position smoothing: reach, and weight against the own score
RECIPROCAL, EXPANSIONS, OWN = 20, 6, 0.3  # k1, k2 and lambda of k-reciprocal encoding


@dataclass(frozen=True)
class Reranked:
    """What a re-ranker makes of candidates.

    Attributes:
        scores: [k] higher is better; only their order counts.
        present: how likely one of them is right, higher is likelier; on what scale, each re-ranker has its own.
    """

    scores: NDArray[np.float64]
    present: float

    @property
    def order(self) -> NDArray[np.int64]:
        """[k] numbers of the candidates, best first."""
        return np.argsort(-self.scores, kind="stable")


@dataclass(frozen=True)
class Reranker:
    """A way to order candidates.

    Attributes:
        name: of it.
        rank: does so; it is given at least one candidate.
        peaks: whether it looks at the correlation of features.
    """

    name: str
    rank: Callable[[Candidates], Reranked]
    peaks: bool = False

    def __call__(self, candidates: Candidates) -> Reranked:
        """Order candidates; none of them have no order, and nothing is present."""
        if not len(candidates):
            return Reranked(np.empty(0), -np.inf)
        return self.rank(candidates)


def _as_retrieved(candidates: Candidates) -> Reranked:
    return _of(candidates.scores)


def _expanded(candidates: Candidates) -> Reranked:
    """Alpha query expansion: query and best tiles, weighted by their scores, ask again (Radenović et al. 2018)."""
    best = candidates.vectors[:EXPANDED]
    weights = np.maximum(candidates.scores[:EXPANDED], 0) ** EXPANSION_POWER
    return _of(candidates.vectors @ (candidates.query + weights @ best))


def _reciprocal(candidates: Candidates) -> Reranked:
    """Jaccard distance of k-reciprocal neighbours, within the candidates and the query (Zhong et al. 2017)."""
    everything = np.vstack([candidates.query, candidates.vectors])
    everything = everything / np.maximum(np.linalg.norm(everything, axis=1, keepdims=True), 1e-9)
    apart = np.clip(2 - 2 * everything @ everything.T, 0, None)
    order = np.argsort(apart, axis=1, kind="stable")
    near = _reciprocal_sets(order, RECIPROCAL)
    half = _reciprocal_sets(order, round(RECIPROCAL / 2))
    for row, own in enumerate(near):
        for other in np.nonzero(own)[0]:
            shared = (half[other] & own).sum()
            if shared > 2 / 3 * half[other].sum():
                near[row] = near[row] | half[other]
    weights = np.where(near, np.exp(-apart), 0)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    weights = weights[order[:, :EXPANSIONS]].mean(axis=1)
    common = np.minimum(weights[0], weights[1:]).sum(axis=1)
    jaccard = 1 - common / (2 - common)
    return _of(-((1 - OWN) * jaccard + OWN * apart[0, 1:]))


def _reciprocal_sets(order: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """[n x n] whether each of two is among the k nearest of the other, itself included."""
    near = np.zeros(order.shape, bool)
    np.put_along_axis(near, order[:, : k + 1], True, axis=1)
    return near & near.T


def _smoothed(candidates: Candidates) -> Reranked:
    """A candidate is supported by the scores of its neighbours in position, the nearer the more."""
    places = candidates.tiles
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    weights = np.exp(-apart / SUPPORT_TILES)
    np.fill_diagonal(weights, 0)
    return _of(candidates.scores + SUPPORT * weights @ np.maximum(candidates.scores, 0))


def _correlated(candidates: Candidates) -> Reranked:
    """The correlation of the features at each candidate, which the vectors only summarise."""
    assert candidates.peaks is not None, "retrieved without correlation"
    return _of(candidates.peaks)


def _of(scores: NDArray[np.floating]) -> Reranked:
    return Reranked(np.asarray(scores, np.float64), float(scores.max()))


BASELINES: Mapping[str, Reranker] = {
    one.name: one
    for one in (
        Reranker("none", _as_retrieved),
        Reranker("expansion", _expanded),
        Reranker("reciprocal", _reciprocal),
        Reranker("smoothing", _smoothed),
        Reranker("correlation", _correlated, peaks=True),
    )
}


def find_reranker(name: str) -> Reranker:
    """A re-ranker by its name, or a graph network's by that of its weights.

    Raises:
        UsageError: there is none of that name, or what runs the graph network is not installed.
        InputError: a file of weights cannot be used.
    """
    if name in BASELINES:
        return BASELINES[name]
    from geomatch.reranking.graph import SHIPPED, graph_reranker

    if name == "graph":
        return graph_reranker(SHIPPED, name)
    try:
        return graph_reranker(name, name)
    except UsageError as error:
        if "unknown weights" not in error.what:
            raise
        hint = f"say graph, {', '.join(BASELINES)}, or give a .safetensors file that geomatch train reranker wrote"
        raise UsageError(f"there is no re-ranker {name!r}", where="--rerank", hint=hint) from error
