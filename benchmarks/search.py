"""Which search structure for how many tiles, and ten million of them on disk.

The map is the validation block of Los Angeles with training fragments around it, every one turned, scaled and lit in a
way of its own (benchmarks/varied.py); tile vectors are those of the default encoder after geomatch's PCA, queries are
SAR windows of the block, one at a time, for a hundred tiles, on one thread.

First the structures in memory, in the parts that an index's files are and searched as those, by number of tiles, an
inverted file, HNSW and the exact scan among them, of all components of the PCA or of the strongest: CPU milliseconds
per query, alone and of five together, the share of the tiles of the exact answer of as many components that are found
(recall@100 as a share of all hundred; of the exact scan of fewer components, that of all), the share of queries whose
nearest tile is among the hundred (FAISS's R@100), the share whose true tile is (within half a stride + 4 px), and
what fitting and adding take; at last the most memory that the process held, with all vectors in full. This is what
KINDS in index/kinds.py stands on.

Then, with --large, an index of so many tiles, built by geomatch and searched from disk in a new process: recall against
an exact scan of vectors in full, seconds from opening to the first answer to a vector, with the files in the system's
cache and with them dropped from it, CPU milliseconds per query, alone, the first time, when what is looked at again
comes from disk, and the second time, and as the windows of a strip are asked for, five at a time, of all tiles and of
those in a circle, and memory. Maps and indexes stay in bench/ and are not made again.

    python benchmarks/search.py [--windows 200] [--sizes 50000 200000 1000000] [--large 10000000] [-o FILE]
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import common
import faiss
import gallery
import numpy as np
from common import LA_VAL, Bar, SarWindows, Worker
from numpy.typing import NDArray
from varied import indexed

from geomatch.gallery import searched as gallery_searched
from geomatch.geo import CRS84, ground_jacobian, transform_points
from geomatch.index import vectors as fitting
from geomatch.index.build import BuildOptions
from geomatch.index.codes import PART_TILES, copied
from geomatch.index.job import reader_of
from geomatch.index.kinds import KINDS, PCA_DIMENSIONS, Kind, VectorPlan, plan_vectors
from geomatch.index_files import Part
from geomatch.manifest import FEATURES, MANIFEST
from geomatch.near import Near
from geomatch.raster import open_raster
from geomatch.tile_index import TileIndex
from geomatch.tiles import STRIDE_PX, TileGrid
from geomatch.vectors import Vectors as TileVectors

FLAT, HNSW = Kind("Flat"), Kind("HNSW32")
FEWER = replace(FLAT, components=KINDS[-1].components)
PARTITIONED = replace(KINDS[-1], coded=f"IVF256,{KINDS[-1].coded}")
CONTENDERS = (
    FLAT,
    FEWER,
    *KINDS,
    Kind("PQ128x4fs,Refine(SQfp16)", reranked=KINDS[-1].reranked),
    *(replace(PARTITIONED, probes=probes) for probes in (0.125, 0.5)),
    HNSW,
)
SIZES = (50_000, 200_000, 1_000_000)
WITHIN_PX = STRIDE_PX / 2 + 4
WARM = 5
ASKED = 100  # tiles
CIRCLES = (0.001, 0.1, 0.5)  # shares of the map
STRIP = 5  # windows of a strip, whose vectors are asked for together
TITLE = f"Search for {ASKED} tiles, one thread (* as geomatch chooses)"
COLUMNS = ("tiles", "structure", "CPU ms", "wall ms", "of five, CPU ms", "of the exact", "nearest found",
           "true tile found", "fit + add, CPU s", "MB")  # fmt: skip

Vectors = NDArray[np.float32]
Searched = Callable[[Vectors], Vectors]


@dataclass(frozen=True)
class Tiles:
    """Vectors [N x D] as they are compared, and their corners on the map [N x 2]; of a gallery, or of queries."""

    vectors: Vectors
    corners: NDArray[Any]

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class Found:
    """Of a structure over a number of tiles."""

    tiles: int
    kind: Kind
    cpu_ms: float
    wall_ms: float
    cpu_ms_of_five: float
    exact_found: float
    nearest_found: float
    true_found: float
    fit_cpu_s: float
    megabytes: float

    def row(self) -> list[str]:
        chosen = self.kind == plan_vectors(self.tiles, 10_000, 16).kind
        note = f", {self.kind.probes:g} of the lists" if "IVF" in self.kind.coded else ""
        note += f", {self.kind.components} components" if self.kind.components else ""
        return [
            f"{self.tiles}",
            f"{self.kind.coded}{note}" + (" *" if chosen else ""),
            f"{self.cpu_ms:.2f}",
            f"{self.wall_ms:.2f}",
            f"{self.cpu_ms_of_five:.2f}",
            f"{self.exact_found:.3f}",
            f"{self.nearest_found:.3f}",
            f"{self.true_found:.3f}",
            f"{self.fit_cpu_s:.1f}",
            f"{self.megabytes:.0f}",
        ]


# ---- tiles


def whole_pca(index: TileIndex) -> faiss.Index:
    """A PCA to as many components as do best, fitted as geomatch fits it, whatever kind the index is."""
    manifest = index.manifest
    grid = TileGrid(index.grid.width, index.grid.height, manifest.tiles.size_px, manifest.tiles.stride_px)
    with open_raster(index.path / FEATURES) as raster:
        least = BuildOptions().min_valid
        sample = fitting.sample_vectors(reader_of(raster), grid, manifest.cells, index.encoder, least)
    return fitting.fit_vectors(VectorPlan(PCA_DIMENSIONS, FLAT), sample.vectors)


def all_tiles(index: TileIndex, searched: Searched) -> Tiles:
    """Every tile of an index: those of the block first, the rest in an order without a pattern."""
    parts = list(gallery.vectors_in_full(index, searched))
    found, corners = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    rest = (corners + gallery.SIZE_PX > (LA_VAL.width, LA_VAL.height)).any(axis=1)
    order = np.lexsort((np.random.default_rng(0).permutation(len(rest)), rest))
    return Tiles(found[order], corners[order])


def asked(data: Path, index: TileIndex, searched: Searched, windows: int, seed: int) -> Tiles:
    """SAR windows of the block."""
    corners = common.random_corners(LA_VAL, gallery.SIZE_PX, windows, seed)
    seen = gallery.query_features(SarWindows(data, LA_VAL), corners, encoder=index.encoder)
    return Tiles(searched(gallery.query_vectors(seen)), corners)


def shortened(tiles: Tiles, kind: Kind) -> Tiles:
    """With as many components as a kind keeps, the strongest, of length one again."""
    if kind.components is None:
        return tiles
    vectors = np.ascontiguousarray(tiles.vectors[:, : kind.components])
    return Tiles(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), tiles.corners)


# ---- structures in memory


def measure(tiles: Tiles, kind: Kind, queries: Tiles, exact: NDArray[np.int64] | None) -> tuple[Found, Any]:
    """A structure over the tiles; and what it found, [Q x k]."""
    tiles, queries = shortened(tiles, kind), shortened(queries, kind)
    made = common.timed(_fitted, tiles.vectors, kind)
    parts = made.value
    index = TileVectors(parts, tiles.corners)
    for query in queries.vectors[:WARM]:
        index.search(query[None], ASKED)
    answers, strips = (
        [common.timed(index.search, some, ASKED) for some in np.split(queries.vectors, range(n, len(queries), n))]
        for n in (1, STRIP)
    )
    ids = np.concatenate([answer.value.tiles for answer in answers])
    exact_found, nearest_found = _agreement(ids if exact is None else exact, ids)
    found = Found(
        tiles=len(tiles.vectors),
        kind=kind,
        cpu_ms=1000 * sum(answer.cpu_s for answer in answers) / len(ids),
        wall_ms=1000 * sum(answer.wall_s for answer in answers) / len(ids),
        cpu_ms_of_five=1000 * sum(answer.cpu_s for answer in strips) / len(ids),
        exact_found=exact_found,
        nearest_found=nearest_found,
        true_found=_true_found(tiles.corners, ids, queries.corners),
        fit_cpu_s=made.cpu_s,
        megabytes=sum(len(faiss.serialize_index(part.index)) for part in parts) / 1e6,
    )
    return found, ids


def _fitted(vectors: Vectors, kind: Kind) -> list[Part]:
    """The structure over the vectors, fitted as geomatch fits it, to as large a sample, and in as large parts."""
    rng = np.random.default_rng(0)
    sample = vectors[np.sort(rng.permutation(len(vectors))[: fitting.SAMPLE_TILES])]
    fitted = fitting.fit_vectors(VectorPlan(0, kind), sample)
    parts = []
    for first in range(0, len(vectors), PART_TILES):
        part = copied(fitted)
        part.add(vectors[first : first + PART_TILES])
        parts.append(Part(part))
    return parts


def _agreement(exact: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[float, float]:
    """Shares of the exact answer's tiles, and of its first ones, that were found."""
    pairs = list(zip(exact, ids, strict=True))
    same = np.mean([np.isin(theirs, ours).mean() for theirs, ours in pairs])
    return float(same), float(np.mean([theirs[0] in ours for theirs, ours in pairs]))


def _true_found(corners: NDArray[Any], ids: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Share of the queries whose true tile is among those found, of those that have one in the gallery."""
    near = np.nonzero((corners < (LA_VAL.width, LA_VAL.height)).all(axis=1))[0]
    there = (np.abs(corners[near] - truth[:, None]).max(axis=2) <= WITHIN_PX).any(axis=1)
    return float((gallery.ranks(corners, ids, truth, WITHIN_PX)[there] > 0).mean())


def compare(tiles: Tiles, queries: Tiles, hnsw_up_to: int) -> Iterator[Found]:
    """Every structure over the same tiles, the exact scans first."""
    exact: dict[int | None, NDArray[np.int64]] = {}  # by components
    for kind in CONTENDERS:
        if kind != HNSW or len(tiles.vectors) <= hnsw_up_to:
            of = None if kind == FEWER else kind.components
            found, ids = measure(tiles, kind, queries, exact.get(of))
            exact.setdefault(kind.components, ids)
            print(" | ".join(found.row()), flush=True)
            yield found


# ---- an index on disk


class Searcher:
    """Opens an index and searches it; made in the process that is measured.

    Args:
        folder: the index.
        query: [P] the first.
        near: looks there alone.
    """

    def __init__(self, folder: Path, query: Vectors, near: Near | None = None) -> None:
        index = TileIndex.open(folder)
        self._index = index if near is None else index.near(near)
        self(query[None])

    def __call__(self, queries: Vectors) -> NDArray[np.int64]:
        """Numbers of the tiles nearest to each vector [Q x P] as the encoder makes it: [Q x k]."""
        return self._index.search(queries, ASKED).tiles


def exact_answer(index: TileIndex, queries: Vectors) -> NDArray[np.int64]:
    """What an exact scan of all vectors in full finds: [Q x k]; once for an index and its queries."""
    asked = hashlib.sha256(queries.tobytes() + (index.path / MANIFEST).read_bytes()).hexdigest()[:16]
    file = index.path.with_suffix(f".exact-{asked}.npy")
    if not file.is_file():
        heap, first = faiss.ResultHeap(len(queries), ASKED, keep_max=True), 0
        for vectors, _ in gallery.vectors_in_full(index):
            count = min(ASKED, len(vectors))
            scores, ids = faiss.knn(queries, vectors, count, metric=faiss.METRIC_INNER_PRODUCT)
            heap.add_result(scores, ids + first)
            first += len(vectors)
        heap.finalize()
        np.save(file, heap.I)
    return np.load(file)


def forget(folder: Path) -> None:
    """Drop an index's files, which no process may have open, from the system's cache, so that they come from disk."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def circle(index: TileIndex, share: float) -> Near:
    """The one about the middle of a map that holds that share of it."""
    grid = index.grid
    middle = np.array([grid.width, grid.height]) / 2
    lon, lat = transform_points(grid.to_map(middle), grid.crs, CRS84)
    metres = np.sqrt(share * grid.width * grid.height * abs(np.linalg.det(ground_jacobian(grid, middle))) / np.pi)
    return Near(float(lon), float(lat), float(metres))


def on_disk(data: Path, tiles: int, windows: int, seed: int) -> tuple[dict[str, Any], list[Bar]]:
    """Build an index of so many tiles, search it, and judge."""
    index, _ = indexed(data, tiles)
    corners = common.random_corners(LA_VAL, gallery.SIZE_PX, windows, seed)
    seen = gallery.query_features(SarWindows(data, LA_VAL), corners, encoder=index.encoder)
    queries = gallery.query_vectors(seen)
    exact = exact_answer(index, index.vectors.searched(queries))
    index = TileIndex.open(index.path)  # whose vectors nobody has read
    gc.collect()
    forget(index.path)
    first = Worker(Searcher, index.path, queries[0])
    first.close()
    parts = np.split(queries, range(STRIP, len(queries), STRIP))
    second = Worker(Searcher, index.path, queries[0])
    from_disk, alone = ([second.ask(query[None]) for query in queries] for _ in range(2))
    strips = [second.ask(part) for part in parts]
    _, peak = second.close()
    within = {}
    for share in CIRCLES:
        worker = Worker(Searcher, index.path, queries[0], circle(index, share))
        answers = [worker.ask(part) for part in parts]
        worker.close()
        spent = sum(answer.cpu_s for answer in answers)
        within[f"cpu_ms_of_five_in_{share:g}_of_the_map"] = 1000 * spent / len(queries)
    same, nearest = _agreement(exact, np.concatenate([answer.value for answer in strips]))
    size = sum(file.stat().st_size for file in index.path.iterdir()) / 1e6
    told = {
        "tiles": len(index),
        "vectors": index.manifest.tiles.vectors,
        "queries": len(queries),
        "exact_found": same,
        "nearest_found": nearest,
        "cpu_ms_alone_first_time": 1000 * float(np.mean([answer.cpu_s for answer in from_disk])),
        "cpu_ms_alone": 1000 * float(np.mean([answer.cpu_s for answer in alone])),
        "wall_ms_alone": 1000 * float(np.mean([answer.wall_s for answer in alone])),
        "cpu_ms_of_five": 1000 * sum(answer.cpu_s for answer in strips) / len(queries),
        "wall_ms_of_five": 1000 * sum(answer.wall_s for answer in strips) / len(queries),
        **within,
        "first_answer_s": second.made.wall_s,
        "first_answer_from_disk_s": first.made.wall_s,
        "peak_mb": peak,
        "disk_mb": size,
    }
    common.show("An index on disk", ("what", "value"), [(name, common.cell(value)) for name, value in told.items()])
    return told, [
        Bar("recall@100: of the exact answer's tiles", same, 0.99),
        Bar("recall@100: nearest tile among them", nearest, 0.99),
        Bar("CPU ms per query, five at a time", told["cpu_ms_of_five"], 50.0, at_least=False),
        Bar("CPU ms of a query alone", told["cpu_ms_alone"], 50.0, at_least=False),
        Bar("peak MB", peak, 4000.0, at_least=False),
        Bar("seconds to the first answer", told["first_answer_s"], 1.0, at_least=False),
        Bar("the same, the files on disk alone", told["first_answer_from_disk_s"], 1.0, at_least=False),
    ]


def main() -> None:
    parser = common.parser(__doc__, windows=200)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--hnsw-up-to", type=int, default=50_000, help="tiles; its graph takes minutes to build")
    parser.add_argument("--large", type=int, help="tiles of the index on disk")
    parser.add_argument("--into", type=Path, help="document that gets the tables")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    results: list[Found] = []
    peak_mb = 0.0
    if given.sizes:
        results = list(_in_memory(data, given.sizes, given.windows, given.seed, given.hnsw_up_to))
        peak_mb = common.peak_rss_mb()
        common.show(TITLE, COLUMNS, [found.row() for found in results])
        print(f"most memory of the process: {peak_mb:.0f} MB")
    told, bars = on_disk(data, given.large, given.windows, given.seed) if given.large else ({}, [])
    if given.into is not None:
        _write(given.into, results, told)
    in_memory = [asdict(found) for found in results]
    common.finish(given.output, {"in_memory": in_memory, "in_memory_peak_mb": peak_mb, "on_disk": told}, bars)


def _write(file: Path, results: Sequence[Found], told: dict[str, Any]) -> None:
    """The tables that there are into a document; tiles and structure together tell rows apart."""
    if results:
        columns = (f"{COLUMNS[0]}, {COLUMNS[1]}", *COLUMNS[2:])
        common.into(
            file, "search", columns, [[f"{row[0]}, {row[1]}", *row[2:]] for row in (one.row() for one in results)]
        )
    if told:
        common.into(file, "disk", ("what", "value"), [(name, common.cell(value)) for name, value in told.items()])


def _in_memory(data: Path, sizes: Sequence[int], windows: int, seed: int, hnsw_up_to: int) -> Iterator[Found]:
    index, _ = indexed(data, max(sizes))
    searched = partial(gallery_searched, whole_pca(index))
    tiles, queries = all_tiles(index, searched), asked(data, index, searched, windows, seed)
    for size in sorted({min(size, len(tiles.vectors)) for size in sizes}):
        yield from compare(Tiles(tiles.vectors[:size], tiles.corners[:size]), queries, hnsw_up_to)


if __name__ == "__main__":
    main()
