"""The losses of graphs against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from geomatch.training.reranker.losses import cross_entropy, margin_ranking

BATCH = [0, 0, 0, 1, 1, 2]
RIGHT = [True, True, False, False, False, True]
NODES = [1.0, -0.5, 2.0, 0.3, 0.1, 4.0]
ABSENT = [0.0, 1.5, -2.0]


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.tensor(NODES), torch.tensor(ABSENT), torch.tensor(RIGHT), torch.tensor(BATCH)


def test_cross_entropy_is_of_the_right_nodes_or_of_absence() -> None:
    losses = []
    for graph in range(3):
        mine = [i for i, of in enumerate(BATCH) if of == graph]
        total = sum(math.exp(NODES[i]) for i in mine) + math.exp(ABSENT[graph])
        right = [i for i in mine if RIGHT[i]]
        share = sum(math.exp(NODES[i]) for i in right) if right else math.exp(ABSENT[graph])
        losses.append(-math.log(share / total))
    assert float(cross_entropy(*tensors())) == pytest.approx(np.mean(losses), rel=1e-5)


def test_margin_ranking_is_of_graphs_with_right_and_wrong_nodes() -> None:
    nodes, _, right, batch = tensors()
    assert float(margin_ranking(nodes, right, batch, 3, 0.5)) == pytest.approx(0.5 - 1.0 + 2.0)


def test_margin_ranking_without_such_graphs_is_zero_and_has_a_gradient() -> None:
    nodes = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = margin_ranking(nodes, torch.tensor([True, True]), torch.tensor([0, 1]), 2, 1.0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert nodes.grad is not None
