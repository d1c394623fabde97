"""How well do images of different places agree? The peaks that chance gives, from which a right place has to stand out.

Two constants of the package are read from these tables. ``chance_peak`` of ``geomatch/pixel_features.py``: windows of a
map are looked at, by each kind of features, at the places that their coarse features take for theirs and that are not;
printed is how high the peak within reach stands above the median there, on the average, times the root of the cells
that are compared.
``CHANCE`` of ``geomatch/matching/area.py``: pairs of images of 256 px that show different places are matched; printed
is how well features and pixels agree at the best attitude and place, less what goes with the root of the cells, and how
many would be believed. Beside both, the same of right places.

``chance_peak`` of learned features was read from the northern half of the validation block of Los Angeles, ``CHANCE``
from pairs of the whole of it; its southern half, OMBRIA's validation locations and the training fragments neither.

    python benchmarks/chance.py [--windows 60] [--tables pixels area] [--into] [-o FILE]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import common
import elsewhere
import numpy as np
from common import LA_VAL, NEAR_PX, ROOT, area_file, cell, finish, show
from trust import Told, scene_source

from geomatch.hidden import hidden_windows
from geomatch.index.build import build_index
from geomatch.locator import Locator
from geomatch.matching.area import CHANCE, STRUCTURAL_CHANCE, AreaMatcher
from geomatch.matching.samples import SIZE_PX, WARPED, Sample, needed_px, samples
from geomatch.query import Query
from geomatch.refine import Refiner
from geomatch.sampling import WindowOptions

SIZES_PX = (104, 200)
LOOKED = 8  # places of a window
PEAKS = ("map, window px, features", "places", "chance_peak", "at a wrong place", "its deviation", "at the right one")
AGREED = ("pairs, features", "pairs", "median", "99 % below", "most", "believed", "right ones", "believed of these")


def halves(data: Path, folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """Name, map and SAR scene."""
    sar = data / LA_VAL.scene / "sar.tif"
    half = LA_VAL.height // 2
    for name, row0 in (("north", LA_VAL.row0), ("south", LA_VAL.row0 + half)):
        yield name, area_file(data, replace(LA_VAL, row0=row0, height=half), folder), sar
    yield "ombria", *elsewhere.ombria(data, "check")


def peaks(locator: Locator, sar: Path, size_px: int, windows: int, seed: int) -> dict[str, tuple[list[float], ...]]:
    """Of each kind of features: heights of peaks at wrong places and at right ones, times the root of the cells."""
    assert locator.pixels is not None
    kinds = {type(one).__name__: one for one in locator.pixels.features}
    found: dict[str, tuple[list[float], ...]] = {name: ([], []) for name in kinds}
    tile_px, cell_px = locator.index.manifest.tiles.size_px, locator.index.encoder.cell_px
    for window in hidden_windows(locator.index, sar, WindowOptions(windows, size_px, seed)):
        strip = window.raw.at()
        query = Query.of(locator.index, strip)
        assert window.truth is not None
        if not query.windows:
            continue
        corner = window.truth.center_px - strip.middle_px
        places = query.scan().corners_px
        wrong = places[np.linalg.norm(places - corner, axis=1) > NEAR_PX][:LOOKED]
        for name, one in kinds.items():
            refiner = Refiner.of(strip, tile_px, cell_px, replace(locator.pixels, features=(one,)))
            if refiner is not None:
                root = float(np.sqrt(refiner.cells))
                found[name][0].extend(root * refiner.at(place).height for place in wrong)
                found[name][1].append(root * refiner.at(corner).height)
    return found


def peak_rows(data: Path, windows: int, seed: int) -> list[list[str]]:
    rows = []
    with TemporaryDirectory() as temporary:
        for name, ortho, sar in halves(data, Path(temporary)):
            build_index(ortho, Path(temporary) / f"{name}.gmi")
            locator = Locator.open(Path(temporary) / f"{name}.gmi")
            assert locator.pixels is not None
            constants = {type(one).__name__: one.chance_peak for one in locator.pixels.features}
            for size_px in SIZES_PX:
                for kind, (wrong, right) in peaks(locator, sar, size_px, windows, seed).items():
                    numbers = (np.mean(wrong), np.std(wrong), np.mean(right))
                    told = [f"{name}, {size_px}, {kind}", str(len(wrong)), cell(constants[kind])]
                    rows.append([*told, *(f"{number:.2f}" for number in numbers)])
                    print(" | ".join(rows[-1]), flush=True)
    return rows


def agreements(matcher: AreaMatcher, told: Told, pairs: Sequence[Sample]) -> tuple[list[float], list[float]]:
    """How well pairs agree beyond the root of the cells: those of different places, and those of one."""
    wrong, right = [], []
    for number, pair in enumerate(pairs):
        other = pairs[told.apart_from(number, needed_px(WARPED, SIZE_PX))]
        for optical, kept in ((other.optical, wrong), (pair.optical, right)):
            best = matcher.best_place(pair.sar, optical)
            if best is not None:
                kept.append(best.above_cells)
    return wrong, right


def agreement_rows(data: Path, windows: int, seed: int) -> list[list[str]]:
    matchers = {"area": (AreaMatcher(), CHANCE), "area-structural": (AreaMatcher.structural(), STRUCTURAL_CHANCE)}
    rows = []
    for name in ("train", "val"):
        told = Told(scene_source(data, name))
        pairs = list(samples(told, windows, WARPED, seed=seed))
        for method, (matcher, chance) in matchers.items():
            wrong, right = (np.array(one) for one in agreements(matcher, told, pairs))
            numbers = (np.median(wrong), np.percentile(wrong, 99), wrong.max())
            believed = [f"{int((one >= chance).sum())} of {len(one)}" for one in (wrong, right)]
            told_of = [f"{name}, {method}", str(len(wrong)), *(f"{number:.3f}" for number in numbers)]
            rows.append([*told_of, believed[0], f"{np.median(right):.3f}", believed[1]])
            print(" | ".join(rows[-1]), flush=True)
    return rows


TABLES = {
    "pixels": ("Heights of peaks near a place, times the root of the cells", "pixels1.md", PEAKS, peak_rows),
    "area": ("Pairs of different places", "matching.md", AGREED, agreement_rows),
}


def main() -> None:
    parser = common.parser(__doc__, windows=60)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--into", action="store_true", help="put the tables into docs/pixels1.md and docs/matching.md")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    made: dict[str, Any] = {}
    for name in given.tables:
        title, document, columns, rows = TABLES[name]
        made[name] = rows(data, given.windows, given.seed)
        show(title, columns, made[name])
        if given.into:
            common.into(ROOT / "docs" / document, f"chance of {name}", columns, made[name])
    finish(given.output, made)


if __name__ == "__main__":
    main()
