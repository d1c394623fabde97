"""What each part of the encoder's training gives: the same short run with one part changed, for several seeds.

Every row is configs/encoder/ablation.yaml with the overrides that stand below, validated on the Los Angeles block: the
share of 200 px and 104 px windows whose highest correlation lies within 10 px, and the recall of the pooled vectors. A
run that is complete in bench/ablation/ is not repeated; one that was killed goes on. Prints the table and writes it
into the document between its two markers, where rows of other runs stay.

    python benchmarks/ablation.py [--seeds 1 2] [--rows base triplet] [--into docs/ablation.md] [-o FILE] [KEY=VALUE]
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import common
import numpy as np
from common import BENCH, ROOT, finish, show

from geomatch.training.config import load_config
from geomatch.training.run import train_encoder

CONFIG = ROOT / "configs/encoder/ablation.yaml"
FOLDER = BENCH / "ablation"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"

POOLED = "loss.dense=0"
GLOBAL = ("net.form=global", "net.width=32", "validation.sizes_px=[200]", POOLED)
ROWS: dict[str, tuple[str, ...]] = {
    "base": (),
    "triplet": (POOLED, "loss.pooled=triplet"),
    "infonce": (POOLED, "loss.pooled=infonce"),
    "one norm for both": ("net.shared_norm=true",),
    "critic": ("alignment.method=critic",),
    "one norm, critic": ("net.shared_norm=true", "alignment.method=critic"),
    "triplet + critic": (POOLED, "loss.pooled=triplet", "alignment.method=critic"),
    "structure alone": ("net.inputs=structure",),
    "image alone": ("net.inputs=image",),
    "critic-gp": ("alignment.method=critic-gp",),
    "class-adversarial": ("alignment.method=class-adversarial",),
    "sliced": ("alignment.method=sliced", "alignment.weight=0.1"),
    "sinkhorn": ("alignment.method=sinkhorn", "alignment.weight=0.1"),
    "mmd": ("alignment.method=mmd", "alignment.weight=0.1"),
    "multi-similarity": (POOLED, "loss.pooled=multi-similarity"),
    "cross-batch": (POOLED, "loss.pooled=cross-batch"),
    "dense + infonce": ("loss.pooled=infonce", "loss.pooled_weight=0.3"),
    "dense + infonce, linear": ("loss.pooled=infonce", "loss.pooled_weight=0.3", "loss.projection=256"),
    "global, triplet": (*GLOBAL, "loss.pooled=triplet"),
    "global, triplet + critic": (*GLOBAL, "loss.pooled=triplet", "alignment.method=critic"),
}
MEASURES = {
    "val_200": "200 px",
    "val_104": "104 px",
    "val_r1": "R@1",
    "val_r100": "R@100",
}


def measured(row: str, seed: int, given: Sequence[str]) -> dict[str, float]:
    """The last validation of a run."""
    overrides = [*ROWS[row], *given, f"seed={seed}"]
    config = load_config(CONFIG, overrides)
    key = hashlib.sha256(repr(config).encode()).hexdigest()[:10]
    folder = FOLDER / f"{'-'.join(row.replace(',', '').replace('+ ', '').split())}-{seed}-{key}"
    done = folder / "done.json"
    if not done.is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        train_encoder(config, folder)
        with (folder / "metrics.csv").open(newline="") as lines:
            last = [line for line in csv.DictReader(lines) if line.get("val_r1")][-1]
        done.write_text(json.dumps({name: float(last[name]) for name in MEASURES if last.get(name)}))
    found: dict[str, float] = json.loads(done.read_text())
    print(f"{row}, seed {seed}: {found}", flush=True)
    return found


def cells(runs: Sequence[dict[str, float]]) -> list[str]:
    """Mean over the seeds, and each of them."""
    out = []
    for name in MEASURES:
        values = [run[name] for run in runs if name in run]
        each = ", ".join(f"{value:.3f}" for value in values)
        out.append(f"{np.mean(values):.3f} ({each})" if values else "–")
    return out


def write_table(file: Path, rows: Sequence[Sequence[str]]) -> None:
    """Put the table between the markers of a document; rows that were not run this time stay as they stand there."""
    before, _, rest = file.read_text().partition(BEGIN)
    kept, _, after = rest.partition(END)
    by_name = {line.split(" | ")[0].removeprefix("| "): line for line in kept.splitlines() if line.startswith("| ")}
    by_name |= {
        row[0]: "| " + " | ".join([row[0], f"`{' '.join(ROWS[row[0]]) or '–'}`", *row[1:]]) + " |" for row in rows
    }
    lines = [f"`python benchmarks/ablation.py --into {file}`, in parts if one likes (`--rows`)", ""]
    lines.append("| row | overrides | " + " | ".join(MEASURES.values()) + " |")
    lines.append("|" + "---|" * (2 + len(MEASURES)))
    lines += [by_name[name] for name in ROWS if name in by_name]
    file.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")


def main() -> None:
    parser = common.parser(__doc__, windows=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--into", type=Path, help="document that gets the table")
    parser.add_argument("overrides", nargs="*", help="for every row, such as data.steps_per_epoch=600")
    given = parser.parse_args()
    common.data_or_skip(given.data)
    common.one_thread()
    results = {row: [measured(row, seed, given.overrides) for seed in given.seeds] for row in given.rows}
    rows = [[row, *cells(runs)] for row, runs in results.items()]
    show("Parts of the encoder's training", ("row", *MEASURES.values()), rows)
    if given.into is not None:
        write_table(given.into, rows)
    finish(given.output, results)


if __name__ == "__main__":
    main()
