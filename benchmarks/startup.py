"""How long do importing geomatch, printing its help and a first answer take?

    python benchmarks/startup.py [--windows 20] [--into docs/scale.md] [-o FILE]

Each is a process of its own, --windows of them by turns, after one of each that does not count; wall and CPU seconds of
the whole process, and beside them an interpreter that does nothing. The answer is to a strip of a drawn city, by an
index with learned features.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
from common import Bar, finish, show

GEOMATCH = str(Path(sys.executable).with_name("geomatch"))
CITY_PX = 2000


def commands(folder: Path) -> dict[str, tuple[str, ...]]:
    """What is timed; draws the city into a folder that is not there yet."""
    subprocess.run([GEOMATCH, "demo", "--size", str(CITY_PX), "-q", "-o", folder], check=True)
    strip, index = str(folder / "city" / "strip_01.tif"), str(folder / "city.gmi")
    return {
        "python -c pass": (sys.executable, "-c", "pass"),
        "import geomatch": (sys.executable, "-c", "import geomatch"),
        "geomatch --help": (GEOMATCH, "--help"),
        "geomatch locate": (GEOMATCH, "locate", strip, "--index", index),
    }


def spent(command: tuple[str, ...]) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    arguments = common.parser(__doc__, windows=20)
    arguments.add_argument("--into", type=Path, help="document that gets the table")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        timed = commands(Path(name) / "demo")
        for command in timed.values():
            spent(command)
        rounds = [{name: spent(command) for name, command in timed.items()} for _ in range(given.windows)]
    told = {name: np.median([one[name] for one in rounds], axis=0).tolist() for name in timed}
    rows = [(name, f"{wall:.3f}", f"{cpu:.3f}") for name, (wall, cpu) in told.items()]
    columns = ("what", "wall s", "CPU s")
    show(f"Medians of {given.windows} processes", columns, rows)
    if given.into is not None:
        common.into(given.into, "startup", columns, rows)
    limits = {"import geomatch": 0.3, "geomatch --help": 0.5}
    bars = [Bar(f"{name}, wall seconds", told[name][0], limit, at_least=False) for name, limit in limits.items()]
    finish(given.output, told, bars)


if __name__ == "__main__":
    main()
