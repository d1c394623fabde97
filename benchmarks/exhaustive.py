"""geomatch against the published CFOG searched exhaustively, on the same windows in the same run.

Measures, on the validation block of Los Angeles: windows placed within 5 and 10 px with Wilson's 95 % intervals, who
alone is right, CPU seconds per query, and memory; then the same with maps of 3, 12 and 50 Mpx and the same windows.
Each contender runs in a process of its own, on one thread, and they take turns window by window. "CFOG" is the search
as it is written down: each query transforms and multiplies the channels of map and window and computes the energy under
every place; the map's channels themselves are given. Two more rows are the same search made faster: "map kept" gets all
that depends on the map alone for nothing and leaves out of its transform the zeros of the window; "in pieces" is by
overlap-save with kept pieces of 512 px, the fastest form that we know. All three give the same answers. The windows are
others than those that the features were chosen on, though the block is the same.

How geomatch's own time grows is measured without the other contenders, whose gigabytes empty the caches between its
queries: the three maps are asked in turn, each window at all of them, after as many others. The ratio of those first
ones, for which the map's pixels have to be decoded, is printed too.

    python benchmarks/exhaustive.py [--windows 500] [--large 100] [--growth 30] [-o FILE]

A case that is complete in bench/exhaustive/ is not run again unless the code, the windows or the seed have changed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cfog
import common
import numpy as np
from common import LA_VAL, Area, Bar, SarWindows, Worker
from numpy.typing import NDArray
from scipy.stats import binomtest

from geomatch.images import OpticalStretch
from geomatch.index.build import BuildOptions, build_index
from geomatch.locator import Locator
from geomatch.raster import open_raster
from geomatch.strips import Strip

FOLDER = common.BENCH / "exhaustive"
GEOMATCH, PLAIN, KEPT, PIECES = "geomatch", "CFOG", "CFOG, map kept", "CFOG in pieces"
UNTUNED_SEED = 2026  # of windows on which no constant was chosen; the other benchmarks take seed 0
PIECE = 512  # pixels at half resolution
PART = Area(LA_VAL.scene, LA_VAL.col0 + 1536, LA_VAL.row0, 1536, 2048)
ROWS_AT_ONCE = 512
WITHIN_PX = (5, 10)

Contender = Callable[[Strip], tuple[float, float, str]]  # column and row of the best place, and the status


# ---- contenders


def geomatch_contender(index: Path) -> Contender:
    locator = Locator.open(index)

    def query(strip: Strip) -> tuple[float, float, str]:
        trace = locator.trace(strip)
        if trace.judged is None:
            return (float("inf"), float("inf"), trace.location.status)
        col, row = trace.judged.corner_px.tolist()
        return (col, row, trace.location.status)

    return query


def cfog_contender(map_file: Path, size: int, piece: int | None) -> Contender:
    """The search with all that depends on the map alone prepared."""
    search = cfog.Exhaustive(cfog.cfog(half_map(map_file)), (size // cfog.HALF, size // cfog.HALF), piece)
    return lambda strip: _found(search, strip)


def plain_contender(map_file: Path, size: int) -> Contender:
    """The search with nothing kept from query to query but the map's channels."""
    channels = cfog.cfog(half_map(map_file))
    window = (size // cfog.HALF, size // cfog.HALF)
    return lambda strip: _found(cfog.Exhaustive(channels, window, plain=True), strip)


def _found(search: cfog.Exhaustive, strip: Strip) -> tuple[float, float, str]:
    col, row = search.find(cfog.sar_channels(strip.image))
    return (float(cfog.HALF * col), float(cfog.HALF * row), "located")


def half_map(map_file: Path) -> NDArray[np.float32]:
    """The map's grey at half resolution, some rows at a time, so that its memory is that of the result."""
    with open_raster(map_file) as raster:
        stretch = OpticalStretch.fit(raster)
        return np.concatenate(
            [
                cfog.halved(stretch.grey(raster.read(0, row, raster.width, rows, bands=stretch.bands)))
                for row in range(0, raster.height, ROWS_AT_ONCE)
                for rows in [min(ROWS_AT_ONCE, raster.height - row)]
            ]
        )


# ---- cases


@dataclass(frozen=True)
class Case:
    """One map, one size of window.

    Attributes:
        name: of the case.
        source: part of the scene that the map is made of.
        repeat: how often it is repeated across and down, mirrored.
        cut: part of the scene that the windows are cut from.
        size: of the windows, pixels.
        windows: how many.
    """

    name: str
    source: Area
    repeat: tuple[int, int]
    cut: Area
    size: int
    windows: int

    @property
    def megapixels(self) -> float:
        return self.source.megapixels * self.repeat[0] * self.repeat[1]


@dataclass(frozen=True)
class Score:
    """How one contender did: errors in pixels, window by window (infinite without an answer), and what it took."""

    contender: str
    error_px: list[float]
    best_error_px: list[float]  # of its best place, whether or not it dared to answer
    cpu_s: list[float]
    prepare_cpu_s: float
    rss_mb: float
    peak_rss_mb: float

    def within(self, px: float) -> NDArray[np.bool_]:
        return np.array(self.error_px) <= px

    @property
    def cpu_per_query(self) -> float:
        return float(np.mean(self.cpu_s))


@dataclass(frozen=True)
class Growth:
    """CPU seconds of geomatch's queries on a map asked in turn with others: of its first ones, and of those after."""

    megapixels: float
    first_cpu_s: list[float]
    cpu_s: list[float]


def run_case(data: Path, case: Case, seed: int) -> list[Score]:
    """The scores of the contenders, from the last run where that still holds."""
    key = common.code_hash(Path(cfog.__file__), Path(__file__), Path(common.__file__))
    file = FOLDER / f"{case.name}-{case.windows}-{seed}-{key}.json"
    if not file.is_file():
        scores = measure(data, case, seed)
        file.write_text(json.dumps([asdict(score) for score in scores]))
    return [Score(**score) for score in json.loads(file.read_text())]


def measure(data: Path, case: Case, seed: int) -> list[Score]:
    map_file = map_of(data, case)
    workers = {
        GEOMATCH: Worker(geomatch_contender, index_of(map_file)),
        PLAIN: Worker(plain_contender, map_file, case.size),
        KEPT: Worker(cfog_contender, map_file, case.size, None),
        PIECES: Worker(cfog_contender, map_file, case.size, PIECE),
    }
    corners = common.random_corners(case.cut, case.size, case.windows, seed)
    sar = SarWindows(data, case.cut)
    for worker in workers.values():
        worker.ask(sar.strip(corners[0], case.size))  # what is loaded on first use is loaded now
    asked: dict[str, list[common.Timed]] = {name: [] for name in workers}
    for corner in corners:
        strip = sar.strip(corner, case.size)
        for name, worker in workers.items():
            asked[name].append(worker.ask(strip))
    shift = np.array([case.cut.col0 - case.source.col0, case.cut.row0 - case.source.row0])
    return [score(name, workers[name], asked[name], corners + shift) for name in workers]


def score(name: str, worker: Worker, asked: Sequence[common.Timed], truth: NDArray[np.int64]) -> Score:
    found = np.array([answer.value[:2] for answer in asked])
    placed = np.array([answer.value[2] in ("located", "ambiguous") for answer in asked])
    best = np.hypot(*(found - truth).T)
    held, peak = worker.close()
    return Score(
        contender=name,
        error_px=np.where(placed, best, np.inf).tolist(),
        best_error_px=best.tolist(),
        cpu_s=[answer.cpu_s for answer in asked],
        prepare_cpu_s=worker.made.cpu_s,
        rss_mb=held,
        peak_rss_mb=peak,
    )


def index_of(map_file: Path) -> Path:
    """A new index of a map, beside it."""
    index = map_file.with_suffix(".gmi")
    build_index(map_file, index, BuildOptions(encoder=common.STRUCTURAL), overwrite=True)
    return index


def map_of(data: Path, case: Case) -> Path:
    """The map of a case, written once."""
    area, repeat = case.source, case.repeat
    file = FOLDER / f"map-{area.col0}-{area.row0}-{area.width}-{area.height}-{repeat[0]}x{repeat[1]}.tif"
    if not file.is_file():
        pixels, place = common.read_area(data, area)
        common.write_map(file, pixels, repeat, place)
    return file


def growth_cases(windows: int) -> list[Case]:
    maps = [("growth-3", PART, (1, 1)), ("growth-12", LA_VAL, (1, 1)), ("growth-50", LA_VAL, (2, 2))]
    return [Case(name, source, repeat, PART, 200, windows) for name, source, repeat in maps]


def growth_in_turn(data: Path, cases: Sequence[Case], seed: int) -> list[Growth]:
    """geomatch on every map, window by window: first other windows, then those of the cases."""
    workers = [Worker(geomatch_contender, index_of(map_of(data, case))) for case in cases]
    cut, size, windows = cases[0].cut, cases[0].size, cases[0].windows
    sar = SarWindows(data, cut)
    passes = []
    for chosen in (seed + 1, seed):
        strips = [sar.strip(corner, size) for corner in common.random_corners(cut, size, windows, chosen)]
        passes.append([[worker.ask(strip).cpu_s for worker in workers] for strip in strips])
    for worker in workers:
        worker.close()
    first, then = (np.array(times).T.tolist() for times in passes)
    return [Growth(case.megapixels, *times) for case, *times in zip(cases, first, then, strict=True)]


# ---- report


def row_of(case: Case, score: Score) -> list[str]:
    return [
        f"{case.size} px on {case.megapixels:.1f} Mpx",
        score.contender,
        *(common.share(score.within(px)) for px in WITHIN_PX),
        f"{np.mean(np.array(score.best_error_px) <= WITHIN_PX[-1]):.3f}",
        f"{1000 * score.cpu_per_query:.1f}",
        f"{1000 * float(np.median(score.cpu_s)):.1f}",
        f"{score.rss_mb:.0f}",
        f"{score.peak_rss_mb:.0f}",
    ]


def report(title: str, results: Sequence[tuple[Case, list[Score]]]) -> None:
    columns = ["windows", "contender", "within 5 px", "within 10 px", "best place", "CPU ms", "median", "MB", "peak MB"]
    common.show(title, columns, [row_of(case, score) for case, scores in results for score in scores])


def paired(case: Case, scores: Sequence[Score]) -> dict[str, Any]:
    """Who alone places a window within 10 px, and how likely that is by chance (McNemar's exact test)."""
    ours, theirs = (by_name(scores, name).within(WITHIN_PX[-1]) for name in (GEOMATCH, PLAIN))
    alone, other = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p = float(binomtest(alone, alone + other).pvalue) if alone + other else 1.0
    print(
        f"{case.size} px: both right {int((ours & theirs).sum())}, only geomatch {alone}, only CFOG {other}, "
        f"neither {int((~ours & ~theirs).sum())}; p = {p:.2g}"
    )
    return {"size_px": case.size, "only_geomatch": alone, "only_cfog": other, "p": p}


def by_name(scores: Sequence[Score], name: str) -> Score:
    return next(score for score in scores if score.contender == name)


def cost_ratio(scores: Sequence[Score], other: str) -> float:
    return by_name(scores, GEOMATCH).cpu_per_query / by_name(scores, other).cpu_per_query


def bars_of(case: Case, scores: Sequence[Score], least: float) -> list[Bar]:
    ours, theirs = (float(np.mean(by_name(scores, name).within(WITHIN_PX[-1]))) for name in (GEOMATCH, PLAIN))
    return [
        Bar(f"{case.size} px within 10 px", ours, least),
        Bar(f"{case.size} px within 10 px, over CFOG on the same windows", ours - theirs, 0.0),
        Bar(f"{case.size} px CPU seconds over CFOG's", cost_ratio(scores, PLAIN), 0.1, at_least=False),
    ]


def growth_bars(found: Sequence[Growth]) -> list[Bar]:
    rows = [
        [
            f"{one.megapixels:.1f} Mpx",
            *(f"{1000 * float(np.mean(times)):.1f}" for times in (one.cpu_s, one.first_cpu_s)),
        ]
        for one in found
    ]
    columns = ["map", "CPU ms", f"of the first {len(found[0].first_cpu_s)}"]
    common.show(f"geomatch on the maps in turn, {len(found[0].cpu_s)} windows", columns, rows)
    small, large = found[0], found[-1]
    first = float(np.mean(large.first_cpu_s)) / float(np.mean(small.first_cpu_s))
    print(f"CPU per query, 50 over 3 Mpx, of the first {len(small.first_cpu_s)} queries: {first:.2f}")
    ratio = float(np.mean(large.cpu_s)) / float(np.mean(small.cpu_s))
    return [Bar("CPU per query, 50 over 3 Mpx", ratio, 1.5, at_least=False)]


def options() -> argparse.Namespace:
    parser = common.parser(__doc__, windows=500)
    parser.set_defaults(seed=UNTUNED_SEED)
    parser.add_argument("--large", type=int, default=100, help="windows of 400 px, default 100; 0 for none")
    parser.add_argument("--growth", type=int, default=30, help="windows of the growth test, default 30; 0 for none")
    return parser.parse_args()


def main() -> None:
    given = options()
    data = common.data_or_skip(given.data)
    common.one_thread()
    FOLDER.mkdir(parents=True, exist_ok=True)
    cases = [Case("block-200", LA_VAL, (1, 1), LA_VAL, 200, given.windows)]
    cases += [Case("block-400", LA_VAL, (1, 1), LA_VAL, 400, given.large)] if given.large else []
    block = [(case, run_case(data, case, given.seed)) for case in cases]
    report("Los Angeles, validation block", block)
    pairs = [paired(case, scores) for case, scores in block]
    bars = [
        bar for (case, scores), least in zip(block, (0.80, 0.97), strict=False) for bar in bars_of(case, scores, least)
    ]
    larger = growth_cases(given.growth) if given.growth else []
    in_turn = growth_in_turn(data, larger, given.seed) if larger else []
    if in_turn:
        bars += growth_bars(in_turn)
    growth = [(case, run_case(data, case, given.seed)) for case in larger]
    if growth:
        report("The same windows on larger maps", growth)
    for case, scores in block + growth:
        print(
            f"{case.name}: CPU over CFOG's {cost_ratio(scores, PLAIN):.3f},"
            f" map kept {cost_ratio(scores, KEPT):.3f}, in pieces {cost_ratio(scores, PIECES):.3f}"
        )
    found = [
        {"case": case.name, "map_mpx": case.megapixels, "scores": [asdict(s) for s in scores]}
        for case, scores in block + growth
    ]
    result = {"cases": found, "paired": pairs, "growth": [asdict(one) for one in in_turn]}
    common.finish(given.output, result, bars)


if __name__ == "__main__":
    main()
