"""What is asked of a graph's scores: probability for the right nodes, or for their absence, and a margin."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import scatter, softmax

TINY = 1e-9


def cross_entropy(nodes: Tensor, absent: Tensor, right: Tensor, batch: Tensor) -> Tensor:
    """Mean of -log of the probability of all right nodes together; of absence where a graph has none.

    Args:
        nodes: [N] logits.
        absent: [G] logits.
        right: [N] which nodes are.
        batch: [N] graph of each node.
    """
    graphs = torch.arange(len(absent), device=absent.device)
    shares = softmax(torch.cat([nodes, absent]), torch.cat([batch, graphs]), num_nodes=len(absent))
    of_right = scatter(shares[: len(nodes)] * right, batch, dim_size=len(absent))
    some = scatter(right.float(), batch, dim_size=len(absent)) > 0
    return -torch.log(torch.where(some, of_right, shares[len(nodes) :]) + TINY).mean()


def margin_ranking(nodes: Tensor, right: Tensor, batch: Tensor, graphs: int, margin: float) -> Tensor:
    """Mean over graphs with right and wrong nodes of max(0, margin - best right + best wrong); 0 without such graphs.

    Args:
        nodes: [N] logits.
        right: [N] which nodes are.
        batch: [N] graph of each node.
        graphs: how many.
        margin: between the best of each.
    """
    lowest = torch.finfo(nodes.dtype).min
    best_right = scatter(nodes.masked_fill(~right, lowest), batch, dim_size=graphs, reduce="max")
    best_wrong = scatter(nodes.masked_fill(right, lowest), batch, dim_size=graphs, reduce="max")
    both = (best_right > lowest) & (best_wrong > lowest)
    if not both.any():
        return nodes.sum() * 0
    return torch.relu(margin - best_right[both] + best_wrong[both]).mean()
