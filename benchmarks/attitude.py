"""Headings and scales that are told roughly or not at all: what is found, how exactly, and what that costs.

Windows of the validation block of Los Angeles, turned and scaled at random, are located by an index of the block that
is told how far heading and scale may be off; the same places north up, for comparison of the cost. Prints the share of
textured windows placed within 10 px with Wilson's 95 % interval, the residual error of heading and scale of those
located (median and 90th percentile), wrong ones among them, and CPU seconds per query, also over those north up.

    python benchmarks/attitude.py [--windows 300] [--sizes 400 200] [--encoder la3] [--cases rough unknown] [-o FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
from common import LA_VAL, Bar, finish, show

from geomatch import defaults
from geomatch.attitude import ANY_TURN_DEG, KNOWN, Tolerance
from geomatch.evaluation import predict, score
from geomatch.index.build import BuildOptions, build_index
from geomatch.locator import Locator
from geomatch.sampling import WindowOptions

UNTUNED_SEED = 2026  # of windows on which no constant was chosen
NORTH_UP = "north up"
MOST_TIMES = 10.0
MEDIAN_DEG, MEDIAN_PERCENT = 0.5, 0.5


@dataclass(frozen=True)
class Case:
    """What is done to the windows, and what is told of it.

    Attributes:
        name: of the case.
        rotate, scale_percent: as of ``WindowOptions``.
        tolerance: that the locator is told.
        least: bars on the windows placed within 10 px, by their size.
    """

    name: str
    rotate: Any
    scale_percent: float
    tolerance: Tolerance
    least: dict[int, float]


CASES = {
    "rough": Case("heading ±10°, scale ±10 %", 10.0, 10.0, Tolerance(10.0, 1.1), {400: 0.99, 200: 0.95}),
    "unknown": Case("heading unknown, scale ±10 %", "any", 10.0, Tolerance(ANY_TURN_DEG, 1.1), {400: 0.98, 200: 0.90}),
}


def measured(locator: Locator, sar: Path, options: WindowOptions) -> dict[str, Any]:
    return score(list(predict(locator, sar, options)))


def row_of(name: str, size: int, found: dict[str, Any], north_up: dict[str, Any]) -> list[str]:
    low, high = found["success_px_textured_ci"]["10"]
    errors = [found.get(key) for key in ("heading_error_deg", "scale_error_percent")]
    return [
        name,
        f"{size} px",
        f"{found['textured']} of {found['windows']}",
        f"{found['success_px_textured']['10']:.3f} [{low:.3f}, {high:.3f}]",
        *("–" if error is None else f"{error['p50']:.2f}, {error['p90']:.2f}" for error in errors),
        f"{found['located_wrong']} of {found['located']}",
        f"{found['cpu_s_per_query']:.2f}",
        f"{found['cpu_s_per_query'] / north_up['cpu_s_per_query']:.1f}",
    ]


def bars_of(case: Case, size: int, found: dict[str, Any], north_up: dict[str, Any]) -> list[Bar]:
    bars = []
    if size in case.least:
        bars.append(Bar(f"{case.name}, {size} px", found["success_px_textured"]["10"], case.least[size]))
    if case.tolerance.any_turn and size == 400:
        times = found["cpu_s_per_query"] / north_up["cpu_s_per_query"]
        bars.append(Bar(f"{case.name}, {size} px: CPU over north up", times, MOST_TIMES, at_least=False))
    for key, most in (("heading_error_deg", MEDIAN_DEG), ("scale_error_percent", MEDIAN_PERCENT)):
        bars.append(Bar(f"{case.name}, {size} px: median {key}", found[key]["p50"], most, at_least=False))
    return bars


def run(locator: Locator, sar: Path, cases: Sequence[Case], sizes: Sequence[int], plain: WindowOptions) -> Any:
    """Rows, results and bars, size by size."""
    rows: list[list[str]] = []
    results: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for size in sizes:
        upright = replace(plain, size_px=size)
        north_up = measured(locator, sar, upright)
        rows.append(row_of(NORTH_UP, size, north_up, north_up))
        results.append({"case": NORTH_UP, "size_px": size, **north_up})
        for case in cases:
            options = replace(upright, rotate=case.rotate, scale_percent=case.scale_percent, tolerance=case.tolerance)
            found = measured(locator, sar, options)
            rows.append(row_of(case.name, size, found, north_up))
            results.append({"case": case.name, "size_px": size, **found})
            bars += bars_of(case, size, found, north_up)
            print(" | ".join(rows[-1]), flush=True)
    return rows, results, bars


def main() -> None:
    parser = common.parser(__doc__, windows=300)
    parser.set_defaults(seed=UNTUNED_SEED)
    parser.add_argument("--sizes", nargs="+", type=int, default=[400, 200])
    parser.add_argument("--encoder", default=defaults.ENCODER)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    with tempfile.TemporaryDirectory() as name:
        map_file = common.area_file(data, LA_VAL, Path(name))
        index = Path(name) / "map.gmi"
        build_index(map_file, index, BuildOptions(encoder=given.encoder))
        plain = WindowOptions(windows=given.windows, seed=given.seed, tolerance=KNOWN)
        cases = [CASES[name] for name in given.cases]
        rows, results, bars = run(Locator.open(index), data / LA_VAL.scene / "sar.tif", cases, given.sizes, plain)
    columns = (
        "windows",
        "size",
        "textured",
        "within 10 px",
        "heading, °",
        "scale, %",
        "wrong/located",
        "CPU s",
        "times",
    )
    show(f"Headings and scales, {given.encoder}", columns, rows)
    finish(given.output, results, bars)


if __name__ == "__main__":
    main()
