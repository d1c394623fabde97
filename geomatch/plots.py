"""Plots of an evaluation as PNG files: recall, error, calibration, and telling what is not on the map."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geomatch.extras import needs_extra
from geomatch.metrics import auroc, recall_at, wilson
from geomatch.outputs import output_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (5.6, 4.2)
DPI = 130
BINS = 10  # of confidence
POWERS = "{x:g}"  # 100 rather than 10 to the second
LEAST_M = 0.1  # where the logarithmic axis of errors starts

# Of Okabe & Ito's palette, and of lines that are told apart without colour too.
STYLES = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"))

Target = str | os.PathLike[str]


def recall_curve(ranks: Mapping[str, NDArray[np.int64]], target: Target, *, most: int = 100) -> None:
    """Recall@k over k.

    Args:
        ranks: by what they are called in the legend, [N] rank of each window's first right tile from 1; 0 for none.
        target: the PNG file.
        most: largest k.

    Raises:
        UsageError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    k = np.arange(1, most + 1)
    with _plot(target, "Recall of the vector search", "k, tiles retrieved", "recall@k") as axes:
        for (name, rank), (color, line) in zip(ranks.items(), STYLES, strict=False):
            share = [recall_at(rank, int(i)) for i in k]
            axes.plot(k, share, line, color=color, label=_counted(name, rank), drawstyle="steps-post")
        axes.set(xscale="log", xlim=(1, most), ylim=(0, 1.02))
        axes.xaxis.set_major_formatter(POWERS)
        axes.legend(loc="lower right")


def error_cdf(errors_m: Mapping[str, NDArray[np.float64]], target: Target) -> None:
    """Share of windows found within a distance of their true place.

    Args:
        errors_m: by what they are called in the legend, [N] metres; infinite where no place was given.
        target: the PNG file.

    Raises:
        UsageError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    with _plot(target, "Error of position", "distance from the true centre, m", "share of windows within it") as axes:
        far = max([LEAST_M * 10, *(errors[np.isfinite(errors)].max(initial=0) for errors in errors_m.values())])
        for (name, errors), (color, line) in zip(errors_m.items(), STYLES, strict=False):
            reached = np.sort(errors[np.isfinite(errors)])
            share = np.arange(len(reached) + 1) / max(len(errors), 1)
            ends = np.concatenate([[LEAST_M], reached, [far]])
            axes.step(ends, [*share, share[-1]], line, where="post", color=color, label=_counted(name, errors))
        axes.set(xscale="log", xlim=(LEAST_M, far), ylim=(0, 1.02))
        axes.xaxis.set_major_formatter(POWERS)
        axes.legend(loc="upper left")


def confidence_reliability(confidence: ArrayLike, right: ArrayLike, target: Target) -> None:
    """How often answers of a confidence are right, in BINS bins with the 95 % interval of Wilson (1927).

    Args:
        confidence: [N] in [0, 1].
        right: [N] bool.
        target: the PNG file.

    Raises:
        UsageError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    said, hit = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    bins = np.minimum((said * BINS).astype(np.int64), BINS - 1)
    title = f"Calibration of the confidence (n = {said.size})"
    with _plot(target, title, "confidence", "share of right answers") as axes:
        axes.plot([0, 1], [0, 1], ":", color="0.5", label="calibrated")
        for number in np.unique(bins):
            inside = bins == number
            count, hits = int(inside.sum()), int(hit[inside].sum())
            low, high = wilson(hits, count)
            mean, share = float(said[inside].mean()), hits / count
            axes.errorbar(mean, share, [[max(share - low, 0)], [max(high - share, 0)]], fmt="o", color=STYLES[0][0])
            axes.annotate(str(count), (mean, share), xytext=(7, -3), textcoords="offset points", fontsize="small")
        axes.set(xlim=(0, 1.08), ylim=(-0.02, 1.02))
        axes.legend(loc="upper left")


def risk_coverage(confidence: ArrayLike, right: ArrayLike, target: Target) -> None:
    """Share of wrong answers among the surest, against the share that is answered (El-Yaniv & Wiener 2010).

    Args:
        confidence: [N] in [0, 1].
        right: [N] bool.
        target: the PNG file.

    Raises:
        UsageError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    said, hit = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    order = np.argsort(-said, kind="stable")
    answered = np.arange(1, said.size + 1)
    risk = np.cumsum(~hit[order]) / answered
    with _plot(target, "Risk and coverage", "share answered", "share of them wrong") as axes:
        axes.plot(answered / max(said.size, 1), risk, color=STYLES[0][0], label=f"surest first (n = {said.size})")
        axes.legend(loc="upper left")
        axes.set(xlim=(0, 1), ylim=(-0.02, max(0.1, float(risk.max(initial=0)) * 1.05)))


def absent_roc(on_map: ArrayLike, off_map: ArrayLike, target: Target) -> None:
    """How well the confidence tells windows of the map from windows of another place.

    Args:
        on_map: [N] confidence of windows that the map shows.
        off_map: [M] confidence of windows that it does not show.
        target: the PNG file.

    Raises:
        UsageError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    present, absent = np.asarray(on_map, dtype=np.float64), np.asarray(off_map, dtype=np.float64)
    area = auroc(present, absent)
    counts = f"n = {present.size} on the map, {absent.size} off it"
    title = f"Telling what is not on the map ({counts})"
    with _plot(target, title, "share of windows off the map accepted", "share of windows on the map accepted") as axes:
        axes.plot([0, 1], [0, 1], ":", color="0.5", label="chance")
        if area is not None:
            least = np.concatenate([[np.inf], np.unique(np.concatenate([present, absent]))[::-1]])[:, None]
            accepted = [(scores >= least).mean(axis=1) for scores in (absent, present)]
            axes.plot(*accepted, color=STYLES[0][0], label=f"confidence, area {area:.3f}")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="lower right")


def tolerance(
    values: Sequence[float],
    shares: Mapping[str, Sequence[tuple[float, float, float]]],
    recalls: Mapping[str, Sequence[float]],
    target: Target,
    *,
    title: str,
    unit: str,
) -> None:
    """How shares fall off over a value.

    Args:
        values: [N], even in a row where they are not.
        shares: by what they are called in the legend, [N] shares with the ends of their intervals.
        recalls: likewise, without intervals.
        target: the PNG file.
        title: of the plot.
        unit: of the values.

    Raises:
        UsageError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    at = np.arange(len(values))
    with _plot(target, title, unit, "share of windows") as axes:
        for number, (name, points) in enumerate(shares.items()):
            share, low, high = np.array(points, np.float64).reshape(-1, 3).T
            ends = np.maximum([share - low, high - share], 0)
            axes.errorbar(at, share, ends, fmt="o-", capsize=3, color=STYLES[number][0], label=name)
        for number, (name, recall) in enumerate(recalls.items(), start=len(shares)):
            axes.plot(at, recall, STYLES[number][1], marker="s", color=STYLES[number][0], label=name)
        axes.set(ylim=(0, 1.02))
        axes.set_xticks(at, [f"{value:g}" for value in values])
        axes.legend(loc="lower left")


def _counted(name: str, values: NDArray[np.generic]) -> str:
    return f"{name} (n = {values.size})"


@contextmanager
def _plot(target: Target, title: str, x: str, y: str) -> Iterator[Axes]:
    """Axes to draw on, written to ``target`` at the end; without pyplot, whose state is the process's."""
    with needs_extra("report", "drawing plots"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize="medium")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    yield axes
    with output_file(Path(target)) as file:
        figure.savefig(file, format="png", dpi=DPI)
