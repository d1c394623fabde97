"""How densely must headings and scales be tried, and how many places of all of them correlated?

Windows of the validation block of Los Angeles on which constants are chosen (seed 5), turned at random and scaled by up
to 10 %, are located with the heading unknown. The steps of the index's encoder and CORRELATED of
``geomatch/hypotheses.py`` are varied. Prints how many attitudes are tried, the share of textured windows placed within
10 px, wherever the answer stands, and CPU seconds per query.

    python benchmarks/proposals.py [--windows 100] [--encoders la3 structural] [--sizes 400 200] [-o FILE]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
import numpy as np
from common import LA_VAL, finish, show
from gallery import block_locators

from geomatch import defaults, hypotheses
from geomatch.attitude import ANY_TURN_DEG, Steps, Tolerance
from geomatch.evaluation import Prediction, predict
from geomatch.locator import Locator
from geomatch.metrics import wilson
from geomatch.sampling import WindowOptions

NEAR_PX = 10.0
TRIED = (
    (Steps(15.0, 1.21), 150),
    (Steps(10.0, 1.21), 75),
    (Steps(10.0, 1.21), 150),
    (Steps(10.0, 1.21), 300),
    (Steps(10.0, 1.1), 150),
    (Steps(6.0, 1.21), 150),
    (Steps(6.0, 1.1), 150),
    (Steps(6.0, 1.1), 300),
    (Steps(4.0, 1.1), 300),
)


def near(prediction: Prediction) -> bool:
    if prediction.truth_px is None or prediction.found_px is None:
        return False
    return bool(np.hypot(*np.subtract(prediction.truth_px, prediction.found_px)) <= NEAR_PX)


def measured(asked: Locator, sar: Path, options: WindowOptions, steps: Steps, correlated: int) -> dict[str, Any]:
    with patch.object(type(asked.index.encoder), "steps", steps), patch.object(hypotheses, "CORRELATED", correlated):
        found = list(predict(asked, sar, options))
    textured = [one for one in found if one.textured]
    return {
        "steps": [steps.turn_deg, steps.scale],
        "correlated": correlated,
        "attitudes": len(list(options.tolerance.attitudes(steps))),
        "textured": len(textured),
        "near": sum(near(one) for one in textured),
        "cpu_s_per_query": float(np.mean([one.cpu_s for one in found])),
    }


def row_of(encoder: str, size: int, found: dict[str, Any]) -> list[str]:
    low, high = wilson(found["near"], found["textured"])
    return [
        encoder,
        f"{size} px",
        "{:g}°, {:g}".format(*found["steps"]),
        str(found["correlated"]),
        str(found["attitudes"]),
        f"{found['near'] / found['textured']:.3f} [{low:.3f}, {high:.3f}]",
        f"{found['cpu_s_per_query']:.2f}",
    ]


def main() -> None:
    parser = common.parser(__doc__, windows=100)
    parser.set_defaults(seed=5)
    parser.add_argument("--encoders", nargs="+", default=[defaults.ENCODER, common.STRUCTURAL])
    parser.add_argument("--sizes", nargs="+", type=int, default=[400, 200])
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    sar = data / LA_VAL.scene / "sar.tif"
    rows, results = [], []
    tolerance = Tolerance(ANY_TURN_DEG, 1.1)
    for encoder, asked in block_locators(data, given.encoders):
        for size in given.sizes:
            options = WindowOptions(
                given.windows, size, given.seed, rotate="any", scale_percent=10.0, tolerance=tolerance
            )
            for steps, correlated in TRIED:
                found = measured(asked, sar, options, steps, correlated)
                rows.append(row_of(encoder, size, found))
                results.append({"encoder": encoder, "size_px": size, **found})
                print(" | ".join(rows[-1]), flush=True)
    columns = ("encoder", "windows", "steps", "correlated", "attitudes", "within 10 px", "CPU s")
    show("Attitudes that are tried", columns, rows)
    finish(given.output, results, [])


if __name__ == "__main__":
    main()
