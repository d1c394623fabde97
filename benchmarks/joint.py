"""A re-ranker trained with the encoder in one run, against one trained afterwards on what the encoder retrieves.

    python benchmarks/joint.py [--steps 120] [--windows 600] [--into docs/reranking.md] [-o FILE]

Two encoders are trained on from la3, alike but for the re-ranker's loss (configs/encoder/joint.yaml). Each indexes Los
Angeles east and the validation block by its learned features alone, without PCA, as the joint loss sees vectors. On
what the one without retrieves in the east a re-ranker is trained (configs/reranker/graph.yaml) for as many steps; the
northern half of the block chooses its best epoch. Measured on the southern half. Runs in bench/joint are not repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
from common import BENCH, ROOT, finish, show
from consensus import maps

from geomatch.encoder import ALONE
from geomatch.index.build import BuildOptions, build_index
from geomatch.reranking.evaluation import compare
from geomatch.reranking.graph import graph_reranker
from geomatch.reranking.rerankers import Reranker, find_reranker
from geomatch.sampling import WindowOptions
from geomatch.tile_index import TileIndex
from geomatch.training.config import load_config
from geomatch.training.reranker.cache import RetrievalConfig
from geomatch.training.reranker.task import load_reranker_config, train_reranker
from geomatch.training.run import train_encoder

FOLDER = BENCH / "joint"
COLUMNS = ("row", "R@1", "interval", "R@5", "misses cut", "AUROC")
SEED = 2026


def encoder(name: str, steps: int, *extra: str) -> str:
    """Weights of an encoder, trained where they are not there."""
    folder = FOLDER / name
    if not (folder / "encoder.safetensors").is_file():
        asked = [f"data.steps_per_epoch={steps}", "trainer.max_epochs=1", "validation.scene=''", *extra]
        train_encoder(load_config(ROOT / "configs/encoder/joint.yaml", asked), folder)
    return str(folder / "encoder.safetensors")


def index(name: str, of: str, weights: str, data: Path) -> Path:
    """An index of a map with an encoder's learned features."""
    target = FOLDER / f"{name}-{of}.gmi"
    if not target.is_dir():
        block = maps(data)["block"]()
        optical = block.optical if of == "block" else block.elsewhere.with_name("optical.tif")
        box = block.bbox if of == "block" else None
        options = BuildOptions(bbox=box, encoder=weights + ALONE, vectors="SQ8", components=0, stride_px=32)
        build_index(optical, target, options)
    return target


def two_stage(steps: int, data: Path, weights: str) -> str:
    """A re-ranker on what the encoder without one retrieves."""
    block = maps(data)["block"]()
    assert block.bbox is not None
    left, bottom, right, top = block.bbox
    east = RetrievalConfig(
        str(index("apart", "east", weights, data)),
        str(block.elsewhere),
        windows=1600,
        looks=[0.0, 4.0, 2.0, 1.0],
        elsewhere=str(block.sar),
        elsewhere_windows=400,
    )
    north = [left, (bottom + top) / 2, right, top]
    held = RetrievalConfig(
        str(index("apart", "block", weights, data)), str(block.sar), windows=300, bbox=north,
        elsewhere=str(block.elsewhere), elsewhere_windows=100,
    )  # fmt: skip
    config = load_reranker_config(
        ROOT / "configs/reranker/graph.yaml",
        ["data.root=/", f"data.cache={FOLDER / 'retrievals'}", "net.peaks=false", "trainer.max_epochs=4"],
    )
    config.data.retrievals, config.validation.retrievals = [east], [held]
    config.data.steps_per_epoch = steps
    folder = FOLDER / "two-stage"
    if not (folder / "reranker.safetensors").is_file():
        train_reranker(config, folder)
    return str(folder / "reranker.safetensors")


def measured(path: Path, data: Path, windows: int, rerankers: list[Reranker]) -> list[dict[str, Any]]:
    """Rows of re-rankers on the southern half of the block."""
    block = maps(data)["block"]()
    assert block.bbox is not None
    left, bottom, right, top = block.bbox
    options = WindowOptions(windows, 200, SEED, bbox=(left, bottom, right, (bottom + top) / 2))
    scores = compare(TileIndex.open(path), block.sar, options, rerankers, absent=block.elsewhere)
    found: list[dict[str, Any]] = scores["rerankers"]
    return found


def main() -> None:
    arguments = common.parser(__doc__, windows=600)
    arguments.add_argument("--steps", type=int, default=120)
    arguments.add_argument("--into", type=Path, help="document that gets the table")
    given = arguments.parse_args()
    data = common.data_or_skip(given.data).resolve()
    common.one_thread()
    FOLDER.mkdir(parents=True, exist_ok=True)
    apart = encoder("apart", given.steps, "loss.reranker=0")
    joint = encoder("joint", given.steps)
    plain = find_reranker("none")
    after = graph_reranker(two_stage(given.steps, data, apart), "graph, trained afterwards")
    with_it = graph_reranker(str(Path(joint).with_name("reranker.safetensors")), "graph, of the same run")
    rows = []
    for name, weights, own in (("apart", apart, after), ("joint", joint, with_it)):
        found = measured(index(name, "block", weights, data), data, given.windows, [plain, own])
        for row in found:
            label = f"encoder {'trained with it' if name == 'joint' else 'without'}, {row['reranker']}"
            values = [row["recall"]["1"], row["recall_ci"], row["recall"]["5"], row["cut"], row["present_auroc"]]
            rows.append([label, *map(common.cell, values)])
    show(f"{given.windows} windows of 200 px, southern half of the block", COLUMNS, rows)
    if given.into is not None:
        common.into(given.into, "joint", COLUMNS, rows)
    finish(given.output, rows)


if __name__ == "__main__":
    main()
