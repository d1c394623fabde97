"""What cannot be used is told in one message with the documented exit code, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from disk import small_disk
from drawing import handmade_tiff, write_tiff
from programs import checked_json, complaint, geomatch, listing, program
from rasterio.control import GroundControlPoint
from towns import PLACE, UTM33, Town, moved, optical, pixel_centres, radar_at, view, write_town

from geomatch.manifest import FEATURES, MANIFEST, TILES, VECTORS

Make = Callable[[Path, Town], object]

HUGE = {256: 4_000_000, 257: 4_000_000, 258: 8, 259: 8, 262: 1, 273: 150, 277: 1, 278: 4_000_000, 279: 100}
CORNERS = [GroundControlPoint(0, 0, 16, 48), GroundControlPoint(0, 250, 17, 48), GroundControlPoint(250, 0, 16, 47)]
AS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")


def town_part(path: Path, town: Town, **changes: Any) -> None:
    """A strip of 250 × 250 px north up, with another georeference or mask."""
    to_map = Affine.translation(200, 220)
    pixels = radar_at(town.bands, moved(to_map, pixel_centres(250, 250)))
    place: dict[str, Any] = {"crs": UTM33, "transform": PLACE @ to_map}
    write_tiff(path, pixels, **place | changes)


def truncated(path: Path, town: Town) -> None:
    town_part(path, town)
    path.write_bytes(path.read_bytes()[:100_000])


def filled(value: float, **profile: Any) -> Make:
    return lambda path, town: write_tiff(
        path, np.full((250, 250), value, "float32"), crs=UTM33, transform=PLACE, **profile
    )


# name -> how it is made, what is wrong with it
UNREADABLE: dict[str, tuple[Make, str]] = {
    "missing": (lambda path, town: None, "no such file"),
    "folder": (lambda path, town: path.mkdir(), "this is a folder"),
    "text": (lambda path, town: path.write_text("Dear reader,\n" * 99), "not a TIFF"),
    "picture": (lambda path, town: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(999)), "not a TIFF"),
    "vrt": (lambda path, town: path.write_text("<VRTDataset/>"), "not a TIFF"),
    "empty": (lambda path, town: path.write_bytes(b""), "the file is empty"),
    "head only": (lambda path, town: path.write_bytes(b"II*\0"), "truncated"),
    "truncated": (truncated, "truncated"),
    "huge": (lambda path, town: handmade_tiff(path, HUGE), "a raster of 4000000 × 4000000 pixels"),
    "no pixels": (lambda path, town: handmade_tiff(path, HUGE | {256: 0}), "0 × 4000000|truncated"),
    "nodata": (filled(-9999, nodata=-9999), "no valid pixel"),
    "nan": (filled(np.nan), "no valid pixel"),
}
UNLOCATED: dict[str, tuple[Make, str]] = {
    "no crs": (lambda path, town: town_part(path, town, crs=None), "no CRS"),
    "no geotransform": (lambda path, town: town_part(path, town, transform=None), "no geotransform"),
    "gcps": (
        lambda path, town: town_part(path, town, crs="EPSG:4326", transform=None, gcps=CORNERS),
        "ground control points only",
    ),
    "no area": (lambda path, town: town_part(path, town, transform=Affine(0, 0, 5, 0, 0, 5)), "no area"),
}
STRIPS: dict[str, tuple[Make, str]] = {
    "one pixel": (
        lambda path, town: write_tiff(path, np.ones((1, 1), "float32"), crs=UTM33, transform=PLACE),
        "1 × 1 px shows no structure",
    ),
    "zeros": (filled(0), "no backscatter|no valid pixel"),
    "too coarse": (lambda path, town: town_part(path, town, transform=PLACE @ Affine.scale(30)), "30 times those of"),
    "too fine": (lambda path, town: town_part(path, town, transform=PLACE @ Affine.scale(0.01)), "0.01 times those"),
}


def cases(*groups: dict[str, tuple[Make, str]]) -> list[Any]:
    return [pytest.param(*case, id=name) for group in groups for name, case in group.items()]


# --- rasters ---


@pytest.mark.parametrize(("make", "why"), cases(UNREADABLE, UNLOCATED))
def test_map_that_cannot_be_used(make: Make, why: str, town: Town, tmp_path: Path) -> None:
    make(tmp_path / "bad.tif", town)
    before = listing(tmp_path)
    result = geomatch("index", "build", tmp_path / "bad.tif", "-o", tmp_path / "a.gmi")
    assert result.exit_code == 3
    assert_says(result.stderr, f"{tmp_path / 'bad.tif'}: ", why)
    assert result.stdout == ""
    assert listing(tmp_path) == before


@pytest.mark.parametrize(("make", "why"), cases(UNREADABLE, STRIPS))
def test_strip_that_cannot_be_used(make: Make, why: str, town: Town, town_index: Path, tmp_path: Path) -> None:
    make(tmp_path / "bad.tif", town)
    before = listing(tmp_path)
    result = geomatch("locate", tmp_path / "bad.tif", "--index", town_index, "--json")
    assert result.exit_code == 3
    assert_says(result.stderr, f"{tmp_path / 'bad.tif'}: ", why)
    (feature,) = checked_json(result.stdout, "locate")["features"]
    assert feature["properties"]["status"] == "unusable"
    assert f"geomatch: {feature['properties']['evidence']['notes'][-1]}\n" == result.stderr
    assert listing(tmp_path) == before


@pytest.mark.parametrize(("make", "why"), cases(UNREADABLE, UNLOCATED))
def test_scene_that_cannot_be_used(make: Make, why: str, town: Town, town_index: Path, tmp_path: Path) -> None:
    make(tmp_path / "bad.tif", town)
    before = listing(tmp_path)
    words = ["--windows", 2, "-o", tmp_path / "report"]
    result = geomatch("evaluate", "--index", town_index, "--sar", tmp_path / "bad.tif", *words)
    assert result.exit_code == 3
    assert_says(result.stderr, f"{tmp_path / 'bad.tif'}: ", why)
    assert listing(tmp_path) == before


def assert_says(stderr: str, *patterns: str) -> None:
    said = complaint(stderr)
    for pattern in patterns:
        assert any(part in said for part in pattern.split("|")), f"{pattern!r} not in {said!r}"


def test_truth_is_told_in_a_process_of_its_own(town: Town, town_index: Path, tmp_path: Path) -> None:
    """No traceback, no warning of a library, no word of GDAL's."""
    truncated(tmp_path / "bad.tif", town)
    town_part(tmp_path / "good.tif", town)
    before = listing(tmp_path)
    done = program("index", "build", tmp_path / "bad.tif", "-o", tmp_path / "a.gmi")
    assert done.returncode == 3
    assert "truncated" in complaint(done.stderr)
    done = program("locate", tmp_path / "bad.tif", tmp_path / "good.tif", "--index", town_index, "--json")
    assert done.returncode == 3
    assert "truncated" in complaint(done.stderr)
    features = checked_json(done.stdout, "locate")["features"]
    assert [feature["properties"]["status"] for feature in features] == ["unusable", "located"]
    assert listing(tmp_path) == before


def test_good_files_among_bad_ones_are_answered(town: Town, town_index: Path, tmp_path: Path) -> None:
    town_part(tmp_path / "good.tif", town)
    (tmp_path / "bad.tif").write_text("no TIFF")
    town_part(tmp_path / "two.tif", town)
    shutil.copy(tmp_path / "good.tif", tmp_path / "three.tif")
    names = [tmp_path / name for name in ("good.tif", "bad.tif", "two.tif", "gone.tif", "three.tif")]
    words = ["--index", town_index, "--json", "-o", tmp_path / "o.geojson", "--overlay", tmp_path / "pictures"]
    result = geomatch("locate", *names, *words)
    assert result.exit_code == 3
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [str(names[1]), str(names[3])]
    features = checked_json(result.stdout, "locate")["features"]
    assert [feature["properties"]["file"] for feature in features] == [str(name) for name in names]
    statuses = [feature["properties"]["status"] for feature in features]
    assert statuses == ["located", "unusable", "located", "unusable", "located"]
    assert json.loads((tmp_path / "o.geojson").read_text())["features"] == features
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == {"good.png", "two.png", "three.png"}


@pytest.mark.parametrize("words", [["--band", 7], ["--band", 0], ["--band", 1, "--band", 2], ["--kind", "complex"]])
def test_options_that_one_file_contradicts_do_not_stop_the_others(
    words: list[Any], town: Town, town_index: Path, tmp_path: Path
) -> None:
    town_part(tmp_path / "one.tif", town)
    result = geomatch("locate", tmp_path / "one.tif", tmp_path / "one.tif", "--index", town_index, "--json", *words)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2
    assert all(line.startswith(f"geomatch: {tmp_path / 'one.tif'}: ") for line in result.stderr.splitlines())
    assert len(checked_json(result.stdout, "locate")["features"]) == 2


@pytest.mark.parametrize(
    ("value", "reason"), [(3, "the strip is constant"), (float("nan"), "only 900 pixels of the strip hold data")]
)
def test_strip_that_shows_nothing_is_an_answer(
    value: float, reason: str, town: Town, town_index: Path, tmp_path: Path
) -> None:
    pixels = np.full((250, 250), value, "float32")
    pixels[:30, :30] = 3
    write_tiff(tmp_path / "flat.tif", pixels, crs=UTM33, transform=PLACE)
    result = geomatch("locate", tmp_path / "flat.tif", "--index", town_index, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (feature,) = checked_json(result.stdout, "locate")["features"]
    assert feature["properties"]["status"] == "unusable"
    assert reason in feature["properties"]["evidence"]["notes"][-1]


def test_strip_whose_points_contradict_each_other_is_refused(town: Town, town_index: Path, tmp_path: Path) -> None:
    spoilt = [*CORNERS, GroundControlPoint(250, 250, 17.5, 47)]
    town_part(tmp_path / "gcps.tif", town, crs="EPSG:4326", transform=None, gcps=spoilt)
    result = geomatch("locate", tmp_path / "gcps.tif", "--index", town_index)
    assert result.exit_code == 3
    assert_says(result.stderr, "gcps.tif: its ground control points contradict each other", "gdalinfo")


@pytest.mark.parametrize("change", [{"crs": None}, {"transform": None}, {"crs": None, "transform": None}])
def test_strip_without_georeference_is_taken_as_the_map(
    change: dict[str, Any], town: Town, town_index: Path, tmp_path: Path
) -> None:
    town_part(tmp_path / "s.tif", town, **change)
    result = geomatch("locate", tmp_path / "s.tif", "--index", town_index, "--json")
    (feature,) = checked_json(result.stdout, "locate")["features"]
    assert feature["properties"]["status"] == "located"
    assert any("no georeferencing, taken as 0.5" in note for note in feature["properties"]["evidence"]["notes"])


def test_strip_smaller_than_a_tile_and_of_another_scale_is_located_and_says_so(
    town: Town, town_index: Path, tmp_path: Path
) -> None:
    town.write_strip(tmp_path / "s.tif", view((380, 400), 0, 0.5, 280, 300), (280, 300))
    result = geomatch("locate", tmp_path / "s.tif", "--index", town_index, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (feature,) = checked_json(result.stdout, "locate")["features"]
    assert feature["properties"]["center"] == pytest.approx(tuple(moved(PLACE, [380, 400])), abs=0.5)
    assert any(
        "s.tif: resampled from 0.25 m to the map's 0.5 m" in note for note in feature["properties"]["evidence"]["notes"]
    )


def test_map_smaller_than_a_tile_is_told(town: Town, tmp_path: Path) -> None:
    options: dict[str, Any] = {"tiled": False, "blockxsize": None, "blockysize": None}
    write_town(tmp_path / "small.tif", town.bands[:, :150, :400], **options)
    before = listing(tmp_path)
    result = geomatch("index", "build", tmp_path / "small.tif", "-o", tmp_path / "a.gmi")
    assert result.exit_code == 2
    assert_says(result.stderr, ".tif: 400 × 150 px is smaller than a tile of 200 × 200 px. ", "--tile")
    assert listing(tmp_path) == before
    assert geomatch("index", "build", tmp_path / "small.tif", "-o", tmp_path / "a.gmi", "--tile", 100).exit_code == 0


def test_constant_map_answers_that_nothing_is_there(town: Town, tmp_path: Path) -> None:
    filled(7)(tmp_path / "flat.tif", town)
    town_part(tmp_path / "s.tif", town)
    assert geomatch("index", "build", tmp_path / "flat.tif", "-o", tmp_path / "a.gmi").exit_code == 0
    result = geomatch("locate", tmp_path / "s.tif", "--index", tmp_path / "a.gmi", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert checked_json(result.stdout, "locate")["features"][0]["properties"]["status"] == "absent"


# --- indexes ---


@pytest.fixture
def index(town_index: Path, tmp_path: Path) -> Path:
    """A copy of the town's index, to be harmed."""
    return Path(shutil.copytree(town_index, tmp_path / "town.gmi"))


def with_source(index: Path, **changes: Any) -> Path:
    values = json.loads((index / MANIFEST).read_text())
    values["sources"][0] |= changes
    (index / MANIFEST).write_text(json.dumps(values))
    return index


@pytest.mark.parametrize("name", [TILES, VECTORS, FEATURES, MANIFEST])
@pytest.mark.parametrize("command", ["locate", "evaluate"])
def test_truncated_index_is_refused(command: str, name: str, index: Path, town: Town, tmp_path: Path) -> None:
    content = (index / name).read_bytes()
    (index / name).write_bytes(content[: len(content) // 2])
    town_part(tmp_path / "s.tif", town)
    before = listing(tmp_path)
    words = [tmp_path / "s.tif", "-o", tmp_path / "o.geojson"] if command == "locate" else ["--sar", tmp_path / "s.tif"]
    result = geomatch(command, *words, "--index", index, "--json")
    assert result.exit_code == 4
    assert_says(result.stderr, str(index), name)
    assert "again with geomatch index build" in result.stderr
    assert result.stdout == ""
    assert listing(tmp_path) == before


@pytest.mark.parametrize(("name", "at"), [(TILES, -4), (VECTORS, 0), (FEATURES, 0)])
def test_file_of_another_kind_is_told_when_it_is_read(
    name: str, at: int, index: Path, town: Town, tmp_path: Path
) -> None:
    """The four letters that say what a file is are its first, those of Parquet its last."""
    content = bytearray((index / name).read_bytes())
    content[slice(at, at + 4 or None)] = b"????"
    (index / name).write_bytes(content)
    town_part(tmp_path / "s.tif", town)
    result = geomatch("locate", tmp_path / "s.tif", "--index", index, "--json")
    assert result.exit_code == 4
    assert_says(result.stderr, str(index / name), "cannot be read")
    assert result.stdout == ""


def test_index_that_is_missing_newer_or_something_else(town: Town, index: Path, tmp_path: Path) -> None:
    town_part(tmp_path / "s.tif", town)
    newer = Path(shutil.copytree(index, tmp_path / "newer.gmi"))
    (newer / MANIFEST).write_text(json.dumps(json.loads((newer / MANIFEST).read_text()) | {"format_version": 2}))
    before = listing(tmp_path)
    for path, why in [
        (tmp_path / "nothing.gmi", "there is no such index. Build it"),
        (tmp_path, "not an index"),
        (town.path, "not an index"),
        (newer, "has format version 2, this geomatch reads 1. Install a newer geomatch"),
    ]:
        result = geomatch("locate", tmp_path / "s.tif", "--index", path, "--json")
        assert result.exit_code == 4
        assert_says(result.stderr, str(path), why)
        assert result.stdout == ""
    assert listing(tmp_path) == before


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_without_the_map_answers_stand_at_a_cell_and_say_so(
    change: str, town: Town, index: Path, tmp_path: Path
) -> None:
    with_source(index, path=str(tmp_path / "map.tif"), relative_path="../map.tif")
    if change == "changed":
        write_town(tmp_path / "map.tif", optical(seed=11))
    town_part(tmp_path / "s.tif", town)
    result = geomatch("locate", tmp_path / "s.tif", "--index", index, "--json")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"{index}: its map is gone or has changed")
    (feature,) = checked_json(result.stdout, "locate")["features"]
    assert feature["properties"]["status"] == "located"
    assert feature["properties"]["evidence"]["accuracy"] == "cell"
    assert any(
        "map.tif" in note and "accuracy of a cell" in note for note in feature["properties"]["evidence"]["notes"]
    )
    assert feature["properties"]["center"] == pytest.approx(tuple(moved(PLACE, [325, 345])), abs=4)
    told = geomatch("locate", tmp_path / "s.tif", "--index", index, "--json", "--map", town.path)
    assert (told.exit_code, told.stderr) == (0, "")
    assert checked_json(told.stdout, "locate")["features"][0]["properties"]["evidence"]["accuracy"] == "pixel"
    before = listing(tmp_path)
    drawn = geomatch("locate", tmp_path / "s.tif", "--index", index, "--overlay", tmp_path / "o.png")
    assert drawn.exit_code == 3  # a picture of the map needs the map
    assert drawn.stdout == ""  # and is missed before the work
    assert "--map" in drawn.stderr
    assert listing(tmp_path) == before


def test_wrong_map_is_refused(town: Town, town_index: Path, tmp_path: Path) -> None:
    town_part(tmp_path / "s.tif", town)
    write_town(tmp_path / "other.tif", optical(seed=11))
    before = listing(tmp_path)
    for name, why in [("other.tif", "has changed since"), ("gone.tif", "is not there")]:
        result = geomatch("locate", tmp_path / "s.tif", "--index", town_index, "--map", tmp_path / name)
        assert result.exit_code == 3
        assert_says(result.stderr, f"{tmp_path / name}: ", why)
    assert listing(tmp_path) == before


# --- places to write ---


OUTPUTS: dict[str, tuple[list[str], int, str]] = {
    "no folder for answers": (["-o", "deep/o.geojson"], 5, "does not exist"),
    "no folder for a picture": (["--overlay", "deep/o.png"], 5, "does not exist"),
    "no folder for a strip": (["--warp", "deep/o.tif"], 5, "does not exist"),
    "answers into a folder": (["-o", "folder.gpkg"], 5, "this is a folder"),
    "unknown kind of file": (["-o", "o.kml"], 2, ".geojson"),
    "no kind of file": (["-o", "o"], 2, ".geojson"),
    "unknown kind of picture": (["--overlay", "o.bmp"], 2, "unknown kind of file '.bmp'"),
    "unknown kind of strip": (["--warp", "o.png"], 2, "unknown kind of file '.png'"),
    "unknown kind of points": (["--gcps", "o.csv"], 2, "unknown kind of file '.csv'"),
    "points onto the strip": (["--gcps", "s.tif"], 2, "would overwrite a file that is read"),
    "no folder for points": (["--gcps", "deep/o.points"], 5, "does not exist"),
    "onto the strip": (["--warp", "s.tif"], 2, "would overwrite a file that is read"),
    "onto the strip by its folder": (["--warp", "."], 2, "would overwrite a file that is read"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_place_that_cannot_be_written_is_told_before_the_work(
    name: str, town: Town, town_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, code, why = OUTPUTS[name]
    monkeypatch.chdir(tmp_path)
    town_part(tmp_path / "s.tif", town)
    (tmp_path / "folder.gpkg").mkdir()
    before = listing(tmp_path)
    result = geomatch("locate", "s.tif", "--index", town_index, "--json", *words)
    assert result.exit_code == code
    assert_says(result.stderr, why)
    assert result.stdout == ""  # before the work
    assert listing(tmp_path) == before


SEVERAL: dict[str, tuple[list[str], int, str]] = {
    "a file in the way": (["--overlay", "o.png"], 2, "is a file"),
    "no folder": (["--overlay", "deep/er"], 5, "does not exist"),
    "onto the strips": (["--warp", "."], 2, "would overwrite a file that is read"),
    "onto each other": (["--warp", "out"], 2, "is where both s.tif and twin/s.tif would go"),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_folder_for_several_strips_that_cannot_be(
    name: str, town: Town, town_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, code, why = SEVERAL[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twin").mkdir()
    (tmp_path / "o.png").write_text("mine")
    town_part(tmp_path / "s.tif", town)
    town_part(tmp_path / "twin" / "s.tif", town)
    before = listing(tmp_path)
    result = geomatch("locate", "s.tif", "twin/s.tif", "--index", town_index, *words)
    assert result.exit_code == code
    assert_says(result.stderr, why)
    assert listing(tmp_path) == before


def test_map_is_never_overwritten(town: Town, tmp_path: Path) -> None:
    path = shutil.copy(town.path, tmp_path / "map.tif")
    assert geomatch("index", "build", path, "-o", tmp_path / "a.gmi", "--stride", 64).exit_code == 0
    town_part(tmp_path / "s.tif", town)
    before = listing(tmp_path)
    result = geomatch("locate", tmp_path / "s.tif", "--index", tmp_path / "a.gmi", "--warp", path)
    assert result.exit_code == 2
    assert "would overwrite" in complaint(result.stderr)
    assert listing(tmp_path) == before


INSIDE: dict[str, list[str]] = {
    "features of the index": ["locate", "s.tif", "--warp", "town.gmi/features.tif"],
    "a new strip": ["locate", "s.tif", "--warp", "town.gmi/new.tif"],
    "strips in a folder": ["locate", "s.tif", "twin/t.tif", "--warp", "town.gmi"],
    "a new folder": ["locate", "s.tif", "twin/t.tif", "--overlay", "town.gmi/new"],
    "a picture": ["locate", "s.tif", "--overlay", "town.gmi/new.png"],
    "answers": ["locate", "s.tif", "-o", "town.gmi/a.geojson"],
    "answers for tiles": ["locate", "s.tif", "-o", "town.gmi/tiles.parquet"],
    "a report": ["evaluate", "--sar", "s.tif", "--windows", "1", "-o", "town.gmi"],
    "a report below": ["evaluate", "--sar", "s.tif", "--windows", "1", "-o", "town.gmi/report"],
}


@pytest.mark.parametrize("name", INSIDE)
def test_nothing_is_written_into_an_index(
    name: str, town: Town, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twin").mkdir()
    town_part(tmp_path / "s.tif", town)
    town_part(tmp_path / "twin" / "t.tif", town)
    before = listing(tmp_path)
    result = geomatch(*INSIDE[name], "--index", index)
    assert result.exit_code == 5
    assert_says(result.stderr, "town.gmi", f"lies inside the index {index}")
    assert result.stdout == ""
    assert listing(tmp_path) == before


def test_index_that_is_there_and_places_that_are_not(town: Town, tmp_path: Path) -> None:
    (tmp_path / "mine.gmi").mkdir()
    (tmp_path / "mine.gmi" / "photo.jpg").write_text("mine")
    (tmp_path / "file.gmi").write_text("mine")
    assert geomatch("index", "build", town.path, "-o", tmp_path / "a.gmi", "--stride", 100).exit_code == 0
    before = listing(tmp_path)
    for name, more, why in [
        ("a.gmi", [], "is there already. Choose another place, or --overwrite"),
        ("mine.gmi", ["--overwrite"], "is there already"),
        ("file.gmi", ["--overwrite"], "is there already"),
        ("deep/a.gmi", [], "does not exist"),
    ]:
        result = geomatch("index", "build", town.path, "-o", tmp_path / name, *more)
        assert result.exit_code == 5
        assert_says(result.stderr, f"{tmp_path / Path(name).parts[0]}", why)
        assert listing(tmp_path) == before


@AS_ROOT
@pytest.mark.parametrize("command", ["index", "locate", "evaluate", "simulate", "demo"])
def test_read_only_folder_is_told(command: str, town: Town, town_index: Path, tmp_path: Path) -> None:
    town_part(tmp_path / "s.tif", town)
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    words: dict[str, list[Any]] = {
        "index": ["build", town.path, "-o", folder / "a.gmi"],
        "locate": [tmp_path / "s.tif", "--index", town_index, "-o", folder / "o.geojson"],
        "evaluate": ["--index", town_index, "--sar", tmp_path / "s.tif", "-o", folder / "report"],
        "simulate": ["-o", folder / "city", "--size", 256, "--strips", 0],
        "demo": ["-o", folder / "demo"],
    }
    result = geomatch(command, *words[command])
    assert result.exit_code == 5
    assert "locked" in complaint(result.stderr)
    assert list(folder.iterdir()) == []


# --- a disk that is full ---


def test_full_disk_while_building(town: Town, index: Path) -> None:
    before = listing(index.parent)
    with small_disk(100_000):
        result = geomatch("index", "build", town.path, "-o", index, "--overwrite", "--stride", 64)
    assert result.exit_code == 5
    assert_says(result.stderr, f"{index}: ", "disk|larger than this place allows")
    assert listing(index.parent) == before


def test_full_disk_while_writing_answers_does_not_lose_them(town: Town, town_index: Path, tmp_path: Path) -> None:
    town_part(tmp_path / "s.tif", town)
    (tmp_path / "o.geojson").write_text("of yesterday")
    before = listing(tmp_path)
    with small_disk(100):
        result = geomatch("locate", tmp_path / "s.tif", "--index", town_index, "--json", "-o", tmp_path / "o.geojson")
    assert result.exit_code == 5
    assert_says(result.stderr, f"{tmp_path / 'o.geojson'}: ", "disk|larger than this place allows")
    assert checked_json(result.stdout, "locate")["features"][0]["properties"]["status"] == "located"
    assert listing(tmp_path) == before


@pytest.mark.parametrize("words", [["--overlay", "p"], ["--warp", "p"]])
def test_full_disk_while_drawing_does_not_stop_the_others(
    words: list[str], town: Town, town_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one.tif", "two.tif"):
        town_part(tmp_path / name, town)
    with small_disk(1000):
        result = geomatch("locate", "one.tif", "two.tif", "--index", town_index, "--json", *words)
    assert result.exit_code == 5
    one, two = result.stderr.splitlines()
    assert "p/one." in complaint(one)
    assert "p/two." in complaint(two)
    features = checked_json(result.stdout, "locate")["features"]
    assert [feature["properties"]["status"] for feature in features] == ["located", "located"]
    assert list((tmp_path / "p").iterdir()) == []


def test_full_disk_while_evaluating(town: Town, town_index: Path, tmp_path: Path) -> None:
    town.write_strip(tmp_path / "scene.tif", Affine.identity(), (768, 768), drift=(0, 0))
    with small_disk(100):
        words = ["--sar", tmp_path / "scene.tif", "--windows", 2, "-o", tmp_path / "report"]
        result = geomatch("evaluate", "--index", town_index, *words)
    assert result.exit_code == 5
    assert_says(result.stderr, str(tmp_path / "report"), "disk|larger than this place allows")
    assert listing(tmp_path / "report") == {}


def test_full_disk_while_simulating(tmp_path: Path) -> None:
    with small_disk(5000):
        result = geomatch("simulate", "-o", tmp_path / "city", "--size", 256, "--strips", 0)
    assert result.exit_code == 5
    assert_says(result.stderr, str(tmp_path / "city"))
    assert list(tmp_path.iterdir()) == []


# --- Ctrl-C ---


@pytest.mark.parametrize("stage", [FEATURES, TILES])
def test_interrupted_build_leaves_the_old_index_and_nothing_else(
    stage: str, town: Town, index: Path, tmp_path: Path
) -> None:
    """A real SIGINT, once while features are encoded and once while tiles are pooled."""
    large = write_town(tmp_path / "large.tif", np.tile(town.bands, (1, 5, 5)))
    before = listing(tmp_path)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "geomatch",
        "index",
        "build",
        large.path,
        "-o",
        index,
        "--overwrite",
        "--stride",
        "8",
    ]
    # A shell that starts pytest in the background leaves SIGINT ignored, and children inherit that.
    heed = lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None  # noqa: E731
    building = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed)  # noqa: PLW1509
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(f".{index.name}.*.tmp/{index.name}/{stage}")):
            assert building.poll() is None, "the build ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        building.send_signal(signal.SIGINT)
        _, said = building.communicate(timeout=60)
    finally:
        building.kill()
        building.wait()
    assert building.returncode == 130
    assert said == "geomatch: interrupted, nothing was left half-written\n"
    assert listing(tmp_path) == before


# --- options ---


OPTIONS: dict[str, tuple[list[Any], str]] = {
    "negative scale": (["locate", "s.tif", "--gsd", -1], "--gsd"),
    "no scale": (["locate", "s.tif", "--gsd", 0], "--gsd"),
    "scale that is no number": (["locate", "s.tif", "--gsd", "nan"], "--gsd"),
    "scale in words": (["locate", "s.tif", "--gsd", "coarse"], "--gsd"),
    "heading in words": (["locate", "s.tif", "--heading", "abc"], "--heading"),
    "heading beyond the circle": (["locate", "s.tif", "--heading", 1e9], "--heading"),
    "heading that is no number": (["locate", "s.tif", "--heading", "nan"], "--heading"),
    "unknown kind": (["locate", "s.tif", "--kind", "nonsense"], "'auto', 'power', 'amplitude', 'db', 'complex'"),
    "band in words": (["locate", "s.tif", "--band", "red"], "--band"),
    "no strip": (["locate"], "strips"),
    "no windows": (["evaluate", "--sar", "s.tif", "--windows", 0], "0 windows"),
    "negative windows": (["evaluate", "--sar", "s.tif", "--windows", -4], "-4 windows"),
    "windows of nothing": (["evaluate", "--sar", "s.tif", "--size", 0], "windows of 0 px"),
    "negative seed": (["evaluate", "--sar", "s.tif", "--seed", -1], "--seed"),
    "no scene": (["evaluate"], "--sar"),
    "garbage for a box": (["evaluate", "--sar", "s.tif", "--bbox", "here"], "--bbox: 'here' is no bounding box"),
    "box of three": (["evaluate", "--sar", "s.tif", "--bbox", "1,2,3"], "--bbox"),
    "box of nothing": (["evaluate", "--sar", "s.tif", "--bbox", "1,2,nan,4"], "--bbox"),
    "box inside out": (["evaluate", "--sar", "s.tif", "--bbox", "3,2,1,4"], "--bbox"),
    "box elsewhere": (["evaluate", "--sar", "s.tif", "--bbox", "1,2,3,4"], "does not touch the index"),
    "garbage for the map's box": (["index", "build", "map.tif", "-o", "a.gmi", "--bbox", "all"], "--bbox: 'all' is no"),
    "nonsense vectors": (["index", "build", "map.tif", "-o", "a.gmi", "--vectors", "nonsense"], "nonsense"),
    "tile of nothing": (["index", "build", "map.tif", "-o", "a.gmi", "--tile", 0], "tiles of 0 px"),
    "stride of nothing": (["index", "build", "map.tif", "-o", "a.gmi", "--stride", 0], "every 0 px"),
    "valid share": (["index", "build", "map.tif", "-o", "a.gmi", "--min-valid", 2], "--min-valid: a valid share of 2"),
    "no share": (["index", "build", "map.tif", "-o", "a.gmi", "--min-valid", "nan"], "a valid share of nan"),
    "less than no PCA": (["index", "build", "map.tif", "-o", "a.gmi", "--components=-1"], "--components: -1"),
    "collection for a folder": (["index", "info", "milvus://localhost:1/x"], "an index's own files"),
    "folder without a name": (["index", "info", "milvus:/x"], "an index's own files"),
    "collection to be checked": (["index", "check", "milvus://localhost:1/x"], "an index's own files"),
    "no such backend": (["locate", "s.tif", "--backend", "abacus"], "--backend: unknown backend 'abacus'"),
    "no backend at all": (
        ["index", "build", "map.tif", "-o", "a.gmi", "--encoder", "structural", "--backend", "abacus"],
        "--backend: unknown backend 'abacus'",
    ),
    "nowhere": (["index", "build", "map.tif"], "--output"),
    "negative seed of a city": (["simulate", "-o", "city", "--seed", -1], "--seed"),
    "city of nothing": (["simulate", "-o", "city", "--size", 0], "0 px cannot be drawn"),
    "pixel of nothing": (["simulate", "-o", "city", "--gsd", 0], "0"),
    "fewer strips than none": (["simulate", "-o", "city", "--size", 256, "--strips", -1], "negative"),
    "strips that do not fit": (["simulate", "-o", "city", "--size", 256], "does not fit"),
    "unknown option": (["locate", "s.tif", "--gds", 3], "--gds"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_option_that_cannot_be_is_a_usage_error(
    name: str, town: Town, town_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, why = OPTIONS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    town_part(tmp_path / "s.tif", town)
    shutil.copy(town.path, tmp_path / "map.tif")
    before = listing(tmp_path)
    result = geomatch(*words, *(["--index", town_index] if words[0] in ("locate", "evaluate") else []))
    assert result.exit_code == 2
    assert why in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert listing(tmp_path) == before
