"""Headings and scales that are told roughly or not at all: what is found, how exactly, and what that costs.

Windows of the validation block of Los Angeles, turned and scaled at random, are located by an index of the block that
is told how far heading and scale may be off; the same places north up, for comparison of the cost; and strips of 200 ×
1000 px whose scale is known within a factor of two. Prints the share of textured windows placed within 10 px with
Wilson's 95 % interval, the residual error of heading and scale of those located (median and 90th percentile), wrong
ones among them, and CPU seconds per query, also over those north up; and how many of those missed are found by the
structural encoder at the same wrong place, where map and scene lie apart. Some windows of the largest size are
correlated with the whole map at every one of the same attitudes too, to tell what the search saves.

    python benchmarks/attitude.py [--windows 300] [--sizes 400 200] [--encoder la3] [--cases rough unknown doubled]
        [--exhaustive 3] [-o FILE]
"""

from __future__ import annotations

import tempfile
import time
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
from geomatch.locator import Clock, Locator, Trace
from geomatch.query import Query
from geomatch.sampling import WindowOptions
from geomatch.strips import RawStrip
from geomatch.threads import one_thread

UNTUNED_SEED = 2026  # of windows on which no constant was chosen
NORTH_UP = "north up"
MOST_TIMES, LEAST_SAVED = 10.0, 50.0
MEDIAN_DEG, MEDIAN_PERCENT = 0.5, 0.5


@dataclass(frozen=True)
class Case:
    """What is done to the windows, and what is told of it.

    Attributes:
        name: of the case.
        rotate, scale_percent: as of ``WindowOptions``.
        tolerance: that the locator is told.
        least: bars on the windows placed within 10 px, by their size.
        length: rows of the windows, or None for squares; then their columns are of the one size that has a bar.
    """

    name: str
    rotate: Any
    scale_percent: float
    tolerance: Tolerance
    least: dict[int, float]
    length: int | None = None


CASES = {
    "rough": Case("heading ±10°, scale ±10 %", 10.0, 10.0, Tolerance(10.0, 1.1), {400: 0.99, 200: 0.95}),
    "unknown": Case("heading unknown, scale ±10 %", "any", 10.0, Tolerance(ANY_TURN_DEG, 1.1), {400: 0.98, 200: 0.90}),
    "doubled": Case("unknown, scale within 2", "any", 100.0, Tolerance(ANY_TURN_DEG, 2.0), {200: 0.95}, 1000),
}


class Recorded(Locator):
    """A locator that keeps what it was asked."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.asked: list[RawStrip] = []

    def find(self, raw: RawStrip, clock: Clock | None = None) -> Trace:
        self.asked.append(raw)
        return super().find(raw, clock)


def exhaustive_cpu_s(locator: Locator, asked: Sequence[RawStrip]) -> float:
    """CPU seconds per strip to correlate all of it with all of the map at every attitude that is tried."""
    start = time.process_time()
    with one_thread():
        for raw in asked:
            for attitude in raw.tolerance.attitudes(locator.index.encoder.steps):
                Query.of(locator.index, raw.at(attitude)).scan()
    return (time.process_time() - start) / len(asked)


@dataclass(frozen=True)
class Asked:
    """Who is asked about which scene.

    Attributes:
        locator: whose answers are scored.
        witness: of the structural encoder; asked where the first is wrong, to tell whether the scene is.
        sar: the scene.
    """

    locator: Recorded
    witness: Locator
    sar: Path

    def measured(self, options: WindowOptions) -> dict[str, Any]:
        """Scores, and how many windows lie where map and scene are apart."""
        self.locator.asked.clear()
        made = list(predict(self.locator, self.sar, options))
        aside, hits = [], []
        for prediction, raw in zip(made, self.locator.asked, strict=True):
            if prediction.textured:
                hits.append(prediction.error_px <= common.RIGHT_PX)
                other = None if hits[-1] else self.witness.find(raw).found_px
                aside.append(common.lie_apart(prediction.truth_px, prediction.found_px, other))
        return score(made) | common.tell_apart(options.shown, hits, aside)


def row_of(name: str, size: str, found: dict[str, Any], north_up: dict[str, Any]) -> list[str]:
    low, high = found["success_px_textured_ci"]["10"]
    errors = [found.get(key) for key in ("heading_error_deg", "scale_error_percent")]
    return [
        name,
        size,
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
    if case.tolerance.any_turn and size == 400 and case.length is None:
        times = found["cpu_s_per_query"] / north_up["cpu_s_per_query"]
        bars.append(Bar(f"{case.name}, {size} px: CPU over north up", times, MOST_TIMES, at_least=False))
    for key, most in (("heading_error_deg", MEDIAN_DEG), ("scale_error_percent", MEDIAN_PERCENT)):
        bars.append(Bar(f"{case.name}, {size} px: median {key}", found[key]["p50"], most, at_least=False))
    return bars


def run(asked: Asked, cases: Sequence[Case], sizes: Sequence[int], plain: WindowOptions) -> Any:
    """Rows, results and bars, size by size."""
    rows: list[list[str]] = []
    results: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for size in sizes:
        upright = replace(plain, size_px=size)
        north_up = asked.measured(upright)
        rows.append(row_of(NORTH_UP, upright.shown, north_up, north_up))
        results.append({"case": NORTH_UP, "size_px": size, **north_up})
        for case in cases:
            if case.length is not None and size not in case.least:
                continue
            options = replace(
                upright,
                length_px=case.length,
                rotate=case.rotate,
                scale_percent=case.scale_percent,
                tolerance=case.tolerance,
            )
            found = asked.measured(options)
            rows.append(row_of(case.name, options.shown, found, north_up))
            results.append({"case": case.name, "size_px": size, **found})
            bars += bars_of(case, size, found, north_up)
            print(" | ".join(rows[-1]), flush=True)
    return rows, results, bars


def exhaustive_bar(asked: Asked, plain: WindowOptions, windows: int) -> Bar:
    """How many times the CPU time of the search the same attitudes take exhaustively, on a few windows."""
    case = CASES["unknown"]
    options = replace(
        plain, windows=windows, rotate=case.rotate, scale_percent=case.scale_percent, tolerance=case.tolerance
    )
    found = asked.measured(options)
    exhaustive = exhaustive_cpu_s(asked.locator, asked.locator.asked)
    print(f"exhaustive: {exhaustive:.1f} CPU s per query, {windows} queries of {options.shown} px")
    return Bar(f"{options.shown} px: exhaustive over the search", exhaustive / found["cpu_s_per_query"], LEAST_SAVED)


def main() -> None:
    parser = common.parser(__doc__, windows=300)
    parser.set_defaults(seed=UNTUNED_SEED)
    parser.add_argument("--sizes", nargs="+", type=int, default=[400, 200])
    parser.add_argument("--encoder", default=defaults.ENCODER)
    parser.add_argument("--exhaustive", type=int, default=3, help="windows that are correlated with the whole map")
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
        build_index(map_file, witness := Path(name) / "witness.gmi", BuildOptions(encoder=common.STRUCTURAL))
        asked = Asked(Recorded.open(index), Locator.open(witness), data / LA_VAL.scene / "sar.tif")
        rows, results, bars = run(asked, cases, given.sizes, plain)
        if given.exhaustive and "unknown" in given.cases:
            bars.append(exhaustive_bar(asked, replace(plain, size_px=max(given.sizes)), given.exhaustive))
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
