"""Every local matching method on the same pairs: the tables of docs/matching.md.

    python benchmarks/matching.py [--windows 400] [--others 20] [--methods area] [--jobs 2]
                                  [--into docs/matching.md] [-o FILE]

Runs ``geomatch evaluate matching`` on --windows validation pairs, and on --others pairs of OMBRIA's validation places
and of simulated cities. What was matched stays in bench/matching and is not matched again as long as pixels, code and
weights are the same. With --methods those alone are run, and no detectors; other rows of the document stay as they are,
and the bars, which are of all methods, are not printed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
from common import BENCH, Bar, cell, finish, show

from geomatch.matching.compare import Comparison, compare
from geomatch.matching.detected import SPREAD_PX
from geomatch.matching.methods import CONTROL

COLUMNS = ("pairs", "method", "n", "within 10 px", "interval", "within 5 px", "misplaced", "NC", "NCM", "CMR", "MS",
           "RMS_all", "RMS_LOO", "N_red", "CPU s")  # fmt: skip
APART = f"{SPREAD_PX:g} px apart"
DETECTED = ("pairs", "detector", "n", "repeated within 2 px", "interval", "moved at random", "keypoints", "coverage",
            f"repeated, {APART}", "interval", f"keypoints, {APART}", f"coverage, {APART}")  # fmt: skip
MEASURED = ("count", "repeatability", "repeatability_ci", "moved", "keypoints", "coverage", "spread_repeatability",
            "spread_repeatability_ci", "spread_keypoints", "spread_coverage")  # fmt: skip

Row = Sequence[str]


def row(told: dict[str, Any]) -> list[str]:
    """Of a method on a set of pairs."""
    values = [told["count"], told["registered"]["10"], told["registered_ci"]["10"], told["registered"]["5"]]
    values += [told["misplaced"]]
    values += [told[name] for name in ("matches", "correct", "precision", "score", "rms_all", "rms_loo", "n_red")]
    return [told["pairs"], told["method"], *map(cell, values), cell(told["cpu_s"])]


def main() -> None:
    arguments = common.parser(__doc__, windows=400)
    arguments.add_argument("--others", type=int, default=20, help="pairs of each other set; 0 leaves them as they are")
    arguments.add_argument("--methods", help="names separated by commas; default all, and all detectors")
    arguments.add_argument("--jobs", type=int, default=1, help="processes that measure")
    arguments.add_argument("--into", type=Path, help="document that gets the tables")
    given = arguments.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    BENCH.mkdir(exist_ok=True)
    what = {} if given.methods is None else {"methods": given.methods, "detectors": "none"}
    wanted = [Comparison(("validation",), count=given.windows, **what)]
    if given.others:
        wanted.append(Comparison(("ombria", "simulated"), count=given.others, **what))
    parts = [compare(one, data, BENCH / "matching", lambda *_: None, jobs=given.jobs) for one in wanted]
    told = [one for part in parts for one in part["methods"]]
    rows = [row(one) for one in told]
    detected = [
        [one["pairs"], one["detector"], *(cell(one[name]) for name in MEASURED)]
        for part in parts
        for one in part["detectors"]
    ]
    rows.sort(key=_order)
    show("Methods", COLUMNS, rows)
    show("Detectors", DETECTED, detected)
    if given.into is not None:
        _write(given.into, "evaluation", COLUMNS, rows, _order)
        _write(given.into, "repeatability", DETECTED, detected)
    if given.methods is None:
        _say_rules(told)
    finish(given.output, parts, _bars(told, parts[0]["detectors"]) if given.methods is None else ())


def _order(row: Row) -> tuple[int, str, float]:
    """Warped validation pairs first, which the bars are of; of each set the methods that register most."""
    sets = ["validation, warped", "validation, aligned"]
    return sets.index(row[0]) if row[0] in sets else len(sets), row[0], -float(row[3])


def _write(
    file: Path, name: str, columns: Row, rows: Sequence[Row], order: Callable[[Row], Any] = lambda row: 0
) -> None:
    """A table whose first two columns tell rows apart: those that are given are replaced."""
    before, _, rest = file.read_text().partition(f"<!-- {name} -->")
    old, _, after = rest.partition(f"<!-- end of {name} -->")
    every = {tuple(cells[:2]): cells for cells in map(_cells, old.strip().splitlines()[2:])}
    every |= {tuple(cells[:2]): cells for cells in rows}
    lines = [
        "| " + " | ".join(one) + " |" for one in (columns, ["---"] * len(columns), *sorted(every.values(), key=order))
    ]
    file.write_text(f"{before}<!-- {name} -->\n" + "\n".join(lines) + f"\n<!-- end of {name} -->{after}")


def _cells(line: str) -> Row:
    return line.removeprefix("| ").removesuffix(" |").split(" | ")


def _say_rules(told: list[dict[str, Any]]) -> None:
    """The bar is against SIFT with its own rule; what is the descriptor's part, and what the rule's, stands beside."""
    correct = {one["method"]: one["correct"] for one in told if one["pairs"] == "validation, warped"}
    for other in ("sift", "sift-mutual", "sift-at-akaze"):
        print(
            f"LTFormer's correct matches over those of {other}: {correct['ltformer'] / max(correct[other], 1e-9):.3g}"
        )


def _bars(told: list[dict[str, Any]], detected: list[dict[str, Any]]) -> list[Bar]:
    warped = {one["method"]: one for one in told if one["pairs"] == "validation, warped"}
    found = {one["detector"]: one["repeatability"] for one in detected if one["pairs"] == "validation, warped"}
    best_other = max(one["registered"]["10"] for name, one in warped.items() if name != "area")
    by_hand = max(share for name, share in found.items() if name not in {"learned", CONTROL})
    ltformer, sift = warped["ltformer"]["correct"], warped["sift"]["correct"]
    return [
        Bar("registered by area", warped["area"]["registered"]["10"], 0.80),
        Bar("area over the best other", warped["area"]["registered"]["10"] - best_other, 0.0),
        Bar("LTFormer's correct matches over SIFT's", ltformer / max(sift, 1e-9), 5.0),
        Bar("learned detector over the best made by hand", found["learned"] - by_hand, 0.1),
    ]


if __name__ == "__main__":
    main()
