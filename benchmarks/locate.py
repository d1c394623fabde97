"""One strip after the other on a map of a million tiles: seconds from the file to the answer.

The map is that of benchmarks/varied.py: the validation block of Los Angeles among training fragments. Strips are SAR
windows of the block of 200 x 1000 px, written as GeoTIFFs whose position says nothing. geomatch answers them in a
process of its own, its index open and warmed up by a few strips, on one thread; "all of the map" is the same with the
correlation of the whole map instead of the vector search. A strip is placed when its middle is within 10 px of the
truth.

    python benchmarks/locate.py [--windows 100] [--tiles 1000000] [--all 10] [-o FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import rasterio
from common import LA_VAL, RIGHT_PX, Bar, Timed, Worker
from numpy.typing import NDArray
from rasterio.windows import Window
from varied import indexed

from geomatch.locator import Locator
from geomatch.tile_index import TileIndex

STRIP_PX = (200, 1000)  # columns and rows
WARM = 3
Answer = tuple[str, float, dict[str, float]]  # status, pixels from the truth, seconds by stage


class Asked:
    """A locator that stays open; made in the process that is measured."""

    def __init__(self, index: Path, exhaustive: bool) -> None:
        self._locator = Locator.open(index, exhaustive=exhaustive)

    def __call__(self, strip: Path, middle_px: tuple[float, float]) -> Answer:
        traced = self._locator.follow(strip)
        off = np.inf if traced.found_px is None else np.hypot(*np.subtract(traced.found_px, middle_px))
        return traced.location.status, float(off), traced.location.evidence.seconds


@dataclass(frozen=True)
class Served:
    """How strips were answered."""

    how: str
    strips: int
    placed: int
    located: int
    wall_s: NDArray[np.float64]
    cpu_s: NDArray[np.float64]
    stages_s: dict[str, float]
    open_s: float
    peak_rss_mb: float

    @classmethod
    def of(cls, how: str, answers: Sequence[Timed], open_s: float, peak_rss_mb: float) -> Served:
        values: list[Answer] = [answer.value for answer in answers]
        stages = {stage: float(np.median([value[2].get(stage, 0.0) for value in values])) for stage in values[0][2]}
        return cls(
            how=how,
            strips=len(values),
            placed=sum(off <= RIGHT_PX for _, off, _ in values),
            located=sum(status == "located" for status, _, _ in values),
            wall_s=np.array([answer.wall_s for answer in answers]),
            cpu_s=np.array([answer.cpu_s for answer in answers]),
            stages_s=stages,
            open_s=open_s,
            peak_rss_mb=peak_rss_mb,
        )

    def row(self) -> list[str]:
        placed = common.share([True] * self.placed + [False] * (self.strips - self.placed))
        quantiles = [f"{np.quantile(values, q):.3f}" for values in (self.wall_s, self.cpu_s) for q in (0.5, 0.95)]
        return [self.how, str(self.strips), placed, str(self.located), *quantiles, f"{self.open_s:.2f}",
                f"{self.peak_rss_mb:.0f}"]  # fmt: skip


def cut(data: Path, folder: Path, corners: NDArray[np.int64]) -> list[Path]:
    """Strips of the block as files; their georeference tells the pixel size, and a place where they are not."""
    made = []
    with rasterio.open(data / LA_VAL.scene / "sar.tif") as scene:
        for number, (col, row) in enumerate(corners.tolist()):
            window = Window(LA_VAL.col0 + col, LA_VAL.row0 + row, *STRIP_PX)
            file = folder / f"{number:04d}.tif"
            size = {"width": STRIP_PX[0], "height": STRIP_PX[1], "count": 1, "dtype": scene.dtypes[0]}
            with rasterio.open(file, "w", driver="GTiff", **size, **common.whole_place()) as out:
                out.write(scene.read(1, window=window), 1)
            made.append(file)
    return made


def served(how: str, index: TileIndex, strips: Sequence[Path], middles: NDArray[Any], *, exhaustive: bool) -> Served:
    worker = Worker(Asked, index.path, exhaustive)
    asked = [(file, tuple(middle)) for file, middle in zip(strips, middles.tolist(), strict=True)]
    for one in asked[:WARM]:
        worker.ask(*one)
    answers = [worker.ask(*one) for one in asked]
    _, peak = worker.close()
    return Served.of(how, answers, worker.made.wall_s, peak)


def main() -> None:
    parser = common.parser(__doc__, windows=100)
    parser.add_argument("--tiles", type=int, default=1_000_000)
    parser.add_argument("--all", type=int, default=10, help="strips that are also correlated with all of the map")
    parser.add_argument("--into", type=Path, help="document that gets the table")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    index, _ = indexed(data, given.tiles)
    rng = np.random.default_rng(given.seed)
    room = np.array([LA_VAL.width - STRIP_PX[0], LA_VAL.height - STRIP_PX[1]])
    corners = rng.integers(0, room + 1, (given.windows, 2))
    middles = corners + np.array(STRIP_PX) / 2
    with tempfile.TemporaryDirectory() as name:
        strips = cut(data, Path(name), corners)
        runs = [served("by vectors", index, strips, middles, exhaustive=False)]
        if given.all:
            some = slice(given.all)
            runs.append(served("all of the map", index, strips[some], middles[some], exhaustive=True))
    columns = ("how", "strips", "placed", "located", "wall p50", "p95", "CPU p50", "p95", "open s", "peak MB")
    rows = [run.row() for run in runs]
    common.show(f"Strips of {STRIP_PX[0]} x {STRIP_PX[1]} px on {len(index)} tiles", columns, rows)
    if given.into is not None:
        common.into(given.into, "locate", columns, rows)
    print("median seconds by stage:", ", ".join(f"{stage} {s:.3f}" for stage, s in runs[0].stages_s.items()))
    wall = runs[0].wall_s
    bars = [
        Bar("wall seconds, median", float(np.median(wall)), 0.5, at_least=False),
        Bar("wall seconds, 95 of 100", float(np.quantile(wall, 0.95)), 1.5, at_least=False),
    ]
    told = [asdict(run) | {"wall_s": run.wall_s.tolist(), "cpu_s": run.cpu_s.tolist()} for run in runs]
    common.finish(given.output, {"tiles": len(index), "runs": told}, bars)


if __name__ == "__main__":
    main()
