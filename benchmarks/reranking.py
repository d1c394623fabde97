"""Re-rankers on what single windows retrieve: baselines, the graph network, and the network without its parts.

    python benchmarks/reranking.py [--rows offsets ...] [--windows 1000] [--into docs/reranking.md] [-o FILE]

Indexes and runs lie in bench/ and are not made again. Trained on Los Angeles east and drawn cities; the northern half
of the validation block chooses the best epoch of each run (configs/reranker/graph.yaml). Measured on windows of the
whole block at places of another seed, and on its southern half, which chose nothing; off the map are windows of Los
Angeles east. Rows with vectors alone see no correlation of features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
from common import BENCH, ROOT, Bar, finish, show
from consensus import maps

from geomatch.index.build import BuildOptions, build_index
from geomatch.reranking.evaluation import compare
from geomatch.reranking.graph import graph_reranker
from geomatch.reranking.rerankers import BASELINES, Reranker
from geomatch.sampling import WindowOptions
from geomatch.simulation import simulate_city
from geomatch.tile_index import TileIndex
from geomatch.training.reranker.task import load_reranker_config, train_reranker

FOLDER = BENCH / "rr"
CONFIG = ROOT / "configs/reranker/graph.yaml"
UNRANKED = "loss.ranking=0"
ALONE = ("net.peaks=false", UNRANKED)
VARIANTS: dict[str, tuple[str, ...]] = {
    "features": (*ALONE, "net.positions=none", "net.agreement=false"),
    "unplaced": (*ALONE, "net.positions=none"),
    "edges": (*ALONE, "net.positions=edges"),
    "embedding": (*ALONE, "net.positions=embedding"),
    "offsets": ALONE,
    "peaks": (UNRANKED,),
    "ranking": (),
    "onlyranking": ("loss.ranking=1.0", "loss.cross_entropy=0.1"),
}
SHOWN = {
    "features": "graph, vectors alone: neighbours in vector, no positions, no agreement",
    "unplaced": "graph, vectors alone: no positions",
    "edges": "graph, vectors alone: edges between near ones",
    "embedding": "graph, vectors alone: offset from the centroid at the nodes",
    "offsets": "graph, vectors alone: offsets at the edges",
    "peaks": "graph, with the correlation of features",
    "ranking": "the same, half a margin ranking loss beside the cross-entropy",
    "onlyranking": "the same, margin ranking ten times the cross-entropy",
}
SIZES = {200: "la", 104: "la104"}
COLUMNS = ("re-ranker", "R@1", "interval", "southern half", "R@10", "misses cut", "selective", "AUROC", "CPU ms")
SEED = 2026
CITIES = (301, 302)


def index(name: str, data: Path) -> Path:
    """One of the indexes that the configuration names, built where it is missing."""
    target = BENCH / f"{name}.gmi"
    if target.is_dir():
        return target
    block, tile = maps(data)["block"](), 104 if name.endswith("104") else 200
    if name.startswith("city"):
        city = BENCH / name.partition("-")[0]
        if not city.is_dir():
            simulate_city(city, size_px=3000, seed=int(city.name.removeprefix("city")), strips=1)
        optical, box = city / "ortho.tif", None
    else:
        optical = block.optical if name.startswith("la") else block.elsewhere.with_name("optical.tif")
        box = block.bbox if name.startswith("la") else None
    build_index(optical, target, BuildOptions(bbox=box, tile_px=tile))
    return target


def trained(row: str) -> Reranker:
    """A variant, trained where it is not there."""
    folder = FOLDER / row
    if not (folder / "reranker.safetensors").is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        train_reranker(load_reranker_config(CONFIG, VARIANTS[row]), folder)
    return graph_reranker(str(folder / "reranker.safetensors"), row)


def measured(size: int, data: Path, windows: int, rerankers: list[Reranker]) -> list[list[Any]]:
    """Rows of re-rankers, on the whole block and on its southern half."""
    block = maps(data)["block"]()
    assert block.bbox is not None
    left, bottom, right, top = block.bbox
    opened = TileIndex.open(index(SIZES[size], data))
    options = WindowOptions(windows, size, SEED)
    scores = compare(opened, block.sar, options, rerankers, absent=block.elsewhere)
    south = WindowOptions(windows // 2, size, SEED + 1, bbox=(left, bottom, right, (bottom + top) / 2))
    halves = compare(opened, block.sar, south, rerankers)
    print(f"{size} px: the place is among the candidates of {scores['reachable']:.3f} of {windows} windows")
    rows = []
    for row, half in zip(scores["rerankers"], halves["rerankers"], strict=True):
        name = SHOWN.get(row["reranker"], row["reranker"]) if row["reranker"] not in BASELINES else row["reranker"]
        selective = f"{common.cell(row['selective'])} ({common.cell(row['plain_there'])})"
        values = [row["recall"]["1"], row["recall_ci"], half["recall"]["1"], row["recall"]["10"], row["cut"]]
        rows.append([name, *values, selective, row["present_auroc"], row["cpu_ms"]])
    return rows


def main() -> None:
    arguments = common.parser(__doc__, windows=1000)
    arguments.add_argument("--rows", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments.add_argument("--into", type=Path, help="document that gets the tables")
    given = arguments.parse_args()
    data = common.data_or_skip(given.data).resolve()
    common.one_thread()
    BENCH.mkdir(exist_ok=True)
    for name in ("la", "la104", "east", "east104", *(f"city{seed}" for seed in CITIES), "city302-104"):
        index(name, data)
    rerankers = [*BASELINES.values(), *map(trained, given.rows)]
    results, bars = {}, []
    for size in SIZES:
        rows = measured(size, data, given.windows, rerankers)
        results[size] = rows
        cells = [[common.cell(value) for value in row] for row in rows]
        show(f"{given.windows} windows of {size} px", COLUMNS, cells)
        if given.into is not None:
            common.into(given.into, f"reranking {size}", COLUMNS, cells)
        alone = [row for row in rows if row[0] == SHOWN["offsets"]]
        bars += [Bar(f"{size} px, misses cut by the graph on vectors alone", row[5] or 0.0, 0.4) for row in alone]
        bars += [Bar(f"{size} px, CPU ms of the graph", row[8], 20.0, at_least=False) for row in alone]
        first = {row[0]: row[1] for row in rows}
        for other in (SHOWN["unplaced"], "expansion", "smoothing"):
            gained = [row[1] - first[other] for row in alone if other in first]
            bars += [Bar(f"{size} px, R@1 of the graph with positions above: {other}", gain, 1e-6) for gain in gained]
    finish(given.output, results, bars)


if __name__ == "__main__":
    main()
