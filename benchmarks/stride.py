"""What the tiles' vectors find alone, by stride, size of pools, dimensions of the PCA and its whitening.

SAR windows of 200 px at random places of the validation block of Los Angeles; recall@k counts a window when one of its
first k tiles lies within half a stride + 4 px of it along both axes. Exact search, so that only the vectors count.
Bytes per map pixel are those of the vectors as float32 and as 8-bit codes.

    python benchmarks/stride.py [--windows 500] [-o FILE]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import common
import faiss
import gallery
import numpy as np
from common import LA_VAL, SarWindows
from numpy.typing import NDArray

from geomatch import tiles
from geomatch.index import kinds
from geomatch.index import vectors as fitting
from geomatch.structure import Dense
from geomatch.tiles import TileGrid

AT = (1, 10, 100, 1000)
STRIDES = (16, 24, 32, 50)
POOLS = (16, 20, 24)
MARGIN_PX = 4
CHOSEN = {"stride": tiles.STRIDE_PX, "pool": tiles.POOL_PX, "pca": kinds.PCA_DIMENSIONS, "power": fitting.PCA_POWER}


@dataclass(frozen=True)
class Choice:
    """One way to make vectors."""

    stride: int
    pool: int
    pca: int
    power: float


@dataclass(frozen=True)
class Found:
    """What it finds, and what it costs."""

    choice: Choice
    tiles: int
    components: int
    dimensions: int
    recall: dict[int, float]
    bytes_per_px: float
    coded_bytes_per_px: float


def choices() -> list[Choice]:
    """Every stride with every pool, and then the PCA around what geomatch has chosen."""
    chosen: dict[str, Any] = CHOSEN
    made = [Choice(**chosen | {"stride": stride, "pool": pool}) for pool in POOLS for stride in STRIDES]
    made += [Choice(**chosen | {"pca": pca}) for pca in (64, 128, 432)]
    return made + [Choice(**chosen | {"power": power}) for power in (0.0, -0.125, -0.375, -0.5)]


def rank_of(pool: int) -> int:
    """Components that vary: each channel's mean is removed, and whitening what does not vary gives no numbers."""
    return gallery.ENCODER.channels * ((gallery.SIZE_PX // pool) ** 2 - 1)


def evaluate(choice: Choice, dense: Dense, queries: list[Dense], truth: NDArray[np.int64]) -> Found:
    grid = TileGrid(LA_VAL.width, LA_VAL.height, gallery.SIZE_PX, choice.stride)
    changes = [
        (tiles, "POOL_PX", choice.pool),
        (kinds, "PCA_DIMENSIONS", min(choice.pca, rank_of(choice.pool))),
        (fitting, "PCA_POWER", choice.power),
    ]
    with gallery.setting(*changes):
        valid, encoder = tiles.MIN_TILE_VALID, gallery.ENCODER
        sample = fitting.sample_vectors(dense.crop, grid, dense.valid.shape, encoder, valid)
        index = fitting.fit_vectors(
            kinds.plan_vectors(len(grid), sample.vectors.shape[1], encoder.channels, "Flat"), sample.vectors
        )
        vectors, corners = gallery.gallery_vectors(dense, grid, valid)
        asked = gallery.query_vectors(queries)
    index.add(vectors)
    _, ids = index.search(asked, max(AT))
    rank = gallery.ranks(corners, ids, truth, choice.stride / 2 + MARGIN_PX)
    kept = faiss.downcast_index(index.index).d if isinstance(index, faiss.IndexPreTransform) else index.d
    per_px = len(vectors) / (LA_VAL.width * LA_VAL.height)
    recall = {k: float(np.mean((rank >= 1) & (rank <= k))) for k in AT}
    return Found(choice, len(vectors), vectors.shape[1], kept, recall, 4 * kept * per_px, kept * per_px)


def row_of(found: Found) -> list[str]:
    choice = found.choice
    chosen = " *" if asdict(choice) == CHOSEN else ""
    return [
        f"{choice.stride}{chosen}",
        f"{choice.pool}",
        f"{choice.power:g}",
        f"{found.components} -> {found.dimensions}",
        f"{found.tiles}",
        *(f"{found.recall[k]:.3f}" for k in AT),
        f"{found.bytes_per_px:.2f}",
        f"{found.coded_bytes_per_px:.2f}",
    ]


def main() -> None:
    given = common.parser(__doc__, windows=500).parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    dense = gallery.as_dense(gallery.field_of(data, LA_VAL))
    truth = common.random_corners(LA_VAL, gallery.SIZE_PX, given.windows, given.seed)
    queries = gallery.query_features(SarWindows(data, LA_VAL), truth)
    results = [evaluate(choice, dense, queries, truth) for choice in choices()]
    columns = ["stride px", "pool px", "power", "components", "tiles", *(f"R@{k}" for k in AT), "bytes/px", "8-bit"]
    common.show(f"Vectors alone, {given.windows} windows (* as geomatch has it)", columns, map(row_of, results))
    common.finish(given.output, [asdict(found) for found in results])


if __name__ == "__main__":
    main()
