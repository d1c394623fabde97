"""Descriptor losses against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from geomatch.training.local import triplets
from geomatch.training.local.triplets import LOSSES, MARGIN, infonce

N = 7


@pytest.fixture
def vectors() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    anchors = normalize(torch.randn(N, 5), dim=1)
    return anchors, normalize(anchors + 0.6 * torch.randn(N, 5), dim=1)


def distance(a: Tensor, b: Tensor) -> float:
    return float(np.linalg.norm(a.numpy() - b.numpy()))


def loop(name: str, anchors: Tensor, positives: Tensor) -> float:
    gaps = [distance(anchors[i], positives[(i - 1) % N]) - distance(anchors[i], positives[i]) for i in range(N)]
    margin = min(max(sum(gaps) / N, 0.2), 1.0)
    total = 0.0
    for i in range(N):
        near, far = distance(anchors[i], positives[i]), distance(anchors[i], positives[(i - 1) % N])
        if name == "lt":
            total += max(0.0, near - far + abs(near + far) / 2)
        elif name == "fixed-margin":
            total += max(0.0, near - far + MARGIN)
        elif name == "adaptive-margin":
            total += max(0.0, near - far + margin)
        else:
            others = [distance(anchors[i], positives[j]) for j in range(N) if j != i]
            others += [distance(anchors[j], positives[i]) for j in range(N) if j != i]
            total += max(0.0, near - min(others) + MARGIN)
    return total / N


@pytest.mark.parametrize("name", ["lt", "fixed-margin", "adaptive-margin", "hardest"])
def test_loss_is_that_of_a_plain_loop(name: str, vectors: tuple[Tensor, Tensor]) -> None:
    assert float(LOSSES[name](*vectors)) == pytest.approx(loop(name, *vectors), abs=1e-4)


def test_infonce_is_the_cross_entropy_both_ways(vectors: tuple[Tensor, Tensor]) -> None:
    anchors, positives = vectors
    logits = (anchors @ positives.T / 0.1).double().numpy()
    expected = 0.0
    for table in (logits, logits.T):
        for i in range(N):
            expected -= table[i, i] - math.log(sum(math.exp(value) for value in table[i]))
    assert float(infonce(anchors, positives, 0.1)) == pytest.approx(expected / (2 * N), rel=1e-4)


def test_lt_loss_pulls_thrice_as_hard_as_it_pushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the sign as printed would pull negatives in, as hard as positives."""
    near, far = torch.tensor([0.8], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    monkeypatch.setattr(triplets, "_random_triplets", lambda *_: (near, far))
    found = torch.autograd.grad(triplets.lt_loss(near, far), (near, far))
    assert tuple(map(float, found)) == (1.5, -0.5)
    printed = torch.autograd.grad(torch.relu(near + far + (near + far).abs() / 2).mean(), (near, far))
    assert tuple(map(float, printed)) == (1.5, 1.5)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_vectors_have_a_finite_gradient(name: str) -> None:
    same = normalize(torch.ones(4, 3), dim=1).requires_grad_()
    loss = LOSSES[name](same, same.detach())
    assert torch.isfinite(loss)
    loss.backward()  # type: ignore[no-untyped-call]
    assert same.grad is not None
    assert torch.isfinite(same.grad).all()
