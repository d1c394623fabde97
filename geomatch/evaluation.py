"""How well an index answers: windows of a georeferenced SAR scene, their position hidden, are located and scored.

Predictions come first and go to a file, one JSON object per line; scores are computed from that file alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from geomatch.answer import Judged
from geomatch.extras import needs_extra
from geomatch.files import check_target, writing
from geomatch.geo import ground_resolution_m
from geomatch.hidden import Progress, Truth, hidden_windows
from geomatch.location import Status
from geomatch.locator import Locator, Trace
from geomatch.metrics import OVERLAP, auroc, calibration_error, first_hit, recall_at, wilson
from geomatch.outputs import output_file
from geomatch.rows import read_rows, write_rows
from geomatch.sampling import WindowOptions
from geomatch.strips import Strip
from geomatch.texture import is_textured

RECALL_AT = (1, 5, 10, 50, 100)
SUCCESS_PX = (2, 5, 10, 50)
RIGHT_PX = 10


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
        radius_px: the answer's error radius, or None.
        stand: of all places, how they stand against the best (``geomatch.posterior.standings``).
        right_place: number of the place within RIGHT_PX of the true one, None where none is.
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
    radius_px: float | None = None
    stand: tuple[float, ...] = ()
    right_place: int | None = None
    heading_error_deg: float | None = None
    scale_error_percent: float | None = None

    @property
    def error_px(self) -> float:
        """Distance of the found from the true centre, infinite when the answer gives no place."""
        return self.best_error_px if self.status in ("located", "ambiguous") else float("inf")

    @property
    def best_error_px(self) -> float:
        """The same of the best place, whether or not the answer gives it."""
        if self.truth_px is None or self.found_px is None:
            return float("inf")
        return float(np.hypot(*np.subtract(self.truth_px, self.found_px)))

    @property
    def right(self) -> bool:
        """Whether the best place is the true one: what the confidence is the probability of."""
        return self.best_error_px <= RIGHT_PX


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
    for window in hidden_windows(locator.index, sar, options, on_map=on_map, progress=progress):
        wall, cpu = time.perf_counter(), time.process_time()
        trace = locator.find(window.raw)
        seconds = (time.perf_counter() - wall, time.process_time() - cpu)
        yield _prediction(locator, trace, window.truth, seconds)


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
        write_rows(made, file)
    predictions = read_rows(output / PREDICTIONS, Prediction)
    scores = score(predictions)
    write_summary(output, predictions, scores, f"{Path(sar).name} on {locator.index.path.name}")
    return scores


def check_output(folder: Path) -> None:
    """Find out before the work whether a report could be written there."""
    with needs_extra("report", "evaluate with a folder for its report"):
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    check_target(folder, directory=True)


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
        "located_wrong": sum(not prediction.right for prediction in located),
        "status": _statuses(seen),
        "locatable": sum(prediction.right for prediction in seen),
        "located_right": sum(prediction.right for prediction in located),
        "radius_covers": _covered(located),
        "calibration_error": calibration_error(
            [prediction.confidence for prediction in predictions], [prediction.right for prediction in predictions]
        ),
        "absent_windows": len(absent),
        "absent_status": _statuses([prediction for prediction in predictions if not prediction.on_map]),
        "absent_auroc": auroc([prediction.confidence for prediction in seen], absent),
        "wall_s_per_query": float(np.mean([prediction.wall_s for prediction in predictions])) if predictions else None,
        "cpu_s_per_query": float(np.mean([prediction.cpu_s for prediction in predictions])) if predictions else None,
    }


def _covered(located: Sequence[Prediction]) -> float | None:
    """Share of located windows whose true centre is within the error radius."""
    inside = [one.error_px <= one.radius_px for one in located if one.radius_px is not None]
    return float(np.mean(inside)) if inside else None


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


def _heading_error_deg(truth: Truth, strip: Strip) -> float | None:
    """Of a strip's heading, in [0, 180]; None where it was told."""
    if not truth.raw.tolerance.turn_deg or strip.heading_deg is None:
        return None
    return abs((strip.heading_deg - truth.raw.heading_deg() + 180) % 360 - 180)


def _scale_error_percent(truth: Truth, strip: Strip) -> float | None:
    """Of a strip's scale; None where it was told."""
    if truth.raw.tolerance.scale == 1:
        return None
    found, true = abs(strip.from_file.determinant), abs(float(np.linalg.det(truth.raw.linear)))
    return 100 * abs(float(np.sqrt(found / true)) - 1)


def _prediction(locator: Locator, trace: Trace, truth: Truth | None, seconds: tuple[float, float]) -> Prediction:
    """What a trace says, against the truth; None off the map."""
    strip = trace.strip
    middle = strip.middle_px
    size_px = (strip.image.shape[1], strip.image.shape[0])
    corner = None if truth is None else truth.center_px - middle
    metres = ground_resolution_m(locator.index.grid, None if truth is None else truth.center_px)
    radius_m = trace.location.error_radius_m
    return Prediction(
        on_map=truth is not None,
        truth_px=None if truth is None else (float(truth.center_px[0]), float(truth.center_px[1])),
        found_px=trace.found_px,
        metres_per_px=metres,
        rank=0 if corner is None else first_hit(_ranked(trace), corner, size_px, OVERLAP),
        textured=corner is not None and _textured(locator, corner, size_px),
        status=trace.location.status,
        confidence=trace.location.confidence,
        signs=None if trace.judged is None else trace.judged.signs.values(),
        wall_s=seconds[0],
        cpu_s=seconds[1],
        radius_px=None if radius_m is None else radius_m / metres,
        stand=() if trace.judged is None else tuple(np.round(trace.judged.stand, 4).tolist()),
        right_place=None if corner is None or trace.judged is None else _right_place(trace.judged, corner),
        heading_error_deg=None if truth is None or trace.judged is None else _heading_error_deg(truth, strip),
        scale_error_percent=None if truth is None or trace.judged is None else _scale_error_percent(truth, strip),
    )


def _right_place(judged: Judged, corner_px: NDArray[np.float64]) -> int | None:
    """Number of the first place that is the true one, the chosen one as it was refined."""
    corners = np.vstack([judged.corner_px, judged.places.corners_px[1:]])
    near = np.linalg.norm(corners - corner_px, axis=1) <= RIGHT_PX
    return int(near.argmax()) if near.any() else None


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
