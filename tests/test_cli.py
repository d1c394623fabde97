"""The program as users run it: what it prints, writes and returns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import typer
from affine import Affine
from drawing import UTM11, write_tiff
from programs import checked_json, complaint, geomatch, listing, program
from pyproj import Transformer
from shapely.geometry import Polygon, shape
from towns import PLACE, UTM33, Town, corners, moved, optical, pixel_centres, radar_at, view

from geomatch.cli import Kind, app
from geomatch.errors import IndexFormatError
from geomatch.images import _AMPLITUDE
from geomatch.index.cli import app as index_app
from geomatch.locator import Locator, Trace
from geomatch.strip_files import StripOptions
from geomatch.training.cli import app as train_app

SIZE = (240, 300)
POSE = view((380, 400), 30, 1, *SIZE)
SCRIPT = Path(sys.executable).with_name("geomatch")


@pytest.fixture(scope="module")
def files(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strips of the town, and what is not; not to be changed."""
    folder = tmp_path_factory.mktemp("files")
    town.write_strip(folder / "here.tif", POSE, SIZE)
    town.write_strip(folder / "bare.tif", view((380, 400), 30, 1.25, *SIZE), SIZE, located=False)
    town.write_strip(folder / "small.tif", view((300, 450), 0, 1, 120, 130), (120, 130))
    town.write_strip(folder / "scene.tif", Affine.identity(), (768, 768), drift=(0, 0))
    write_tiff(folder / "flat.tif", np.full((240, 240), 3, "float32"), crs=UTM33, transform=PLACE)
    pixels = radar_at(optical(512, seed=11), pixel_centres(512, 512))
    elsewhere = Affine(0.5, 0, 400_000, 0, -0.5, 3_700_000)
    write_tiff(folder / "elsewhere.tif", pixels, crs=UTM11, transform=elsewhere)
    return folder


def place(features: dict[str, Any]) -> list[Any]:
    return [feature["properties"]["center"] for feature in features["features"]]


# --- the real program, in processes of its own ---


def test_story_from_map_to_answer(town: Town, files: Path, tmp_path: Path) -> None:
    (left, top), (right, bottom) = moved(PLACE, [100, 100]), moved(PLACE, [668, 700])
    index = tmp_path / "city.gmi"
    done = program("index", "build", town.path, "-o", index, f"--bbox={left},{bottom},{right},{top}")
    assert (done.returncode, done.stderr) == (0, "")
    assert program("index", "check", index).stdout == f"{index}: sound\n"
    assert str(town.path) in program("index", "info", index).stdout
    done = program("locate", files / "here.tif", files / "flat.tif", "--index", index, "--json", "-v")
    assert done.returncode == 0
    assert "here.tif: float32 read as amplitude" in done.stderr
    here, flat = checked_json(done.stdout, "locate")["features"]
    assert here["properties"]["status"] == "located"
    assert here["properties"]["center"] == pytest.approx(tuple(moved(PLACE, [380, 400])), abs=0.5)
    assert flat["properties"]["status"] == "unusable"
    words = ["--windows", "3", "--json", "-o", tmp_path / "report"]
    done = program("evaluate", "--index", index, "--sar", files / "scene.tif", *words)
    assert done.returncode == 0
    assert done.stderr == f"report: {tmp_path / 'report' / 'report.html'}\n"
    assert checked_json(done.stdout, "evaluate")["windows"] == 3


@pytest.mark.parametrize("way", [[SCRIPT], [sys.executable, "-m", "geomatch"], [sys.executable, "-m", "geomatch.cli"]])
def test_ways_to_start_it(way: list[str]) -> None:
    done = subprocess.run([*way, "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"geomatch {version('geomatch')}\n", "")
    done = subprocess.run([*way, "index", "--help"], capture_output=True, text=True, check=True)
    for word in ("build", "info", "check"):
        assert word in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [SCRIPT, "--show-completion", shell], capture_output=True, text=True, check=True, env=environment
    )
    assert "_GEOMATCH_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("geomatch lo", {"locate"}),
        ("geomatch index ", {"build", "info", "check", "publish"}),
        ("geomatch locate --kind p", {"power"}),
    ],
)
def test_completion_knows_commands_of_plugins_and_choices(typed: str, offered: set[str]) -> None:
    words = typed.split(" ")
    environment = os.environ | {
        "_GEOMATCH_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)
    }  # fmt: skip
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False, env=environment)
    assert set(done.stdout.split()) == offered


def test_reader_that_goes_away_is_no_error(files: Path, town_index: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "geomatch",
        "locate",
        files / "here.tif",
        "--index",
        town_index,
        "--json",
    ]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
@pytest.mark.parametrize("words", [[], ["--json"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_stdout_on_a_full_disk_is_told(unbuffered: str, words: list[str], files: Path, town_index: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [SCRIPT, "locate", files / "here.tif", "--index", town_index, *words],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert done.returncode == 5
    assert "standard output cannot be written (No space left on device)" in complaint(done.stderr)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_terminals_without_unicode_are_served(encoding: str, town: Town, tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "index", "build", town.path, "-o", tmp_path / "a.gmi", "--stride", "100"],
        capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


# --- locate ---


def test_answers_come_in_the_order_of_the_files(files: Path, town_index: Path) -> None:
    order = ["small.tif", "flat.tif", "here.tif", "elsewhere.tif", "small.tif"]
    result = geomatch("locate", *(files / name for name in order), "--index", town_index, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    features = checked_json(result.stdout, "locate")["features"]
    assert [feature["properties"]["file"] for feature in features] == [str(files / name) for name in order]
    statuses = [feature["properties"]["status"] for feature in features]
    assert statuses[:3] == ["located", "unusable", "located"]
    here, elsewhere = (features[at]["properties"]["confidence"] for at in (2, 3))
    assert elsewhere < here
    assert features[0]["properties"]["center"] == features[4]["properties"]["center"]
    assert features[1]["properties"]["evidence"]["notes"][-1] == "the strip is constant"


def test_geometry_is_the_footprint_in_longitude_and_latitude(town: Town, files: Path, town_index: Path) -> None:
    result = geomatch("locate", files / "here.tif", "--index", town_index, "--json")
    (feature,) = checked_json(result.stdout, "locate")["features"]
    outline = shape(feature["geometry"])
    assert isinstance(outline, Polygon)
    assert outline.is_valid
    assert outline.exterior.is_ccw  # RFC 7946, section 3.1.6
    to_lonlat = Transformer.from_crs(UTM33, "OGC:CRS84", always_xy=True)
    truth = Polygon(np.stack(to_lonlat.transform(*moved(town.transform @ POSE, corners(*SIZE)).T), axis=1))
    assert outline.symmetric_difference(truth).area < 0.02 * truth.area
    assert "crs" not in feature  # RFC 7946, section 4


def test_scale_and_heading_serve_a_file_without_georeference(files: Path, town_index: Path) -> None:
    told = ["--gsd", 0.625, "--heading", 30]
    result = geomatch("locate", files / "bare.tif", "--index", town_index, "--json", *told)
    (feature,) = checked_json(result.stdout, "locate")["features"]
    assert feature["properties"]["status"] == "located"
    assert feature["properties"]["center"] == pytest.approx(tuple(moved(PLACE, [380, 400])), abs=1)
    notes = " ".join(feature["properties"]["evidence"]["notes"])
    assert "no georeferencing, taken as 0.625 m per pixel, heading 30" in notes
    assert "resampled from 0.625 m to the map's 0.5 m per pixel" in notes
    result = geomatch("locate", files / "bare.tif", "--index", town_index, "--json")
    (untold,) = checked_json(result.stdout, "locate")["features"]
    assert untold["properties"]["confidence"] < feature["properties"]["confidence"]


def test_unknown_heading_is_found_and_told(files: Path, town_index: Path) -> None:
    told = ["--gsd", 0.625, "--heading", "unknown"]
    result = geomatch("locate", files / "bare.tif", "--index", town_index, "--json", *told)
    (feature,) = checked_json(result.stdout, "locate")["features"]
    assert feature["properties"]["status"] == "located"
    assert feature["properties"]["center"] == pytest.approx(tuple(moved(PLACE, [380, 400])), abs=1.5)
    evidence = feature["properties"]["evidence"]
    assert evidence["heading_deg"] == pytest.approx(30.95, abs=2)
    notes = " ".join(evidence["notes"])
    assert "no georeferencing, taken as 0.625 m per pixel, heading unknown" in notes
    assert f"heading found: {evidence['heading_deg']:.1f}° clockwise from north" in notes


@pytest.mark.parametrize(("word", "told"), [("foo", "'foo' is no heading"), ("400", "400 is no heading")])
def test_heading_that_is_none_is_told_in_one_message(word: str, told: str, files: Path, town_index: Path) -> None:
    result = geomatch("locate", files / "bare.tif", "--index", town_index, "--heading", word)
    assert result.exit_code == 2
    (said,) = result.stderr.splitlines()
    assert said.startswith(f"geomatch: --heading: {told}")
    assert "or unknown" in said


def test_exhaustive_finds_the_same_place(files: Path, town_index: Path) -> None:
    quick, slow = (
        checked_json(geomatch("locate", files / "here.tif", "--index", town_index, "--json", *more).stdout, "locate")
        for more in ([], ["--exhaustive"])
    )
    assert place(quick)[0] == pytest.approx(place(slow)[0], abs=0.5)
    stages = [way["features"][0]["properties"]["evidence"]["seconds"].keys() for way in (quick, slow)]
    assert [("search" in seconds) for seconds in stages] == [True, False]


def test_people_get_a_line_for_each_file(files: Path, town_index: Path) -> None:
    result = geomatch("locate", files / "here.tif", files / "flat.tif", "--index", town_index)
    here, flat = result.stdout.splitlines()
    found = re.fullmatch(r"(.*): located at ([\d.]+), ([\d.]+) \(EPSG:32633\), within [\d.]+ m, confidence 1.00", here)
    assert found is not None
    assert found[1] == str(files / "here.tif")
    assert float(found[2]) == pytest.approx(595190, abs=1)
    assert flat == f"{files / 'flat.tif'}: unusable, the strip is constant"
    assert result.stderr == ""


def test_failed_file_is_told_once(files: Path, town_index: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_text("no TIFF")
    for words in ([], ["-v"]):
        result = geomatch("locate", tmp_path / "bad.tif", files / "here.tif", "--index", town_index, *words)
        assert result.exit_code == 3
        assert (result.stdout + result.stderr).count("bad.tif") == 1
        assert result.stderr.startswith(f"geomatch: {tmp_path / 'bad.tif'}: ")
        assert result.stdout.startswith(f"{files / 'here.tif'}: located at ")


@pytest.mark.parametrize("words", [[], ["--json"], ["--gsd", 0.625]])
def test_assumed_georeferencing_is_told_unasked(words: list[Any], files: Path, town_index: Path) -> None:
    result = geomatch("locate", files / "bare.tif", "--index", town_index, *words)
    (said,) = result.stderr.splitlines()
    assert said.startswith("bare.tif: no georeferencing, taken as 0.")
    told = ["--gsd", 0.625, "--heading", 30]
    assert geomatch("locate", files / "bare.tif", "--index", town_index, *told).stderr == ""
    assert geomatch("locate", files / "bare.tif", "--index", town_index, "-q", *words).stderr == ""


def test_verbose_says_more_on_stderr_and_quiet_nothing(files: Path, town_index: Path) -> None:
    result = geomatch("locate", files / "here.tif", "--index", town_index, "-v")
    assert "here.tif: float32 read as amplitude" in result.stderr
    assert len(result.stdout.splitlines()) == 1
    result = geomatch("locate", files / "here.tif", "--index", town_index, "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_index_that_goes_on_the_way_takes_no_answer_with_it(
    files: Path, town_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store, say, that does not answer any more."""
    follow, asked = Locator.follow, []

    def goes(locator: Locator, strip: Path, options: StripOptions) -> Trace:
        asked.append(strip)
        if len(asked) == 2:
            raise IndexFormatError("Milvus cannot be asked", where="milvus://here/town")
        return follow(locator, strip, options)

    monkeypatch.setattr(Locator, "follow", goes)
    names = [files / name for name in ("here.tif", "flat.tif", "bare.tif")]
    result = geomatch("locate", *names, "--index", town_index, "--json", "-o", tmp_path / "out.geojson")
    assert result.exit_code == 4
    assert result.stderr.splitlines() == ["geomatch: milvus://here/town: Milvus cannot be asked."]
    answers = checked_json(result.stdout, "locate")["features"]
    assert [answer["properties"]["status"] for answer in answers] == ["located", "unusable", "unusable"]
    assert "Milvus cannot be asked" in answers[2]["properties"]["evidence"]["notes"][0]
    assert checked_json((tmp_path / "out.geojson").read_text(), "locate")["features"] == answers
    assert len(asked) == 2
    asked[1:] = []  # of the next ones the first is asked for in vain
    result = geomatch("locate", *names, "--index", town_index, "--json")
    assert (result.exit_code, result.stdout) == (4, "")


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".parquet"])
def test_answers_are_written_for_a_gis(suffix: str, files: Path, town_index: Path, tmp_path: Path) -> None:
    out = tmp_path / f"out{suffix}"
    result = geomatch("locate", files / "here.tif", files / "flat.tif", "--index", town_index, "--json", "-o", out)
    assert (result.exit_code, result.stderr) == (0, "")
    features = checked_json(result.stdout, "locate")["features"]
    frame = geopandas.read_parquet(out) if suffix == ".parquet" else geopandas.read_file(out)
    assert frame["file"].tolist() == [str(files / "here.tif"), str(files / "flat.tif")]
    assert frame["status"].tolist() == ["located", "unusable"]
    assert frame.geometry[0].symmetric_difference(shape(features[0]["geometry"])).area < 1e-12
    assert frame.geometry[1] is None
    if suffix == ".geojson":
        assert checked_json(out.read_text(), "locate")["features"] == features
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


def test_pictures_of_one_strip(files: Path, town_index: Path, tmp_path: Path) -> None:
    words = ["--overlay", tmp_path / "o.png", "--warp", tmp_path / "w.tif"]
    result = geomatch("locate", files / "here.tif", "--index", town_index, *words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert {file.name for file in tmp_path.iterdir()} == {"o.png", "w.tif"}
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")
    with rasterio.open(tmp_path / "w.tif") as file:
        assert file.crs == UTM33
        assert file.res == (0.5, 0.5)
        offset = moved(~PLACE, (file.transform.c, file.transform.f))
        assert offset == pytest.approx(np.rint(offset), abs=1e-6)  # the map's grid
        assert Polygon(moved(PLACE @ POSE, corners(*SIZE))).centroid.coords[0] == pytest.approx(
            ((file.bounds.left + file.bounds.right) / 2, (file.bounds.top + file.bounds.bottom) / 2), abs=1
        )


def test_pictures_of_several_strips_are_named_after_them(files: Path, town_index: Path, tmp_path: Path) -> None:
    words = ["--overlay", tmp_path / "o", "--warp", tmp_path / "w"]
    names = [files / name for name in ("here.tif", "flat.tif", "small.tif")]
    result = geomatch("locate", *names, "--index", town_index, *words)
    assert result.exit_code == 0
    assert result.stderr == f"{files / 'flat.tif'}: unusable, so there is no picture of it\n"
    assert sorted(listing(tmp_path)) == ["o", "o/here.png", "o/small.png", "w", "w/here.tif", "w/small.tif"]


def test_picture_of_one_strip_goes_into_a_folder_that_is_there(files: Path, town_index: Path, tmp_path: Path) -> None:
    assert geomatch("locate", files / "here.tif", "--index", town_index, "--overlay", tmp_path).exit_code == 0
    assert [file.name for file in tmp_path.iterdir()] == ["here.png"]


def test_control_points_of_a_located_strip(files: Path, town_index: Path, tmp_path: Path) -> None:
    """Every one lies where the strip's true transform puts it, up to some pixels of the map."""
    target = tmp_path / "gcps.tif"
    result = geomatch("locate", files / "here.tif", "--index", town_index, "--gcps", target)
    assert (result.exit_code, result.stderr) == (0, "")
    with rasterio.open(target) as file:
        gcps, crs = file.gcps
    assert crs == UTM33
    assert len(gcps) >= 8
    pixels = np.array([(one.col, one.row) for one in gcps])
    places = np.array([(one.x, one.y) for one in gcps])
    off = np.linalg.norm(moved(PLACE @ POSE, pixels) - places, axis=1) / 0.5
    assert np.median(off) < 2
    assert off.max() < 6
    names = [files / name for name in ("here.tif", "flat.tif", "small.tif")]
    assert geomatch("locate", *names, "--index", town_index, "--gcps", tmp_path / "all").exit_code == 0
    assert sorted(listing(tmp_path)) == ["all", "all/here.points", "all/small.points", "gcps.tif"]


def test_kinds_are_those_that_can_be_read() -> None:
    assert [kind.value for kind in Kind] == ["auto", *_AMPLITUDE]


# --- evaluate ---


def scores_of(files: Path, index: Path, *words: object) -> dict[str, Any]:
    result = geomatch("evaluate", "--index", index, "--sar", files / "scene.tif", "--json", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    scores: dict[str, Any] = checked_json(result.stdout, "evaluate")
    return scores


def test_evaluation_of_a_good_map_is_good(files: Path, town_index: Path) -> None:
    scores = scores_of(files, town_index, "--windows", 8, "--absent", files / "elsewhere.tif")
    assert scores["windows"] == scores["textured"] == scores["absent_windows"] == 8
    assert scores["recall"] == dict.fromkeys(("1", "5", "10", "50", "100"), 1.0)
    assert scores["success_px"] == scores["success_px_textured"] == dict.fromkeys(("2", "5", "10", "50"), 1.0)
    assert scores["error_m"]["p95"] < 1
    assert scores["absent_auroc"] == 1
    assert scores["success_px_ci"]["2"] == pytest.approx([8 / (8 + 1.959964**2), 1])


def timeless(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scores.items() if not name.endswith("_per_query")}


def test_turned_windows_are_found_and_their_headings_scored(files: Path, town_index: Path) -> None:
    scores = scores_of(files, town_index, "--windows", 2, "--rotate", "any", "--scale", 2)
    assert scores["success_px"]["5"] == 1
    assert 0 <= scores["heading_error_deg"]["p50"] <= scores["heading_error_deg"]["p90"] < 3
    assert "heading_error_deg" not in scores_of(files, town_index, "--windows", 1, "--rotate", "none", "--scale", 2)


@pytest.mark.parametrize(("words", "why"), [(["--rotate", "some"], "--rotate"), (["--scale", -1], "--scale")])
def test_turns_and_scales_that_cannot_be_are_usage_errors(
    words: list[Any], why: str, files: Path, town_index: Path
) -> None:
    result = geomatch("evaluate", "--index", town_index, "--sar", files / "scene.tif", *words)
    assert result.exit_code == 2
    assert why in result.stderr


def test_seed_box_and_grid_choose_the_windows(files: Path, town_index: Path, tmp_path: Path) -> None:
    (left, top), (right, bottom) = moved(PLACE, [300, 200]), moved(PLACE, [620, 520])
    ways: dict[str, list[Any]] = {
        "one": [],
        "same": [],
        "seed": ["--seed", 1],
        "box": [f"--bbox={left},{bottom},{right},{top}"],
        "aligned": ["--aligned"],
        "size": ["--size", 120],
    }
    truth = {}
    for name, words in ways.items():
        made = scores_of(files, town_index, "--windows", 4, "-o", tmp_path / name, "-q", *words)
        lines = (tmp_path / name / "predictions.jsonl").read_text().splitlines()
        truth[name] = np.array([json.loads(line)["truth_px"] for line in lines])
        assert made["windows"] == len(lines) == 4
        if name == "same":
            assert timeless(made) == timeless(json.loads((tmp_path / "one" / "scores.json").read_text()))
    np.testing.assert_array_equal(truth["one"], truth["same"])
    assert (truth["one"] != truth["seed"]).any()
    assert truth["box"].min(axis=0).tolist() >= [399, 299]
    assert truth["box"].max(axis=0).tolist() <= [521, 421]
    assert {value % 16 for value in (truth["aligned"] - 100).ravel()} <= {0, 8}  # 768 - 200 ends on 8
    assert not {value % 16 for value in (truth["one"] - 100).ravel()} <= {0, 8}
    assert (truth["size"] % 1 == 0).all()


def test_report_folder_holds_all(files: Path, town_index: Path, tmp_path: Path) -> None:
    scores = scores_of(
        files, town_index, "--windows", 3, "-o", tmp_path / "report", "-q", "--absent", files / "elsewhere.tif"
    )
    names = {file.name for file in (tmp_path / "report").iterdir()}
    pictures = {"error.png", "recall.png", "reliability.png", "risk.png", "absent.png"}
    assert names == {"predictions.jsonl", "scores.json", "report.html"} | pictures
    assert json.loads((tmp_path / "report" / "scores.json").read_text()) == scores
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_people_get_tables(files: Path, town_index: Path) -> None:
    result = geomatch("evaluate", "--index", town_index, "--sar", files / "scene.tif", "--windows", 2)
    for words in ("within 10 px", "recall@100", "wrong among located", "0 of 2", "n = 2 windows"):
        assert words in result.stdout
    result = geomatch("evaluate", "--index", town_index, "--sar", files / "scene.tif", "--windows", 1, "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


# --- simulate ---


def test_simulated_city_is_there_and_told(tmp_path: Path) -> None:
    words = ["--size", 256, "--seed", 1, "--strips", 0]
    result = geomatch("simulate", "-o", tmp_path / "city", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        str(tmp_path / "city" / name) for name in ("ortho.tif", "sar.tif", "truth.json")
    ]
    assert all(Path(line).is_file() for line in result.stdout.splitlines())
    assert geomatch("simulate", "-o", tmp_path / "again", *words, "-q").stdout == ""
    for name in ("ortho.tif", "sar.tif"):
        with rasterio.open(tmp_path / "city" / name) as one, rasterio.open(tmp_path / "again" / name) as two:
            np.testing.assert_array_equal(one.read(), two.read())
    before = listing(tmp_path)
    assert geomatch("simulate", "-o", tmp_path / "city", *words).exit_code == 5
    assert listing(tmp_path) == before


# --- help ---


def commands(group: Any) -> Iterator[Any]:
    """It and every command below."""
    yield group
    for command in getattr(group, "commands", {}).values():
        yield from commands(command)


@pytest.mark.parametrize("part", [app, index_app, train_app], ids=["geomatch", "index", "train"])
def test_every_command_and_option_says_what_it_is_for(part: typer.Typer) -> None:
    found = list(commands(typer.main.get_command(part)))
    assert len(found) > 4
    for command in found:
        assert command.help, command.name
        silent = [one.name for one in command.params if one.name != "help" and not getattr(one, "help", None)]
        assert not silent, command.name


@pytest.mark.parametrize("words", [[], ["index"], ["train"], ["evaluate"]])
def test_what_commands_are_for_fits_into_a_line(words: list[str]) -> None:
    told = program(*words, "--help", env=os.environ | {"COLUMNS": "80"}).stdout
    _, _, listed = told.partition("\nCommands:\n")
    assert listed
    assert "..." not in listed


def test_exit_codes_are_told() -> None:
    told = " ".join(geomatch("--help").stdout.split())
    for code in ("0 done", "2 usage", "3 bad input", "4 bad index", "5 cannot write", "130"):
        assert code in told
