"""Strips whose speed and direction stray: how near are they placed by a similarity alone, and along their track?

Strips of 300 × 1000 px at 0.5 m from simulated cities on which nothing was trained or chosen, whose slopes along and
across the track vary slowly by up to 0, 1 and 3 %. Their heading and scale are told. Prints, with Wilson's 95 %
intervals, the share whose centre lies within 5 px, and the share of which all that is told of their place (every 25th
row at both sides and in the middle) lies within 5 px on the average; how many are said to sway; CPU seconds.

    python benchmarks/sway.py [--strips 20] [--seeds 601 602 603] [--encoder la3] [-o FILE]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
import numpy as np
from affine import Affine
from common import Bar, finish, show
from numpy.typing import NDArray

from geomatch import defaults, locator
from geomatch.geo import apply_affine
from geomatch.index.build import BuildOptions, build_index
from geomatch.location import Location
from geomatch.locator import Locator
from geomatch.metrics import wilson
from geomatch.simulation import Flight, StripTruth, simulate_city

SWAYS = (0.0, 1.0, 3.0)
NEAR_PX, LEAST = 5.0, 0.90
FLIGHT = Flight()
ROW_STEP = 25


@dataclass(frozen=True)
class Result:
    """How far one strip was placed from its truth, pixels; infinite without a place."""

    city: int
    sway_percent: float
    along_track: bool
    centre_px: float
    mean_px: float
    sways: bool
    cpu_s: float


def truth_at(truth: StripTruth, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where points [N x 2] of a strip's file lie in the map's CRS."""
    moved = points.copy()
    if truth.sway_px:
        rows, across, along = np.array(truth.sway_px).T
        moved += np.stack([np.interp(points[:, 1], rows + 0.5, side) for side in (across, along)], axis=1)
    return apply_affine(Affine(*truth.transform), moved)


def told_at(location: Location, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where an answer puts them."""
    assert location.affine is not None, "asked of strips with a place"
    places = apply_affine(location.affine, points)
    ties = location.evidence.tie_points
    if ties:
        told = np.array([(tie.col, tie.row) for tie in ties])
        off = np.array([(tie.x, tie.y) for tie in ties]) - apply_affine(location.affine, told)
        places += np.stack([np.interp(points[:, 1], told[:, 1], side) for side in off.T], axis=1)
    return places


def results_of(folder: Path, city_seed: int, sway: float, strips: int, encoder: str) -> Iterator[Result]:
    flight = Flight(sway_percent=sway)
    city = simulate_city(folder / f"{city_seed}-{sway:g}", seed=city_seed, strips=strips, flight=flight)
    index = folder / f"{city_seed}.gmi"
    if not index.exists():
        build_index(city.ortho, index, BuildOptions(encoder=encoder))
    asked = Locator.open(index)
    rows = np.arange(0, FLIGHT.length_px, ROW_STEP) + 0.5
    points = np.array([(col, row) for row in rows for col in (0, FLIGHT.width_px / 2, FLIGHT.width_px)])
    for along_track in (False, True):
        with nullcontext() if along_track else patch.object(locator, "find_sway", return_value=None):
            for file, truth in zip(city.strips, city.truth, strict=True):
                start = time.process_time()
                location = asked.locate(file)
                cpu = time.process_time() - start
                centre, mean = errors_px(location, truth, points)
                yield Result(city_seed, sway, along_track, centre, mean, bool(location.evidence.tie_points), cpu)


def errors_px(location: Location, truth: StripTruth, points: NDArray[np.float64]) -> tuple[float, float]:
    """Of the centre, and of points [N x 2] on the average."""
    if location.center is None:
        return float("inf"), float("inf")
    off = told_at(location, points) - truth_at(truth, points)
    centre = np.hypot(*np.subtract(location.center, truth.center))
    return float(centre) / truth.gsd_m, float(np.hypot(*off.T).mean()) / truth.gsd_m


def share(values: Sequence[float]) -> str:
    near = sum(value <= NEAR_PX for value in values)
    low, high = wilson(near, len(values))
    return f"{near / len(values):.3f} [{low:.3f}, {high:.3f}]"


def row_of(sway: float, along_track: bool, results: Sequence[Result]) -> list[str]:
    return [
        f"{sway:g} %",
        "along the track" if along_track else "similarity alone",
        str(len(results)),
        share([result.centre_px for result in results]),
        share([result.mean_px for result in results]),
        f"{np.median([result.mean_px for result in results]):.1f}",
        str(sum(result.sways for result in results)),
        f"{np.mean([result.cpu_s for result in results]):.2f}",
    ]


def main() -> None:
    parser = common.parser(__doc__, windows=0)
    parser.add_argument("--strips", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[601, 602, 603])
    parser.add_argument("--encoder", default=defaults.ENCODER)
    given = parser.parse_args()
    common.one_thread()
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        for seed in given.seeds:
            for sway in SWAYS:
                results += results_of(Path(name), seed, sway, given.strips, given.encoder)
                print(f"city {seed}, {sway:g} %: done", flush=True)
    rows, bars = [], []
    for sway in SWAYS:
        for along_track in (False, True):
            own = [one for one in results if one.sway_percent == sway and one.along_track == along_track]
            rows.append(row_of(sway, along_track, own))
            if along_track:
                near = sum(one.centre_px <= NEAR_PX for one in own) / len(own)
                bars.append(Bar(f"sway {sway:g} %: centre within {NEAR_PX:g} px", near, LEAST))
    columns = (
        "sway",
        "placed",
        "strips",
        "centre within 5 px",
        "mean within 5 px",
        "median mean, px",
        "sways",
        "CPU s",
    )
    show("Strips that sway", columns, rows)
    made: list[dict[str, Any]] = [asdict(result) for result in results]
    finish(given.output, [one | {k: None for k, v in one.items() if v == float("inf")} for one in made], bars)


if __name__ == "__main__":
    main()
