"""Which search structure for how many tiles: exact scan, 8-bit codes, fast-scan product quantisation, HNSW.

Tile vectors are those of the validation block of Los Angeles first, then of the rest of its scene, then of the mirrored
scene, fitted by geomatch's own code. Queries are SAR windows of the block, one at a time, for as many tiles as geomatch
asks for. Prints CPU milliseconds per query, the share of the exact answer that is found, the share of windows whose
true tile (within half a stride + 4 px; windows without one in the gallery do not count) is among them, and what fitting
and adding take, on one thread. "4 x" re-ranks four times as many tiles as are asked for; else re-ranking only sorts.
This is what SCAN_UP_TO in index/plan.py stands on.

    python benchmarks/search.py [--windows 200] [--sizes 25000 50000 ...] [--hnsw-up-to 100000] [-o FILE]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import common
import faiss
import gallery
import numpy as np
from common import LA_VAL, SarWindows
from numpy.typing import NDArray

from geomatch.index import vectors as fitting
from geomatch.index.build import build_index
from geomatch.index.plan import SCAN_UP_TO, BuildOptions, plan_vectors
from geomatch.locator import RETRIEVED_TILES
from geomatch.structure import CHANNELS
from geomatch.tiles import STRIDE_PX, TileGrid
from geomatch.vectors import RERANKED

FLAT, HNSW = "Flat", "HNSW32"
REFINED = "PQ128x4fs,Refine(SQ8)"
SIZES = (25_000, 50_000, 100_000, 200_000, 400_000)
MIRRORS = ((False, False), (True, False), (False, True), (True, True))
WITHIN_PX = STRIDE_PX / 2 + 4
WARM = 5
NOWHERE = -1_000_000

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Kind:
    """A search structure: what FAISS calls it, and as how many times the tiles asked for it re-ranks."""

    factory: str
    factor: int = 1

    def __str__(self) -> str:
        return self.factory + (f", {self.factor} x" if self.factor > 1 else "")


KINDS = (
    Kind(FLAT),
    Kind("SQ8"),
    Kind(REFINED),
    Kind(REFINED, RERANKED),
    Kind(REFINED, 10),
    Kind("PQ64x4fs,Refine(SQ8)", 10),
    Kind("PQ128x4fs"),
    Kind(HNSW),
)


@dataclass(frozen=True)
class Tiles:
    """Vectors [N x D] and their corners in the block [N x 2]; of a gallery, or of queries."""

    vectors: Vectors
    corners: NDArray[Any]

    def first(self, count: int) -> Tiles:
        return Tiles(self.vectors[:count], self.corners[:count])


@dataclass(frozen=True)
class Measured:
    """One structure over one number of tiles."""

    tiles: int
    kind: Kind
    cpu_ms: float
    exact_found: float
    true_found: float
    fit_cpu_s: float
    megabytes: float


# ---- the gallery


def collect(data: Path, count: int) -> Tiles:
    """``count`` tiles; those from elsewhere than the block have a corner nowhere near."""
    found: list[Tiles] = []
    for part in parts(data):
        found.append(part)
        if sum(len(tiles.vectors) for tiles in found) >= count:
            break
    vectors, corners = (np.concatenate(arrays) for arrays in zip(*(astuple(tiles) for tiles in found), strict=True))
    return Tiles(vectors, corners).first(count)


def parts(data: Path) -> Iterator[Tiles]:
    block = gallery.as_dense(gallery.field_of(data, LA_VAL))
    min_valid = BuildOptions().min_valid
    yield Tiles(*gallery.gallery_vectors(block, TileGrid(LA_VAL.width, LA_VAL.height), min_valid))
    scene_file = data / LA_VAL.scene / "optical.tif"
    folder = common.BENCH / "gallery" / f"{LA_VAL.scene}.gmi"
    scene = build_index(scene_file, folder, BuildOptions(encoder=common.STRUCTURAL), overwrite=True)
    dense, grid = gallery.as_dense(scene.features), TileGrid(scene.grid.width, scene.grid.height)
    for across, down in MIRRORS:
        found, corners = gallery.gallery_vectors(gallery.mirrored(dense, across=across, down=down), grid, min_valid)
        new = np.ones(len(found), bool) if across or down else ~touches(corners)
        yield Tiles(found[new], np.full((int(new.sum()), 2), NOWHERE, np.int32))


def touches(corners: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which tiles of the scene overlap the block."""
    low = np.array([LA_VAL.col0, LA_VAL.row0])
    high = low + (LA_VAL.width, LA_VAL.height)
    overlap: NDArray[np.bool_] = ((corners + gallery.SIZE_PX > low) & (corners < high)).all(axis=1)
    return overlap


# ---- measuring


def fitted(vectors: Vectors, kind: Kind) -> faiss.Index:
    """The structure over the vectors, fitted as geomatch fits it, to as large a sample."""
    rng = np.random.default_rng(0)
    sample = vectors[np.sort(rng.permutation(len(vectors))[: fitting.SAMPLE_TILES])]
    index = fitting.fit_vectors(plan_vectors(len(vectors), vectors.shape[1], CHANNELS, kind.factory), sample)
    index.add(vectors)
    if kind.factor > 1:
        faiss.ParameterSpace().set_index_parameter(index, "k_factor_rf", kind.factor)
    return index


def measure(tiles: Tiles, kind: Kind, queries: Tiles) -> tuple[Measured, NDArray[np.int64]]:
    made = common.timed(fitted, tiles.vectors, kind)
    index = made.value
    for query in queries.vectors[:WARM]:
        index.search(query[None], RETRIEVED_TILES)
    asked = [common.timed(index.search, query[None], RETRIEVED_TILES) for query in queries.vectors]
    ids = np.concatenate([answer.value[1] for answer in asked])
    there = (np.abs(tiles.corners - queries.corners[:, None]).max(axis=2) <= WITHIN_PX).any(axis=1)
    hit = gallery.ranks(tiles.corners, ids, queries.corners, WITHIN_PX)[there] > 0
    size = len(faiss.serialize_index(index)) / 1e6
    cpu_ms = 1000 * float(np.mean([answer.cpu_s for answer in asked]))
    return Measured(len(tiles.vectors), kind, cpu_ms, 1.0, float(hit.mean()), made.cpu_s, size), ids


def compare(tiles: Tiles, kinds: Sequence[Kind], queries: Tiles) -> list[Measured]:
    """Every kind over the same tiles, the exact scan first."""
    results, exact = [], np.empty((0, 0), np.int64)
    for kind in kinds:
        found, ids = measure(tiles, kind, queries)
        exact = ids if kind.factory == FLAT else exact
        same = np.mean([np.isin(ours, theirs).mean() for ours, theirs in zip(exact, ids, strict=True)])
        results.append(replace(found, exact_found=float(same)))
    return results


def row_of(found: Measured, dimensions: int) -> list[str]:
    planned = plan_vectors(found.tiles, dimensions, CHANNELS).coded
    chosen = found.kind == Kind(planned, RERANKED if "Refine" in planned else 1)
    return [
        f"{found.tiles}",
        f"{found.kind}" + (" *" if chosen else ""),
        f"{found.cpu_ms:.2f}",
        f"{found.exact_found:.3f}",
        f"{found.true_found:.3f}",
        f"{found.fit_cpu_s:.1f}",
        f"{found.megabytes:.0f}",
    ]


def main() -> None:
    parser = common.parser(__doc__, windows=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--hnsw-up-to", type=int, default=100_000, help="tiles; its graph takes minutes to build")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    truth = common.random_corners(LA_VAL, gallery.SIZE_PX, given.windows, given.seed)
    queries = Tiles(gallery.query_vectors(gallery.query_features(SarWindows(data, LA_VAL), truth)), truth)
    tiles = collect(data, max(given.sizes))
    results: list[Measured] = []
    for size in sorted({min(size, len(tiles.vectors)) for size in given.sizes}):
        kinds = [kind for kind in KINDS if kind.factory != HNSW or size <= given.hnsw_up_to]
        results += compare(tiles.first(size), kinds, queries)
    columns = ["tiles", "structure", "CPU ms", "of the exact", "true tile found", "fit + add, CPU s", "MB"]
    title = f"Search for {RETRIEVED_TILES} tiles, one thread (* as geomatch chooses; scanned up to {SCAN_UP_TO})"
    common.show(title, columns, [row_of(found, tiles.vectors.shape[1]) for found in results])
    common.finish(given.output, [asdict(found) for found in results])


if __name__ == "__main__":
    main()
