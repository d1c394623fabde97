"""What a fit to tie points makes of located windows, beside the answer itself: error, spread, model, cost.

Random windows of the Los Angeles validation block, north up, located by an index of it. The error is that of a window's
middle against the scene's georeference; "in the ellipse" is the share whose error the fit's 95 % ellipse holds, with
its Wilson interval.

    python benchmarks/registration.py [--windows 200] [--sizes 200 400] [--into docs/matching.md] [-o FILE]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import BENCH, LA_VAL, Bar, area_file, finish, share, show

from geomatch.hidden import hidden_windows
from geomatch.index.build import build_index
from geomatch.locator import Locator
from geomatch.matching.accuracy import CHI2_95
from geomatch.matching.fit import NoFit
from geomatch.registration import register_located
from geomatch.sampling import WindowOptions

COLUMNS = ("windows", "located", "answer, px", "fit, px", "no fit", "in the ellipse", "points", "CPU of both")


def measured(locator: Locator, sar: Path, options: WindowOptions) -> dict[str, Any]:
    """Of the windows that are located on pixels."""
    rows, models, answers = [], [], []
    unfitted = 0
    grid, pixels = locator.index.grid, locator.pixels
    assert pixels is not None, "the map is there"
    for window in hidden_windows(locator.index, sar, options):
        assert window.truth is not None, "on the map"
        truth = window.truth.center_px
        began = time.process_time()
        trace = locator.find(window.raw)
        answered = time.process_time()
        if trace.location.status != "located" or trace.found_px is None:
            continue
        answers.append(float(np.linalg.norm(np.subtract(trace.found_px, truth))))
        found = register_located(trace, grid, pixels)
        ended = time.process_time()
        if isinstance(found.fit, NoFit):
            unfitted += 1
            continue
        middle = found.fit.at(trace.strip.middle_px[None])[0]
        error = float(np.linalg.norm(middle - truth))
        gap = middle - truth
        spread = found.fit.covariance_at(trace.strip.middle_px.tolist())
        within = bool(gap @ np.linalg.solve(spread, gap) <= CHI2_95)
        rows.append((error, within, int(found.fit.inliers.sum()), answered - began, ended - answered))
        models.append(found.fit.model)
    error, within, points, answering, fitting = np.array(rows, float).T
    return {
        "windows": options.windows,
        "located": len(answers),
        "no_fit": unfitted,
        "answer_px": np.percentile(answers, (50, 90)).tolist(),
        "fit_px": np.percentile(error, (50, 90)).tolist(),
        "within": share(within > 0),
        "points": float(np.median(points)),
        "models": {name: models.count(name) for name in dict.fromkeys(models)},
        "cpu_ms": [1000 * float(answering.mean()), 1000 * float(fitting.mean())],
    }


def cells(size: int, told: dict[str, Any]) -> list[str]:
    answer, fitted = (" / ".join(f"{value:.2f}" for value in told[name]) for name in ("answer_px", "fit_px"))
    cpu = " + ".join(f"{value:.0f} ms" for value in told["cpu_ms"])
    first = [f"{told['windows']} of {size} px", str(told["located"]), answer, fitted, str(told["no_fit"])]
    return [*first, told["within"], f"{told['points']:.0f}", cpu]


def main() -> None:
    parser = common.parser(__doc__, windows=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 400])
    parser.add_argument("--into", type=Path, help="document that gets the table")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    index = BENCH / "registration.gmi"
    build_index(area_file(data, LA_VAL, BENCH), index, overwrite=True)
    locator = Locator.open(index)
    sar = data / LA_VAL.scene / "sar.tif"
    results = {
        size: measured(locator, sar, WindowOptions(windows=given.windows, size_px=size, seed=given.seed))
        for size in given.sizes
    }
    rows = [cells(size, told) for size, told in results.items()]
    show("Medians and 90th percentiles of located windows", COLUMNS, rows)
    for size, told in results.items():
        print(f"{size} px: {told['models']}")
    if given.into is not None:
        common.into(given.into, "registration", COLUMNS, rows)
    bars = [
        Bar(f"median error of located {size} px windows", told["answer_px"][0], 2.0, at_least=False)
        for size, told in results.items()
    ]
    finish(given.output, results, bars)


if __name__ == "__main__":
    main()
