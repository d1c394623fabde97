"""Which features of pixels should the last look use: structural, learned, or both, and with which weights?

Windows of the validation block of Los Angeles, whose fragments chose the epoch of the learned ones, of OMBRIA's
validation locations and of a simulated city, which chose nothing, each on a map of its own indexed by the default
encoder: at 200 and 104 px, and turned or scaled by what a strip's header may be off. Prints the share of textured
windows whose best place is within 10 px, the median error of these, and CPU seconds per query.

    python benchmarks/pixels.py [--windows 300] [--maps block ombria city] [--weights pixels1 FILE]
        [--into docs/pixels1.md] [-o FILE]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import common
import elsewhere
import numpy as np
from common import LA_VAL, area_file, finish, show

from geomatch import defaults
from geomatch.evaluation import Prediction, predict
from geomatch.index.build import build_index
from geomatch.locator import Locator
from geomatch.metrics import wilson
from geomatch.pixel_features import STRUCTURAL, LearnedPixels, PixelFeatures
from geomatch.sampling import WindowOptions
from geomatch.simulation import simulate_city

CASES: dict[str, dict[str, Any]] = {
    "200 px": {"size_px": 200},
    "104 px": {"size_px": 104},
    "200 px, turned by up to 6°": {"size_px": 200, "rotate": 6.0},
    "200 px, scaled by up to 10 %": {"size_px": 200, "scale_percent": 10.0},
}
MAPS = ("block", "ombria", "city")
CITY_PX, CITY_SEED = 2048, 205
NEAR_PX = 10
COLUMNS = ("map, windows, features", "textured", "right", "interval", "median px", "CPU ms")


def scenes(name: str, data: Path, folder: Path) -> tuple[Path, Path]:
    """Map and SAR scene."""
    if name == "block":
        return area_file(data, LA_VAL, folder), data / LA_VAL.scene / "sar.tif"
    if name == "ombria":
        return elsewhere.ombria(data, "check")
    city = simulate_city(folder / "city", size_px=CITY_PX, seed=CITY_SEED, strips=1)
    return city.ortho, city.sar


def row_of(made: Sequence[Prediction]) -> list[str]:
    seen = [one for one in made if one.textured]
    errors = np.array([one.best_error_px for one in seen])
    right = errors[errors <= NEAR_PX]
    low, high = wilson(len(right), len(seen))
    cpu = float(np.mean([one.cpu_s for one in made]))
    interval = f"[{low:.3f}, {high:.3f}]"
    middle = f"{np.median(right):.2f}" if len(right) else "–"
    return [str(len(seen)), f"{len(right) / max(len(seen), 1):.3f}", interval, middle, f"{1000 * cpu:.0f}"]


def main() -> None:
    parser = common.parser(__doc__, windows=300)
    parser.set_defaults(seed=21)
    parser.add_argument("--maps", nargs="+", default=list(MAPS), choices=MAPS)
    parser.add_argument("--weights", nargs="+", default=[defaults.PIXELS], help="names or files of learned features")
    parser.add_argument("--into", type=Path, help="document that gets the table")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    kinds: dict[str, tuple[PixelFeatures, ...]] = {"structural": STRUCTURAL}
    for weights in given.weights:
        learned = LearnedPixels(weights)
        kinds |= {Path(weights).stem: (learned,), f"structural and {Path(weights).stem}": (*STRUCTURAL, learned)}
    rows: list[list[str]] = []
    with TemporaryDirectory() as folder:
        for name in given.maps:
            optical, sar = scenes(name, data, Path(folder))
            build_index(optical, Path(folder) / f"{name}.gmi")
            asked = Locator.open(Path(folder) / f"{name}.gmi")
            assert asked.pixels is not None, "its map is there"
            for case, cut in CASES.items():
                for kind, features in kinds.items():
                    locator = Locator(asked.index, replace(asked.pixels, features=features))
                    options = WindowOptions(given.windows, seed=given.seed, **cut)
                    rows.append([f"{name}, {case}, {kind}", *row_of(list(predict(locator, sar, options)))])
                    print(" | ".join(rows[-1]), flush=True)
    show("The last look", COLUMNS, rows)
    if given.into is not None:
        common.into(given.into, "pixels", COLUMNS, rows)
    finish(given.output, rows)


if __name__ == "__main__":
    main()
