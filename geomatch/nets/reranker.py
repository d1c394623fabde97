"""A graph network that scores retrieved tiles by their evidence and their positions (after Li et al. 2023).

Li et al., "Learning to Find the Optimal Correspondence Between SAR and Optical Image Patches", JSTARS 2023. Here the
head that is trained is the head that ranks, edges carry offsets between tiles in place of absolute coordinates, and a
graph has one score more, for "the place is not among them".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import TransformerConv, global_max_pool, global_mean_pool

from geomatch.nets.shapes import RerankerShape
from geomatch.reranking.features import EDGE_VALUES, node_values

SCORE_SCALE = 20.0  # of the inner product in a node's score at the start, so that training begins with the retrieval


class Layer(nn.Module):
    """Attention over a node's neighbours, then a feed-forward network, both added to what was there."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = TransformerConv(width, width // heads, heads, edge_dim=EDGE_VALUES)
        self.forward_norm = nn.LayerNorm(width)
        self.forward_net = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, nodes: Tensor, edges: Tensor, attributes: Tensor) -> Tensor:
        """[N x width], [2 x E], [E x EDGE_VALUES] -> [N x width]."""
        nodes = nodes + self.attention(self.norm(nodes), edges, attributes)
        out: Tensor = nodes + self.forward_net(self.forward_norm(nodes))
        return out


class RerankerNet(nn.Module):
    """Scores of the nodes, and of their absence, of a batch of graphs.

    Args:
        shape: of the network.
    """

    def __init__(self, shape: RerankerShape) -> None:
        super().__init__()
        self.shape = shape
        self.first = nn.Sequential(nn.Linear(node_values(shape), shape.width), nn.GELU())
        self.layers = nn.ModuleList([Layer(shape.width, shape.heads) for _ in range(shape.layers)])
        self.norm = nn.LayerNorm(shape.width)
        self.node_score = nn.Linear(shape.width, 1)
        self.absent_score = nn.Sequential(nn.Linear(3 * shape.width, shape.width), nn.GELU(), nn.Linear(shape.width, 1))
        self.scale = nn.Parameter(torch.tensor(SCORE_SCALE))

    def forward(self, graphs: Batch) -> tuple[Tensor, Tensor]:
        """Logits of graphs of ``geomatch.reranking.features``.

        Args:
            graphs: G of them with N nodes in all.

        Returns:
            [N] of each node, and [G] of "none of them"; a softmax over both is the probability of each.
        """
        nodes = self.first(graphs.x)
        for layer in self.layers:
            nodes = layer(nodes, graphs.edge_index, graphs.edge_attr)
        nodes = self.norm(nodes)
        of_node = self.node_score(nodes)[:, 0] + self.scale * graphs.score
        top = nodes[graphs.ptr[:-1]]  # candidates come best first
        pooled = [global_mean_pool(nodes, graphs.batch), global_max_pool(nodes, graphs.batch), top]
        best = global_max_pool(graphs.score[:, None], graphs.batch)[:, 0]
        return of_node, self.absent_score(torch.cat(pooled, dim=1))[:, 0] + self.scale * best
