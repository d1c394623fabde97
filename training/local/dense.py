"""Losses of detect-and-describe networks on two views of a place.

D2-Net's (Dusmanu et al. 2019) is a triplet margin ranking loss over corresponding cells, weighted by the product of
both detection scores. R2D2's (Revaud et al. 2019) asks that repeatability maps agree and have peaks, and that of every
place the true match ranks before all others: average precision by soft bins (He et al. 2018), which a reliability map
may decline.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from geomatch.nets.features import Features

MARGIN = 1.0
NEAR_CELLS = 4.0  # a cell nearer to the true one is no negative
COSIM_PX = 16  # patches of the repeatability maps
GRID_PX = 8  # of R2D2's queries and negatives
KAPPA = 0.5  # precision that a place is taken for whose descriptor says that it is not reliable, at most
DECLINED = ("batch", "published")
BINS = 20


@dataclass(frozen=True)
class Views:
    """Two views of a place.

    Attributes:
        first, second: [B x 1 x H x W] images, standardised.
        to_first: [B x 3 x 3] from pixels of the second to those of the first, corner convention.
        known: [B x H x W] pixels of the first that may be looked at.
    """

    first: Tensor
    second: Tensor
    to_first: Tensor
    known: Tensor

    def in_second(self, points: Tensor) -> Tensor:
        """Pixels [N x 2] of the first where they lie in the second: [B x N x 2]."""
        ones = torch.ones_like(points[:, :1])
        # A sum, no matrix product: mixed precision would round pixels to bfloat16, half a pixel of a hundred.
        to_second = torch.linalg.inv(self.to_first.float())
        moved = (to_second[:, None] * torch.cat([points, ones], dim=1)[:, None]).sum(dim=-1)
        there: Tensor = moved[..., :2] / moved[..., 2:]
        return there

    def seen(self, points: Tensor, there: Tensor) -> Tensor:
        """[B x N] which points [N x 2] are known and lie in the second view at ``there`` [B x N x 2]."""
        height, width = self.second.shape[2:]
        limit = torch.tensor([width, height], device=there.device)
        inside = ((there > 0) & (there < limit)).all(dim=-1)
        col, row = points.long().unbind(dim=1)
        within = (row < self.known.shape[1]) & (col < self.known.shape[2])  # the last cell may lie on the edge
        return inside & within & self.known[:, row * within, col * within]


def read(values: Tensor, points: Tensor, features: Features) -> Tensor:
    """Values [B x C x h x w] on the grid of features, between cells, at pixels [B x N x 2]: [B x N x C]."""
    height, width = values.shape[2:]
    span = features.cell_px * torch.tensor([width, height], device=points.device)
    from_edge = points.float() - (features.middle_px - features.cell_px / 2)
    grid = (2 * from_edge / span - 1)[:, None]
    found = functional.grid_sample(values.float(), grid, padding_mode="border", align_corners=False)
    return found[:, :, 0].transpose(1, 2)


def lattice(features: Features, every: int = 1) -> Tensor:
    """Middles of cells, in pixels: [N x 2]."""
    height, width = features.score.shape[2:]
    device = features.score.device
    rows, cols = (torch.arange(every // 2, side, every, device=device) for side in (height, width))
    col, row = torch.meshgrid(cols, rows, indexing="xy")
    return torch.stack([col.flatten(), row.flatten()], dim=1) * features.cell_px + features.middle_px


def d2_loss(first: Features, second: Features, views: Views) -> Tensor:
    """The mean over corresponding cells of the ranking loss, each weighted by both scores."""
    points = lattice(first)
    there = views.in_second(points)
    seen = views.seen(points, there)
    reach = NEAR_CELLS * first.cell_px
    ours = first.vectors.flatten(2).transpose(1, 2)
    theirs = functional.normalize(read(second.vectors, there, second), dim=2)
    positive = (2 - 2 * (ours * theirs).sum(dim=2)).clamp_min(0)
    every = 2 - 2 * ours @ second.vectors.flatten(2)
    far = torch.cdist(there.float(), lattice(second)[None].expand(len(there), -1, -1)) > reach
    negative = torch.where(far, every, 4.0).amin(dim=2)
    back = 2 - 2 * theirs @ ours.transpose(1, 2)
    elsewhere = torch.cdist(points, points) > reach
    negative = torch.minimum(negative, torch.where(elsewhere[None], back, 4.0).amin(dim=2))
    ranked = functional.relu(MARGIN + positive - negative)
    weight = first.score.flatten(1) * read(second.score, there, second)[..., 0] * seen
    return (weight * ranked).sum() / weight.sum().clamp_min(1e-6)


def r2d2_loss(first: Features, second: Features, views: Views, *, declined: str = "batch") -> Tensor:
    """Agreement and peaks of repeatability, and average precision of descriptors.

    Args:
        first, second: of both views.
        views: how they lie.
        declined: the precision that declining a place is taken for: "published", KAPPA, or "batch", no more than the
            batch's own mean. Between modalities the precision begins far below one half: then, as published, every
            place is declined, and nothing learned.
    """
    assert first.reliability is not None, "R2D2 has one"
    peaky = (_flatness(first.score) + _flatness(second.score)) / 2
    return _disagreement(first, second, views) + peaky + _imprecision(first, second, views, declined)


def _disagreement(first: Features, second: Features, views: Views) -> Tensor:
    """1 - mean cosine of corresponding patches of both repeatability maps."""
    points = lattice(first)
    there = views.in_second(points)
    shape = first.score.shape
    back = read(second.score, there, second)[..., 0].reshape(shape)
    seen = views.seen(points, there).reshape(shape).to(back.dtype)
    patches = [functional.unfold(score * seen, COSIM_PX, stride=COSIM_PX // 2) for score in (first.score, back)]
    ours, theirs = (functional.normalize(patch, dim=1) for patch in patches)
    return 1 - (ours * theirs).sum(dim=1).mean()


def _flatness(score: Tensor) -> Tensor:
    """1 - mean over patches of how far the highest score is above the mean."""
    highest = functional.max_pool2d(score, COSIM_PX, stride=COSIM_PX // 2)
    return 1 - (highest - functional.avg_pool2d(score, COSIM_PX, stride=COSIM_PX // 2)).mean()


def _imprecision(first: Features, second: Features, views: Views, declined: str) -> Tensor:
    """1 - average precision of a grid's places, each mixed by its reliability with what declining gives."""
    assert first.reliability is not None, "R2D2 has one"
    every = max(1, GRID_PX // first.cell_px)
    points = lattice(first, every)
    there = views.in_second(points)
    seen = views.seen(points, there)
    batch = len(there)
    ours = read(first.vectors, points[None].expand(batch, -1, -1), first)
    theirs = functional.normalize(read(second.vectors, there, second), dim=2)
    positive = (functional.normalize(ours, dim=2) * theirs).sum(dim=2, keepdim=True)
    gallery = lattice(second, every)
    others = read(second.vectors, gallery[None].expand(batch, -1, -1), second)
    negative = functional.normalize(ours, dim=2) @ functional.normalize(others, dim=2).transpose(1, 2)
    near = torch.cdist(there.float(), gallery[None].expand(batch, -1, -1)) < NEAR_CELLS * GRID_PX / 4
    precision = average_precision(positive, torch.where(near, -1.0, negative))
    reliability = read(first.reliability, points[None].expand(batch, -1, -1), first)[..., 0]
    mean = (precision.detach() * seen).sum() / seen.sum().clamp_min(1)
    given = torch.full_like(mean, KAPPA) if declined == "published" else mean.clamp_max(KAPPA)
    cost = 1 - precision * reliability - (1 - reliability) * given
    return (cost * seen).sum() / seen.sum().clamp_min(1)


def average_precision(positive: Tensor, negative: Tensor) -> Tensor:
    """Average precision of one right answer among wrong ones, by soft bins of the score.

    Args:
        positive: [... x 1] cosines of the right ones.
        negative: [... x M] of the wrong ones.

    Returns:
        [...], 1 where the right one scores a bin higher than all others.
    """
    centres = torch.linspace(1, -1, BINS, device=positive.device, dtype=positive.dtype)
    width = 2 / (BINS - 1)

    def counted(scores: Tensor) -> Tensor:
        """[... x BINS] how many fall into each bin, from the highest score on."""
        made = [(1 - (scores - centre).abs() / width).clamp_min(0).sum(dim=-1) for centre in centres]
        return torch.stack(made, dim=-1)

    right, wrong = counted(positive), counted(negative)
    found, all_found = right.cumsum(dim=-1), (right + wrong).cumsum(dim=-1)
    return (right * found / all_found.clamp_min(1e-6)).sum(dim=-1) / right.sum(dim=-1).clamp_min(1e-6)
