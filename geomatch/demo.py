"""The whole job on a city of its own: simulate, index, locate, compare with the truth, report."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from rich.console import Console
from rich.table import Table
from shapely.geometry import Polygon

import geomatch
from geomatch.console import progress
from geomatch.errors import OutputError
from geomatch.extras import needs_extra
from geomatch.files import published
from geomatch.geo import Grid, footprint
from geomatch.location import Location
from geomatch.locator import Locator
from geomatch.manifest import MANIFEST
from geomatch.overlay import ORANGE, SKY_BLUE, Canvas, Outline, checkerboard, footprints
from geomatch.raster import open_raster
from geomatch.report import ReportPicture, ReportTable, Section, write_report
from geomatch.simulation import SimulatedCity, StripTruth, simulate_city

CITY, INDEX, REPORT, MAP = "city", "city.gmi", "report.html", "map.png"
PRINTED_WIDTH = 120  # of the table where there is no terminal
COLUMNS = ("strip", "status", "found x, y", "true x, y", "error m", "error px", "confidence", "seconds")


@dataclass(frozen=True)
class Answer:
    """A strip, where it is, where it was found, and how long that took."""

    strip: Path
    truth: StripTruth
    location: Location
    seconds: float

    @property
    def error_m(self) -> float | None:
        """Distance of the centres in metres of the city's UTM grid, within 0.1 % of those on the ground."""
        if self.location.center is None:
            return None
        return float(np.hypot(*np.subtract(self.location.center, self.truth.center)))

    @property
    def cells(self) -> tuple[str | float | None, ...]:
        """A row of the table."""
        found = self.location.center
        return (
            self.strip.name,
            self.location.status,
            None if found is None else f"{found[0]:.1f}, {found[1]:.1f}",
            f"{self.truth.center[0]:.1f}, {self.truth.center[1]:.1f}",
            None if self.error_m is None else round(self.error_m, 2),
            None if self.error_m is None else round(self.error_m / self.truth.gsd_m, 1),
            round(self.location.confidence, 3),
            round(self.seconds, 2),
        )


def run_demo(output: Path, *, size_px: int, seed: int, quiet: bool) -> Path:
    """Simulate a city in ``output``, index it, locate its strips, print a table; returns the HTML report.

    Args:
        output: folder to write; what is there is replaced if a demo wrote it.
        size_px: side of the city.
        seed: of the city.
        quiet: no progress and no table.

    Raises:
        OutputError: the folder cannot be written, or holds something else.
        UsageError: what draws the report is not installed.
    """
    with needs_extra("report", "the demo's report"):
        import jinja2  # noqa: F401
    if output.exists() and not _is_demo(output):
        raise OutputError("is there and no demo wrote it", where=output, hint="choose another folder with -o")
    with published(output, directory=True) as folder, _told_of(output), progress(quiet) as step:
        step("simulating", 0, 1)
        city = simulate_city(folder / CITY, size_px=size_px, seed=seed)
        step("simulating", 1, 1)
        geomatch.build_index(city.ortho, folder / INDEX, progress=step)
        locator = Locator.open(folder / INDEX)
        answers = []
        for done, (strip, truth) in enumerate(zip(city.strips, city.truth, strict=True)):
            step("locating", done, len(city.strips))
            start = time.perf_counter()
            location = locator.locate(strip)
            answers.append(Answer(strip, truth, location, time.perf_counter() - start))
        write_report(folder / REPORT, "geomatch demo", _intro(city, seed), _sections(folder, locator, answers))
    if not quiet:
        _print(answers)
    return output / REPORT


@contextmanager
def _told_of(output: Path) -> Iterator[None]:
    """Names the demo's folder in an OutputError in place of the draft, which is gone by the time it is read."""
    try:
        yield
    except OutputError as error:
        raise OutputError(error.what, where=output, hint=error.hint) from error


def _is_demo(folder: Path) -> bool:
    """Whether a folder holds a demo and nothing else, so that replacing it loses nothing."""
    if not (folder / REPORT).is_file() or not (folder / INDEX / MANIFEST).is_file():
        return False
    own = {CITY, INDEX, REPORT, MAP}
    return all(file.name in own or file.match("strip_*.png") for file in folder.iterdir())


def _intro(city: SimulatedCity, seed: int) -> str:
    drift = max(np.hypot(*truth.drift_m) for truth in city.truth if truth.drift_m is not None)
    return (
        f"A simulated city (seed {seed}) was indexed, and {len(city.strips)} simulated UAV strips were located on it."
        f" The georeferencing that they carry is wrong by up to {drift:.0f} m; only its scale and heading are used."
    )


def _sections(folder: Path, locator: Locator, answers: list[Answer]) -> list[Section]:
    caption = "Error is the distance between the true and the found centre of the strip."
    sections: list[Section] = [ReportTable("Strips", COLUMNS, [answer.cells for answer in answers], caption)]
    outlines = []
    for answer in answers:
        outlines.append(Outline(_true_footprint(answer, locator), SKY_BLUE))
        if answer.location.footprint is not None:
            outlines.append(Outline(answer.location.footprint, ORANGE, answer.strip.stem[-2:]))
    footprints(Canvas.of(locator), outlines, folder / MAP)
    caption = "Found footprints in orange over the true ones in blue."
    sections.append(ReportPicture("Map", caption, folder / MAP, alt=caption, wide=True))
    for answer in answers:
        if answer.location.transform is None:
            continue
        picture = folder / f"{answer.strip.stem}.png"
        checkerboard(answer.strip, answer.location, Canvas.of(locator), picture)
        caption = "The strip in every other square of the map: what runs on across the squares is in place."
        sections.append(ReportPicture(answer.strip.stem, caption, picture, alt=f"{answer.strip.stem} on the map"))
    return sections


def _true_footprint(answer: Answer, locator: Locator) -> Polygon:
    with open_raster(answer.strip) as raster:
        return footprint(Grid(locator.index.grid.crs, Affine(*answer.truth.transform), raster.width, raster.height))


def _print(answers: list[Answer]) -> None:
    table = Table(title="Strips")
    for column in COLUMNS:
        table.add_column(column, no_wrap=True)
    for answer in answers:
        table.add_row(*("-" if cell is None else str(cell) for cell in answer.cells))
    Console(width=None if sys.stdout.isatty() else PRINTED_WIDTH).print(table)
