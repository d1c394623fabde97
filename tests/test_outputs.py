"""Answers in files: RFC 7946 by its rules, GIS formats read back by other readers, nothing half-written."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
from disk import small_disk
from shapely.geometry import MultiPolygon, Polygon, box, shape

from geomatch.errors import OutputError, UsageError
from geomatch.location import Candidate, Evidence, Location
from geomatch.outputs import check_locations_path, feature_collection, write_locations

SUFFIXES = (".geojson", ".gpkg", ".parquet")
# The corner of zone 11 at 117 W on the equator: metres from it are degrees by the WGS 84 ellipsoid.
FOOTPRINT = box(500_000, 0, 501_000, 2_000)
EVIDENCE = Evidence(
    candidates=(Candidate((500_500.0, 1000.0), 0.5),),
    peak=0.5,
    peak_ratio=1.5,
    fine_peak=0.25,
    windows=6,
    inliers=5,
    accuracy="pixel",
    seconds={"read": 0.25, "encode": 0.5},
    notes=("as amplitude", "resampled"),
)
LOCATED = Location(
    "located", "EPSG:32611", (10, 0, 500_000, 0, -10, 2_000), FOOTPRINT, (500_500, 1_000), 12.5, 0.75, EVIDENCE
)
ABSENT = Location("absent", "EPSG:32611", confidence=0.125, evidence=Evidence(notes=("no place resembles it",)))
UNUSABLE = Location("unusable", "EPSG:32611")
ACROSS = Location(
    "ambiguous",
    "EPSG:3832",
    (1, 0, 3_320_000, 0, -1, 10_000),
    box(3_320_000, 0, 3_360_000, 10_000),
    (3_340_000, 5_000),
    9.0,
    0.5,
)  # Pacific Mercator: the antimeridian is at 3,339,585 m
ANSWERS = [("b.tif", LOCATED), ("a.tif", ABSENT), ("across.tif", ACROSS), ("a.tif", UNUSABLE)]


def read(file: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(file) if file.suffix == ".parquet" else geopandas.read_file(file)


def signed_area(ring: list[list[float]]) -> float:
    """Shoelace formula: positive for counter-clockwise rings."""
    x, y = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def test_geojson_keeps_the_rules_of_rfc_7946(tmp_path: Path) -> None:
    write_locations(ANSWERS, tmp_path / "out.geojson")
    collection = json.loads((tmp_path / "out.geojson").read_text(), parse_constant=pytest.fail)
    assert set(collection) == {"type", "features"}  # no "crs" member: section 4
    assert collection["type"] == "FeatureCollection"
    for feature in collection["features"]:
        assert set(feature) == {"type", "geometry", "properties"}
        geometry = feature["geometry"]
        if geometry is None:
            continue
        polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        for exterior, *holes in polygons:
            assert exterior[0] == exterior[-1]
            assert len(exterior) >= 4
            assert signed_area(exterior) > 0  # section 3.1.6
            assert not holes
            lon, lat = np.array(exterior).T
            assert np.abs(lon).max() <= 180
            assert np.abs(lat).max() <= 90
    assert collection["features"][2]["geometry"]["type"] == "MultiPolygon"  # section 3.1.9


def test_geojson_holds_the_answers_in_order(tmp_path: Path) -> None:
    write_locations(ANSWERS, tmp_path / "out.geojson")
    features = json.loads((tmp_path / "out.geojson").read_text())["features"]
    assert features == json.loads(json.dumps(feature_collection(ANSWERS)))["features"]
    assert [feature["properties"]["file"] for feature in features] == ["b.tif", "a.tif", "across.tif", "a.tif"]
    first = features[0]
    candidate = {"center": [500_500.0, 1000.0], "score": 0.5, "probability": 0.0}
    assert first["properties"]["evidence"]["candidates"] == [candidate]
    west, south, east, north = shape(first["geometry"]).bounds
    # UTM 1995 on WGS 84: scale 0.9996 on the central meridian; a degree is 111,319.49 m along the equator and
    # 110,574.3 m across it.
    assert (west, south) == pytest.approx((-117, 0), abs=1e-9)
    assert east + 117 == pytest.approx(1_000 / 0.9996 / 111_319.49, rel=1e-5)
    assert north == pytest.approx(2_000 / 0.9996 / 110_574.3, rel=1e-5)


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_tables_are_read_back_by_geopandas(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"out{suffix}"
    write_locations(ANSWERS, file)
    frame = read(file)
    assert frame["file"].tolist() == ["b.tif", "a.tif", "across.tif", "a.tif"]
    assert frame["status"].tolist() == ["located", "absent", "ambiguous", "unusable"]
    row = frame.iloc[0]
    assert [row[f"transform_{letter}"] for letter in "abcdef"] == [10, 0, 500_000, 0, -10, 2_000]
    assert (row.center_x, row.center_y, row.crs) == (500_500, 1_000, "EPSG:32611")
    assert (row.confidence, row.error_radius_m, row.peak, row.peak_ratio, row.fine_peak) == (0.75, 12.5, 0.5, 1.5, 0.25)
    assert (row.windows, row.inliers, row.accuracy, row.seconds) == (6, 5, "pixel", 0.75)
    assert row.notes == "as amplitude; resampled"
    for missing in ("error_radius_m", "center_x", "center_y", "transform_a", "fine_peak"):
        assert frame[missing].isna().tolist()[1::2] == [True, True]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_holds_the_same_places(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"out{suffix}"
    write_locations(ANSWERS, file)
    frame = read(file)
    assert frame.crs.equals("EPSG:4326", ignore_axis_order=True)
    for feature, geometry in zip(feature_collection(ANSWERS)["features"], frame.geometry, strict=True):
        if feature["geometry"] is None:
            assert geometry is None
        else:
            assert isinstance(geometry, Polygon | MultiPolygon)
            assert shape(feature["geometry"]).symmetric_difference(geometry).area < 1e-12


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("answers", [[], [("a.tif", ABSENT)]])
def test_answers_without_any_place_are_written_too(
    tmp_path: Path, suffix: str, answers: list[tuple[str, Location]]
) -> None:
    file = tmp_path / f"OUT{suffix.upper()}"
    write_locations(answers, file)
    renamed = file.rename(tmp_path / f"out{suffix}")
    assert len(read(renamed)) == len(answers)


def test_geopackage_declares_one_type_of_geometry_and_its_crs(tmp_path: Path) -> None:
    file = tmp_path / "out.gpkg"
    write_locations([("a.tif", ABSENT)], file)
    with sqlite3.connect(file) as database:
        rows = database.execute("SELECT table_name, geometry_type_name, srs_id FROM gpkg_geometry_columns").fetchall()
    database.close()
    assert rows == [("locations", "MULTIPOLYGON", 4326)]


def test_geoparquet_is_in_crs84(tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    write_locations(ANSWERS, file)
    geo = json.loads(pq.read_schema(file).metadata[b"geo"])
    crs = geo["columns"][geo["primary_column"]]["crs"]
    assert crs["id"] == {"authority": "OGC", "code": "CRS84"}


def test_names_that_are_no_utf8_do_not_lose_the_answers(tmp_path: Path) -> None:
    name = os.fsdecode(b"strip\xff.tif")
    for suffix in SUFFIXES:
        file = tmp_path / f"out{suffix}"
        write_locations([(name, LOCATED)], file)
        assert read(file)["file"].tolist() == ["strip?.tif"]


@pytest.mark.parametrize("write", [check_locations_path, partial(write_locations, ANSWERS)])
class TestBadPaths:
    @pytest.mark.parametrize("name", ["out", "out.shp", "out.geojson.gz", ".geojson"])
    def test_unknown_suffix_names_the_known_ones(self, tmp_path: Path, write: Any, name: str) -> None:
        with pytest.raises(UsageError, match=r"\.geojson, \.gpkg, \.parquet"):
            write(tmp_path / name)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_missing_folder(self, tmp_path: Path, write: Any, suffix: str) -> None:
        with pytest.raises(OutputError, match="does not exist"):
            write(tmp_path / "nowhere" / f"out{suffix}")

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_a_folder_in_the_way_stays(self, tmp_path: Path, write: Any, suffix: str) -> None:
        (tmp_path / f"out{suffix}").mkdir()
        with pytest.raises(OutputError):
            write(tmp_path / f"out{suffix}")
        assert [entry.name for entry in tmp_path.iterdir()] == [f"out{suffix}"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_read_only_folder(self, tmp_path: Path, write: Any, suffix: str) -> None:
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(OutputError, match="permission"):
                write(tmp_path / f"out{suffix}")
        finally:
            tmp_path.chmod(0o700)

    @pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
    @pytest.mark.parametrize("module", ["geopandas", "pyogrio"])
    def test_missing_extra_says_what_to_install(
        self, tmp_path: Path, write: Any, suffix: str, module: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UsageError, match=rf"{module}.*pip install 'geomatch\[gis\]'"):
            write(tmp_path / f"out{suffix}")
        assert not list(tmp_path.iterdir())


def test_a_good_path_passes_the_check_and_stays_untouched(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        check_locations_path(tmp_path / f"out{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_there_survives_a_full_disk(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"out{suffix}"
    file.write_text("the old")
    with small_disk(1000), pytest.raises(OutputError) as caught:
        write_locations(ANSWERS, file)
    assert str(caught.value) == f"{file}: the file is larger than this place allows. Choose another place."
    assert file.read_text() == "the old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_there_is_replaced(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"out{suffix}"
    write_locations(ANSWERS, file)
    write_locations([("new.tif", LOCATED)], file)
    assert read(file)["file"].tolist() == ["new.tif"]
    assert list(tmp_path.iterdir()) == [file]
