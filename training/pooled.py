"""Losses on the vector that is searched: a window's features pooled over a grid, as ``geomatch.tiles`` pools a tile's.

The positive of a SAR window is the optical crop's part at its true offset. Windows of one pair overlap: what two of
them show in common is no error, so a negative counts by the share of the window that it does not show (``infonce``), or
not at all where it shows any (``triplet``, ``multi-similarity``, ``cross-batch``, which take no weights). Crops of
different pairs are taken to be apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import CrossBatchMemory, MultiSimilarityLoss, NTXentLoss, TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor, nn
from torch.nn import functional

from geomatch.planes import CELL_PX, PLANE_PX
from geomatch.tiles import POOL_PX

from .config import LossConfig, one_of

MARGIN = 0.5  # of the triplet loss, for Euclidean distances of vectors of length one
_TINY = 1e-9


@dataclass(frozen=True)
class Vectors:
    """Of windows, and of the places in optical crops where they were taken.

    Attributes:
        optical, sar: [T x D], of length one.
        pair: [T] which pair of the batch each belongs to.
        at_px: [T x 2] column and row of each window's corner in its pair's optical crop.
        size_px: side of the windows.
    """

    optical: Tensor
    sar: Tensor
    pair: Tensor
    at_px: Tensor
    size_px: int

    @property
    def overlap(self) -> Tensor:
        """[T x T] share of a window's area that another shows too."""
        shift = (self.at_px[:, None] - self.at_px[None]).abs()
        common = (1 - shift / self.size_px).clamp_min(0).prod(dim=2)
        return common * (self.pair[:, None] == self.pair[None])


def pooled(features: Tensor, at_px: Tensor, size_px: int) -> Tensor:
    """The vector of a tile in each of some features, as ``geomatch.tiles.tile_vectors`` makes it where all is known.

    Args:
        features: [T x C x h x w].
        at_px: [T x 2] first column and row of the tile; moved into the features where it reaches beyond them.
        size_px: side of the tile.

    Returns:
        [T x C * (size_px // POOL_PX) ** 2], of length one.
    """
    features = features.float()
    inside = torch.tensor([features.shape[3], features.shape[2]], device=at_px.device) * CELL_PX - size_px
    first = torch.minimum(at_px.float().clamp_min(0), inside)
    cols = averages(first[:, 0], features.shape[3], size_px)
    rows = averages(first[:, 1], features.shape[2], size_px)
    pools = torch.einsum("tph,tchw,tqw->tcpq", rows, features, cols)
    pools = pools - pools.mean(dim=(2, 3), keepdim=True)
    return functional.normalize(pools.flatten(1), dim=1, eps=_TINY)


def averages(first_px: Tensor, cells: int, size_px: int) -> Tensor:
    """[T x pools x cells] overlap of each pool with each cell, as shares of the pool."""
    count = size_px // POOL_PX
    margin = (size_px - count * POOL_PX) / 2
    low = (first_px[:, None] + margin + torch.arange(count, device=first_px.device) * POOL_PX) / CELL_PX
    cell = torch.arange(cells, device=first_px.device)
    high = torch.minimum(low[..., None] + POOL_PX / CELL_PX, cell + 1.0)
    return (high - torch.maximum(low[..., None], cell)).clamp_min(0) * (CELL_PX / POOL_PX)


class Head(nn.Module):
    """From a pooled vector to the one that is compared: a linear layer, or nothing."""

    def __init__(self, inputs: int, components: int) -> None:
        super().__init__()
        self.outputs = components or inputs
        self.project = nn.Linear(inputs, components, bias=False) if components else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[T x inputs] -> [T x outputs], of length one."""
        return functional.normalize(self.project(x), dim=1, eps=_TINY)


def cut_planes(planes: Tensor, pair: Tensor, at_px: Tensor, size_px: int) -> Tensor:
    """Parts of optical crops, for a network that sees windows one by one.

    Args:
        planes: [B x P x h x w].
        pair: [T] which of them each is cut from.
        at_px: [T x 2] column and row of its corner, rounded to a plane's pixel and moved inside.
        size_px: side.

    Returns:
        [T x P x size_px / 4 x size_px / 4].
    """
    side = size_px // PLANE_PX
    inside = torch.tensor([planes.shape[3], planes.shape[2]], device=at_px.device) - side
    corners = torch.minimum((at_px / PLANE_PX).round().long().clamp_min(0), inside).tolist()
    return torch.stack(
        [planes[b, :, row : row + side, col : col + side] for b, (col, row) in zip(pair.tolist(), corners, strict=True)]
    )


def batch_hard(distances: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors that have a negative, and each one's nearest (Hermans et al. 2017, "In defense of the triplet loss").

    Args:
        distances: [T x T] from anchors to candidates.
        allowed: [T x T] which candidates are negatives.
    """
    nearest = distances.detach().masked_fill(~allowed, math.inf).argmin(dim=1)
    anchors = allowed.any(dim=1).nonzero()[:, 0]
    return anchors, nearest[anchors]


class Triplet(nn.Module):
    """Batch-hard triplets from either modality's side."""

    def __init__(self, config: LossConfig, dimensions: int) -> None:
        del config, dimensions
        super().__init__()
        distance = LpDistance(normalize_embeddings=False)
        self._loss = TripletMarginLoss(margin=MARGIN, distance=distance, reducer=MeanReducer())

    def forward(self, vectors: Vectors) -> Tensor:
        """Mean over both sides."""
        apart = vectors.overlap == 0
        sides = ((vectors.sar, vectors.optical), (vectors.optical, vectors.sar))
        return torch.stack([self._side(*side, apart) for side in sides]).mean()

    def _side(self, anchors: Tensor, others: Tensor, apart: Tensor) -> Tensor:
        found, nearest = batch_hard(torch.cdist(anchors, others), apart)
        loss: Tensor = self._loss(anchors, indices_tuple=(found, found, nearest), ref_emb=others)
        return loss


class InfoNCE(nn.Module):
    """Symmetric cross-entropy with a learned temperature (Radford et al. 2021, "CLIP", ICML)."""

    def __init__(self, config: LossConfig, dimensions: int) -> None:
        del dimensions
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor([math.log(config.temperature)]))

    def forward(self, vectors: Vectors) -> Tensor:
        """Each window's own place against the others, these weighed by what they do not show of it; and back."""
        weights = 1 - vectors.overlap
        weights.fill_diagonal_(1)
        logits = vectors.sar @ vectors.optical.T * self.temperature.exp() + weights.log()
        own = torch.arange(len(logits), device=logits.device)
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


class MultiSimilarity(nn.Module):
    """All pairs, weighed by how hard they are (Wang et al. 2019, "Multi-similarity loss", CVPR)."""

    def __init__(self, config: LossConfig, dimensions: int) -> None:
        del config, dimensions
        super().__init__()
        self._loss = MultiSimilarityLoss()

    def forward(self, vectors: Vectors) -> Tensor:
        """Mean over both sides."""
        own = torch.arange(len(vectors.sar), device=vectors.sar.device)
        indices = (own, own, *(vectors.overlap == 0).nonzero(as_tuple=True))
        sar: Tensor = self._loss(vectors.sar, indices_tuple=indices, ref_emb=vectors.optical)
        optical: Tensor = self._loss(vectors.optical, indices_tuple=indices, ref_emb=vectors.sar)
        return (sar + optical) / 2


class CrossBatch(nn.Module):
    """Batches that went before as further negatives (Wang et al. 2020, "Cross-batch memory", CVPR).

    Each modality has a memory, and the other's windows are the anchors, since what is remembered has no gradient. The
    contrastive loss is NT-Xent at the start's temperature. A resumed run fills its memories anew.
    """

    _WINDOWS = 1 << 20  # labels of one pair; a label is a serial number of the pair times this, plus the window's

    def __init__(self, config: LossConfig, dimensions: int) -> None:
        super().__init__()
        loss = NTXentLoss(temperature=1 / config.temperature)
        made = {
            name: CrossBatchMemory(loss, dimensions, memory_size=config.memory, miner=self._mined)
            for name in ("optical", "sar")
        }
        self.memories = nn.ModuleDict(made)
        self._seen = 0

    def forward(self, vectors: Vectors) -> Tensor:
        """Mean over both sides."""
        own = torch.arange(len(vectors.sar), device=vectors.sar.device)
        labels = (vectors.pair + self._seen) * self._WINDOWS + own
        self._seen += int(vectors.pair.max()) + 1
        remembered = torch.cat([torch.zeros_like(own), torch.ones_like(own)]).bool()
        total = vectors.sar.new_zeros(())
        for name, anchors, others in (
            ("optical", vectors.sar, vectors.optical),
            ("sar", vectors.optical, vectors.sar),
        ):
            memory = self.memories[name]
            total = total + memory(torch.cat([anchors, others]), labels.repeat(2), enqueue_mask=remembered)
        return total / 2

    @classmethod
    def _mined(cls, _: Tensor, labels: Tensor, __: Tensor, remembered: Tensor) -> tuple[Tensor, ...]:
        """Positives are of the same window, negatives of another pair."""
        own = (labels[:, None] == remembered).nonzero(as_tuple=True)
        others = (labels[:, None] // cls._WINDOWS != remembered // cls._WINDOWS).nonzero(as_tuple=True)
        return (*own, *others)


METHODS: dict[str, Callable[[LossConfig, int], nn.Module]] = {
    "triplet": Triplet,
    "infonce": InfoNCE,
    "multi-similarity": MultiSimilarity,
    "cross-batch": CrossBatch,
}


def make_pooled_loss(config: LossConfig, dimensions: int) -> nn.Module | None:
    """The loss that a configuration names, for vectors of so many components; None for ``none``.

    Raises:
        UsageError: there is none of that name.
    """
    one_of(config.pooled, ("none", *METHODS), "loss.pooled")
    return None if config.pooled == "none" else METHODS[config.pooled](config, dimensions)
