"""Right answers, honest doubts: windows and strips of the validation block, and windows of other places, end to end.

    python benchmarks/consensus.py [--cases block-200 ...] [--windows 1000] [--into docs/reranking.md] [-o FILE]

Each case is one ``geomatch evaluate``; its predictions stay in ``bench/consensus`` and are not made again.

block-*: the validation block of Los Angeles west; off the map are windows of Los Angeles east. The two scenes share a
strip of 177 px, so up to one in sixty of the windows counted as off the map is on it. ``ombria`` and ``drawn`` behind
it: off the map are OMBRIA's validation locations, or cities drawn with layouts of no training, said to have pixels of
10 m. alone-104: the learned features alone, without structure and without pixels. both-*: windows of the block on an
index of both scenes. ombria-200: OMBRIA's validation locations, one date of each, stitched into a map without regard to
what lies beside what; off it are windows of the block. Nothing was fitted or chosen on it, and no encoder was trained
on these locations. Strips are of five windows. A third of --windows is taken where strips are asked.

The last table asks the strips of the block again by structural features that nobody trained, without the map's pixels:
where both answers agree on a place 10 to 50 px from the true one, map and scene lie apart there. It tells what is right
and wrong of the other strips.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import common
import elsewhere
import numpy as np
from common import BENCH, LA_VAL, Bar, finish, show
from rasterio.merge import merge

from geomatch import defaults
from geomatch.encoder import ALONE
from geomatch.evaluation import Prediction, predict, score
from geomatch.files import published
from geomatch.index.build import BuildOptions, build_index
from geomatch.locator import Locator
from geomatch.metrics import auroc, wilson
from geomatch.posterior import LEVEL, shares
from geomatch.raster import open_raster
from geomatch.rows import read_rows, write_rows
from geomatch.sampling import WindowOptions

FOLDER = BENCH / "consensus"
LENGTHS = (1, 2, 3, 5, 7, 10)
SEED = 2026
SCENE, OMBRIA, DRAWN = "scene", "ombria", "drawn"
FAR_PX = 50.0  # map and scene lie less apart than this
FRAGMENT_PX = 1024  # sides of what the scenes were put together of
ASKED_AGAIN = ("block-200", "block-104", "block-200x5", "block-104x5")


@dataclass(frozen=True)
class Case:
    """One evaluation.

    Attributes:
        map: of MAPS.
        size_px, windows: of the strips.
        off: what is asked that is not on the map: SCENE for the map's own ``elsewhere``, OMBRIA, DRAWN, or "".
        pixels: whether the map's pixels are looked at.
        count: strips, as a share of --windows.
    """

    map: str
    size_px: int
    windows: int = 1
    off: str = SCENE
    pixels: bool = True
    count: float = 1.0


CASES = {
    "block-200": Case("block", 200),
    "block-104": Case("block", 104),
    "alone-104": Case("alone", 104, off="", pixels=False),
    "block-200x5": Case("block", 200, 5, count=0.3),
    "block-104x5": Case("block", 104, 5, count=0.3),
    "both-200x5": Case("both", 200, 5, off="", count=0.3),
    "both-104x5": Case("both", 104, 5, off="", count=0.3),
    "block-200, ombria": Case("block", 200, off=OMBRIA),
    "block-104, ombria": Case("block", 104, off=OMBRIA),
    "block-200, drawn": Case("block", 200, off=DRAWN),
    "block-104, drawn": Case("block", 104, off=DRAWN),
    "block-200x5, drawn": Case("block", 200, 5, off=DRAWN, count=0.3),
    "block-104x5, drawn": Case("block", 104, 5, off=DRAWN, count=0.3),
    "ombria-200": Case("ombria", 200, count=0.5),
    **{f"length-200x{n}": Case("block", 200, n, off="", count=0.2) for n in LENGTHS},
    **{f"length-104x{n}": Case("block", 104, n, off="", count=0.2) for n in LENGTHS},
}


@dataclass(frozen=True)
class Map:
    """What is indexed and asked: the orthomosaic, the scene that shows it, one that does not, and where to ask."""

    optical: Path
    sar: Path
    elsewhere: Path
    bbox: tuple[float, float, float, float] | None = None
    asked: tuple[float, float, float, float] | None = None
    encoder: str = defaults.ENCODER


def maps(data: Path) -> dict[str, Callable[[], Map]]:
    west, east = data / "los_angeles_west", data / "los_angeles_east"
    with open_raster(west / "optical.tif", need_grid=True) as raster:
        assert raster.grid is not None
        block = raster.grid.window(LA_VAL.col0, LA_VAL.row0, LA_VAL.width, LA_VAL.height)
    x, y = block.to_map(block.corners_px).T
    box = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))

    def of_block(encoder: str = defaults.ENCODER) -> Map:
        return Map(west / "optical.tif", west / "sar.tif", east / "sar.tif", box, encoder=encoder)

    def both() -> Map:
        joined = FOLDER / "both.tif"
        if not joined.is_file():
            _join([west / "optical.tif", east / "optical.tif"], joined)
        return Map(joined, west / "sar.tif", east / "sar.tif", asked=box)

    def ombria() -> Map:
        return Map(*elsewhere.ombria(data, "check"), west / "sar.tif")

    return {
        "block": of_block,
        "alone": partial(of_block, defaults.ENCODER + ALONE),
        "both": both,
        "ombria": ombria,
        "plain": partial(of_block, common.STRUCTURAL),
    }


def off_the_map(of: Map, off: str, data: Path) -> list[Path]:
    """SAR scenes that do not show a map."""
    if off == SCENE:
        return [of.elsewhere]
    return [elsewhere.ombria(data, "check")[1]] if off == OMBRIA else elsewhere.drawn("check")


def _join(files: Sequence[Path], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with published(target) as part:
        merge(list(files), dst_path=part, nodata=0, dst_kwds={"compress": "deflate", "photometric": "RGB"})


def predictions(case: Case, data: Path, windows: int) -> list[Prediction]:
    """Of a case, made or read: those on the map, which cases share, and those off it."""
    of = maps(data)[case.map]()
    count = round(windows * case.count)
    options = WindowOptions(count, case.size_px, SEED, bbox=of.asked, length_px=case.windows * case.size_px)
    folder = FOLDER / f"{case.map}-{case.size_px}x{case.windows}"
    made = _kept(folder / f"on-{count}.jsonl", case, of, [(of.sar, options, True)])
    if case.off:
        others = off_the_map(of, case.off, data)
        each = replace(options, windows=count // len(others))
        made += _kept(folder / f"{case.off}-{count}.jsonl", case, of, [(scene, each, False) for scene in others])
    return made


def _kept(file: Path, case: Case, of: Map, asked: Sequence[tuple[Path, WindowOptions, bool]]) -> list[Prediction]:
    """Predictions of a file, made where it is missing: scenes, windows of them, and whether the map shows them."""
    if not file.is_file():
        index = FOLDER / f"{case.map}.gmi"
        if not index.is_dir():
            build_index(of.optical, index, BuildOptions(bbox=of.bbox, encoder=of.encoder))
        locator = Locator.open(index)
        if not case.pixels:
            locator = Locator(locator.index, None)
        made = [one for scene, windows, on_map in asked for one in predict(locator, scene, windows, on_map=on_map)]
        file.parent.mkdir(parents=True, exist_ok=True)
        with published(file) as part:
            write_rows(made, part)
    return read_rows(file, Prediction)


def row(name: str, made: Sequence[Prediction]) -> dict[str, Any]:
    """The measures of a case."""
    scores = score(made)
    seen = [one for one in made if one.on_map]
    best = sum(one.right for one in seen)
    return {
        "case": name,
        "strips": len(seen),
        "right": best / len(seen),
        "interval": wilson(best, len(seen)),
        "answered": scores["success_px"]["10"],
        "AUROC": scores["absent_auroc"],
        "of textured": _apart([one for one in made if one.textured or not one.on_map]),
        "if it knew": _oracle(made),
        "located": scores["located"],
        "wrong": scores["located_wrong"],
        "by 50 px": sum(one.status == "located" and one.error_px > FAR_PX for one in seen),
        "right located": scores["located_right"] / max(scores["locatable"], 1),
        "off it located": scores["absent_status"]["located"],
        "ECE": scores["calibration_error"],
        "radius covers": scores["radius_covers"],
        "95 % hold": _held(seen),
        "CPU s": scores["cpu_s_per_query"],
    }


def together(case: Case, made: Sequence[Prediction], data: Path, windows: int) -> dict[str, Any]:
    """The measures of those strips on the map at which map and scene do not lie apart."""
    seen = [one for one in made if one.on_map]
    again = predictions(replace(case, map="plain", off="", pixels=False), data, windows)
    aside = [common.lie_apart(one.truth_px, one.found_px, two.found_px) for one, two in zip(seen, again, strict=True)]
    others = [one for one, apart in zip(seen, aside, strict=True) if not apart]
    right, located = sum(one.right for one in others), [one for one in others if one.status == "located"]
    wrong = sum(not one.right for one in located)
    return {
        "strips": len(seen),
        **displaced([one for one in seen if one.status == "located" and not one.right]),
        "apart": sum(aside),
        "right of the others": right / len(others),
        "interval": wilson(right, len(others)),
        "located": len(located),
        "wrong": wrong,
        "share": wrong / max(len(located), 1),
        "right located": (len(located) - wrong) / max(right, 1),
    }


def displaced(wrong: Sequence[Prediction]) -> dict[str, Any]:
    """Where in the scene wrong answers lie, which was put together of fragments, and how far off and whither."""
    known = [(one.truth_px, one.found_px) for one in wrong if one.truth_px is not None and one.found_px is not None]
    truth, found = np.array(known).reshape(-1, 2, 2).transpose(1, 0, 2)
    shift = np.median(found - truth, axis=0).tolist() if known else None
    fragments = {(int(col), int(row)) for col, row in truth // FRAGMENT_PX}
    return {"located wrong": len(known), "fragments that hold them": len(fragments), "median shift, px": shift}


def _apart(made: Sequence[Prediction]) -> float | None:
    """Area under ROC of the confidence, on the map against off it."""
    return auroc([one.confidence for one in made if one.on_map], [one.confidence for one in made if not one.on_map])


def _oracle(made: Sequence[Prediction]) -> float | None:
    """Area under ROC of an answer that is sure where its best place is within FAR_PX, and knows nothing elsewhere."""
    found = [one.best_error_px <= FAR_PX for one in made if one.on_map]
    return auroc(found, [False for one in made if not one.on_map])


def _held(seen: Sequence[Prediction]) -> float | None:
    """How often the places that hold 95 % of the probability hold the true one, where it is among the places at all."""
    held = []
    for one in seen:
        if one.right_place is not None:
            among = shares(one.stand)
            held.append(float(among[among > among[one.right_place]].sum()) < LEVEL)
    return float(np.mean(held)) if held else None


def bars(rows: dict[str, dict[str, Any]]) -> list[Bar]:
    """What was to be reached, of the cases that were run."""

    def of(case: str, what: str, limit: float, *, at_least: bool = True) -> list[Bar]:
        return [Bar(f"{case}, {what}", rows[case][what], limit, at_least)] if case in rows else []

    found = "right"
    made = [
        *of("block-200x5", found, 0.995),
        *of("block-104x5", found, 0.95),
        *of("block-200", "AUROC", 0.99),
        *of("block-104", "AUROC", 0.90),
        *of("block-200x5", "AUROC", 0.995),
        *of("block-104x5", "AUROC", 0.995),
        *(
            bar
            for size, limit in (("200", 0.99), ("104", 0.9))
            for off in (OMBRIA, DRAWN)
            for bar in of(f"block-{size}, {off}", "AUROC", limit)
        ),
        *(bar for size in ("200", "104") for bar in of(f"block-{size}x5, {DRAWN}", "AUROC", 0.995)),
        *of("block-200", "right located", 0.95),
    ]
    if {"alone-104", "block-104"} <= set(rows):
        made.append(
            Bar("104 px, all against the encoder alone", rows["block-104"][found] - rows["alone-104"][found], 0.08)
        )
    for size in ("200", "104"):
        if {f"block-{size}x5", f"both-{size}x5"} <= set(rows):
            worse = rows[f"block-{size}x5"][found] - rows[f"both-{size}x5"][found]
            made.append(Bar(f"strips of {size} px, lost on both scenes", worse, 0.01, at_least=False))
    for case in ("block-200", "block-104", "ombria-200"):
        made += of(case, "ECE", 0.05, at_least=False)
        made += of(case, "radius covers", 0.93)
        made += of(case, "radius covers", 0.97, at_least=False)
    if "block-200" in rows:
        wrong = rows["block-200"]["wrong"] / max(rows["block-200"]["located"], 1)
        made.append(Bar("block-200, wrong among located", wrong, 0.01, at_least=False))
    return made


def main() -> None:
    arguments = common.parser(__doc__, windows=1000)
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments.add_argument("--into", type=Path, help="document that gets the table")
    given = arguments.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows, others = {}, {}
    for name in given.cases:
        made = predictions(CASES[name], data, given.windows)
        rows[name] = row(name, made)
        if name in ASKED_AGAIN:
            others[name] = {"case": name, **together(CASES[name], made, data, given.windows)}
        print(json.dumps(rows[name] | {"together": others.get(name)}), flush=True)
    for title, name, told in (
        ("Windows and strips", "consensus", rows),
        ("Map and scene together", "together", others),
    ):
        if told:
            columns = tuple(next(iter(told.values())))
            cells = [[common.cell(value) for value in one.values()] for one in told.values()]
            show(title, columns, cells)
            if given.into is not None:
                common.into(given.into, name, columns, cells, list(CASES))
    finish(given.output, {"cases": rows, "together": others}, bars(rows))


if __name__ == "__main__":
    main()
