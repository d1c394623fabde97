"""Which search structure for how many tiles: exact scan, 8-bit codes, fast-scan product quantisation, HNSW.

Tile vectors are those of the validation block of Los Angeles first, then of the rest of its scene, then of the mirrored
scene, fitted by geomatch's own code. Queries are SAR windows of the block, one at a time, for as many tiles as geomatch asks
for. Prints CPU milliseconds per query, the share of the exact answer that is found, the share of windows whose true
tile (within half a stride + 4 px; windows without one in the gallery do not count) is among them, and what fitting and
adding take, on one thread. "4 x" re-ranks four times as many tiles as are asked for; without it re-ranking only sorts.
This is what FLAT_UP_TO in index/plan.py stands on.

    python benchmarks/search.py [--windows 200] [--sizes 25000 50000 ...] [--hnsw-up-to 100000] [-o FILE]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import common
import faiss
import gallery
import numpy as np
from common import LA_VAL, SarWindows
from numpy.typing import NDArray

from geomatch.index import vectors as fitting
from geomatch.index.build import build_index
from geomatch.index.plan import FLAT_UP_TO, BuildOptions, vector_factory
from geomatch.locator import RETRIEVED_TILES
from geomatch.tiles import STRIDE_PX, TileGrid, TileVectors

FLAT, HNSW = "Flat", "HNSW32"
REFINED = "PQ64x4fs,Refine(SQ8)"
KINDS = ((FLAT, 1), ("SQ8", 1), (REFINED, 1), (REFINED, 4), (REFINED, 10), ("PQ64x4fs", 1), (HNSW, 1))
SIZES = (25_000, 50_000, 100_000, 200_000, 400_000)
MIRRORS = ((False, False), (True, False), (False, True), (True, True))
WITHIN_PX = STRIDE_PX / 2 + 4
WARM = 5
NOWHERE = -1_000_000

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """One structure over one number of tiles."""

    tiles: int
    kind: str
    factor: int  # as many times the tiles asked for are re-ranked
    cpu_ms: float
    exact_found: float
    true_found: float
    fit_cpu_s: float
    megabytes: float


# ---- the gallery


def collect(data: Path, count: int) -> tuple[Vectors, NDArray[np.int32]]:
    """``count`` tile vectors and their corners in the block; tiles from elsewhere have a corner nowhere near."""
    vectors, corners, have = [], [], 0
    for part, where in parts(data):
        vectors.append(part)
        corners.append(where)
        have += len(part)
        if have >= count:
            break
    return np.concatenate(vectors)[:count], np.concatenate(corners)[:count]


def parts(data: Path) -> Iterator[tuple[Vectors, NDArray[np.int32]]]:
    block = gallery.as_dense(gallery.field_of(data, LA_VAL))
    min_valid = BuildOptions().min_valid
    yield gallery.gallery_vectors(block, TileGrid(LA_VAL.width, LA_VAL.height), min_valid)
    scene_file = data / LA_VAL.scene / "optical.tif"
    folder = common.BENCH / "gallery" / f"{LA_VAL.scene}.gmi"
    scene = build_index(scene_file, folder, overwrite=True)
    dense, grid = gallery.as_dense(scene.features), TileGrid(scene.grid.width, scene.grid.height)
    for across, down in MIRRORS:
        found, corners = gallery.gallery_vectors(gallery.mirrored(dense, across=across, down=down), grid, min_valid)
        new = np.ones(len(found), bool) if across or down else ~touches(corners)
        yield found[new], np.full((int(new.sum()), 2), NOWHERE, np.int32)


def touches(corners: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which tiles of the scene overlap the block."""
    low = np.array([LA_VAL.col0, LA_VAL.row0])
    high = low + (LA_VAL.width, LA_VAL.height)
    overlap: NDArray[np.bool_] = ((corners + gallery.SIZE_PX > low) & (corners < high)).all(axis=1)
    return overlap


# ---- measuring


def fitted(vectors: Vectors, kind: str, factor: int) -> faiss.Index:
    """The structure of that kind over the vectors, fitted as geomatch fits it, to as large a sample."""
    rng = np.random.default_rng(0)
    sample = vectors[np.sort(rng.permutation(len(vectors))[: fitting.SAMPLE_TILES])]
    tiles = TileVectors(sample[None], np.ones((1, len(sample)), np.float32))
    row = [(0, 1, np.zeros(1, np.int32), tiles)]
    with patch.object(fitting, "vectors_by_rows", lambda *_: iter(row)):
        grid = TileGrid(LA_VAL.width, LA_VAL.height)
        index, _ = fitting.fit_vectors(lambda *_: None, grid, 0, gallery.ENCODER, BuildOptions(vectors=kind))
    index.add(vectors)
    if factor > 1:
        faiss.ParameterSpace().set_index_parameter(index, "k_factor_rf", factor)
    return index


def measure(
    vectors: Vectors, corners: NDArray[np.int32], kind: str, factor: int, queries: Vectors, truth: NDArray[np.int64]
) -> tuple[Measured, NDArray[np.int64]]:
    made = common.timed(fitted, vectors, kind, factor)
    index = made.value
    for query in queries[:WARM]:
        index.search(query[None], RETRIEVED_TILES)
    asked = [common.timed(index.search, query[None], RETRIEVED_TILES) for query in queries]
    ids = np.concatenate([answer.value[1] for answer in asked])
    there = (np.abs(corners - truth[:, None]).max(axis=2) <= WITHIN_PX).any(axis=1)
    hit = gallery.ranks(corners, ids, truth, WITHIN_PX)[there] > 0
    size = len(faiss.serialize_index(index)) / 1e6
    cpu_ms = 1000 * float(np.mean([answer.cpu_s for answer in asked]))
    return Measured(len(vectors), kind, factor, cpu_ms, 1.0, float(hit.mean()), made.cpu_s, size), ids


def compare(
    vectors: Vectors,
    corners: NDArray[np.int32],
    kinds: list[tuple[str, int]],
    queries: Vectors,
    truth: NDArray[np.int64],
) -> list[Measured]:
    """Every kind over the same vectors, the exact scan first."""
    results, exact = [], np.empty((0, 0), np.int64)
    for kind, factor in kinds:
        found, ids = measure(vectors, corners, kind, factor, queries, truth)
        exact = ids if kind == FLAT else exact
        common_share = np.mean([np.isin(ours, theirs).mean() for ours, theirs in zip(exact, ids, strict=True)])
        results.append(Measured(**asdict(found) | {"exact_found": float(common_share)}))
    return results


def row_of(found: Measured, dimensions: int) -> list[str]:
    chosen = vector_factory(found.tiles, dimensions).split(",", 2)[-1] == found.kind and found.factor == 1
    return [
        f"{found.tiles}",
        found.kind + (f", {found.factor} x" if found.factor > 1 else "") + (" *" if chosen else ""),
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
    queries = gallery.query_vectors(gallery.query_features(SarWindows(data, LA_VAL), truth))
    vectors, corners = collect(data, max(given.sizes))
    results: list[Measured] = []
    for size in sorted(min(size, len(vectors)) for size in given.sizes):
        kinds = [kind for kind in KINDS if kind[0] != HNSW or size <= given.hnsw_up_to]
        results += compare(vectors[:size], corners[:size], kinds, queries, truth)
    columns = ["tiles", "structure", "CPU ms", "of the exact", "true tile found", "fit + add, CPU s", "MB"]
    title = f"Search for {RETRIEVED_TILES} tiles, one thread (* as geomatch chooses; exact up to {FLAT_UP_TO})"
    common.show(title, columns, [row_of(found, vectors.shape[1]) for found in results])
    common.finish(given.output, [asdict(found) for found in results])


if __name__ == "__main__":
    main()
