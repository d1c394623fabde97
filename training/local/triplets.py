"""Losses on descriptors of corresponding patches: what pulls a pair together and others apart.

LT loss (Zhang et al. 2023) is printed with a sign that adds D(a, n), by which negatives would be pulled in; here it is
mean(max(0, D(a, p) - D(a, n) + M)) with M = |D(a, p) + D(a, n)| / 2, as the authors' code has it. Since M grows with
the negative's distance, the gradient is 3/2 on the positive and 1/2 on the negative: it pulls thrice as hard as it
pushes, and vanishes once D(a, n) > 3 D(a, p).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

MARGIN = 1.0
TEMPERATURE = 0.06
LEAST_MARGIN, MOST_MARGIN = 0.2, 1.0
FARTHEST = 2.0  # two vectors of length one

TripletLoss = Callable[[Tensor, Tensor], Tensor]


def distances(first: Tensor, second: Tensor) -> Tensor:
    """[N x D], [M x D] vectors of length one -> [N x M] Euclidean distances, with a gradient at zero."""
    return (2 - 2 * first @ second.T).clamp_min(1e-6).sqrt()


def lt_loss(anchors: Tensor, positives: Tensor) -> Tensor:
    """LT loss; the negative of a pair is another pair's positive. Both [N x D] of length one, N at least 2."""
    positive, negative = _random_triplets(anchors, positives)
    margin = (positive + negative).abs() / 2
    return functional.relu(positive - negative + margin).mean()


def fixed_margin(anchors: Tensor, positives: Tensor) -> Tensor:
    """Triplet loss with a margin of 1, on the same triplets as ``lt_loss``."""
    positive, negative = _random_triplets(anchors, positives)
    return functional.relu(positive - negative + MARGIN).mean()


def adaptive_margin(anchors: Tensor, positives: Tensor) -> Tensor:
    """Triplet loss whose margin is the batch's mean gap between negatives and positives, so that it grows as they part.

    The paper compares with an adaptive margin that it does not define; this is the plainest that adapts.
    """
    positive, negative = _random_triplets(anchors, positives)
    margin = (negative - positive).mean().detach().clamp(LEAST_MARGIN, MOST_MARGIN)
    return functional.relu(positive - negative + margin).mean()


def hardest_in_batch(anchors: Tensor, positives: Tensor) -> Tensor:
    """HardNet's loss (Mishchuk et al. 2017): the negative is the nearest of another pair, of either image; margin 1."""
    every = distances(anchors, positives)
    positive = every.diagonal()
    others = every + torch.diag(torch.full_like(positive, FARTHEST))
    negative = torch.minimum(others.min(dim=0).values, others.min(dim=1).values)
    return functional.relu(positive - negative + MARGIN).mean()


def infonce(anchors: Tensor, positives: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018): each has to be told from all others of the batch, both ways."""
    logits = anchors @ positives.T / temperature
    truth = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, truth) + functional.cross_entropy(logits.T, truth)) / 2


def _random_triplets(anchors: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Distances to the positive, and to another pair's positive: the next one's, since a batch has no order."""
    positive = (anchors - positives).square().sum(dim=1).clamp_min(1e-6).sqrt()
    negative = (anchors - positives.roll(1, dims=0)).square().sum(dim=1).clamp_min(1e-6).sqrt()
    return positive, negative


LOSSES: dict[str, TripletLoss] = {
    "lt": lt_loss,
    "fixed-margin": fixed_margin,
    "adaptive-margin": adaptive_margin,
    "hardest": hardest_in_batch,
    "infonce": infonce,
}
