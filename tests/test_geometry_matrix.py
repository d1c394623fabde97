"""Every way in which pixels may lie on the ground: orientation × CRS × what a pixel is, against GDAL's own tools.

Transforms are made by hand: from pixels to metres east and north, from there to the CRS by PROJ's derivatives.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from drawing import ramp, write_tiff
from numpy.typing import NDArray
from programs import Gdal
from pyproj import CRS, Geod, Transformer
from rasterio.control import GroundControlPoint
from shapely.geometry import Point
from towns import UTM33, Town, corners, moved, optical, pixel_centres, radar_at, write_town

from geomatch.errors import InputError
from geomatch.geo import footprint, grid_through, linear_between, pixel_between, to_crs84
from geomatch.index.build import BuildOptions, build_index
from geomatch.locator import Locator
from geomatch.raster import open_raster
from geomatch.strip_files import StripOptions, read_strip

GSD_M = 0.5
ORIENTATIONS: dict[str, NDArray[np.float64]] = {  # a column and a row, in pixels, as metres east and north
    "north up": np.diag([1.0, -1.0]),
    "south up": np.diag([1.0, 1.0]),
    "turned about": np.diag([-1.0, 1.0]),
    "mirrored": np.diag([-1.0, -1.0]),
    "columns for rows": np.array([[0.0, 1.0], [-1.0, 0.0]]),
    "rotated": np.array([[0.8, -0.6], [-0.6, -0.8]]),
    "sheared": np.array([[1.0, 0.2], [0.1, -1.0]]),
    "anisotropic": np.diag([0.8, -1.25]),
}
FEET = "+proj=tmerc +lat_0=48 +lon_0=16 +x_0=200000 +datum=WGS84 +units=us-ft +type=crs"
KINDS: dict[str, tuple[str, tuple[float, float]]] = {  # CRS, and longitude and latitude of the place
    "UTM": (UTM33, (16.28, 48.15)),
    "Mercator": ("EPSG:3395", (16.28, 48.15)),
    "degrees": ("EPSG:4326", (16.28, 48.15)),
    "feet": (FEET, (16.28, 48.15)),
    "polar": ("EPSG:3413", (16.28, 78.15)),
    "antimeridian": ("EPSG:3832", (180.0, 52.0)),
    "antimeridian, degrees": ("EPSG:4326", (180.0, 52.0)),
}
MEANINGS = ("Area", "Point")
WGS84 = Geod(ellps="WGS84")


def transform_of(kind: str, orientation: str, width: int, height: int, gsd_m: float = GSD_M) -> Affine:
    """Pixel -> CRS of an image whose centre is the kind's place."""
    crs, (lon, lat) = KINDS[kind]
    to_crs = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    azimuths = np.array([90.0, 270.0, 0.0, 180.0])
    lons, lats, _ = WGS84.fwd(np.full(4, lon), np.full(4, lat), azimuths, np.full(4, 10.0))
    around = np.stack(to_crs.transform(lon + (lons - lon + 180) % 360 - 180, lats), axis=-1)
    per_metre = np.stack([around[0] - around[1], around[2] - around[3]], axis=1) / 20
    (a, b), (d, e) = (per_metre @ ORIENTATIONS[orientation] * gsd_m).tolist()
    c, f = to_crs.transform(lon, lat)
    return Affine(a, b, c, d, e, f) @ Affine.translation(-width / 2, -height / 2)


def write_raster(path: Path, kind: str, orientation: str, meaning: str, size: tuple[int, int] = (40, 30)) -> Path:
    """An image that lies so; the transform is that of its pixels' corners whatever the tag says."""
    transform = transform_of(kind, orientation, *size)
    write_tiff(path, ramp(size[1], size[0]), crs=KINDS[kind][0], transform=transform)
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT=meaning)
    return path


def numbers(text: str) -> NDArray[np.float64]:
    return np.array([[float(word) for word in line.split()[:2]] for line in text.splitlines() if line.strip()])


def listed(points: NDArray[np.float64]) -> str:
    return "\n".join(f"{x!r} {y!r}" for x, y in points.tolist()) + "\n"


@pytest.mark.parametrize("kind", KINDS)
def test_points_lie_where_gdaltransform_puts_them(kind: str, tmp_path: Path, gdal: Gdal) -> None:
    points = np.vstack([corners(40, 30), [[20.0, 15.0], [3.5, 27.25]]])
    for orientation, meaning in product(ORIENTATIONS, MEANINGS):
        path = write_raster(tmp_path / f"{orientation}-{meaning}.tif", kind, orientation, meaning)
        with open_raster(path, need_grid=True) as raster:
            grid = raster.grid
        assert grid is not None
        there = numbers(gdal("gdaltransform", path, stdin=listed(points)))
        np.testing.assert_allclose(grid.to_pixel(there), points, atol=0.01, err_msg=f"{orientation}, {meaning}")
        lonlat = numbers(gdal("gdaltransform", "-t_srs", "OGC:CRS84", path, stdin=listed(points)))
        ring = to_crs84(footprint(grid), grid.crs)
        for (lon, lat), corner in zip(lonlat[:4], points[:4], strict=True):
            degrees = min(ring.boundary.distance(Point(lon + turn, lat)) for turn in (-360, 0, 360))
            metres = degrees * 111_320
            assert metres < GSD_M / 2, f"{orientation}, {meaning}, corner {corner}"


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_of_one_image_lie_in_another_where_gdal_puts_them(kind: str, tmp_path: Path, gdal: Gdal) -> None:
    """From an image of every kind to one of another orientation in longitude and latitude, by two tools in a row."""
    points = np.vstack([corners(40, 30), [[20.0, 15.0]]])
    lon, lat = KINDS[kind][1]
    degree = GSD_M / 111_320
    target_transform = Affine(degree * 1.3, 0, lon - 20 * degree, 0, degree, lat - 15 * degree)  # south up
    target = write_tiff(tmp_path / "target.tif", ramp(30, 40), crs="EPSG:4326", transform=target_transform)
    with open_raster(target) as raster:
        target_grid = raster.grid
    for orientation in ORIENTATIONS:
        path = write_raster(tmp_path / f"{orientation}.tif", kind, orientation, "Point")
        with open_raster(path) as raster:
            grid = raster.grid
        assert grid is not None
        assert target_grid is not None
        lonlat = numbers(gdal("gdaltransform", "-t_srs", "OGC:CRS84", path, stdin=listed(points)))
        lonlat[:, 0] = lon + (lonlat[:, 0] - lon + 180) % 360 - 180
        expected = numbers(gdal("gdaltransform", "-i", target, stdin=listed(lonlat)))
        if not kind.startswith("antimeridian"):  # there longitudes jump: the next test
            np.testing.assert_allclose(pixel_between(grid, target_grid, points), expected, atol=0.01)
            linear = linear_between(grid, target_grid)
            np.testing.assert_allclose((points - grid.center_px) @ linear.T + expected[4], expected, atol=0.01)


CENTRE = (380.0, 400.0)


def strip_truth(orientation: str, town: Town, size: tuple[int, int]) -> Affine:
    """Strip pixel -> map pixel, when what it shows lies about CENTRE of the town, as it claims to lie elsewhere."""
    to_lonlat = Transformer.from_crs(town.crs, "EPSG:4326", always_xy=True)
    x, y = moved(town.transform, np.add(CENTRE, [[0, 0], [1, 0], [0, 1]])).T
    lon, lat = to_lonlat.transform(x, y)
    azimuth, _, metres = WGS84.inv(np.full(2, lon[0]), np.full(2, lat[0]), lon[1:], lat[1:])
    map_metres = metres * np.stack([np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))])
    (a, b), (d, e) = np.linalg.solve(map_metres, ORIENTATIONS[orientation] * GSD_M).tolist()
    return Affine(a, b, CENTRE[0], d, e, CENTRE[1]) @ Affine.translation(-size[0] / 2, -size[1] / 2)


def check_strip(lie: tuple[str, str, str], town: Town, locator: Locator, path: Path) -> None:
    """A strip of a kind, an orientation and a meaning of its pixels comes back to its place."""
    kind, orientation, meaning = lie
    size = (260, 240)
    to_map = strip_truth(orientation, town, size)
    pixels = radar_at(town.bands, moved(to_map, pixel_centres(*size)))
    write_tiff(path, pixels, crs=KINDS[kind][0], transform=transform_of(kind, orientation, *size))
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT=meaning)
    location = locator.locate(path)
    assert location.status == "located", str(lie)
    found = moved(~town.transform, moved(Affine(*location.transform or ()), corners(*size)))
    assert np.abs(found - moved(to_map, corners(*size))).max() < 1.0, str(lie)
    assert location.evidence.mirrored == (np.linalg.det(ORIENTATIONS[orientation]) > 0)


@pytest.fixture(scope="module")
def locator(town_index: Path) -> Locator:
    return Locator.open(town_index)


@pytest.mark.parametrize(("kind", "orientation"), list(zip(KINDS, list(ORIENTATIONS)[1:], strict=True)))
def test_strip_that_claims_to_lie_so_is_located(
    kind: str, orientation: str, town: Town, locator: Locator, tmp_path: Path
) -> None:
    check_strip((kind, orientation, "Point"), town, locator, tmp_path / "s.tif")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_strips_of_every_kind_are_located(kind: str, town: Town, locator: Locator, tmp_path: Path) -> None:
    for orientation, meaning in product(ORIENTATIONS, MEANINGS):
        check_strip((kind, orientation, meaning), town, locator, tmp_path / "s.tif")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_maps_of_every_kind_place_a_strip_where_gdal_does(
    kind: str, orientation: str, tmp_path: Path, gdal: Gdal
) -> None:
    bands = optical(512)
    transform = transform_of(kind, orientation, 512, 512)
    here = write_town(tmp_path / "map.tif", bands, transform, KINDS[kind][0])
    build_index(here.path, tmp_path / "map.gmi", BuildOptions(encoder="structural"))
    size, to_map = (240, 240), Affine.translation(150, 120)
    here.write_strip(tmp_path / "s.tif", to_map, size, drift=(0, 0))
    location = Locator.open(tmp_path / "map.gmi").locate(tmp_path / "s.tif")
    assert location.status == "located"
    assert location.center is not None
    told = numbers(gdal("gdaltransform", "-i", here.path, stdin=listed(np.array([location.center]))))
    np.testing.assert_allclose(told, [[150 + 120, 120 + 120]], atol=1.0)


def written_by_points(path: Path, kind: str, orientation: str, count: int = 5, spoilt_px: float = 0.0) -> Path:
    """A strip located by a lattice of control points in longitude and latitude alone."""
    size = (200, 160)
    transform = transform_of(kind, orientation, *size)
    to_lonlat = Transformer.from_crs(KINDS[kind][0], "EPSG:4326", always_xy=True)
    px = np.array([(col, row) for row in np.linspace(0, 160, count) for col in np.linspace(0, 200, count)])
    lon, lat = to_lonlat.transform(*moved(transform, px).T)
    px[0] += spoilt_px
    points = [GroundControlPoint(row, col, x, y, 0.0) for (col, row), x, y in zip(px.tolist(), lon, lat, strict=True)]
    return write_tiff(path, ramp(160, 200), crs="EPSG:4326", transform=None, gcps=points)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", ["north up", "mirrored", "rotated", "sheared"])
def test_control_points_say_what_gdal_makes_of_them(kind: str, orientation: str, tmp_path: Path, gdal: Gdal) -> None:
    path = written_by_points(tmp_path / "s.tif", kind, orientation)
    with open_raster(path) as raster:
        assert raster.grid is None
        assert raster.control is not None
        places_px, places, crs = raster.control
        grid = grid_through(places_px, places, crs, raster.width, raster.height)
    to_lonlat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_lonlat.transform(*grid.to_map(corners(200, 160)).T)
    lon = KINDS[kind][1][0] + (lon - KINDS[kind][1][0] + 180) % 360 - 180
    expected = transform_of(kind, orientation, 200, 160)
    from_lonlat = Transformer.from_crs("EPSG:4326", KINDS[kind][0], always_xy=True)
    found = moved(~expected, np.stack(from_lonlat.transform(lon, lat), -1))
    np.testing.assert_allclose(found, corners(200, 160), atol=0.1)
    if not kind.startswith("antimeridian"):  # where GDAL fits a plane through a jump of 360 degrees
        told = numbers(gdal("gdaltransform", "-order", "1", path, stdin=listed(corners(200, 160))))
        metres = (np.stack([lon, lat], -1) - told) * 111_320 * np.array([np.cos(np.radians(lat[0])), 1.0])
        assert np.abs(metres).max() < GSD_M / 2


def test_strip_located_by_control_points_is_found(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (260, 240)
    to_map = strip_truth("rotated", town, size)
    pixels = radar_at(town.bands, moved(to_map, pixel_centres(*size)))
    lonlat = moved(transform_of("degrees", "rotated", *size), corners(*size))
    points = [
        GroundControlPoint(row, col, x, y) for (col, row), (x, y) in zip(corners(*size), lonlat.tolist(), strict=True)
    ]
    write_tiff(tmp_path / "s.tif", pixels, crs="EPSG:4326", transform=None, gcps=points)
    location = locator.locate(tmp_path / "s.tif")
    assert location.status == "located"
    assert any("from 4 ground control points" in note for note in location.evidence.notes)
    found = moved(~town.transform, moved(Affine(*location.transform or ()), corners(*size)))
    assert np.abs(found - moved(to_map, corners(*size))).max() < 1.0


@pytest.mark.parametrize(
    ("places_px", "told"),
    [
        ([(0, 0), (200, 0)], "2 ground control points"),
        ([(0, 0), (100, 80), (200, 160), (50, 40)], "along a line"),
        ([(0, 0), (200, 0), (200, 160), (0, 160), (100, 10)], "contradict each other"),
    ],
)
def test_control_points_that_say_nothing_or_too_much_are_refused(
    places_px: list[tuple[float, float]], told: str
) -> None:
    lon, lat = KINDS["UTM"][1]
    places = np.array(places_px) * [1e-5, -1e-5] + [lon, lat]
    places[-1] += np.array([0.0, 3e-4]) if told.startswith("contra") else 0.0
    with pytest.raises(InputError, match=told):
        grid_through(places_px, places, CRS.from_epsg(4326), 200, 160)


def test_control_points_without_a_place_are_refused() -> None:
    with pytest.raises(InputError):
        grid_through(corners(200, 160), np.full((4, 2), np.nan), CRS.from_epsg(4326), 200, 160)


@pytest.mark.parametrize("mirrored", [False, True])
def test_raw_strip_is_found_to_be_mirrored_or_not(mirrored: bool, town: Town, locator: Locator, tmp_path: Path) -> None:
    """Neither heading nor look direction is known of a file without georeferencing."""
    size = (280, 260)
    to_map = Affine.translation(380, 400) @ Affine.rotation(130) @ Affine.scale(-1 if mirrored else 1, 1)
    to_map = to_map @ Affine.translation(-size[0] / 2, -size[1] / 2)
    truth = town.write_strip(tmp_path / "s.tif", to_map, size, located=False)
    location = locator.locate(tmp_path / "s.tif", StripOptions(gsd_m=GSD_M, heading_deg="unknown"))
    assert location.status == "located"
    assert location.evidence.mirrored is mirrored
    round_ = "mirror image of" if mirrored else "same way round as"
    assert any(round_ in note for note in location.evidence.notes)
    found = moved(~town.transform, moved(Affine(*location.transform or ()), corners(*size)))
    assert np.abs(found - moved(to_map, corners(*size))).max() < 3
    assert moved(truth, np.array(size) / 2) == pytest.approx(location.center, abs=1)


def test_mirrored_is_told_asked_or_left(town: Town, locator: Locator, tmp_path: Path) -> None:
    size = (280, 260)
    to_map = Affine.translation(380 + size[0] / 2, 400 - size[1] / 2) @ Affine.scale(-1, 1)
    town.write_strip(tmp_path / "s.tif", to_map, size, located=False)
    grid = locator.index.grid
    told = StripOptions(gsd_m=GSD_M, heading_deg=0.95, mirrored="yes")
    asked = StripOptions(gsd_m=GSD_M, heading_deg=0.95, mirrored="unknown")
    assert read_strip(tmp_path / "s.tif", grid, told).tolerance.known
    assert read_strip(tmp_path / "s.tif", grid, asked).tolerance.mirror
    for options in (told, asked):
        location = locator.locate(tmp_path / "s.tif", options)
        assert location.status == "located"
        assert location.evidence.mirrored is True
    left = locator.locate(tmp_path / "s.tif", StripOptions(gsd_m=GSD_M, heading_deg=0.95))
    assert left.status != "located"


def test_map_in_degrees_at_the_pole_is_refused(tmp_path: Path) -> None:
    transform = Affine(1e-5, 0, 16.0, 0, -1e-5, 90.0)
    path = write_town(tmp_path / "pole.tif", optical(256), transform, "EPSG:4326").path
    with pytest.raises(InputError, match=r"pole\.tif.*near a pole.*gdalwarp"):
        build_index(path, tmp_path / "a.gmi", BuildOptions(encoder="structural"))
    assert not (tmp_path / "a.gmi").exists()


def test_json_of_a_footprint_across_the_antimeridian_is_two_pieces(tmp_path: Path, gdal: Gdal) -> None:
    path = write_raster(tmp_path / "a.tif", "antimeridian", "rotated", "Area")
    with open_raster(path) as raster:
        assert raster.grid is not None
        pieces = to_crs84(footprint(raster.grid), raster.grid.crs)
    assert pieces.geom_type == "MultiPolygon"
    west, _, east, _ = pieces.bounds
    assert (west, east) == (-180, 180)
    told = json.loads(gdal("gdalinfo", "-json", path))["cornerCoordinates"]["center"]
    assert raster.grid.to_map(raster.grid.center_px) == pytest.approx(told, abs=0.01)
