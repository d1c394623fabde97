"""Encoders on OMBRIA: which of 710 places in many countries does a SAR patch show?

Queries are the middles of the SAR patches of the locations that no training uses, one date of each
(``geomatch.training.data.locations_of``); candidates are the optical patches of all locations. A candidate's score is
its highest normalised correlation with the query anywhere in it: 25 places for windows of 224 px, 361 for those of 112
px. Prints R@1 and R@10 with Wilson's 95 % interval.

    python benchmarks/ombria.py [--encoders la3 la3:alone structural] [-o FILE]
"""

from __future__ import annotations

import csv
from pathlib import Path

import common
import numpy as np
from common import Bar, finish, share, show
from numpy.typing import NDArray

from geomatch import defaults
from geomatch.correlate import Field, around, template
from geomatch.encoder import ALONE, Encoder, load_encoder
from geomatch.images import log_of
from geomatch.pairs import FolderPairs
from geomatch.planes import CELL_PX
from geomatch.splits import locations_of

ENCODERS = (defaults.ENCODER, defaults.ENCODER + ALONE, common.STRUCTURAL)  # the first is judged
VALIDATION_SHARE = 0.3  # as in configs/encoder
SIDE = 32  # cells of a patch
REACHES = (2, 9)  # cells by which windows are narrower at each side
LEAST = 0.75


def one_of_each(file: Path) -> list[str]:
    """A patch of every location: the one before the flood, where there is one."""
    names: dict[str, str] = {}
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row["phase"] == "before" or row["location"] not in names:
                names[row["location"]] = row["name"]
    return list(names.values())


def field_of(encoder: Encoder, patches: FolderPairs) -> Field:
    """Features of all optical patches side by side, as an index keeps them."""
    dense = [encoder.dense(pair.optical, pair.valid, "optical") for pair in map(patches.patch, range(len(patches)))]
    values = np.concatenate([np.rint(part.values * 127) for part in dense], axis=2).astype(np.int8)
    valid = np.concatenate([part.valid for part in dense], axis=1)
    rms = float(np.sqrt(np.square(values / 127).sum() / valid.sum()))
    return Field(values, valid, rms)


def ranks(encoder: Encoder, field: Field, patches: FolderPairs, queries: list[int], reach: int) -> NDArray[np.int64]:
    """Rank of the true location of each query, from 1."""
    cols = np.arange(len(patches)) * SIDE + reach
    rows = np.full(len(patches), reach)
    found = []
    for query in queries:
        pair = patches.patch(query)
        part = np.s_[CELL_PX * reach : CELL_PX * (SIDE - reach), CELL_PX * reach : CELL_PX * (SIDE - reach)]
        image = log_of([band[part] for band in pair.sar], pair.valid[part])
        middle = template(encoder.dense(image[None], pair.valid[part], "sar"))
        if middle is None:
            found.append(len(patches))
            continue
        scores = around(middle, field, cols, rows, reach).max(axis=(1, 2))
        found.append(int((scores >= scores[query]).sum()))
    return np.array(found)


def main() -> None:
    parser = common.parser(__doc__, windows=0)
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    folder = data / "ombria"
    names = one_of_each(folder / "pairs.csv")
    held = set(locations_of(folder / "pairs.csv", VALIDATION_SHARE)[1])
    patches = FolderPairs.of(folder / "optical", folder / "sar", names)
    queries = [number for number, name in enumerate(names) if name in held]
    rows, results = [], {}
    for name in given.encoders:
        encoder = load_encoder(name)
        field = field_of(encoder, patches)
        for reach in REACHES:
            rank = ranks(encoder, field, patches, queries, reach)
            size = CELL_PX * (SIDE - 2 * reach)
            rows.append([f"{size} px", name, f"{len(queries)} of {len(names)}", share(rank <= 1), share(rank <= 10)])
            results[f"{name}, {size} px"] = float((rank <= 1).mean())
    show("OMBRIA, locations not trained on against all", ("window", "encoder", "queries", "R@1", "R@10"), rows)
    finish(given.output, results, [Bar(f"R@1, {name}", value, LEAST) for name, value in list(results.items())[:1]])


if __name__ == "__main__":
    main()
