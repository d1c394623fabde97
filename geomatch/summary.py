"""The measures of an evaluation for people: tables on the terminal, a report with plots in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geomatch.evaluation import Prediction
from geomatch.metrics import OVERLAP
from geomatch.outputs import output_file
from geomatch.report import ReportPicture, ReportTable, write_report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDEST = 1000  # characters of a table in a file
PREDICTIONS, SCORES, REPORT = "predictions.jsonl", "scores.json", "report.html"


def tables(scores: dict[str, Any]) -> list[ReportTable]:
    """The measures as tables.

    Args:
        scores: as ``geomatch.evaluation.score`` gives them.
    """
    success = [
        (
            f"within {px} px",
            scores["success_px"][px],
            _interval(scores["success_px_ci"][px]),
            scores["success_px_textured"][px],
            _interval(scores["success_px_textured_ci"][px]),
        )
        for px in scores["success_px"]
    ]
    recall = [(f"recall@{k}", share, scores["recall_textured"][k]) for k, share in scores["recall"].items()]
    error = scores["error_m"]
    answers = [
        ("error of answers with a place, median", f"{_cell(error['p50'])} m"),
        ("90th percentile", f"{_cell(error['p90'])} m"),
        ("95th percentile", f"{_cell(error['p95'])} m"),
        ("wrong among located", f"{scores['located_wrong']} of {scores['located']}"),
        ("located among those whose best place is right", f"{scores['located_right']} of {scores['locatable']}"),
        ("located with the true centre within the error radius", _cell(scores["radius_covers"])),
        ("expected calibration error of the confidence", _cell(scores["calibration_error"])),
        *((name, f"{count} of {scores['windows']}") for name, count in scores["status"].items()),
        ("area under ROC, on the map against off it", _cell(scores["absent_auroc"])),
        ("wall seconds per query", _cell(scores["wall_s_per_query"])),
        ("CPU seconds per query", _cell(scores["cpu_s_per_query"])),
    ]
    counts = f"n = {scores['windows']} windows, {scores['textured']} of them textured; 95 % intervals after Wilson."
    return [
        ReportTable("Success", ("centre found", "all", "interval", "textured", "interval"), success, counts),
        ReportTable(
            "Vector search",
            ("measure", "all", "textured"),
            recall,
            f"A retrieved place counts when it overlaps the true one by {OVERLAP:g} or more (intersection over union).",
        ),
        ReportTable("Answers", ("measure", "value"), answers),
    ]


def print_tables(shown_tables: Sequence[ReportTable]) -> None:
    """Tables on stdout: no cell is cut off, and in a file or a pipe no table is narrower than it needs."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for table in shown_tables:
        shown = Table(title=table.title, title_justify="left", caption=table.caption, caption_justify="left")
        for column, alignment in zip(table.columns, table.alignments, strict=True):
            shown.add_column(column, justify="right" if alignment == "number" else "left", overflow="fold")
        for row in table.rows:
            shown.add_row(*(_cell(cell) for cell in row))
        print_whole(console, shown)


def print_whole(console: Console, table: Table) -> None:
    """Print a table; a console that is no terminal becomes as wide as the table needs."""
    if not console.is_terminal:
        wide = console.options.update(max_width=_WIDEST)
        console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)


def write_summary(folder: Path, predictions: Sequence[Prediction], scores: dict[str, Any], title: str) -> None:
    """Scores as JSON, plots, and an HTML report of both, beside the predictions.

    Raises:
        UsageError: matplotlib or jinja2 is not installed.
        OutputError: the folder cannot be written.
    """
    from geomatch import plots

    with output_file(folder / SCORES) as file:
        file.write_text(json.dumps(scores, indent=1, allow_nan=False) + "\n")
    seen = [prediction for prediction in predictions if prediction.on_map]
    elsewhere = [prediction.confidence for prediction in predictions if not prediction.on_map]
    groups = {"all": seen, "textured": [prediction for prediction in seen if prediction.textured]}
    groups = {name: group for name, group in groups.items() if group}
    ranks = {name: np.array([prediction.rank for prediction in group]) for name, group in groups.items()}
    errors = {
        name: np.array([prediction.error_px * prediction.metres_per_px for prediction in group])
        for name, group in groups.items()
    }
    right = [prediction.right for prediction in predictions]
    sure = [prediction.confidence for prediction in predictions]
    pictures = [
        ("error", "Error", "Share of windows found within a distance of their true place."),
        ("recall", "Recall", "Share of windows whose place is among the first k retrieved."),
        (
            "reliability",
            "Reliability",
            "How often best places of a confidence are right, windows off the map included.",
        ),
        ("risk", "Risk and coverage", "How often answers are wrong when only so many of the surest are given."),
    ]
    plots.error_cdf(errors, folder / "error.png")
    plots.recall_curve(ranks, folder / "recall.png")
    plots.confidence_reliability(sure, right, folder / "reliability.png")
    plots.risk_coverage(sure, right, folder / "risk.png")
    if elsewhere:
        plots.absent_roc([prediction.confidence for prediction in seen], elsewhere, folder / "absent.png")
        pictures.append(("absent", "Absent", "Windows off the map against windows of the map."))
    drawn = [ReportPicture(name, caption, folder / f"{file}.png", alt=caption) for file, name, caption in pictures]
    intro = "Windows of a SAR scene whose position was hidden, located on the map. Computed from predictions.jsonl."
    write_report(folder / REPORT, title, intro, [*tables(scores), *drawn])


def _interval(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.3f}-{bounds[1]:.3f}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
