"""The whole job on a small city of its own."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from disk import small_disk
from programs import complaint, geomatch, listing

from geomatch import demo
from geomatch.simulation import simulate_city
from geomatch.simulation.strips import Flight


@pytest.fixture(autouse=True)
def small_city(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two short strips over a city of 480 px; the program's own strips need 1000 px."""
    monkeypatch.setattr(demo, "simulate_city", functools.partial(simulate_city, strips=2, flight=Flight(210, 260)))


def test_demo_finds_its_strips_and_reports(tmp_path: Path) -> None:
    result = geomatch("demo", "-o", tmp_path / "demo", "--size", 480, "--seed", 4)
    assert result.exit_code == 0
    folder = tmp_path / "demo"
    assert result.stdout.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert {file.name for file in folder.iterdir()} >= {"city", "city.gmi", "report.html", "map.png"}
    rows = [line.split("│")[1:-1] for line in result.stdout.splitlines() if line.startswith("│")]
    truth = json.loads((folder / "city" / "truth.json").read_text())["strips"]
    assert len(rows) == len(truth) == 2
    for row, strip in zip(rows, truth, strict=True):
        name, status, found, true, error_m, _, confidence, _ = (cell.strip() for cell in row)
        assert name == strip["file"]
        assert status == "located"
        assert float(error_m) < 2
        x, y = (float(number) for number in found.split(","))
        assert abs(x - strip["center"][0]) < 2
        assert abs(y - strip["center"][1]) < 2
        assert true == f"{strip['center'][0]:.1f}, {strip['center'][1]:.1f}"
        assert 0 <= float(confidence) <= 1
    page = (folder / "report.html").read_text()
    assert "strip_01.tif" in page
    assert "strip_02.tif" in page
    assert [file.name for file in tmp_path.iterdir()] == ["demo"]
    # The index was built in a temporary place, and still knows its map.
    assert str(folder / "city" / "ortho.tif") in geomatch("index", "info", folder / "city.gmi").stdout


def test_demo_is_replaced_by_a_demo_and_quiet_says_nothing(tmp_path: Path) -> None:
    for seed in (4, 5):
        result = geomatch("demo", "-o", tmp_path / "demo", "--size", 480, "--seed", seed, "--quiet")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert json.loads((tmp_path / "demo" / "city" / "truth.json").read_text())["map"]["seed"] == 5
    (tmp_path / "demo" / "mine.txt").write_text("mine")
    before = listing(tmp_path)
    result = geomatch("demo", "-o", tmp_path / "demo", "--size", 480)
    assert result.exit_code == 5
    assert "no demo wrote it" in complaint(result.stderr)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("files", [[], ["photo.jpg"], ["report.html"], ["report.html", "scores.json"]])
def test_folder_of_someone_else_is_left_alone(files: list[str], tmp_path: Path) -> None:
    """A folder with a report.html may be that of an evaluation."""
    (tmp_path / "mine").mkdir()
    for file in files:
        (tmp_path / "mine" / file).write_text("mine")
    before = listing(tmp_path)
    result = geomatch("demo", "-o", tmp_path / "mine", "--size", 480)
    assert result.exit_code == 5
    assert f"{tmp_path / 'mine'}: is there and no demo wrote it. Choose" in complaint(result.stderr)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("limit_bytes", [0, 20_000, 1_400_000])
def test_full_disk_leaves_what_was_there(limit_bytes: int, tmp_path: Path) -> None:
    """It fills up with the city, and with the report, which is the largest file."""
    if limit_bytes:
        assert geomatch("demo", "-o", tmp_path / "demo", "--size", 480, "--seed", 4, "--quiet").exit_code == 0
    before = listing(tmp_path)
    with small_disk(limit_bytes):
        result = geomatch("demo", "-o", tmp_path / "demo", "--size", 480, "--seed", 5, "--quiet")
    assert result.exit_code == 5
    assert f"{tmp_path / 'demo'}: the file is larger than this place allows. Choose" in complaint(result.stderr)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("size", [0, -5, 100, 10**6])
def test_city_that_cannot_be_drawn_leaves_nothing(size: int, tmp_path: Path) -> None:
    result = geomatch("demo", "-o", tmp_path / "demo", "--size", size)
    assert result.exit_code == 2
    assert "cannot be drawn" in complaint(result.stderr)
    assert list(tmp_path.iterdir()) == []
