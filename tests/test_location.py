"""A Location is whole or it is not made, and its Feature is what RFC 7946 asks for."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import shapely
from affine import Affine
from pyproj import CRS
from shapely.geometry import Polygon, shape

from geomatch.location import Candidate, Evidence, Location, crs_name

PLACED: dict[str, Any] = {
    "transform": (0.5, 0.0, 595_000.0, 0.0, -0.5, 5_333_000.0),
    "footprint": Polygon([(595_000, 5_332_900), (595_100, 5_332_900), (595_100, 5_333_000), (595_000, 5_333_000)]),
    "center": (595_050.0, 5_332_950.0),
    "error_radius_m": 3.0,
}


def located(**changes: Any) -> Location:
    return Location("located", "EPSG:32633", **(PLACED | {"confidence": 0.9} | changes))


@pytest.mark.parametrize("part", PLACED)
@pytest.mark.parametrize("status", ["located", "ambiguous"])
def test_a_place_that_lacks_a_part_is_no_place(status: Any, part: str) -> None:
    with pytest.raises(ValueError, match="needs place"):
        Location(status, "EPSG:32633", **(PLACED | {part: None}))


@pytest.mark.parametrize("part", PLACED)
@pytest.mark.parametrize("status", ["absent", "unusable"])
def test_what_is_nowhere_has_no_part_of_a_place(status: Any, part: str) -> None:
    assert Location(status, "EPSG:32633").affine is None
    with pytest.raises(ValueError, match="has no place"):
        Location(status, "EPSG:32633", **{part: PLACED[part]})


@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan")])
def test_confidence_is_a_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        located(confidence=confidence)


def test_a_location_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        located().confidence = 1.0  # type: ignore[misc]


def test_affine_is_the_transform() -> None:
    assert located().affine == Affine(*PLACED["transform"])


def test_feature_is_plain_json() -> None:
    evidence = Evidence(candidates=(Candidate((1.0, 2.0), 0.5),), seconds={"read": 0.1}, notes=("é",))
    feature = json.loads(json.dumps(located(evidence=evidence).to_feature("a b.tif"), allow_nan=False))
    assert feature["geometry"]["type"] == "Polygon"
    ring = feature["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    outline = shape(feature["geometry"])
    assert isinstance(outline, Polygon)
    assert outline.exterior.is_ccw
    assert all(16.2 < lon < 16.4 and 48.1 < lat < 48.2 for lon, lat in ring)
    properties = feature["properties"]
    assert properties["file"] == "a b.tif"
    assert properties["status"] == "located"
    assert properties["transform"] == list(PLACED["transform"])
    assert properties["evidence"]["candidates"] == [{"center": [1.0, 2.0], "score": 0.5, "probability": 0.0}]
    assert properties["evidence"]["notes"] == ["é"]


def test_nowhere_is_a_feature_without_geometry() -> None:
    feature = Location("absent", "EPSG:32633").to_feature("a.tif")
    assert feature["geometry"] is None
    assert feature["properties"]["status"] == "absent"
    json.dumps(feature, allow_nan=False)


def test_footprint_over_the_antimeridian_is_cut() -> None:
    over = Polygon([(179.9, 0), (180.1, 0), (180.1, 1), (179.9, 1)])
    feature = replace(located(), crs="EPSG:4326", footprint=over).to_feature("a.tif")
    assert feature["geometry"]["type"] == "MultiPolygon"
    bounds = sorted(part.bounds[:3:2] for part in shapely.get_parts(shape(feature["geometry"])))
    assert bounds == [pytest.approx((-180, -179.9)), pytest.approx((179.9, 180))]


@pytest.mark.parametrize("code", ["EPSG:32633", "EPSG:4326", "ESRI:54009"])
def test_crs_is_named_by_its_authority(code: str) -> None:
    assert crs_name(CRS.from_user_input(code)) == code


def test_crs_of_ones_own_is_told_in_full() -> None:
    own = CRS.from_proj4("+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84 +type=crs")
    assert CRS.from_user_input(crs_name(own)) == own
