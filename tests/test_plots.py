"""What the plots draw, against the same numbers in plain loops, and the files that they write."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from disk import small_disk
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomatch.errors import OutputError, UsageError
from geomatch.plots import absent_roc, confidence_reliability, error_cdf, recall_curve, risk_coverage

RANKS = np.array([1, 1, 3, 0, 250, 7, 2, 100])
ERRORS = np.array([4.0, np.inf, 0.5, 20.0, 4.0])
CONFIDENCE = np.array([0.05, 0.92, 0.98, 1.0, 0.93])
RIGHT = np.array([False, True, True, True, False])

Plot = Callable[[Path], None]
PLOTS: list[Plot] = [
    partial(recall_curve, {"all": RANKS, "textured": RANKS[:4]}),
    partial(error_cdf, {"all": ERRORS}),
    partial(confidence_reliability, CONFIDENCE, RIGHT),
    partial(risk_coverage, CONFIDENCE, RIGHT),
    partial(absent_roc, CONFIDENCE, CONFIDENCE / 2),
]
NOTHING: list[Plot] = [
    partial(recall_curve, {"all": RANKS[:0]}),
    partial(error_cdf, {"all": ERRORS[:0]}),
    partial(error_cdf, {"all": ERRORS[1:2]}),
    partial(confidence_reliability, [], []),
    partial(risk_coverage, [], []),
    partial(absent_roc, [], [0.5]),
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Plot], Axes]:
    """Draws a plot and gives the axes that were saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def saved(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", saved)

    def draw(plot: Plot) -> Axes:
        plot(tmp_path / "plot.png")
        return figures[-1].axes[0]

    return draw


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("plot", [*PLOTS, *NOTHING])
def test_every_plot_is_a_png_with_axes_that_say_what_they_show(plot: Plot, drawn: Any, tmp_path: Path) -> None:
    axes = drawn(plot)
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert picture is not None
    assert min(picture.shape[:2]) > 400
    assert axes.get_xlabel() and axes.get_ylabel()
    assert "n = " in " ".join([axes.get_title(), *legend_of(axes)])
    assert [file.name for file in tmp_path.iterdir()] == ["plot.png"]


def test_risk_is_the_share_of_wrong_ones_among_the_surest(drawn: Any) -> None:
    (line,) = drawn(partial(risk_coverage, [0.2, 0.9, 0.6, 0.4], [False, True, False, True])).lines
    np.testing.assert_allclose(line.get_data(), ([0.25, 0.5, 0.75, 1.0], [0.0, 1 / 2, 1 / 3, 2 / 4]))


def test_recall_is_the_share_of_ranks_within_k(drawn: Any) -> None:
    axes = drawn(PLOTS[0])
    for line, ranks in zip(axes.lines, (RANKS, RANKS[:4]), strict=True):
        for k, recall in zip(*line.get_data(), strict=True):
            assert recall == sum(1 <= rank <= k for rank in ranks) / len(ranks)
    assert legend_of(axes) == ["all (n = 8)", "textured (n = 4)"]


def test_windows_without_a_place_never_count_as_found(drawn: Any) -> None:
    axes = drawn(PLOTS[1])
    (line,) = axes.lines
    x, y = line.get_data()
    for metres in (0.2, 0.6, 3.9, 4.1, 19.0):
        expected = sum(error <= metres for error in ERRORS) / len(ERRORS)
        assert y[np.searchsorted(x, metres, side="right") - 1] == pytest.approx(expected)
    assert max(y) == 0.8
    assert axes.get_xlim() == (0.1, 20.0)


def test_calibration_compares_the_mean_confidence_of_a_bin_with_its_hits(drawn: Any) -> None:
    axes = drawn(PLOTS[2])
    points = [tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xydata()) == 1]
    assert points == [pytest.approx((0.05, 0)), pytest.approx(((0.92 + 0.98 + 1 + 0.93) / 4, 0.75))]
    assert [text.get_text() for text in axes.texts] == ["1", "4"]


def test_the_roc_is_stepped_through_every_threshold(drawn: Any) -> None:
    on_map, off_map = np.array([0.9, 0.6, 0.6, 0.2]), np.array([0.6, 0.1])
    axes = drawn(partial(absent_roc, on_map, off_map))
    (curve,) = [line for line in axes.lines if len(line.get_xydata()) > 2]
    # Thresholds 1, 0.9, 0.6, 0.2, 0.1 by hand.
    assert curve.get_xydata().tolist() == [[0, 0], [0, 0.25], [0.5, 0.75], [0.5, 1], [1, 1]]
    area = np.mean([(on > off) + (on == off) / 2 for on in on_map for off in off_map])
    assert legend_of(axes)[1] == f"confidence, area {area:.3f}"


@pytest.mark.parametrize("plot", PLOTS)
class TestBadPaths:
    def test_missing_folder(self, tmp_path: Path, plot: Plot) -> None:
        with pytest.raises(OutputError, match="does not exist"):
            plot(tmp_path / "nowhere" / "plot.png")

    def test_full_disk(self, tmp_path: Path, plot: Plot) -> None:
        with small_disk(1000), pytest.raises(OutputError):
            plot(tmp_path / "plot.png")
        assert not list(tmp_path.iterdir())

    def test_missing_extra(self, tmp_path: Path, plot: Plot, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(UsageError, match=r"matplotlib.*pip install 'geomatch\[report\]'"):
            plot(tmp_path / "plot.png")


def test_pyplot_is_never_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from geomatch.plots import error_cdf; assert 'matplotlib' not in sys.modules;"
        "error_cdf({'all': np.ones(3)}, sys.argv[1]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "plot.png")], check=True)
