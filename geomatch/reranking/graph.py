"""A graph network behind the interface of re-rankers."""

from __future__ import annotations

import numpy as np

from geomatch.extras import needs_extra
from geomatch.nets.shapes import RerankerShape
from geomatch.reranking.candidates import Candidates
from geomatch.reranking.rerankers import Reranked, Reranker
from geomatch.threads import one_thread
from geomatch.weights import Weights

SHIPPED = "graph1"


def graph_reranker(weights: str, name: str) -> Reranker:
    """The re-ranker of some weights.

    Args:
        weights: named, or a .safetensors file.
        name: of the re-ranker.

    Raises:
        UsageError: there are no such weights, or torch-geometric is not installed.
        InputError: the file cannot be used.
    """
    found = Weights.find(weights, RerankerShape)
    with needs_extra("graph", "re-ranking by a graph network"):
        import torch
        from torch_geometric.data import Batch

        from geomatch.nets.reranker import RerankerNet
        from geomatch.reranking.features import Nodes, graph_of
    net = found.load_into(RerankerNet(found.shape))

    def rank(candidates: Candidates) -> Reranked:
        with one_thread(), torch.no_grad():
            nodes, absent = net(Batch.from_data_list([graph_of(Nodes.of(candidates), found.shape)]))
        scores = nodes.double().numpy()
        best = scores.max()
        return Reranked(scores, float(best + np.log(np.exp(scores - best).sum()) - float(absent[0])))

    return Reranker(name, rank, peaks=found.shape.peaks)
