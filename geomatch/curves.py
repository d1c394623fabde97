"""How what is found falls off with what may go wrong: one error at a time, of just so much, and nothing told of it.

Each point is an evaluation of its own, scored as ``geomatch.evaluation.score`` does. Points are written as they are
made, and those that are there already are not made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from geomatch.errors import InputError, UsageError
from geomatch.evaluation import check_output, predict, score
from geomatch.files import writing
from geomatch.locator import Locator
from geomatch.outputs import output_file
from geomatch.report import ReportPicture, ReportTable, write_report
from geomatch.sampling import WindowOptions

POINTS = "curves.json"
WITHIN_PX = "10"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Curve:
    """One thing that may go wrong.

    Attributes:
        title: of the plot.
        unit: what the values are, for the axis and the table.
        values: that are tried.
        field: of ``WindowOptions`` that they stand in.
        note: what is to be known of it.
    """

    title: str
    unit: str
    values: tuple[float, ...]
    field: str
    note: str


CURVES = {
    "heading": Curve(
        "Heading not as told",
        "degrees off, either way",
        (0, 2, 4, 6, 8, 10, 15, 20),
        "rotate",
        "The strip's heading is off by just so much, and the locator is told nothing of it.",
    ),
    "scale": Curve(
        "Scale not as told",
        "percent off, either way",
        (0, 5, 10, 15, 20, 25),
        "scale_percent",
        "The strip's pixels are so much larger or smaller than told, and the locator is told nothing of it.",
    ),
    "looks": Curve(
        "Speckle",
        "looks of the speckle added",
        (16, 8, 4, 2, 1),
        "looks",
        "Gamma speckle multiplied into the scene's own.",
    ),
    "size": Curve(
        "Size", "side of the windows, px", (64, 104, 150, 200, 300, 400), "size_px", "Squares, everything as told."
    ),
    "overlap": Curve(
        "Overlap",
        "percent of the window on the map",
        (100, 90, 75, 60, 50),
        "overlap",
        "Windows over the map's edge, everything as told.",
    ),
}


@dataclass(frozen=True)
class Point:
    """What was found at one value of one curve; shares of textured windows, with intervals after Wilson."""

    curve: str
    value: float
    windows: int
    textured: int
    within: float
    within_low: float
    within_high: float
    recall_1: float
    recall_100: float
    located: int
    located_wrong: int


def options_at(curve: Curve, value: float, plain: WindowOptions) -> WindowOptions:
    """The windows of a point."""
    return replace(plain, exact=True, **{curve.field: _setting(curve, value)})


def _setting(curve: Curve, value: float) -> Any:
    if curve.field == "overlap":
        return value / 100
    return int(value) if curve.field == "size_px" else value


def measure(
    locator: Locator,
    sar: str | os.PathLike[str],
    plain: WindowOptions,
    output: Path,
    names: Sequence[str] = tuple(CURVES),
    *,
    progress: Progress = lambda stage, done, total: None,
) -> list[Point]:
    """Points of some curves, in a folder that then holds curves.json, a plot of each and a report.

    Args:
        locator: of the map.
        sar: a georeferenced scene that shows it.
        plain: the windows, of which one thing is changed at a time.
        output: created where it is missing; points that it holds already, of the same map, scene and windows, stay.
        names: of CURVES.
        progress: called with the curve, what is done of it and the total.

    Raises:
        UsageError: no such curve, or what draws the report is not installed.
        InputError: as ``evaluation.predict``; or the folder's points are of something else.
        OutputError: the folder cannot be written.
    """
    for name in names:
        if name not in CURVES:
            raise UsageError(f"no curve is called {name!r}", where="--curve", hint=f"choose {', '.join(CURVES)}")
    check_output(output)
    with writing(output):
        output.mkdir(exist_ok=True)
    settings = _settings(locator, sar, plain)
    points = _read(output / POINTS, settings)
    for name in names:
        curve = CURVES[name]
        for done, value in enumerate(curve.values):
            progress(name, done, len(curve.values))
            if any(point.curve == name and point.value == value for point in points):
                continue
            scores = score(list(predict(locator, sar, options_at(curve, value, plain))))
            points.append(_point(name, value, scores))
            points.sort(key=_order)
            with output_file(output / POINTS) as file:
                text = {"settings": settings, "points": [asdict(point) for point in points]}
                file.write_text(json.dumps(text, indent=1, allow_nan=False) + "\n")
        progress(name, len(curve.values), len(curve.values))
    _write_report(output, points, f"{Path(sar).name} on {locator.index.path.name}")
    return [point for point in points if point.curve in names]


def _order(point: Point) -> tuple[int, int]:
    return list(CURVES).index(point.curve), CURVES[point.curve].values.index(point.value)


def _settings(locator: Locator, sar: str | os.PathLike[str], plain: WindowOptions) -> dict[str, Any]:
    """What points must have in common."""
    manifest = locator.index.manifest
    return {
        "map": " ".join(source.sha256 for source in manifest.sources),
        "encoder": manifest.encoder.name,
        "scene": Path(sar).name,
        "windows": plain.windows,
        "size_px": plain.size_px,
        "seed": plain.seed,
        "bbox": None if plain.bbox is None else list(plain.bbox),
    }


def _read(file: Path, settings: dict[str, Any]) -> list[Point]:
    if not file.exists():
        return []
    try:
        kept = json.loads(file.read_text())
        if kept["settings"] != settings:
            hint = "write to another folder"
            raise InputError("holds curves of another map, scene, encoder or choice of windows", where=file, hint=hint)
        return [Point(**point) for point in kept["points"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"holds no curves ({error})", where=file, hint="write to another folder") from error


def _point(name: str, value: float, scores: dict[str, Any]) -> Point:
    low, high = scores["success_px_textured_ci"][WITHIN_PX]
    recall = scores["recall_textured"]
    return Point(
        curve=name,
        value=value,
        windows=scores["windows"],
        textured=scores["textured"],
        within=scores["success_px_textured"][WITHIN_PX] or 0.0,
        within_low=low,
        within_high=high,
        recall_1=recall["1"] or 0.0,
        recall_100=recall["100"] or 0.0,
        located=scores["located"],
        located_wrong=scores["located_wrong"],
    )


def tables(points: Sequence[Point]) -> list[ReportTable]:
    """A table of each curve of which there are points."""
    columns = (
        "",
        "windows",
        "textured",
        f"within {WITHIN_PX} px",
        "interval",
        "recall@1",
        "recall@100",
        "located",
        "of these wrong",
    )
    return [
        ReportTable(
            curve.title,
            (curve.unit, *columns[1:]),
            [
                (
                    f"{point.value:g}",
                    point.windows,
                    point.textured,
                    point.within,
                    f"{point.within_low:.3f}-{point.within_high:.3f}",
                    point.recall_1,
                    point.recall_100,
                    point.located,
                    point.located_wrong,
                )
                for point in points
                if point.curve == name
            ],
            f"{curve.note} Shares are of textured windows; recall is that of the vectors; intervals after Wilson.",
        )
        for name, curve in CURVES.items()
        if any(point.curve == name for point in points)
    ]


def _write_report(folder: Path, points: Sequence[Point], title: str) -> None:
    from geomatch import plots

    parts: list[ReportTable | ReportPicture] = []
    shown = [name for name in CURVES if any(point.curve == name for point in points)]
    for name, table in zip(shown, tables(points), strict=True):
        curve, own = CURVES[name], [point for point in points if point.curve == name]
        picture = folder / f"{name}.png"
        plots.tolerance(
            [point.value for point in own],
            {f"within {WITHIN_PX} px": [(point.within, point.within_low, point.within_high) for point in own]},
            {"recall@1 of the vectors": [point.recall_1 for point in own]},
            picture,
            title=f"{curve.title} (n = {own[0].textured} textured windows)",
            unit=curve.unit,
        )
        parts += [table, ReportPicture(curve.title, curve.note, picture, alt=curve.note)]
    intro = "How what is found falls off with one error at a time. Computed from curves.json."
    write_report(folder / "report.html", f"Tolerance: {title}", intro, parts)
