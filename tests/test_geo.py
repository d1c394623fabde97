"""Geometry against GDAL's own tools, transforms made by hand, and known distances on the ground."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from drawing import UTM11, ramp, write_tiff
from hypothesis import given
from hypothesis import strategies as st
from programs import Gdal
from pyproj import Geod
from shapely.geometry import MultiPolygon, Point, Polygon

from geomatch.errors import InputError
from geomatch.geo import (
    CRS84,
    Grid,
    as_crs,
    footprint,
    ground_jacobian,
    ground_resolution_m,
    linear_between,
    linear_to_map,
    local_grid,
    to_crs84,
    transform_points,
)
from geomatch.raster import open_raster

UTM_PLACE = Affine.translation(400_000, 3_700_000)
DEGREE_PLACE = Affine.translation(-118.3, 34.1)
POINTS = [(0.0, 0.0), (3.5, 1.25), (20.0, 10.0), (-4.0, 25.0)]

TRANSFORMS = {
    "north up": (UTM11, UTM_PLACE @ Affine.scale(10, -10)),
    "south up": (UTM11, UTM_PLACE @ Affine.scale(10, 10)),
    "anisotropic": (UTM11, UTM_PLACE @ Affine.scale(2, -7)),
    "rotated": (UTM11, UTM_PLACE @ Affine.rotation(33) @ Affine.scale(5, -5)),
    "sheared": (UTM11, UTM_PLACE @ Affine.shear(12, 5) @ Affine.scale(5, -3)),
    "geographic": ("EPSG:4326", DEGREE_PLACE @ Affine.scale(1e-4, -1e-4)),
    "mercator": ("EPSG:3395", Affine(10, 0, -13_161_000, 0, -10, 4_003_000)),
    "feet": ("EPSG:2229", Affine(3, 0, 6_480_000, 0, -3, 1_840_000)),
}


def mercator_grid() -> Grid:
    crs, transform = TRANSFORMS["mercator"]
    return Grid(as_crs(crs), transform, 1000, 800)


def numbers(text: str) -> list[list[float]]:
    return [[float(word) for word in line.split()[:2]] for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_pixels_and_map_agree_with_gdaltransform(name: str, tmp_path: Path, gdal: Gdal) -> None:
    crs, transform = TRANSFORMS[name]
    path = write_tiff(tmp_path / "a.tif", ramp(10, 20), crs=crs, transform=transform)
    with open_raster(path, need_grid=True) as raster:
        grid = raster.grid
    assert grid is not None
    asked = "\n".join(f"{col!r} {row!r}" for col, row in POINTS)
    told = numbers(gdal("gdaltransform", "-output_xy", path, stdin=asked))
    np.testing.assert_allclose(grid.to_map(POINTS), told, rtol=1e-11)
    np.testing.assert_allclose(grid.to_pixel(grid.to_map(POINTS)), POINTS, atol=1e-5)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_longitude_and_latitude_agree_with_gdaltransform(name: str, tmp_path: Path, gdal: Gdal) -> None:
    crs, transform = TRANSFORMS[name]
    path = write_tiff(tmp_path / "a.tif", ramp(10, 20), crs=crs, transform=transform)
    grid = Grid(as_crs(crs), transform, 20, 10)
    told = numbers(gdal("gdaltransform", "-output_xy", "-t_srs", "OGC:CRS84", path, stdin="3.5 1.25\n"))
    found = transform_points(grid.to_map([[3.5, 1.25]]), grid.crs, as_crs("OGC:CRS84"))
    np.testing.assert_allclose(found, told, atol=2e-5)  # datum shifts may be chosen differently, by about a metre


def test_window_keeps_places() -> None:
    grid = Grid(as_crs(UTM11), TRANSFORMS["rotated"][1], 100, 80)
    part = grid.window(-3, 7, 10, 5)
    np.testing.assert_allclose(part.to_map([1.5, 2.5]), grid.to_map([-1.5, 9.5]))
    assert (part.width, part.height) == (10, 5)


def test_shrunk_keeps_places_and_counts_the_remainder() -> None:
    grid = Grid(as_crs(UTM11), TRANSFORMS["sheared"][1], 100, 81)
    cells = grid.shrunk(8)
    np.testing.assert_allclose(cells.to_map([3.0, 5.5]), grid.to_map([24.0, 44.0]))
    assert (cells.width, cells.height) == (13, 11)


@pytest.mark.parametrize("transform", [Affine(1, 2, 0, 2, 4, 0), Affine(float("nan"), 0, 0, 0, 1, 0)])
def test_degenerate_transforms_are_refused(transform: Affine) -> None:
    with pytest.raises(InputError, match="geotransform"):
        Grid(as_crs(UTM11), transform, 10, 10)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_ground_jacobian_is_what_geodesics_measure(name: str) -> None:
    crs, transform = TRANSFORMS[name]
    grid = Grid(as_crs(crs), transform, 200, 100)
    jacobian = ground_jacobian(grid, [30.0, 40.0])
    for axis, step in enumerate([(20.0, 0.0), (0.0, 20.0)]):
        ends = grid.to_map([(30 - step[0], 40 - step[1]), (30 + step[0], 40 + step[1])])
        (lon0, lat0), (lon1, lat1) = transform_points(ends, grid.crs, as_crs("OGC:CRS84"))
        _, _, metres = Geod(ellps="WGS84").inv(lon0, lat0, lon1, lat1)
        assert np.hypot(*jacobian[:, axis]) == pytest.approx(metres / 40, rel=1e-5)


def test_ground_jacobian_of_mercator_is_scaled_by_latitude() -> None:
    grid = mercator_grid()
    _, lat = transform_points(grid.to_map(grid.center_px), grid.crs, as_crs("OGC:CRS84"))
    phi, e2 = np.radians(lat), 0.00669437999014
    expected = 10 * np.cos(phi) / np.sqrt(1 - e2 * np.sin(phi) ** 2)  # Snyder 1987, eq. 7-8
    np.testing.assert_allclose(ground_jacobian(grid), [[expected, 0], [0, -expected]], atol=1e-6)
    assert ground_resolution_m(grid) == pytest.approx(8.3, abs=0.02)


@pytest.mark.parametrize("heading", [0.0, 30.0, -110.0, 180.0])
def test_local_grid_points_up_along_the_heading(heading: float) -> None:
    near = mercator_grid()
    grid = local_grid(near, 2.5, heading, 300, 200)
    east, north = 2.5 * np.sin(np.radians(heading)), 2.5 * np.cos(np.radians(heading))
    jacobian = ground_jacobian(grid)
    np.testing.assert_allclose(-jacobian[:, 1], [east, north], atol=1e-6)
    np.testing.assert_allclose(jacobian[:, 0], [north, -east], atol=1e-6)
    middle = transform_points(grid.to_map([150, 100]), grid.crs, near.crs)
    np.testing.assert_allclose(near.to_pixel(middle), [500, 400], atol=1e-3)


@given(st.floats(-180, 180), st.floats(0.1, 50), st.floats(0.1, 50))
def test_linear_between_shared_crs_is_affine_algebra(angle: float, fine: float, coarse: float) -> None:
    source = Grid(as_crs(UTM11), UTM_PLACE @ Affine.rotation(angle) @ Affine.scale(fine, -fine), 50, 40)
    target = Grid(as_crs(UTM11), UTM_PLACE @ Affine.scale(coarse, -coarse), 50, 40)
    turn = np.radians(-angle)
    by_hand = fine / coarse * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    np.testing.assert_allclose(linear_between(source, target), by_hand, atol=1e-9 * (1 + fine / coarse))


def test_a_claim_near_the_map_is_taken_through_its_projection() -> None:
    near = Grid(as_crs("EPSG:32611"), Affine(0.5, 0.1, 400_000.0, 0.1, -0.5, 3_760_000.0), 300, 200)
    map_grid = Grid(as_crs("EPSG:32611"), Affine(1.0, 0.0, 410_000.0, 0.0, -1.0, 3_770_000.0), 4000, 3000)
    np.testing.assert_allclose(linear_to_map(near, map_grid), [[0.5, 0.1], [-0.1, 0.5]], atol=1e-9)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3395"])
def test_a_claim_on_another_continent_gives_scale_and_heading_on_the_ground(crs: str) -> None:
    """A strip of 2 m pixels, up to the north, flown in California; the map is in Europe."""
    strip = local_grid(Grid(as_crs("EPSG:4326"), Affine(1e-4, 0, -118.0, 0, -1e-4, 34.0), 100, 100), 2.0, 0.0, 500, 300)
    lonlat = transform_points([[14.5, 50.0]], CRS84, as_crs(crs))[0]
    map_grid = Grid(as_crs(crs), Affine(1.0, 0.0, lonlat[0] - 500, 0.0, -1.0, lonlat[1] + 500), 1000, 1000)
    linear = linear_to_map(strip, map_grid)
    ground = ground_jacobian(map_grid) @ linear
    np.testing.assert_allclose(ground, [[2.0, 0.0], [0.0, -2.0]], atol=0.01)


def test_linear_between_two_crs_matches_moved_pixels() -> None:
    target = mercator_grid()
    source = local_grid(target, 8.3, 20.0, 400, 300)
    linear = linear_between(source, target, [100.0, 200.0])
    here = np.array([100.0, 200.0])
    moved = [
        target.to_pixel(transform_points(source.to_map(here + d), source.crs, target.crs))
        for d in ([0, 0], [50, 0], [0, 50])
    ]
    by_steps = np.stack([(moved[1] - moved[0]) / 50, (moved[2] - moved[0]) / 50], axis=1)
    np.testing.assert_allclose(linear, by_steps, atol=1e-4)


def test_places_outside_a_crs_are_named() -> None:
    pole = Grid(as_crs("EPSG:4326"), Affine(1, 0, -10, 0, -1, 90.5), 20, 1)
    with pytest.raises(InputError, match="World Mercator"):
        linear_between(pole, mercator_grid(), [5.0, 0.0])


def test_unknown_crs_is_an_input_error() -> None:
    with pytest.raises(InputError, match="unknown CRS"):
        as_crs("EPSG:999999")


def test_three_dimensional_crs_is_flattened() -> None:
    assert as_crs("EPSG:4979") == as_crs("EPSG:4326")


@pytest.mark.parametrize("name", TRANSFORMS)
def test_footprint_agrees_with_gdalinfo(name: str, tmp_path: Path, gdal: Gdal) -> None:
    crs, transform = TRANSFORMS[name]
    path = write_tiff(tmp_path / "a.tif", ramp(10, 20), crs=crs, transform=transform)
    corners = json.loads(gdal("gdalinfo", "-json", path))["cornerCoordinates"]
    outline = footprint(Grid(as_crs(crs), transform, 20, 10))
    told = Polygon([corners[key] for key in ("upperLeft", "lowerLeft", "lowerRight", "upperRight")])
    assert outline.exterior.is_ccw
    assert outline.symmetric_difference(told).area < 1e-3 * told.area


def test_to_crs84_follows_bent_sides() -> None:
    grid = Grid(as_crs("EPSG:32611"), Affine(1000, 0, 200_000, 0, -1000, 7_000_000), 600, 100)
    bent = to_crs84(footprint(grid), grid.crs)
    middle = transform_points(grid.to_map([300.0, 0.0]), grid.crs, as_crs("OGC:CRS84"))
    straight = Polygon(transform_points(grid.to_map(grid.corners_px), grid.crs, as_crs("OGC:CRS84")))
    assert isinstance(bent, Polygon)
    assert bent.exterior.is_ccw
    assert bent.exterior.distance(Point(middle)) < 1e-3
    assert straight.exterior.distance(Point(middle)) > 0.1


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32601", Affine(1000, 0, 200_000, 0, -1000, 5_000_000)),
        ("EPSG:3832", Affine(5000, 0, 3_000_000, 0, -5000, 1_000_000)),
        ("EPSG:4326", Affine(0.1, 0, 175.0, 0, -0.1, 10.0)),
    ],
)
def test_antimeridian_is_cut(crs: str, transform: Affine) -> None:
    grid = Grid(as_crs(crs), transform, 120, 100)
    cut = to_crs84(footprint(grid), grid.crs)
    assert isinstance(cut, MultiPolygon)
    assert cut.is_valid
    assert all(part.exterior.is_ccw for part in cut.geoms)
    west, east = sorted(cut.geoms, key=lambda part: part.bounds[0])
    assert west.bounds[0] == -180
    assert east.bounds[2] == 180
    unrolled_width = west.bounds[2] + 180 + 180 - east.bounds[0]
    assert unrolled_width < 15


def test_ring_around_a_pole_is_closed_along_it() -> None:
    grid = Grid(as_crs("EPSG:3031"), Affine(10_000, 0, -1e6, 0, -10_000, 1e6), 200, 200)
    cap = to_crs84(footprint(grid), grid.crs)
    assert cap.is_valid
    west, south, east, north = cap.bounds
    assert (west, south, east) == (-180, -90, 180)
    assert -82 < north < -75


def test_holes_stay_holes() -> None:
    ring = Polygon([(0, 0), (4, 0), (4, 4), (0, 4)], [[(1, 1), (2, 1), (2, 2), (1, 2)]])
    moved = to_crs84(ring, as_crs("EPSG:4326"))
    assert moved.area == pytest.approx(15)
