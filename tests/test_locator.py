"""Strips cut from a town through transforms made by hand must come back to their place, or say why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from drawing import write_tiff
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from shapely.geometry import Polygon, shape
from towns import (
    PLACE,
    UTM33,
    Town,
    corners,
    moved,
    off_px,
    optical,
    pixel_centres,
    radar_at,
    view,
    write_town,
)

from geomatch.errors import IndexFormatError, InputError
from geomatch.index.build import build_index
from geomatch.index.plan import BuildOptions
from geomatch.locator import Locator
from geomatch.refine import Refined, Refiner
from geomatch.strip_files import StripOptions

Views = dict[str, tuple[tuple[float, float], float, float, tuple[int, int]]]

VIEWS: Views = {  # centre in map pixels, turn clockwise, map pixels per strip pixel, size
    "as the map": ((380, 400), 0, 1, (240, 260)),
    "one tile": ((311.4, 420.7), 0, 1, (200, 200)),
    "turned": ((380, 400), 30, 1, (240, 300)),
    "turned and coarser": ((400.3, 350.7), 200, 1.2, (210, 300)),
    "turned and finer": ((400.3, 350.7), 75, 0.8, (310, 400)),
    "half resolution": ((300, 450), -37, 2, (150, 140)),
    "smaller than a tile": ((300, 450), 0, 1, (120, 130)),
    "eight cells": ((300, 450), 12, 1, (64, 64)),
    "in the corner": ((100, 100), 0, 1, (200, 200)),
    "in the last corner": ((668, 668), 0, 1, (200, 200)),
    "along the last column": ((666, 380), 90, 1, (400, 200)),
}

SMALL = 64  # pixels: the parabola through so few speckled cells is less exact

GEOREFERENCES = {
    "south up": (UTM33, Affine(0.5, 0, 595_000, 0, 0.5, 5_333_000)),
    "rotated": (UTM33, PLACE @ Affine.rotation(33)),
    "feet": ("EPSG:2229", Affine(1.5, 0, 6_480_000, 0, -1.5, 1_840_000)),
    "columns for rows": (UTM33, PLACE @ Affine(0, 1, 0, 1, 0, 0)),
}


@pytest.fixture(scope="module")
def locator(town_index: Path) -> Locator:
    return Locator.open(town_index)


@pytest.mark.parametrize("name", VIEWS)
def test_strip_comes_back_to_its_place(name: str, town: Town, locator: Locator, tmp_path: Path) -> None:
    centre, turn, scale, size = VIEWS[name]
    truth = town.write_strip(tmp_path / "s.tif", view(centre, turn, scale, *size), size)
    location = locator.locate(tmp_path / "s.tif")
    assert location.status == "located"
    assert location.evidence.accuracy == "pixel"
    assert off_px(location, town, truth, size) < (0.5 if min(size) > SMALL else 0.75)
    assert location.center is not None
    np.testing.assert_allclose(location.center, moved(truth, np.array(size) / 2), atol=0.25)
    assert location.crs == town.crs


@pytest.mark.parametrize("shares", [0.01, 0.03])
def test_scattered_holes_do_not_cost_the_answer(shares: float, town: Town, locator: Locator, tmp_path: Path) -> None:
    size, to_map = (240, 240), view((380, 400), 0, 1, 240, 240)
    truth = town.write_strip(tmp_path / "s.tif", to_map, size)
    with rasterio.open(tmp_path / "s.tif", "r+") as file:
        data = file.read(1).astype(np.float32)
        data[np.random.default_rng(0).random(data.shape) < shares] = np.nan
        file.write(data, 1)
    location = locator.locate(tmp_path / "s.tif")
    assert location.status == "located"
    assert off_px(location, town, truth, size) < 1


def test_long_narrow_strip_is_fixed_on_pixels_along_all_of_it(
    town: Town, locator: Locator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (120, 640)
    truth = town.write_strip(tmp_path / "s.tif", view((380, 384), 0, 1, *size), size)
    seen: list[int] = []
    at = Refiner.at

    def watched(self: Refiner, corner_px: NDArray[np.float64]) -> Refined:
        seen.append(self.cells)
        return at(self, corner_px)

    monkeypatch.setattr(Refiner, "at", watched)
    assert off_px(locator.locate(tmp_path / "s.tif"), town, truth, size) < 0.5
    assert min(seen) >= 120 * 640 / 4  # cells of 2 × 2 px


def test_narrow_strip_whose_start_holds_no_data_is_answered(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (120, 640)
    truth = town.write_strip(tmp_path / "s.tif", view((380, 384), 0, 1, *size), size)
    with rasterio.open(tmp_path / "s.tif", "r+") as file:
        data = file.read(1)
        data[:230] = 0
        file.write(data, 1)
    assert off_px(locator.locate(tmp_path / "s.tif"), town, truth, size) < 1


def test_told_pixel_size_keeps_the_files_own_heading(town: Town, locator: Locator, tmp_path: Path) -> None:
    size, to_map = (240, 300), view((380, 400), 30, 1, 240, 300)
    town.write_strip(tmp_path / "s.tif", to_map, size)
    told = locator.locate(tmp_path / "s.tif", StripOptions(gsd_m=0.5))
    assert told.center == pytest.approx(locator.locate(tmp_path / "s.tif").center, abs=0.25)
    assert any("0.5 m per pixel as told" in note for note in told.evidence.notes)


def test_small_strip_hanging_over_the_edge_is_found(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (180, 180)
    truth = town.write_strip(tmp_path / "s.tif", view((55, 400), 0, 1, *size), size)
    location = locator.locate(tmp_path / "s.tif")
    assert off_px(location, town, truth, size) < 1.5


def test_answer_is_consistent_in_itself(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (240, 300)
    town.write_strip(tmp_path / "s.tif", view((380, 400), 30, 1, *size), size)
    location = locator.locate(tmp_path / "s.tif")
    assert location.transform is not None
    assert location.footprint is not None
    outline = moved(Affine(*location.transform), corners(*size))
    assert location.footprint.symmetric_difference(Polygon(outline)).area < 1e-3
    assert location.center == pytest.approx(outline.mean(axis=0), abs=1e-6)
    evidence = location.evidence
    assert location.center is not None
    assert evidence.inliers == evidence.windows > 1
    assert evidence.candidates[0].score == evidence.peak
    assert np.hypot(*np.subtract(evidence.candidates[0].center, location.center)) < 4
    assert set(evidence.seconds) == {"read", "encode", "search", "correlate", "refine"}
    assert all(value >= 0 for value in evidence.seconds.values())


def test_candidates_are_the_likeliest_places(town: Town, locator: Locator, tmp_path: Path) -> None:
    """Of strips so small, and half of them of another town, that many places may be theirs."""
    several, other = 0, write_town(tmp_path / "other.tif", optical(seed=8))
    for number in range(12):
        place, size = (180 + 37.0 * number, 600 - 31.0 * number), (56, 56)
        (town, other)[number % 2].write_strip(tmp_path / "s.tif", view(place, 0, 1, *size), size)
        evidence = locator.locate(tmp_path / "s.tif").evidence
        told = [one.probability for one in evidence.candidates]
        assert told[1:] == sorted(told[1:], reverse=True)
        away = [np.hypot(*np.subtract(one.center, evidence.candidates[0].center)) for one in evidence.candidates]
        several += evidence.likely_places > 1
        if evidence.likely_places <= len(told):
            expected = max(away[: evidence.likely_places])
            assert evidence.likely_within_m == pytest.approx(expected, rel=1e-2, abs=1e-6)
        else:
            assert evidence.likely_within_m > 0
    assert several >= 3


def test_feature_is_geojson_at_the_true_place_on_the_globe(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (240, 300)
    truth = town.write_strip(tmp_path / "s.tif", view((380, 400), 30, 1, *size), size)
    feature = json.loads(json.dumps(locator.locate(tmp_path / "s.tif").to_feature("s.tif"), allow_nan=False))
    assert feature["type"] == "Feature"
    assert feature["properties"]["file"] == "s.tif"
    assert "footprint" not in feature["properties"]
    lonlat = np.stack(
        Transformer.from_crs(town.crs, "OGC:CRS84", always_xy=True).transform(*moved(truth, corners(*size)).T), axis=-1
    )
    outline = shape(feature["geometry"])
    assert isinstance(outline, Polygon)
    assert outline.exterior.is_ccw
    assert outline.intersection(Polygon(lonlat)).area / outline.union(Polygon(lonlat)).area > 0.99


def test_same_strip_gets_the_same_answer(town: Town, town_index: Path, tmp_path: Path) -> None:
    size = (240, 300)
    town.write_strip(tmp_path / "s.tif", view((380, 400), 30, 1, *size), size)
    one, two = (Locator.open(town_index).locate(tmp_path / "s.tif") for _ in range(2))
    assert (one.transform, one.confidence) == (two.transform, two.confidence)


def test_claimed_position_does_not_matter(town: Town, locator: Locator, tmp_path: Path) -> None:
    size, to_map = (240, 240), view((380, 400), 30, 1, 240, 240)
    found = []
    for number, drift in enumerate([(0.0, 0.0), (2_500.0, -900.0), (-180_000.0, 400_000.0)]):
        town.write_strip(tmp_path / f"{number}.tif", to_map, size, drift=drift)
        found.append(locator.locate(tmp_path / f"{number}.tif").transform)
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0] == pytest.approx(found[2], abs=1e-6)


@pytest.mark.parametrize("name", GEOREFERENCES)
def test_maps_of_any_orientation_and_unit(name: str, town: Town, tmp_path: Path) -> None:
    crs, transform = GEOREFERENCES[name]
    here = write_town(tmp_path / "map.tif", town.bands, transform, crs)
    build_index(here.path, tmp_path / "map.gmi", BuildOptions(stride_px=32))
    size = (240, 300)
    truth = here.write_strip(tmp_path / "s.tif", view((380, 400), 30, 1, *size), size)
    location = Locator.open(tmp_path / "map.gmi").locate(tmp_path / "s.tif")
    assert location.status == "located"
    assert off_px(location, here, truth, size) < 0.5
    assert location.center == pytest.approx(moved(truth, np.array(size) / 2), abs=1)


def test_part_of_a_map_is_searched_and_answered_in_the_maps_coordinates(town: Town, tmp_path: Path) -> None:
    left, top = moved(PLACE, [201, 133])
    right, bottom = moved(PLACE, [701, 650])
    options = BuildOptions(bbox=(left, bottom, right, top), stride_px=32)
    build_index(town.path, tmp_path / "part.gmi", options)
    size = (240, 260)
    truth = town.write_strip(tmp_path / "s.tif", view((420, 400), 0, 1, *size), size)
    location = Locator.open(tmp_path / "part.gmi").locate(tmp_path / "s.tif")
    assert location.evidence.accuracy == "pixel"
    assert off_px(location, town, truth, size) < 0.5


def true_north(town: Town, centre_px: tuple[float, float], heading_deg: float, gsd_m: float) -> Affine:
    """Linear map of a strip whose up points to ``heading_deg``, by geodesics on the ellipsoid: strip px -> map px."""
    globe, to_globe = Geod(ellps="WGS84"), Transformer.from_crs(town.crs, "OGC:CRS84", always_xy=True)
    x, y = moved(town.transform, centre_px)
    lon, lat = to_globe.transform(x, y)
    ends = []
    for azimuth in (heading_deg + 90, heading_deg + 180):  # along a row, down a column
        east, north, _ = globe.fwd(lon, lat, azimuth, 100 * gsd_m)
        ends.append(to_globe.transform(east, north, direction="INVERSE"))
    across, down = (moved(~town.transform, end) - centre_px for end in ends)
    return Affine(across[0] / 100, down[0] / 100, 0, across[1] / 100, down[1] / 100, 0)


@pytest.mark.parametrize(("heading", "gsd"), [(0.0, 0.5), (140.0, 0.5), (-75.0, 0.6), (359.0, 0.4)])
def test_strip_without_georeference_is_read_by_heading_and_pixel_size(
    heading: float, gsd: float, town: Town, locator: Locator, tmp_path: Path
) -> None:
    size, centre = (280, 320), (384.0, 384.0)
    linear = true_north(town, centre, heading, gsd)
    to_map = Affine.translation(*centre) @ linear @ Affine.translation(-size[0] / 2, -size[1] / 2)
    truth = town.write_strip(tmp_path / "s.tif", to_map, size, located=False)
    location = locator.locate(tmp_path / "s.tif", StripOptions(gsd_m=gsd, heading_deg=heading))
    assert location.status == "located"
    assert off_px(location, town, truth, size) < 0.5
    assert any("no georeferencing" in note and f"{gsd:g} m" in note for note in location.evidence.notes)


def test_strip_without_anything_is_taken_as_north_up_at_the_maps_resolution(
    town: Town, locator: Locator, tmp_path: Path
) -> None:
    size = (240, 260)
    truth = town.write_strip(tmp_path / "s.tif", view((380, 400), 0, 1, *size), size, located=False)
    location = locator.locate(tmp_path / "s.tif")
    assert location.status == "located"
    assert location.center == pytest.approx(moved(truth, np.array(size) / 2), abs=0.5)
    assert off_px(location, town, truth, size) < 4  # grid north is one degree off true north, 3 px at the corners
    assert any("no georeferencing" in note for note in location.evidence.notes)


def test_what_is_told_sets_the_files_georeference_aside(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (240, 260)
    truth = town.write_strip(tmp_path / "s.tif", view((380, 400), 0, 1, *size), size)
    told = locator.locate(tmp_path / "s.tif", StripOptions(gsd_m=0.5, heading_deg=0.95))  # the convergence there
    assert off_px(told, town, truth, size) < 1
    assert any("set aside" in note for note in told.evidence.notes)


def lonlat_strip(town: Town, path: Path, crs: str, transform: Affine, size: tuple[int, int]) -> NDArray[np.float64]:
    """A strip in another CRS, every pixel fetched through PROJ; returns its corners and centre in map pixels."""
    back = Transformer.from_crs(crs, town.crs, always_xy=True)

    def map_px(points: NDArray[np.float64]) -> NDArray[np.float64]:
        xy = moved(transform, points)
        return moved(~town.transform, np.stack(back.transform(xy[..., 0], xy[..., 1]), axis=-1))

    pixels = radar_at(town.bands, map_px(pixel_centres(*size)))
    write_tiff(path, pixels, crs=crs, transform=transform)
    return map_px(np.vstack([corners(*size), [np.array(size) / 2]]))


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32632", "EPSG:3035"])
def test_strip_in_another_crs_is_turned_and_scaled_as_proj_says(
    crs: str, town: Town, locator: Locator, tmp_path: Path
) -> None:
    size = (260, 280)
    there = Transformer.from_crs(town.crs, crs, always_xy=True)
    x, y = there.transform(*moved(PLACE, [390, 380]))
    east, _ = there.transform(*moved(PLACE, [391, 380]))
    unit = abs(east - x)  # a pixel of the map in units of the strip's CRS
    tall = unit * 0.7 if crs == "EPSG:4326" else unit
    transform = Affine(unit, 0, x - unit * size[0] / 2, 0, -tall, y + tall * size[1] / 2)
    truth = lonlat_strip(town, tmp_path / "s.tif", crs, transform, size)
    location = locator.locate(tmp_path / "s.tif")
    assert location.status == "located"
    assert location.transform is not None
    points = np.vstack([corners(*size), [np.array(size) / 2]])
    found = moved(~town.transform, moved(Affine(*location.transform), points))
    assert np.hypot(*(found - truth).T).max() < 0.5


def test_another_scale_is_told(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (200, 200)
    for scale in (1.0, 1.5):
        town.write_strip(tmp_path / "s.tif", view((380, 400), 0, scale, *size), size)
        told = [note for note in locator.locate(tmp_path / "s.tif").evidence.notes if "resampled" in note]
        assert len(told) == (scale != 1)
        assert scale == 1 or "0.75 m" in told[0]


@pytest.mark.parametrize(
    ("scale", "told"),
    [(0.04, "times those of the map"), (5.0, "times those of the map"), (0.2, "120 × 120 px are 24 × 24 of the map's")],
)
def test_scale_too_far_from_the_map_is_refused(
    scale: float, told: str, town: Town, locator: Locator, tmp_path: Path
) -> None:
    town.write_strip(tmp_path / "s.tif", view((380, 400), 0, scale, 120, 120), (120, 120))
    with pytest.raises(InputError, match=rf"s\.tif.*{told}.*--working-gsd"):
        locator.locate(tmp_path / "s.tif")


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0])
def test_strip_is_found_on_a_map_indexed_at_another_pixel(scale: float, town: Town, tmp_path: Path) -> None:
    """The map's pixels are 0.5 m, those that are compared 1 m, those of the strip 0.1 to 0.5 m."""
    build_index(town.path, tmp_path / "map.gmi", BuildOptions(working_gsd_m=1.0))
    size = (round(300 / scale), round(240 / scale))
    truth = town.write_strip(tmp_path / "s.tif", view((380, 400), 30, scale, *size), size, looks=20)
    location = Locator.open(tmp_path / "map.gmi").locate(tmp_path / "s.tif")
    assert location.evidence.accuracy == "pixel"
    assert off_px(location, town, truth, size) < 2  # of the map's, one that was compared


def test_exhaustive_search_agrees(town: Town, town_index: Path, locator: Locator, tmp_path: Path) -> None:
    size = (240, 300)
    truth = town.write_strip(tmp_path / "s.tif", view((380, 400), 30, 1, *size), size)
    location = Locator.open(town_index, exhaustive=True).locate(tmp_path / "s.tif")
    assert off_px(location, town, truth, size) < 0.5
    assert "search" not in location.evidence.seconds


def test_strip_with_holes_is_found(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (300, 300)
    to_map = view((380, 400), 0, 1, *size)
    pixels = radar_at(town.bands, moved(to_map, pixel_centres(*size)))
    pixels[:90, :], pixels[150:170, 40:260], pixels[200:230, 100:140] = 0, np.nan, np.inf
    write_tiff(tmp_path / "s.tif", pixels, crs=UTM33, transform=PLACE, nodata=0)
    location = locator.locate(tmp_path / "s.tif")
    assert location.status == "located"
    assert off_px(location, town, PLACE @ to_map, size) < 0.5


def test_narrow_strip_written_north_up_is_found(town: Town, locator: Locator, tmp_path: Path) -> None:
    """Of a flight to the north-east only the diagonal of the file holds data, less than a quarter of it."""
    to_map = view((384, 384), 0, 1, 500, 500)
    pixels = radar_at(town.bands, moved(to_map, pixel_centres(500, 500)))
    rows, cols = np.mgrid[:500, :500]
    pixels[np.abs(rows + cols - 500) > 62] = np.nan
    write_tiff(tmp_path / "s.tif", pixels, crs=UTM33, transform=PLACE)
    location = locator.locate(tmp_path / "s.tif")
    assert np.isfinite(pixels).mean() < 0.24
    assert location.status == "located"
    assert off_px(location, town, PLACE @ to_map, (500, 500)) < 0.5


@pytest.mark.parametrize(
    ("name", "reason"),
    [("constant", "constant"), ("speckle", "speckle"), ("almost nodata", "hold data"), ("one bright pixel", "")],
)
def test_strips_that_show_nothing_are_unusable(name: str, reason: str, locator: Locator, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = np.full((220, 240), 3.0, "float32")
    if name == "speckle":
        pixels = rng.gamma(1, 1, pixels.shape).astype("float32")
    elif name == "almost nodata":
        pixels *= rng.gamma(4, 1 / 4, pixels.shape).astype("float32")
        pixels[rng.random(pixels.shape) < 0.9] = np.nan
    elif name == "one bright pixel":
        pixels[100, 100] = 1e6
    write_tiff(tmp_path / "s.tif", pixels, crs=UTM33, transform=PLACE)
    location = locator.locate(tmp_path / "s.tif")
    assert location.status in ("unusable",) if name != "one bright pixel" else ("unusable", "absent")
    assert location.transform is None
    assert any(reason in note for note in location.evidence.notes)
    assert json.dumps(location.to_feature("s.tif"), allow_nan=False)


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, 0.0])
def test_strips_without_one_valid_pixel_are_input_errors(fill: float, locator: Locator, tmp_path: Path) -> None:
    pixels = np.full((220, 240), fill, "float32")
    write_tiff(tmp_path / "s.tif", pixels, crs=UTM33, transform=PLACE, nodata=0)
    with pytest.raises(InputError, match=r"s\.tif: no (valid pixel|backscatter)"):
        locator.locate(tmp_path / "s.tif")


@pytest.mark.parametrize("size", [(1, 1), (31, 400), (400, 8)])
def test_strips_of_a_few_pixels_are_input_errors(size: tuple[int, int], locator: Locator, tmp_path: Path) -> None:
    write_tiff(tmp_path / "s.tif", np.ones(size[::-1], "float32"), crs=UTM33, transform=PLACE)
    with pytest.raises(InputError, match="at least 32"):
        locator.locate(tmp_path / "s.tif")


def test_strip_larger_than_the_map_is_never_put_elsewhere(town: Town, locator: Locator, tmp_path: Path) -> None:
    big = (town.bands.shape[2] + 60, town.bands.shape[1] + 80)
    truth = town.write_strip(tmp_path / "s.tif", view((384, 384), 0, 1, *big), big)
    location = locator.locate(tmp_path / "s.tif")
    assert location.status in ("absent", "located")  # its windows are on the map, so finding it is right too
    if location.status == "located":
        assert off_px(location, town, truth, big) < 0.5


def test_strip_that_reaches_over_the_edge_is_never_put_elsewhere(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (240, 300)
    truth = town.write_strip(tmp_path / "s.tif", view((120, 60), 0, 1, *size), size)
    location = locator.locate(tmp_path / "s.tif")
    assert location.status == "absent" or off_px(location, town, truth, size) < 1


def test_another_town_is_less_sure_than_this_one(town: Town, locator: Locator, tmp_path: Path) -> None:
    other = write_town(tmp_path / "other.tif", optical(seed=11))
    size = (200, 200)
    sure = []
    for number, place in enumerate([town, other]):
        place.write_strip(tmp_path / f"{number}.tif", view((380, 400), 0, 1, *size), size)
        sure.append(locator.locate(tmp_path / f"{number}.tif").confidence)
    assert sure[0] > sure[1]


def test_without_the_map_the_answer_stands_at_a_cell(town: Town, town_index: Path, tmp_path: Path) -> None:
    alone = tmp_path / "deep" / "alone.gmi"
    shutil.copytree(town_index, alone)
    edit = json.loads((alone / "manifest.json").read_text())
    edit["sources"][0]["path"] = str(tmp_path / "gone.tif")
    (alone / "manifest.json").write_text(json.dumps(edit))
    size = (240, 300)
    truth = town.write_strip(tmp_path / "s.tif", view((381.3, 402.9), 30, 1, *size), size)
    location = Locator.open(alone).locate(tmp_path / "s.tif")
    assert location.evidence.accuracy == "cell"
    assert location.evidence.fine_peak is None
    assert any("gone.tif" in note for note in location.evidence.notes)
    assert off_px(location, town, truth, size) < 4
    assert location.error_radius_m is not None
    there = Locator.open(alone, map_path=town.path).locate(tmp_path / "s.tif")
    assert there.evidence.accuracy == "pixel"
    assert off_px(there, town, truth, size) < 0.5
    assert there.error_radius_m is not None
    assert there.error_radius_m < location.error_radius_m


def test_wrong_map_is_refused_when_it_is_named(town_index: Path, tmp_path: Path) -> None:
    other = write_town(tmp_path / "other.tif", optical(seed=11))
    with pytest.raises(InputError, match="has changed"):
        Locator.open(town_index, map_path=other.path)
    with pytest.raises(InputError, match=r"gone\.tif.*not there"):
        Locator.open(town_index, map_path=tmp_path / "gone.tif")


def test_missing_index_and_missing_strip_are_told(locator: Locator, tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match="no such index"):
        Locator.open(tmp_path / "nothing.gmi")
    with pytest.raises(InputError, match="no such file"):
        locator.locate(tmp_path / "nothing.tif")


def test_crs_without_a_code_is_told_as_wkt(town: Town, tmp_path: Path) -> None:
    own = CRS.from_proj4("+proj=tmerc +lat_0=48 +lon_0=16.3 +datum=WGS84 +units=m +type=crs")
    transform = Affine(0.5, 0, -200, 0, -0.5, 9_000)
    here = write_town(tmp_path / "map.tif", town.bands, transform, own.to_wkt())
    build_index(here.path, tmp_path / "map.gmi", BuildOptions(stride_px=32))
    size = (240, 240)
    truth = here.write_strip(tmp_path / "s.tif", view((380, 400), 0, 1, *size), size)
    location = Locator.open(tmp_path / "map.gmi").locate(tmp_path / "s.tif")
    assert off_px(location, here, truth, size) < 0.5
    assert CRS.from_wkt(location.crs).is_projected
    assert shape(location.to_feature("s.tif")["geometry"]).centroid.y == pytest.approx(48, abs=0.2)


UNKNOWN = StripOptions(heading_deg="unknown")

TURNED: Views = {
    "as the map": ((380, 400), 0, 1, (240, 260)),
    "one tile, aslant": ((400, 380), 45, 1, (200, 200)),
    "between two headings": ((380, 400), 123.4, 1, (300, 300)),
    "backwards and coarser": ((390.3, 380.7), 200, 1.2, (210, 260)),
    "narrow": ((380, 390), 290, 1, (130, 400)),
}


@pytest.mark.parametrize("name", TURNED)
def test_heading_is_found(name: str, town: Town, locator: Locator, tmp_path: Path) -> None:
    """The file claims to be turned by 77 degrees more than it is; only its scale is right."""
    centre, turn, scale, size = TURNED[name]
    truth = town.write_strip(tmp_path / "s.tif", view(centre, turn, scale, *size), size)
    with rasterio.open(tmp_path / "s.tif", "r+") as file:
        file.transform = file.transform @ Affine.rotation(77)
    location = locator.locate(tmp_path / "s.tif", UNKNOWN)
    assert location.status == "located"
    assert location.center == pytest.approx(moved(truth, np.array(size) / 2), abs=1.5)  # 3 px
    assert off_px(location, town, truth, size) < 8
    assert location.evidence.heading_deg is not None
    convergence = 0.95  # of the town's grid
    assert abs((location.evidence.heading_deg - turn - convergence + 180) % 360 - 180) < 2
    assert f"heading found: {location.evidence.heading_deg:.1f}° clockwise from north" in location.evidence.notes
    assert "attitudes" in location.evidence.seconds


ROUGH = StripOptions(heading_tolerance_deg=10, gsd_tolerance_percent=10)


@pytest.mark.parametrize(("turn_off", "scale_off"), [(9, 0.92), (-7, 1.09), (0, 1.05), (5, 1)])
def test_attitude_told_roughly_is_found(
    turn_off: float, scale_off: float, town: Town, locator: Locator, tmp_path: Path
) -> None:
    size = (280, 260)
    truth = town.write_strip(tmp_path / "s.tif", view((380, 400), 30, 1, *size), size)
    with rasterio.open(tmp_path / "s.tif", "r+") as file:
        file.transform = file.transform @ Affine.rotation(turn_off) @ Affine.scale(scale_off)
    location = locator.locate(tmp_path / "s.tif", ROUGH)
    assert location.status == "located"
    assert off_px(location, town, truth, size) < 5
    assert location.evidence.heading_deg == pytest.approx(30.95, abs=1)
    assert location.evidence.gsd_m == pytest.approx(0.5, rel=0.012)
    notes = location.evidence.notes
    assert f"heading found: {location.evidence.heading_deg:.1f}° clockwise from north" in notes
    assert f"scale found: {location.evidence.gsd_m:.4g} m per pixel" in notes


def test_scale_is_found_within_a_factor_of_two(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (360, 300)
    truth = town.write_strip(tmp_path / "s.tif", view((380, 400), 30, 1, *size), size)
    with rasterio.open(tmp_path / "s.tif", "r+") as file:
        file.transform = file.transform @ Affine.scale(1.7)
    location = locator.locate(tmp_path / "s.tif", StripOptions(gsd_tolerance_percent=100))
    assert location.status == "located"
    assert off_px(location, town, truth, size) < 5
    assert location.evidence.gsd_m == pytest.approx(0.5, rel=0.015)
    assert not any("heading found" in note for note in location.evidence.notes)


def test_heading_is_found_without_any_georeference_and_without_the_map(
    town: Town, locator: Locator, tmp_path: Path
) -> None:
    size = (300, 280)
    truth = town.write_strip(tmp_path / "s.tif", view((380, 400), 222, 1, *size), size, located=False)
    location = Locator(locator.index, None).locate(tmp_path / "s.tif", UNKNOWN)
    assert location.evidence.accuracy == "cell"
    assert off_px(location, town, truth, size) < 12


def test_known_heading_is_told_as_evidence_without_a_note(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (240, 300)
    town.write_strip(tmp_path / "s.tif", view((380, 400), 30, 1, *size), size)
    evidence = locator.locate(tmp_path / "s.tif").evidence
    assert evidence.heading_deg == pytest.approx(30.95, abs=0.1)
    assert not any("heading found" in note for note in evidence.notes)


def test_strip_of_another_town_is_not_located_at_any_heading(locator: Locator, tmp_path: Path) -> None:
    other = write_town(tmp_path / "other.tif", optical(seed=11))
    other.write_strip(tmp_path / "s.tif", view((380, 400), 30, 1, 200, 200), (200, 200))
    location = locator.locate(tmp_path / "s.tif", UNKNOWN)
    assert location.status != "located"
    if location.status == "absent":
        assert not any("heading found" in note for note in location.evidence.notes)


@pytest.mark.parametrize("shown", ["constant", "speckle"])
def test_strip_that_shows_nothing_is_unusable_before_any_heading_is_tried(
    shown: str, locator: Locator, tmp_path: Path
) -> None:
    pixels = np.full((220, 240), 3.0, "float32")
    if shown == "speckle":
        pixels = np.random.default_rng(0).gamma(1, 1, pixels.shape).astype("float32")
    write_tiff(tmp_path / "s.tif", pixels, crs=UTM33, transform=PLACE)
    location = locator.locate(tmp_path / "s.tif", UNKNOWN)
    assert location.status == "unusable"
    assert "attitudes" not in location.evidence.seconds
