"""From pooled features to the vector that is searched: a PCA fitted to the map, or a linear layer learned from pairs.

The learned features of one encoder are pooled, for 500 windows of 200 px and the tiles of the validation block of Los
Angeles, and brought to 256 components in four ways: not at all; by the PCA of the map's tiles; by that with half
whitening, as an index does it; by a linear layer that was learned with symmetric InfoNCE from pairs of the training
data, beginning as the PCA of its tiles, and stopped by pairs kept aside. Prints R@1, R@10 and R@100 with Wilson's 95 %
interval; a tile is the right one within half a stride and 4 px in both axes. Nothing of the block is used to learn.

    python benchmarks/projection.py [--weights la3] [--batches 300] [--windows 500] [-o FILE]
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from unittest.mock import patch

import common
import gallery
import numpy as np
import torch
from common import LA_VAL, ROOT, SarWindows, finish, share, show
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from geomatch import defaults
from geomatch.encoder import ALONE, load_encoder
from geomatch.index import vectors as fitting
from geomatch.index.kinds import Kind, VectorPlan
from geomatch.nets.shapes import EncoderShape
from geomatch.planes import CELL_PX
from geomatch.tiles import MIN_TILE_VALID, STRIDE_PX, TileGrid
from geomatch.training.config import load_config
from geomatch.training.data import Batches
from geomatch.training.pooled import pooled
from geomatch.weights import Weights

CONFIG = ROOT / "configs/encoder/la.yaml"
COMPONENTS = 256
AT = (1, 10, 100)
MARGIN_PX = 4
KEPT_ASIDE = 0.1
BATCH, EPOCHS, TEMPERATURE = 512, 30, 0.05
RATES = (1e-3, 1e-4)

Vectors = NDArray[np.float32]


def training_pairs(weights: Weights[EncoderShape], batches: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pooled vectors of optical tiles and of the SAR windows taken there: [N x D], [N x D]."""
    net = weights.net().eval()
    optical, sar = [], []
    with torch.inference_mode():
        for batch in islice(Batches(load_config(CONFIG).data, seed), batches):
            pair = torch.arange(len(batch["large"])).repeat_interleave(batch["large"].shape[1])
            at_px = batch["large_at"].flatten(0, 1) * CELL_PX
            optical.append(pooled(net(batch["optical"], "optical")[pair], at_px, gallery.SIZE_PX))
            windows = net(batch["large"].flatten(0, 1), "sar")
            sar.append(pooled(windows, torch.zeros_like(at_px), gallery.SIZE_PX))
    return torch.cat(optical), torch.cat(sar)


def info_nce(layer: nn.Module, optical: Tensor, sar: Tensor) -> Tensor:
    one, other = (functional.normalize(layer(vectors), dim=1) for vectors in (optical, sar))
    scores, own = one @ other.T / TEMPERATURE, torch.arange(len(one))
    return (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2


def learned_layer(optical: Tensor, sar: Tensor, seed: int) -> nn.Linear:
    """The layer of the rate and the epoch at which the pairs that were kept aside are told apart best."""
    torch.manual_seed(seed)
    aside = int(KEPT_ASIDE * len(optical))
    _, _, axes = torch.linalg.svd(optical[:4096] - optical[:4096].mean(dim=0), full_matrices=False)
    best, kept = float("inf"), axes[:COMPONENTS]
    for rate in RATES:
        layer = nn.Linear(optical.shape[1], COMPONENTS, bias=False)
        layer.weight.data.copy_(axes[:COMPONENTS])
        optimizer = torch.optim.Adam(layer.parameters(), rate)
        for epoch in range(EPOCHS):
            for part in torch.split(aside + torch.randperm(len(optical) - aside), BATCH):
                optimizer.zero_grad()
                info_nce(layer, optical[part], sar[part]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = float(info_nce(layer, optical[:aside], sar[:aside]))
            if loss < best:
                best, kept = loss, layer.weight.detach().clone()
                print(f"rate {rate:g}, epoch {epoch + 1}: loss on {aside} pairs kept aside {loss:.4f}", flush=True)
    layer.weight.data.copy_(kept)
    return layer


def pca(sample: Vectors, vectors: Vectors, power: float) -> Vectors:
    """Through an index's own PCA, whitened with that power of the deviation."""
    with patch.object(fitting, "PCA_POWER", power):
        index = fitting.fit_vectors(VectorPlan(COMPONENTS, Kind("Flat")), sample)
    reduced: Vectors = index.chain.at(0).apply(np.ascontiguousarray(vectors))
    return reduced


def found(tiles: Vectors, queries: Vectors, right: NDArray[np.bool_]) -> dict[int, NDArray[np.bool_]]:
    """Whether a right tile is among the first, query by query."""
    tiles, queries = (each / np.linalg.norm(each, axis=1, keepdims=True).clip(1e-9) for each in (tiles, queries))
    order = np.argsort(-(queries @ tiles.T), axis=1, kind="stable")[:, : max(AT)]
    hits = np.take_along_axis(right, order, axis=1)
    return {k: hits[:, :k].any(axis=1) for k in AT}


def main() -> None:
    parser = common.parser(__doc__, windows=500)
    parser.add_argument("--weights", default=defaults.ENCODER)
    parser.add_argument("--batches", type=int, default=300, help="of training pairs")
    given = parser.parse_args()
    data: Path = common.data_or_skip(given.data)
    common.one_thread()
    encoder = load_encoder(given.weights + ALONE)
    field = gallery.as_dense(gallery.field_of(data, LA_VAL, encoder.name))
    grid = TileGrid(LA_VAL.width, LA_VAL.height, gallery.SIZE_PX, STRIDE_PX)
    tiles, corners = gallery.gallery_vectors(field, grid, MIN_TILE_VALID)
    truth = common.random_corners(LA_VAL, gallery.SIZE_PX, given.windows, given.seed)
    queries = gallery.query_vectors(gallery.query_features(SarWindows(data, LA_VAL), truth, encoder=encoder))
    right = np.abs(corners[None] - truth[:, None]).max(axis=2) <= STRIDE_PX / 2 + MARGIN_PX
    layer = learned_layer(*training_pairs(Weights.find(given.weights), given.batches, given.seed), given.seed)
    matrix = layer.weight.detach().numpy().T
    sample = tiles[:: max(1, len(tiles) // fitting.SAMPLE_TILES)]
    ways = {
        f"none, {tiles.shape[1]} components": (tiles, queries),
        "PCA of the map": (pca(sample, tiles, 0.0), pca(sample, queries, 0.0)),
        "PCA of the map, half whitened": (pca(sample, tiles, -0.25), pca(sample, queries, -0.25)),
        "linear layer, learned": (tiles @ matrix, queries @ matrix),
    }
    results = {way: found(*both, right) for way, both in ways.items()}
    rows = [[way, *(share(hits[k]) for k in AT)] for way, hits in results.items()]
    show(
        f"{encoder.name}: {given.windows} windows among {len(tiles)} tiles",
        ("projection", "R@1", "R@10", "R@100"),
        rows,
    )
    finish(given.output, {way: {str(k): float(hit.mean()) for k, hit in hits.items()} for way, hits in results.items()})


if __name__ == "__main__":
    main()
