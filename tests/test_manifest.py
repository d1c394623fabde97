"""The manifest survives its own text; whatever else stands there is refused with the file's name and a next step."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from affine import Affine

from geomatch.errors import IndexFormatError
from geomatch.geo import Grid, as_crs
from geomatch.images import OpticalStretch
from geomatch.manifest import (
    FEATURES,
    FORMAT_VERSION,
    TILES,
    VECTORS,
    EncoderRecord,
    FileRecord,
    Manifest,
    SourceRecord,
    TileRecord,
)

Spoil = Callable[[dict[str, Any]], object]


def manifest(crs: str = "EPSG:32611") -> Manifest:
    return Manifest(
        geomatch_version="0.1.0",
        encoder=EncoderRecord("structural", "ab" * 32, 3, 8),
        tiles=TileRecord(200, 16, 1234, "PCA256,L2norm,Flat"),
        sources=(
            SourceRecord("/maps/größe.tif", "../größe.tif", 99, 1_700_000_000_123_456_789, "cd" * 32, 17, 4),
            SourceRecord("/maps/b.tif", "../b.tif", 98, 1_700_000_000_123_456_790, "ab" * 32, 17, 4),
        ),
        grid=Grid(as_crs(crs), Affine(0.1, 1 / 3, 4e5, 2e-7, -0.1, 3.7e6), 1001, 803),
        stretch=OpticalStretch((1, 2), (0.1, 0.2), (200.5, 1 / 3)),
        feature_rms=0.1 + 0.2,
        files={name: FileRecord(size, "ef" * 32) for size, name in enumerate((TILES, VECTORS, FEATURES))},
    )


def written(folder: Path, text: str) -> Path:
    (folder / "manifest.json").write_text(text)
    return folder


@pytest.mark.parametrize("crs", ["EPSG:32611", "EPSG:4326", "+proj=aeqd +lat_0=48 +lon_0=16.3 +datum=WGS84 +type=crs"])
def test_read_gives_back_exactly_what_was_written(crs: str, tmp_path: Path) -> None:
    before = manifest(crs)
    after = Manifest.read(written(tmp_path, before.to_json()))
    assert replace(after, grid=before.grid) == before
    assert (after.grid.transform, after.grid.width, after.grid.height) == (before.grid.transform, 1001, 803)
    assert after.grid.crs.equals(before.grid.crs)
    assert after.to_json() == before.to_json()


def test_cells_count_the_remainder() -> None:
    assert manifest().cells == (101, 126)


def test_missing_index_and_folder_without_manifest_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match=r"none\.gmi: there is no such index.*[Bb]uild it"):
        Manifest.read(tmp_path / "none.gmi")
    with pytest.raises(IndexFormatError, match=r"no manifest\.json.*[Gg]ive the directory"):
        Manifest.read(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(IndexFormatError, match="not an index"):
        Manifest.read(tmp_path / "file")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 10**30])
def test_newer_formats_ask_for_a_newer_geomatch(version: int, tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match=rf"manifest\.json: has format version {version}.*newer geomatch"):
        Manifest.read(written(tmp_path, json.dumps({"format_version": version, "anything": "else"})))


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", "3", '"x"', '{"format_version": "1"}', '{"format_version": null}']
)
def test_other_json_asks_for_a_new_index(text: str, tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match=r"manifest\.json: has format version.*build the index again|Build the"):
        Manifest.read(written(tmp_path, text))


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_truncated_text_cannot_be_read(length: int, tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match=r"manifest\.json: cannot be read.*Build the index again"):
        Manifest.read(written(tmp_path, manifest().to_json()[:length]))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00garbage", b"\x00" * 64, b"[" * 100_000])
def test_garbage_cannot_be_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(IndexFormatError, match=r"manifest\.json: cannot be read"):
        Manifest.read(tmp_path)


SPOILT: dict[str, Spoil] = {
    "nothing of the grid": lambda values: values.pop("grid"),
    "grid without height": lambda values: values["grid"].pop("height"),
    "no width": lambda values: values["grid"].update(width=0),
    "transform of five": lambda values: values["grid"]["transform"].pop(),
    "transform without area": lambda values: values["grid"].update(transform=[0, 0, 0, 0, 0, 0]),
    "transform that is not finite": lambda values: values["grid"].update(transform=[float("nan")] * 6),
    "transform of words": lambda values: values["grid"].update(transform=list("abcdef")),
    "unknown CRS": lambda values: values["grid"].update(crs="PROJCS[nothing]"),
    "CRS that is a number": lambda values: values["grid"].update(crs=1.5),
    "sources of two parts": lambda values: values["sources"][1].update(col0=5),
    "sources of two scales": lambda values: values["sources"][1].update(scale=2),
    "no source": lambda values: values.update(sources=[]),
    "source without path": lambda values: values["sources"][0].pop("path"),
    "source with more": lambda values: values["sources"][0].update(owner="me"),
    "encoder is a list": lambda values: values.update(encoder=[1, 2]),
    "encoder without cells": lambda values: values["encoder"].pop("cell_px"),
    "cells of no size": lambda values: values["encoder"].update(cell_px=0),
    "cells of words": lambda values: values["encoder"].update(cell_px="8"),
    "files is a list": lambda values: values.update(files=["tiles.parquet"]),
    "no files": lambda values: values.update(files={}),
    "file without size": lambda values: values["files"]["tiles.parquet"].pop("size_bytes"),
    "file outside": lambda values: values["files"].update({"../../etc/passwd": {"size_bytes": 1, "sha256": ""}}),
    "stretch without low": lambda values: values["stretch"].pop("low"),
    "no tiles": lambda values: values["tiles"].update(count=-1),
    "tiles of words": lambda values: values["tiles"].update(size_px="200"),
    "no stride": lambda values: values["tiles"].update(stride_px=0),
    "rms that is not finite": lambda values: values.update(feature_rms=float("nan")),
    "rms of words": lambda values: values.update(feature_rms="much"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_damaged_values_are_told(name: str, tmp_path: Path) -> None:
    values = json.loads(manifest().to_json())
    Manifest.read(written(tmp_path, json.dumps(values)))
    SPOILT[name](values)
    with pytest.raises(IndexFormatError, match=r"manifest\.json: is damaged.*Build the index again"):
        Manifest.read(written(tmp_path, json.dumps(values)))
