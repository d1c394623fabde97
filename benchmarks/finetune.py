"""What ten minutes of fine-tuning give on a city that the shipped weights have not seen.

A city is simulated, its left three quarters are trained on with ``geomatch train finetune``, and windows of the rest
are looked for there before and after. Prints the recall of the vectors alone and the windows placed within 10 px, with
Wilson's 95 % intervals.

    python benchmarks/finetune.py [--windows 300] [--minutes 10] [--seeds 301] [--sizes 200 104] [-o FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
from common import Bar, finish, show

from geomatch import defaults
from geomatch.encoder import ALONE
from geomatch.evaluation import predict, score
from geomatch.index.build import BuildOptions, build_index
from geomatch.locator import Locator
from geomatch.raster import open_raster
from geomatch.sampling import WindowOptions
from geomatch.simulation import SimulatedCity, simulate_city
from geomatch.training.finetune import finetune_encoder

CITY_PX = 4096
HOLDOUT = 0.25
LEAST = 0.05


def held_out(city: SimulatedCity) -> tuple[float, float, float, float]:
    """Extent of the part that is not trained on."""
    with open_raster(city.ortho, need_grid=True) as raster:
        assert raster.grid is not None, "asked for"
        kept = round(raster.width * (1 - HOLDOUT))
        part = raster.grid.window(kept, 0, raster.width - kept, raster.height)
        corners = part.to_map(part.corners_px)
    return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())


def measured(
    city: SimulatedCity, encoder: str, folder: Path, sizes: Sequence[int], windows: int
) -> dict[int, dict[str, Any]]:
    """Scores of an encoder on the held-out part, by window size."""
    index = folder / "part.gmi"
    build_index(city.ortho, index, BuildOptions(encoder=encoder, bbox=held_out(city)), overwrite=True)
    locator = Locator.open(index)
    return {size: score(list(predict(locator, city.sar, WindowOptions(windows, size)))) for size in sizes}


def row_of(seed: int, size: int, when: str, scores: dict[str, Any]) -> list[str]:
    low, high = scores["success_px_textured_ci"]["10"]
    recall = scores["recall_textured"]
    return [
        str(seed),
        f"{size} px",
        when,
        f"{scores['textured']} of {scores['windows']}",
        *(f"{recall[k]:.3f}" for k in ("1", "10", "100")),
        f"{scores['success_px_textured']['10']:.3f} [{low:.3f}, {high:.3f}]",
    ]


def main() -> None:
    parser = common.parser(__doc__, windows=300)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[301])
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 104])
    given = parser.parse_args()
    rows, results, bars = [], [], []
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            city = simulate_city(folder / "city", size_px=CITY_PX, seed=seed, strips=0)
            weights = finetune_encoder(city.ortho, city.sar, folder / "run", minutes=given.minutes, holdout=HOLDOUT)
            before = measured(city, defaults.ENCODER + ALONE, folder, given.sizes, given.windows)
            after = measured(city, f"{weights}{ALONE}", folder, given.sizes, given.windows)
        for size in given.sizes:
            for when, scores in (("before", before[size]), ("after", after[size])):
                rows.append(row_of(seed, size, when, scores))
                results.append({"seed": seed, "size_px": size, "when": when, **scores})
            gain = after[size]["recall_textured"]["1"] - before[size]["recall_textured"]["1"]
            bars.append(Bar(f"city {seed}, {size} px, gain of R@1", gain, LEAST))
    columns = ("city", "windows", "", "textured", "R@1", "R@10", "R@100", "within 10 px")
    show(f"The held-out part of a simulated city, {given.minutes:g} minutes of fine-tuning", columns, rows)
    finish(given.output, results, bars)


if __name__ == "__main__":
    main()
