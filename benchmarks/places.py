"""From the places that correlate best to the answer: how do features and pixels share the choice?

The constants of ``geomatch/locator.py`` and ``geomatch/refine.py`` that decide between places and fix the best one are
varied one after the other about what is in use. Prints, for windows of the validation block of Los Angeles on which
constants are chosen (seed 5), the share of textured ones placed within 10 and 5 px and CPU seconds per query.

    python benchmarks/places.py [--windows 300] [--encoders la3 structural] [--cases 200 104 6-degrees] [-o FILE]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
from common import LA_VAL, finish, show
from gallery import block_locators

from geomatch import defaults, locator, refine
from geomatch.evaluation import predict, score
from geomatch.locator import Locator
from geomatch.sampling import WindowOptions

CASES: dict[str, dict[str, Any]] = {
    "200": {"size_px": 200},
    "104": {"size_px": 104},
    "6-degrees": {"size_px": 200, "rotate": 6.0},
    "10-percent": {"size_px": 200, "scale_percent": 10.0},
}
MODULES = {"TRUST_PX": refine, "FINE_WEIGHT": locator, "CONTESTED": locator, "CONTENDERS": locator}
TRIED: dict[str, tuple[float, ...]] = {
    "TRUST_PX": (24.0, 12.0, 6.0),
    "FINE_WEIGHT": (1.0, 2.0, 4.0),
    "CONTESTED": (1.15, 1.3, 1.6),
    "CONTENDERS": (8, 16),
}


def settings() -> Iterator[tuple[str, dict[str, float]]]:
    """What is in use, then each constant at each other value."""
    yield "in use", {}
    for name, values in TRIED.items():
        for value in values:
            yield f"{name} = {value:g}", {name: value}


def measured(asked: Locator, sar: Path, options: WindowOptions, changed: dict[str, float]) -> dict[str, Any]:
    with ExitStack() as stack:
        for name, value in changed.items():
            stack.enter_context(patch.object(MODULES[name], name, value))
        return score(list(predict(asked, sar, options)))


def row_of(encoder: str, case: str, setting: str, found: dict[str, Any]) -> list[str]:
    near = found["success_px_textured"]
    low, high = found["success_px_textured_ci"]["10"]
    return [
        encoder,
        case,
        setting,
        f"{near['10']:.3f} [{low:.3f}, {high:.3f}]",
        f"{near['5']:.3f}",
        f"{1000 * found['cpu_s_per_query']:.0f}",
    ]


def main() -> None:
    parser = common.parser(__doc__, windows=300)
    parser.set_defaults(seed=5)
    parser.add_argument("--encoders", nargs="+", default=[defaults.ENCODER, common.STRUCTURAL])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    sar = data / LA_VAL.scene / "sar.tif"
    rows, results = [], []
    for encoder, asked in block_locators(data, given.encoders):
        for case in given.cases:
            options = WindowOptions(given.windows, seed=given.seed, **CASES[case])
            for setting, changed in settings():
                found = measured(asked, sar, options, changed)
                rows.append(row_of(encoder, case, setting, found))
                results.append({"encoder": encoder, "case": case, "setting": setting, **found})
                print(" | ".join(rows[-1]), flush=True)
    show("How features and pixels share the choice", ("encoder", "case", "setting", "10 px", "5 px", "CPU ms"), rows)
    finish(given.output, results)


if __name__ == "__main__":
    main()
