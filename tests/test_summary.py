"""The measures of an evaluation for people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_evaluation import FOUND, some_predictions

from geomatch.evaluation import Prediction, score
from geomatch.report import ReportTable
from geomatch.summary import print_tables, tables, write_summary

ABSENT = replace(FOUND, textured=False, status="absent")


def cells(table: ReportTable) -> dict[str, tuple[Any, ...]]:
    return {str(row[0]): tuple(row[1:]) for row in table.rows}


def test_tables_say_what_the_scores_say() -> None:
    scores = score(some_predictions(1))
    success, recall, answers = tables(scores)
    within = cells(success)["within 10 px"]
    assert (within[0], within[2]) == (scores["success_px"]["10"], scores["success_px_textured"]["10"])
    low, high = scores["success_px_ci"]["10"]
    assert within[1] == f"{low:.3f}-{high:.3f}"
    assert cells(recall)["recall@50"] == (scores["recall"]["50"], scores["recall_textured"]["50"])
    assert cells(answers)["located"] == (f"{scores['status']['located']} of {scores['windows']}",)
    assert cells(answers)["error of answers with a place, median"] == (f"{scores['error_m']['p50']:.3g} m",)
    assert f"n = {scores['windows']} windows, {scores['textured']} of them textured" in str(success.caption)


@pytest.mark.parametrize("made", [[ABSENT], [FOUND], [replace(FOUND, on_map=False, truth_px=None)]])
def test_nothing_measured_is_a_dash(made: list[Prediction], capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(tables(score(made)))
    out, err = capsys.readouterr()
    assert "nan" not in out
    assert "None" not in out
    assert "-" in out
    assert err == ""


def test_no_cell_is_cut_off_on_a_pipe_or_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"a method of a long name {number}" for number in range(9)]
    table = ReportTable("", tuple(f"column {number}" for number in range(9)), [names])
    print_tables([table])
    row = next(line for line in capsys.readouterr().out.splitlines() if "name" in line)
    assert all(name in row for name in names)
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, rich takes it, and of 80 columns
    monkeypatch.setenv("COLUMNS", "80")
    print_tables([table])
    assert "…" not in capsys.readouterr().out


def test_folder_holds_scores_plots_and_a_report(tmp_path: Path) -> None:
    made = some_predictions(2)
    write_summary(tmp_path, made, score(made), "scene.tif on <town>.gmi")
    pictures = {"error.png", "recall.png", "reliability.png", "risk.png", "absent.png"}
    assert {file.name for file in tmp_path.iterdir()} == {"scores.json", "report.html"} | pictures
    assert json.loads((tmp_path / "scores.json").read_text()) == json.loads(json.dumps(score(made)))
    page = (tmp_path / "report.html").read_text()
    assert "scene.tif on &lt;town&gt;.gmi" in page
    assert page.count("data:image/") + page.count('src="') >= len(pictures)


@pytest.mark.parametrize("made", [[ABSENT], [FOUND, ABSENT], some_predictions(0)[:1] + [FOUND]])
def test_hardly_any_prediction_is_a_report_too(made: list[Prediction], tmp_path: Path) -> None:
    write_summary(tmp_path, made, score(made), "few")
    assert (tmp_path / "report.html").stat().st_size > 1000
