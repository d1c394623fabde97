"""``geomatch index build | info | check``."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from programs import complaint, geomatch, listing
from towns import PLACE, Town, moved, optical, write_town

from geomatch.index import build
from geomatch.index.plan import BuildOptions
from geomatch.manifest import FEATURES, MANIFEST, TILES, VECTORS
from geomatch.tile_index import TileIndex


@pytest.fixture
def index(town: Town, town_index: Path, tmp_path: Path) -> Path:
    """A copy of the town's index, to be harmed."""
    return Path(shutil.copytree(town_index, tmp_path / "town.gmi"))


def edited(index: Path, **changes: Any) -> Path:
    values = json.loads((index / MANIFEST).read_text()) | changes
    (index / MANIFEST).write_text(json.dumps(values))
    return index


def facts(index: Path) -> dict[str, str]:
    result = geomatch("index", "info", index)
    assert (result.exit_code, result.stderr) == (0, "")
    return {name: fact.strip() for name, _, fact in (line.partition(":") for line in result.stdout.splitlines())}


def test_options_reach_the_build(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[BuildOptions, bool, str | None]] = []

    def spy(
        orthomosaic: list[Path],
        output: Path,
        options: BuildOptions,
        *,
        overwrite: bool,
        scheduler: str | None,
        progress: Any,
    ) -> TileIndex:
        seen.append((options, overwrite, scheduler))
        made: TileIndex = real(orthomosaic, output, BuildOptions(stride_px=200), overwrite=overwrite, progress=progress)
        return made

    real = build.build_index
    monkeypatch.setattr(build, "build_index", spy)
    assert geomatch("index", "build", town.path, "-o", tmp_path / "a.gmi").exit_code == 0
    words = [
        "--tile",
        96,
        "--stride",
        24,
        "--vectors",
        "Flat",
        "--components",
        64,
        "--bbox",
        "1,2,3,4",
        "--bbox-crs",
        "EPSG:4326",
    ]
    words += [
        "--working-gsd",
        20,
        "--min-valid",
        0.25,
        "--overwrite",
        "--scheduler",
        "local:3",
        "--encoder",
        "a.safetensors",
        "--backend",
        "torch",
    ]
    kept: list[None] = []
    monkeypatch.setattr("geomatch.index.cli.keep_freed", lambda: kept.append(None))
    assert geomatch("index", "build", town.path, "-o", tmp_path / "a.gmi", *words).exit_code == 0
    assert kept == [None]
    told = BuildOptions(96, 24, "a.safetensors", "torch", "Flat", 64, (1, 2, 3, 4), "EPSG:4326", 0.25, 20)
    assert seen == [(BuildOptions(), False, None), (told, True, "local:3")]
    same = [field.name for field in fields(BuildOptions) if getattr(told, field.name) == field.default]
    assert not same
    assert told.kinds == BuildOptions().kinds  # which only a configuration tells


def test_build_says_what_it_made_and_quiet_says_nothing(town: Town, tmp_path: Path) -> None:
    result = geomatch("index", "build", town.path, "-o", tmp_path / "a.gmi", "--stride", 64)
    assert result.stderr == ""
    assert result.stdout.startswith(f"{tmp_path / 'a.gmi'}: 100 tiles of 768 × 768 px, ")
    result = geomatch("index", "build", town.path, "-o", tmp_path / "b.gmi", "--stride", 64, "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_box_cuts_the_map(town: Town, tmp_path: Path) -> None:
    (left, top), (right, bottom) = moved(PLACE, [100, 80]), moved(PLACE, [400, 350])
    box = f"{left},{bottom},{right},{top}"
    result = geomatch("index", "build", town.path, "-o", tmp_path / "a.gmi", "--stride", 64, f"--bbox={box}")
    assert result.exit_code == 0
    assert facts(tmp_path / "a.gmi")["part"].startswith("300 × 270 px of 0.5")
    assert [float(number) for number in facts(tmp_path / "a.gmi")["extent"].split(",")] == [left, bottom, right, top]
    again = geomatch(
        "index",
        "build",
        town.path,
        "-o",
        tmp_path / "b.gmi",
        "--stride",
        64,
        "--bbox",
        facts(tmp_path / "a.gmi")["extent"],
    )
    assert again.exit_code == 0  # what info prints is what --bbox takes
    assert TileIndex.open(tmp_path / "b.gmi").grid == TileIndex.open(tmp_path / "a.gmi").grid


def test_info_tells_what_there_is(town: Town, town_index: Path) -> None:
    told = facts(town_index)
    assert told["map"] == str(town.path)
    assert told["tiles"].startswith(f"{len(TileIndex.open(town_index))} of 200 px every 16 px")
    assert "EPSG:32633" in told["CRS"]
    assert told["lon, lat"].startswith("16.27")


def test_info_as_json_is_the_manifest(town_index: Path) -> None:
    result = geomatch("index", "info", town_index, "--json")
    assert json.loads(result.stdout) == json.loads((town_index / MANIFEST).read_text())


def test_info_tells_that_the_map_is_gone_or_changed(town: Town, index: Path, tmp_path: Path) -> None:
    (source,) = json.loads((index / MANIFEST).read_text())["sources"]
    gone = source | {"path": str(tmp_path / "gone.tif"), "relative_path": "../gone.tif"}
    assert facts(edited(index, sources=[gone]))["map"] == f"{tmp_path / 'gone.tif'}: the map of the index is not there"
    write_town(tmp_path / "gone.tif", optical(seed=11))
    assert "has changed since the index was built" in facts(index)["map"]


def test_sound_index_is_sound(town_index: Path) -> None:
    result = geomatch("index", "check", town_index)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{town_index}: sound\n", "")
    result = geomatch("index", "check", town_index, "--json")
    assert json.loads(result.stdout) == {"index": str(town_index), "sound": True, "faults": []}


@pytest.mark.parametrize("name", [TILES, VECTORS, FEATURES])
@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_flipped_bit_is_found(name: str, where: float, index: Path) -> None:
    content = bytearray((index / name).read_bytes())
    content[int(where * len(content))] ^= 4
    (index / name).write_bytes(content)
    result = geomatch("index", "check", index)
    assert result.exit_code == 4
    assert f"{index}: {name}: its content has changed" in complaint(result.stderr)
    assert "--overwrite" in result.stderr
    result = geomatch("index", "check", index, "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 4
    assert not told["sound"]
    assert len(told["faults"]) == 1


@pytest.mark.parametrize("name", [TILES, VECTORS, FEATURES])
@pytest.mark.parametrize("command", ["info", "check"])
@pytest.mark.parametrize("kept", [None, 0.0, 0.6])
def test_truncated_or_missing_file_is_found_at_once(name: str, command: str, kept: float | None, index: Path) -> None:
    content = (index / name).read_bytes()
    (index / name).unlink()
    if kept is not None:
        (index / name).write_bytes(content[: int(kept * len(content))])
    before = listing(index)
    result = geomatch("index", command, index)
    assert result.exit_code == 4
    assert name in complaint(result.stderr)
    assert str(index) in result.stderr
    assert result.stdout == ""
    assert listing(index) == before


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format_version": 1}', "\x00"])
def test_damaged_manifest_is_told(content: str, index: Path) -> None:
    (index / MANIFEST).write_text(content)
    for command in ("info", "check"):
        result = geomatch("index", command, index)
        assert result.exit_code == 4
        assert str(index / MANIFEST) in complaint(result.stderr)


@pytest.mark.parametrize("version", [2, 99, 0, None, "1"])
def test_other_formats_are_told(version: object, index: Path) -> None:
    result = geomatch("index", "info", edited(index, format_version=version))
    assert result.exit_code == 4
    assert f"has format version {version}, this geomatch reads 1" in complaint(result.stderr)
    assert ("install a newer geomatch" in result.stderr.lower()) == (version in (2, 99))


@pytest.mark.parametrize("command", ["info", "check"])
def test_path_that_is_no_index_is_told(command: str, town: Town, tmp_path: Path) -> None:
    for path, why in [
        (tmp_path / "nothing", "there is no such index. Build it"),
        (tmp_path, "no manifest.json. Give the directory"),
        (town.path, "no manifest.json. Give the directory"),
    ]:
        result = geomatch("index", command, path)
        assert result.exit_code == 4
        assert f"{path}: " in complaint(result.stderr)
        assert why in result.stderr
