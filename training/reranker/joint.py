"""The re-ranker as a loss of the encoder: both are trained in one run, on what the encoder itself retrieves.

The optical crops of a batch are the map: the vectors of their tiles are the gallery, in which each SAR window finds its
nearest. Which tiles these are is not differentiated, their vectors and scores are, so that the graph's loss moves both
networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Batch

from geomatch.metrics import OVERLAP
from geomatch.nets.reranker import RerankerNet
from geomatch.nets.shapes import RerankerShape
from geomatch.planes import CELL_PX
from geomatch.reranking.candidates import PARTS
from geomatch.reranking.features import Nodes, graph_of
from geomatch.tiles import POOL_PX

from ..losses import Windows
from ..pooled import averages, pooled
from .losses import cross_entropy

CANDIDATES = 60
STRIDE_PX = 24  # of the gallery's tiles
APART_TILES = 10.0  # from one crop to the next: they are different places
WITHOUT = 0.1  # of the windows lose their place


@dataclass(frozen=True)
class Gallery:
    """Tiles of optical crops.

    Attributes:
        vectors: [G x P] of length one.
        crop: [G] which crop each is of.
        at_px: [G x 2] its first column and row there.
    """

    vectors: Tensor
    crop: Tensor
    at_px: Tensor


def gallery_of(fields: Tensor, size_px: int) -> Gallery:
    """All tiles of crops at a stride: [B x C x h x w] features."""
    crops, _, height, width = fields.shape
    cols = torch.arange(0, width * CELL_PX - size_px + 1, STRIDE_PX, device=fields.device).float()
    rows = torch.arange(0, height * CELL_PX - size_px + 1, STRIDE_PX, device=fields.device).float()
    across, down = averages(cols, width, size_px), averages(rows, height, size_px)
    pools = torch.einsum("rph,bchw,kqw->brkcpq", down, fields.float(), across)
    pools = pools - pools.mean(dim=(4, 5), keepdim=True)
    vectors = functional.normalize(pools.flatten(3), dim=3, eps=1e-9)
    places = torch.stack(torch.meshgrid(rows, cols, indexing="ij")[::-1], dim=-1)
    crop = torch.arange(crops, device=fields.device).repeat_interleave(len(rows) * len(cols))
    return Gallery(vectors.flatten(0, 2), crop, places.flatten(0, 1).repeat(crops, 1))


class GraphLoss(nn.Module):
    """Cross-entropy of a graph network over what SAR windows retrieve from the crops of their batch.

    Args:
        shape: of the network; without peaks, which are not differentiated.
    """

    def __init__(self, shape: RerankerShape) -> None:
        super().__init__()
        self.net = RerankerNet(shape)

    def forward(self, windows: Windows, fields: Tensor, size_px: int) -> Tensor:
        """The loss of [T] windows whose features are given, against [B x C x h x w] features of the crops."""
        at_px = windows.truth * CELL_PX
        queries = pooled(windows.values, torch.zeros_like(at_px), size_px)
        gallery = gallery_of(fields, size_px)
        drawn = [
            self._graph(query, gallery, int(pair), at, size_px)
            for query, pair, at in zip(queries, windows.pair, at_px, strict=True)
        ]
        batch = Batch.from_data_list(drawn)
        nodes, absent = self.net(batch)
        return cross_entropy(nodes, absent, batch.right, batch.batch)

    def _graph(self, query: Tensor, gallery: Gallery, pair: int, at_px: Tensor, size_px: int) -> Batch:
        scores = gallery.vectors @ query
        own = gallery.crop == pair
        common = (size_px - (gallery.at_px - at_px).abs()).clamp_min(0).prod(dim=1)
        right = own & (common / (2 * size_px**2 - common) >= OVERLAP)
        asked = scores.detach()
        if self.training and torch.rand(()) < WITHOUT:
            asked = asked.masked_fill(own, -torch.inf)
        chosen = torch.topk(asked, min(CANDIDATES, int((asked > -torch.inf).sum()))).indices
        tiles = gallery.at_px[chosen] / size_px
        tiles = tiles + torch.stack([gallery.crop[chosen] * APART_TILES, torch.zeros_like(tiles[:, 0])], dim=1)
        pools = size_px // POOL_PX
        products = (gallery.vectors[chosen] * query).reshape(len(chosen), -1, pools, pools).sum(dim=1)
        nodes = Nodes(
            scores=scores[chosen],
            tiles=tiles - tiles.mean(dim=0),
            vectors=gallery.vectors[chosen],
            agreement=functional.adaptive_avg_pool2d(products, PARTS) * (pools / PARTS) ** 2,
        )
        made = graph_of(nodes, self.net.shape)
        made.right = right[chosen]
        return made
