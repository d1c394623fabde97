"""How well an index answers: windows of a georeferenced SAR scene, their position hidden, are located and scored.

Predictions come first and go to a file, one JSON object per line; scores are computed from that file alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from geomatch.errors import InputError
from geomatch.extras import needs_extra
from geomatch.files import check_target, writing
from geomatch.geo import (
    ground_jacobian,
    ground_resolution_m,
    linear_part,
    linear_to_map,
    pixel_between,
)
from geomatch.images import SarRadiometry
from geomatch.location import Status
from geomatch.locator import Locator, Trace
from geomatch.metrics import auroc, first_hit, recall_at, wilson
from geomatch.outputs import output_file
from geomatch.raster import open_raster
from geomatch.sampling import WindowOptions, window_cuts
from geomatch.strips import RawStrip, Strip
from geomatch.texture import is_textured

RECALL_AT = (1, 5, 10, 50, 100)
SUCCESS_PX = (2, 5, 10, 50)
OVERLAP = 0.5  # intersection over union from which a candidate shows the place

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prediction:
    """One window, where it is, and where it was found.

    Attributes:
        on_map: whether it was cut within the map.
        truth_px: [2] its centre, pixels of the index's map; None off the map.
        found_px: [2] centre of the best place, or None when the answer gives none.
        metres_per_px: of the map there.
        rank: of the first retrieved place that overlaps the true one by OVERLAP, from 1; 0 for none. Where the vector
            search is not used (windows smaller than a tile, exhaustive search), of the places by their correlation.
        textured: whether the map shows anything there (``geomatch.texture.is_textured``).
        status, confidence: of the answer.
        signs: what the confidence was read from (``Signs.values``), or None.
        wall_s, cpu_s: of the query.
        heading_error_deg: of the best place's heading, in [0, 180]; None where it was told, or off the map.
        scale_error_percent: of the best place's scale, likewise.
    """

    on_map: bool
    truth_px: tuple[float, float] | None
    found_px: tuple[float, float] | None
    metres_per_px: float
    rank: int
    textured: bool
    status: str
    confidence: float
    signs: tuple[float, ...] | None
    wall_s: float
    cpu_s: float
    heading_error_deg: float | None = None
    scale_error_percent: float | None = None

    @property
    def error_px(self) -> float:
        """Distance of the found from the true centre, infinite when the answer gives no place."""
        if self.truth_px is None or self.found_px is None or self.status not in ("located", "ambiguous"):
            return float("inf")
        return float(np.hypot(*np.subtract(self.truth_px, self.found_px)))


def predict(
    locator: Locator,
    sar: str | os.PathLike[str],
    options: WindowOptions,
    *,
    on_map: bool = True,
    progress: Progress = lambda done, total: None,
) -> Iterator[Prediction]:
    """Locate random windows of a SAR scene.

    Args:
        locator: of the map.
        sar: a georeferenced scene.
        options: which windows.
        on_map: whether the scene shows the map; if not, windows come from all of it and have no true place.
        progress: called with the windows done and the total.

    Raises:
        InputError: the scene cannot be used, or too few windows of it lie in the map and hold data.
    """
    with open_raster(sar, need_grid=True) as raster:
        assert raster.grid is not None, "opened with need_grid"
        radiometry = SarRadiometry.detect(raster)
        ground = ground_jacobian(locator.index.grid)
        cuts = list(window_cuts(raster, raster.grid, locator.index, options, on_map=on_map))
        for done, cut in enumerate(cuts):
            progress(done, len(cuts))
            patch = cut.read(raster, radiometry)
            if options.looks is not None:
                patch = radiometry.speckled(patch, options.looks, np.random.default_rng((options.seed, done)))
            window = raster.grid.window(cut.col, cut.row, cut.width, cut.height)
            wall, cpu = time.perf_counter(), time.process_time()
            linear = linear_to_map(window, locator.index.grid)
            told = options.told
            raw = RawStrip.of(patch, linear, radiometry.relative_to(patch), ground=ground, tolerance=told)
            trace = locator.find(raw)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            truth = _Truth(
                center_px=pixel_between(window, locator.index.grid, window.center_px),
                raw=replace(raw, linear=linear @ linear_part(cut.to_scene)),
            )
            yield _prediction(locator, trace, truth if on_map else None, (wall, cpu))
        progress(len(cuts), len(cuts))


def evaluate(
    locator: Locator,
    sar: str | os.PathLike[str],
    options: WindowOptions,
    *,
    absent: str | os.PathLike[str] | None = None,
    output: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Predict, write the predictions, score the file.

    Args:
        locator: of the map.
        sar: a georeferenced scene that shows it.
        options: which windows.
        absent: a scene that does not show it; as many windows of it are asked too.
        output: folder for predictions, scores, plots and a report, created where it is missing; default none.
        progress: called with the stage, what is done and the total.

    Raises:
        InputError: as ``predict``.
        OutputError: the folder cannot be written.
        UsageError: what draws the report is not installed.
    """
    if output is not None:
        check_output(output)
    made = list(predict(locator, sar, options, progress=partial(progress, "windows")))
    if absent is not None:
        made += predict(locator, absent, options, on_map=False, progress=partial(progress, "off the map"))
    if output is None:
        return score(made)
    from geomatch.summary import PREDICTIONS, write_summary

    with writing(output):
        output.mkdir(exist_ok=True)
    with output_file(output / PREDICTIONS) as file:
        write_predictions(made, file)
    predictions = read_predictions(output / PREDICTIONS)
    scores = score(predictions)
    write_summary(output, predictions, scores, f"{Path(sar).name} on {locator.index.path.name}")
    return scores


def check_output(folder: Path) -> None:
    """Find out before the work whether a report could be written there."""
    with needs_extra("report", "evaluate with a folder for its report"):
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    check_target(folder, directory=True)


def write_predictions(predictions: Sequence[Prediction], file: Path) -> None:
    """One JSON object per line."""
    file.write_text("".join(json.dumps(asdict(prediction)) + "\n" for prediction in predictions))


def read_predictions(file: Path) -> list[Prediction]:
    """What ``write_predictions`` wrote.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return [Prediction(**json.loads(line)) for line in file.read_text().splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"no predictions ({error})", where=file, hint="run geomatch evaluate again") from error


def score(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The measures of some predictions, JSON-able.

    Shares come with the 95 % interval of Wilson under the same name and ``_ci``. A window counts as a success within
    r px when its answer gives a place and the centre of that place is within r px of the true centre. Percentiles of
    the error are over the windows whose answer gives a place.
    """
    seen = [prediction for prediction in predictions if prediction.on_map]
    textured = [prediction for prediction in seen if prediction.textured]
    errors_m = np.array([prediction.error_px * prediction.metres_per_px for prediction in seen])
    placed = errors_m[np.isfinite(errors_m)]
    located = [prediction for prediction in seen if prediction.status == "located"]
    absent = [prediction.confidence for prediction in predictions if not prediction.on_map]
    return {
        "windows": len(seen),
        "textured": len(textured),
        "recall": {str(k): recall_at([prediction.rank for prediction in seen], k) for k in RECALL_AT},
        "recall_textured": {str(k): recall_at([prediction.rank for prediction in textured], k) for k in RECALL_AT},
        **_success("success_px", seen),
        **_success("success_px_textured", textured),
        "error_m": _percentiles(placed, (50, 90, 95)),
        **_attitude_errors(predictions),
        "answered": int(placed.size),
        "located": len(located),
        "located_wrong": sum(prediction.error_px > SUCCESS_PX[2] for prediction in located),
        "status": _statuses(seen),
        "absent_windows": len(absent),
        "absent_status": _statuses([prediction for prediction in predictions if not prediction.on_map]),
        "absent_auroc": auroc([prediction.confidence for prediction in seen], absent),
        "wall_s_per_query": float(np.mean([prediction.wall_s for prediction in predictions])) if predictions else None,
        "cpu_s_per_query": float(np.mean([prediction.cpu_s for prediction in predictions])) if predictions else None,
    }


def _attitude_errors(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Percentiles over the located ones, of what was to be found."""
    errors: dict[str, Any] = {}
    for name in ("heading_error_deg", "scale_error_percent"):
        if any(getattr(prediction, name) is not None for prediction in predictions):
            found = [getattr(prediction, name) for prediction in predictions if prediction.status == "located"]
            errors[name] = _percentiles(np.array([value for value in found if value is not None]), (50, 90))
    return errors


def _percentiles(values: NDArray[np.float64], percents: Sequence[int]) -> dict[str, float | None]:
    return {f"p{p}": float(np.percentile(values, p)) if values.size else None for p in percents}


def _statuses(predictions: Sequence[Prediction]) -> dict[str, int]:
    return {name: sum(p.status == name for p in predictions) for name in get_args(Status)}


def _success(name: str, predictions: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
    counts = {px: sum(prediction.error_px <= px for prediction in predictions) for px in SUCCESS_PX}
    total = len(predictions)
    return {
        name: {str(px): count / total if total else None for px, count in counts.items()},
        f"{name}_ci": {str(px): wilson(count, total) for px, count in counts.items()},
    }


@dataclass(frozen=True)
class _Truth:
    """Where a window was cut: its centre, pixels of the map, and the window as it lies there."""

    center_px: NDArray[np.float64]
    raw: RawStrip

    def heading_error_deg(self, strip: Strip) -> float | None:
        """Of a strip's heading, in [0, 180]; None where it was told."""
        if not self.raw.tolerance.turn_deg or strip.heading_deg is None:
            return None
        return abs((strip.heading_deg - self.raw.heading_deg() + 180) % 360 - 180)

    def scale_error_percent(self, strip: Strip) -> float | None:
        """Of a strip's scale; None where it was told."""
        if self.raw.tolerance.scale == 1:
            return None
        found, true = abs(strip.from_file.determinant), abs(float(np.linalg.det(self.raw.linear)))
        return 100 * abs(float(np.sqrt(found / true)) - 1)


def _prediction(locator: Locator, trace: Trace, truth: _Truth | None, seconds: tuple[float, float]) -> Prediction:
    """What a trace says, against the truth; None off the map."""
    strip = trace.strip
    middle = strip.middle_px
    size_px = (strip.image.shape[1], strip.image.shape[0])
    corner = None if truth is None else truth.center_px - middle
    return Prediction(
        on_map=truth is not None,
        truth_px=None if truth is None else (float(truth.center_px[0]), float(truth.center_px[1])),
        found_px=trace.found_px,
        metres_per_px=ground_resolution_m(locator.index.grid, None if truth is None else truth.center_px),
        rank=0 if corner is None else first_hit(_ranked(trace), corner, size_px, OVERLAP),
        textured=corner is not None and _textured(locator, corner, size_px),
        status=trace.location.status,
        confidence=trace.location.confidence,
        signs=None if trace.judged is None else trace.judged.signs.values(),
        wall_s=seconds[0],
        cpu_s=seconds[1],
        heading_error_deg=None if truth is None or trace.judged is None else truth.heading_error_deg(strip),
        scale_error_percent=None if truth is None or trace.judged is None else truth.scale_error_percent(strip),
    )


def _ranked(trace: Trace) -> NDArray[np.float64]:
    """Places in the order of the vector search; where it was not used, in that of their correlation."""
    if len(trace.retrieved) or trace.judged is None:
        return trace.retrieved.corners_px
    return trace.judged.places.corners_px


def _textured(locator: Locator, corner_px: NDArray[np.float64], size_px: tuple[int, int]) -> bool:
    """Whether the map shows anything at a place; without the map's pixels every place counts."""
    pixels = locator.pixels
    if pixels is None:
        return True
    left, top = np.rint(corner_px).astype(int) + pixels.origin_px
    patch = pixels.raster.read(int(left), int(top), *size_px, bands=pixels.stretch.bands)
    return is_textured(pixels.stretch.grey(patch), patch.valid)
