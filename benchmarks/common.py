"""What the benchmarks share: where the imagery is, windows of it, processes to measure in, tables and JSON."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from geomatch import images
from geomatch.images import SarRadiometry
from geomatch.metrics import wilson
from geomatch.raster import open_raster
from geomatch.strips import Strip, strip_of
from geomatch.summary import print_whole

ROOT = Path(__file__).resolve().parent.parent
PLACES = (ROOT / "../shared/data", ROOT / "data")
BENCH = ROOT / "bench"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PRINTED_WIDTH = 150  # where there is no terminal, at least
JPEG = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "jpeg", "jpeg_quality": 90,
        "photometric": "ycbcr", "interleave": "pixel"}  # fmt: skip
STRUCTURAL = "structural"  # the encoder that needs no training, where it is what is measured


@dataclass(frozen=True)
class Area:
    """A rectangle of a scene, pixels."""

    scene: str
    col0: int
    row0: int
    width: int
    height: int

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6


SAME_PX, RIGHT_PX, NEAR_PX = 3.0, 10.0, 50.0
LA_VAL = Area("los_angeles_west", 8192, 4096, 3072, 4096)


# ---- command line, output


def parser(doc: str | None, *, windows: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, help="folder of the imagery; default $GEOMATCH_DATA, or ../shared/data")
    made.add_argument("--windows", type=int, default=windows, help=f"queries, default {windows}")
    made.add_argument("--seed", type=int, default=0)
    results = BENCH / f"{Path(sys.argv[0]).stem}.json"
    made.add_argument("-o", "--output", type=Path, default=results, help="of the results as JSON; default %(default)s")
    return made


def find_data(given: Path | None) -> Path | None:
    """The folder of the imagery, or None where there is none; then says so."""
    named = os.environ.get("GEOMATCH_DATA")
    places = (given,) if given else (Path(named),) if named else PLACES
    found = next((place for place in places if (place / LA_VAL.scene / "optical.tif").is_file()), None)
    if found is None:
        print(f"skipped: no imagery at {places[0]}; name its folder with --data or GEOMATCH_DATA")
    return found


def data_or_skip(given: Path | None) -> Path:
    """The folder of the imagery; without one, ends the script as skipped."""
    found = find_data(given)
    if found is None:
        raise SystemExit(0)
    return found


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*map(str, row))
    print_whole(Console(width=None if sys.stdout.isatty() else PRINTED_WIDTH), table)


def cell(value: object) -> str:
    """A number to three digits, an interval, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(cell(part) for part in value)}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def into(
    file: Path, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], order: Sequence[str] = ()
) -> None:
    """Put a table between its markers in a document; rows of ``order`` that are not given stay as they stand there."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = file.read_text().partition(begin)
    kept, _, after = rest.partition(end)
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in kept.splitlines() if line.startswith("| ")}
    given = {row[0]: "| " + " | ".join(row) + " |" for row in rows}
    lines |= given
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    body = [lines[row] for row in (order or list(given)) if row in lines]
    file.write_text(f"{before}{begin}\n" + "\n".join([*head, *body]) + f"\n{end}{after}")


@dataclass(frozen=True)
class Bar:
    """What was to be reached."""

    what: str
    value: float
    limit: float
    at_least: bool = True

    @property
    def passed(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{'pass' if self.passed else 'FAIL'}  {self.what}: {self.value:.3g} (bar {sign} {self.limit:.3g})"


def finish(output: Path, results: Any, bars: Sequence[Bar] = ()) -> None:
    """Print the bars; write everything as JSON."""
    for bar in bars:
        print(bar)
    output.parent.mkdir(parents=True, exist_ok=True)
    judged = [asdict(bar) | {"passed": bar.passed} for bar in bars]
    whole = {"machine": machine(), "results": results, "bars": judged}
    output.write_text(json.dumps(whole, indent=1) + "\n")
    print(f"results: {output}")


def machine() -> dict[str, object]:
    libraries = ("geomatch", "numpy", "scipy", "faiss-cpu", "opencv-python-headless", "rasterio")
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in libraries},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def share(hits: Sequence[bool] | NDArray[np.bool_]) -> str:
    """A share with its Wilson 95 % interval."""
    low, high = wilson(int(np.sum(hits)), len(hits))
    return f"{np.mean(hits):.3f} [{low:.3f}, {high:.3f}]"


Place = tuple[float, float]  # map pixels


def lie_apart(truth: Place | None, first: Place | None, second: Place | None) -> bool:
    """Whether two encoders agree within 3 px on a place that is 10 to 50 px from the truth: map and scene lie apart."""
    if truth is None or first is None or second is None:
        return False
    off = [float(np.hypot(*np.subtract(place, truth))) for place in (first, second)]
    return bool(np.hypot(*np.subtract(first, second)) <= SAME_PX and min(off) > RIGHT_PX and max(off) <= NEAR_PX)


def tell_apart(name: str, hits: Sequence[bool], aside: Sequence[bool]) -> dict[str, Any]:
    """How many of the textured windows lie where map and scene do, and the share placed of the others."""
    others = np.asarray(hits)[~np.asarray(aside)]
    print(
        f"{name}: map and scene lie apart in {sum(aside)} of {len(aside)} textured windows;"
        f" of the others {share(others)} are placed within {RIGHT_PX:g} px",
        flush=True,
    )
    return {"apart": int(sum(aside)), "success_of_the_others": float(others.mean())}


def code_hash(*files: Path) -> str:
    """Changes with geomatch's code and with ``files``, so that stale results are not taken up again."""
    package = Path(images.__file__).parent
    sources = sorted([*package.rglob("*.py"), *(ROOT / "index").glob("*.py"), *files])
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]


# ---- imagery


class SarWindows:
    """Windows of an area of a SAR scene, made ready as a file of its own would be: where they are is not told.

    Args:
        data: folder of the imagery.
        area: the part of the scene; corners count from its first pixel.
    """

    def __init__(self, data: Path, area: Area) -> None:
        self._raster = open_raster(data / area.scene / "sar.tif", need_grid=True)
        self._area = area
        self._radiometry = SarRadiometry.detect(self._raster)

    def strip(self, corner: NDArray[np.int64], size: int) -> Strip:
        col, row = (corner + (self._area.col0, self._area.row0)).tolist()
        patch = self._raster.read(col, row, size, size, bands=self._radiometry.bands)
        return strip_of(patch, np.eye(2), self._radiometry.relative_to(patch))


def random_corners(area: Area, size: int, count: int, seed: int) -> NDArray[np.int64]:
    """First pixels of windows anywhere within an area: [count x 2] column, row, from the area's first pixel."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, side - size + 1, count) for side in (area.width, area.height)], axis=1)


def read_area(data: Path, area: Area) -> tuple[NDArray[np.uint8], Any]:
    """Optical pixels [3 x H x W] of an area, and its georeference as rasterio's profile."""
    with open_raster(data / area.scene / "optical.tif", need_grid=True) as raster:
        assert raster.grid is not None, "opened with need_grid"
        grid = raster.grid.window(area.col0, area.row0, area.width, area.height)
        pixels = raster.read(area.col0, area.row0, area.width, area.height).data.astype(np.uint8)
    return pixels, {"crs": grid.crs.to_wkt(), "transform": grid.transform}


def area_file(data: Path, area: Area, folder: Path) -> Path:
    """The optical image of an area as a file of its own, once."""
    file = folder / f"{area.scene}-{area.col0}-{area.row0}-{area.width}-{area.height}.tif"
    if not file.is_file():
        pixels, place = read_area(data, area)
        write_map(file, pixels, (1, 1), place)
    return file


def write_map(file: Path, pixels: NDArray[np.uint8], repeat: tuple[int, int], place: dict[str, Any]) -> None:
    """Write ``repeat`` (across, down) copies as one tiled JPEG GeoTIFF, every second one mirrored, piece by piece."""
    file.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    size = {"width": width * repeat[0], "height": height * repeat[1], "count": bands, "dtype": "uint8"}
    part = file.with_suffix(".part.tif")
    with rasterio.open(part, "w", driver="GTiff", **size, **JPEG, **place) as out:
        for down in range(repeat[1]):
            for across in range(repeat[0]):
                copy = pixels[:, :: -1 if down % 2 else 1, :: -1 if across % 2 else 1]
                out.write(copy, window=Window(across * width, down * height, width, height))
    part.rename(file)


def whole_place(gsd: float = 10.0) -> dict[str, Any]:
    """A georeference for a map that lies nowhere in particular."""
    return {"crs": "EPSG:32611", "transform": Affine(gsd, 0, 400_000, 0, -gsd, 3_800_000)}


# ---- measuring


def one_thread() -> None:
    """Hold the libraries of this process to one thread, so that CPU seconds compare.

    BLAS reads its variables when it is loaded, so a script that was started without them starts itself anew.
    """
    _limit_threads()
    if any(os.environ.get(name) != "1" for name in THREADS):
        os.environ.update(dict.fromkeys(THREADS, "1"))
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _limit_threads() -> None:
    import faiss

    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)


def peak_rss_mb() -> float:
    """The most memory that this process has held, MB; not its parent's, which getrusage would hand down."""
    return _status_kb("VmHWM") / 1000


def rss_mb() -> float:
    return _status_kb("VmRSS") / 1000


def _status_kb(field: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return 1.024 * next(float(line.split()[1]) for line in lines if line.startswith(field))


@dataclass(frozen=True)
class Timed:
    """What a call gave and took."""

    value: Any
    cpu_s: float
    wall_s: float


def timed(call: Callable[..., Any], *arguments: Any) -> Timed:
    wall, cpu = time.perf_counter(), time.process_time()
    value = call(*arguments)
    return Timed(value, time.process_time() - cpu, time.perf_counter() - wall)


class Worker:
    """A contender in a process of its own, so that its memory is its own: made there, asked through a pipe.

    Args:
        make: called there with ``arguments``; gives the function that is then asked. At the top level of a module.
        environment: variables that the process begins with.
    """

    def __init__(
        self,
        make: Callable[..., Callable[..., Any]],
        *arguments: Any,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        context = get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make, arguments), daemon=True)
        with patch.dict(os.environ, dict.fromkeys(THREADS, "1") | environment):
            self._process.start()
        there.close()
        self.made: Timed = self._pipe.recv()

    def ask(self, *arguments: Any) -> Timed:
        self._pipe.send(arguments)
        answer: Timed = self._pipe.recv()
        return answer

    def close(self) -> tuple[float, float]:
        """End it: (memory at the end, most memory), MB."""
        self._pipe.send(None)
        held: tuple[float, float] = self._pipe.recv()
        self._process.join()
        return held


def _serve(pipe: Connection, make: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...]) -> None:
    _limit_threads()
    made = timed(make, *arguments)
    contender: Callable[..., Any] = made.value
    pipe.send(Timed(None, made.cpu_s, made.wall_s))
    while (query := pipe.recv()) is not None:
        pipe.send(timed(contender, *query))
    pipe.send((rss_mb(), peak_rss_mb()))
