"""Strips resampled as a hand-made transform says, and windows that cover what there is to cover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from drawing import write_tiff
from numpy.typing import NDArray
from towns import PLACE, UTM33, corners, moved, pixel_centres

from geomatch.attitude import TOLD, Attitude
from geomatch.errors import InputError, LimitError, UsageError
from geomatch.geo import Grid, as_crs
from geomatch.strip_files import StripOptions, read_strip
from geomatch.strips import NORTH_UP, RawStrip, Strip, resample

MAP = Grid(as_crs(UTM33), PLACE, 1000, 800)


def matrix(turn_deg: float, scale: float, mirror: bool = False) -> NDArray[np.float64]:
    turned = Affine.rotation(turn_deg) @ Affine.scale(scale, -scale if mirror else scale)
    return np.array([[turned.a, turned.b], [turned.d, turned.e]])


def wave(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """A smooth picture whose value at any place is known: [... x 2] -> [...]."""
    x, y = points[..., 0], points[..., 1]
    return np.asarray(np.sin(x / 17) + np.cos(y / 23 + x / 51), np.float32)


@pytest.mark.parametrize("scale", [1.0, 1.7, 0.8, 0.45, 0.3])
@pytest.mark.parametrize("turn", [0, 30, 90, 180, -75])
@pytest.mark.parametrize("mirror", [False, True])
def test_resampled_pixels_are_where_the_transform_says(scale: float, turn: float, mirror: bool) -> None:
    width, height = 210, 170
    image, valid = wave(pixel_centres(width, height)), np.ones((height, width), bool)
    out, known, from_file = resample(image, valid, matrix(turn, scale, mirror))
    there = moved(~from_file, pixel_centres(out.shape[1], out.shape[0]))
    inner = known & (there > 6).all(axis=-1) & (there < (width - 6, height - 6)).all(axis=-1)
    assert inner.sum() > 0.8 * (width - 12) * (height - 12) * scale**2
    step = 1 / scale  # a pixel of the result in pixels of the image; half of it would show as an error of 0.05 and more
    np.testing.assert_allclose(out[inner], wave(there)[inner], atol=0.006 * max(1, step**2))


@pytest.mark.parametrize("scale", [1.0, 1.7, 0.4])
@pytest.mark.parametrize("turn", [0, 30, 90, 200])
def test_result_is_the_bounding_box_and_all_of_the_image_is_known(scale: float, turn: float) -> None:
    width, height = 120, 80
    out, known, from_file = resample(
        np.zeros((height, width), np.float32), np.ones((height, width), bool), matrix(turn, scale)
    )
    box = moved(from_file, corners(width, height))
    assert np.abs(box.min(axis=0)).max() < 1
    assert (np.array(out.shape[::-1]) - box.max(axis=0) < 1 + 1e-6).all()
    assert (np.array(out.shape[::-1]) - box.max(axis=0) > -1e-6).all()
    area = width * height * scale**2
    assert known.sum() <= area + 1
    assert known.sum() > area - 2 * (width + height) * max(scale, 1) - 4


def test_same_grid_is_the_same_image() -> None:
    image, valid = wave(pixel_centres(50, 40)), np.ones((40, 50), bool)
    out, known, from_file = resample(image, valid, np.eye(2))
    np.testing.assert_array_equal(out, image)
    np.testing.assert_array_equal(known, valid)
    assert from_file == Affine.identity()


def test_holes_are_turned_along_and_do_not_leak() -> None:
    image, valid = wave(pixel_centres(200, 160)), np.ones((160, 200), bool)
    valid[60:90, 50:120] = False
    image[~valid] = 1e6
    out, known, from_file = resample(image, valid, matrix(25, 0.4))
    there = moved(~from_file, pixel_centres(out.shape[1], out.shape[0]))
    hole = (there > (50, 60)).all(axis=-1) & (there < (120, 90)).all(axis=-1)
    assert not known[hole].any()
    assert np.abs(out[known]).max() < 2.01


def test_area_is_that_of_the_file_and_not_of_its_bounding_box() -> None:
    turn = np.array([[1, -1], [1, 1]]) * 0.75
    image, valid, from_file = resample(np.zeros((40, 400), np.float32), np.ones((40, 400), bool), turn)
    strip = Strip(image, valid, from_file, (400, 40))
    assert strip.area_px == pytest.approx(400 * 40 * 1.125)
    assert strip.area_px == pytest.approx(valid.sum(), rel=0.05)
    assert valid.mean() < 0.25


def test_strip_is_read_with_its_size_and_notes(tmp_path: Path) -> None:
    write_tiff(tmp_path / "s.tif", np.ones((100, 140), "float32"), crs=UTM33, transform=PLACE @ Affine.rotation(30))
    strip = read_strip(tmp_path / "s.tif", MAP).at()
    assert strip.file_size == (140, 100)
    assert strip.image.shape == strip.valid.shape
    assert strip.image.shape[1] == pytest.approx(140 * np.cos(np.pi / 6) + 50, abs=2)
    linear = np.array([[strip.from_file.a, strip.from_file.b], [strip.from_file.d, strip.from_file.e]])
    np.testing.assert_allclose(linear, matrix(30, 1), atol=1e-9)
    assert all(note.startswith("s.tif: ") for note in strip.notes)


@pytest.mark.parametrize("gsd_m", [0, -1, float("nan"), float("inf")])
def test_pixels_of_no_size_are_usage_errors(gsd_m: float) -> None:
    with pytest.raises(UsageError, match="--gsd"):
        StripOptions(gsd_m=gsd_m)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"heading_tolerance_deg": 0}, "--heading-tolerance: a tolerance of 0"),
        ({"heading_tolerance_deg": 181}, "--heading-tolerance: a tolerance of 181"),
        ({"heading_tolerance_deg": float("nan")}, "--heading-tolerance: a tolerance of nan"),
        ({"gsd_tolerance_percent": 0}, "--gsd-tolerance: a tolerance of 0"),
        ({"gsd_tolerance_percent": -5}, "--gsd-tolerance: a tolerance of -5"),
        ({"gsd_tolerance_percent": 101}, "--gsd-tolerance: .*up to 100"),
        ({"heading_deg": "unknown", "heading_tolerance_deg": 10}, "an unknown heading has no tolerance"),
    ],
)
def test_tolerances_that_cannot_be_are_usage_errors(given: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        StripOptions(**given)


@pytest.mark.parametrize("heading", [361, -400, float("nan"), float("inf"), "north", ""])
def test_headings_beyond_a_turn_are_usage_errors(heading: Any) -> None:
    with pytest.raises(UsageError, match="--heading"):
        StripOptions(heading_deg=heading)


def test_file_with_points_only_is_taken_as_it_is_told(tmp_path: Path) -> None:
    write_tiff(tmp_path / "s.tif", np.ones((100, 100), "float32"), crs=None, transform=None)
    strip = read_strip(tmp_path / "s.tif", MAP, StripOptions(gsd_m=1.0)).at()
    assert strip.image.shape[0] == pytest.approx(200, abs=6)
    assert any("taken as 1 m per pixel, heading 0°" in note for note in strip.notes)


@pytest.mark.parametrize(("width", "height"), [(40_000, 32), (14_000, 9_000)])
def test_strip_too_large_is_refused_before_it_is_read(width: int, height: int, tmp_path: Path) -> None:
    write_tiff(
        tmp_path / "s.tif",
        np.zeros((32, 32), "uint8"),
        crs=UTM33,
        transform=PLACE,
    )
    path = tmp_path / "large.tif"
    import rasterio

    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=1,
        dtype="uint8",
        crs=UTM33,
        transform=PLACE,
        sparse_ok=True,
        tiled=True,
        compress="deflate",
    ):
        pass
    with pytest.raises(LimitError, match=r"too large for a strip.*gdal_translate"):
        read_strip(path, MAP)


def test_strip_that_has_no_place_in_the_maps_crs_is_an_input_error(tmp_path: Path) -> None:
    write_tiff(
        tmp_path / "s.tif", np.ones((64, 64), "float32"), crs="EPSG:4326", transform=Affine(1, 0, 400, 0, -1, 300)
    )
    with pytest.raises(InputError, match=r"s\.tif"):
        read_strip(tmp_path / "s.tif", MAP)


@pytest.mark.parametrize("further", [1.0, 0.9])
@pytest.mark.parametrize("turn", [0.0, 37.0, -120.0])
def test_raw_strip_is_turned_and_scaled_from_its_own_pixels(turn: float, further: float) -> None:
    width, height = 210, 170
    image, valid = wave(pixel_centres(width, height)), np.ones((height, width), bool)
    raw = RawStrip(image, valid, matrix(20, 1.2), NORTH_UP)
    out, known, from_file = resample(image, valid, matrix(20 + turn, 1.2 * further))
    strip = raw.at(Attitude(turn, further))
    np.testing.assert_allclose(strip.image, out, atol=1e-6)
    np.testing.assert_array_equal(strip.valid, known)
    np.testing.assert_allclose(strip.from_file, from_file, atol=1e-9)
    assert strip.heading_deg == pytest.approx((20 + turn) % 360)
    assert strip.file_size == (width, height)


def test_turn_is_one_on_the_ground_where_pixels_are_not_square() -> None:
    ground = np.diag([0.5, -1.0])  # a map in degrees, at 60 degrees north
    raw = RawStrip(np.zeros((40, 50), np.float32), np.ones((40, 50), bool), np.diag([2.0, 1.0]), ground)
    turned = raw.at(Attitude(90)).from_file
    assert (turned.a, turned.d) == pytest.approx((0, 1))  # a metre east becomes one south, a row of the map
    assert (turned.b, turned.e) == pytest.approx((-2, 0))  # one south becomes one west, two columns
    assert raw.heading_deg(Attitude(90)) == pytest.approx(90)


def test_part_that_shows_most_lies_where_it_lay() -> None:
    rng = np.random.default_rng(0)
    image, valid = rng.normal(0, 0.5, (400, 900)).astype(np.float32), np.ones((400, 900), bool)
    image[:, 600:] += 2 * (np.arange(300) // 20 % 2)
    valid[:, :100] = False
    raw = RawStrip(image, valid, matrix(0, 1), NORTH_UP)
    part, *others = raw.richest_parts(90_000, 3)
    assert part.image.size <= 90_000
    assert part.part is not None
    left, top = part.part[:2]
    assert left >= 560
    np.testing.assert_array_equal(part.image, image[top : top + part.image.shape[0], left : left + part.image.shape[1]])
    assert part.at(Attitude(30)).file_size == (900, 400)
    assert all(abs(other.middle - part.middle).max() >= 300 for other in others)
    assert len(raw.richest_parts(90_000, 1)) == 1
    assert raw.richest_parts(400 * 900, 3) == [raw]


def test_part_of_a_strip_knows_its_place_in_the_file() -> None:
    image, valid = wave(pixel_centres(900, 400)), np.ones((400, 900), bool)
    strip = RawStrip(image, valid, matrix(0, 1.1), NORTH_UP).richest_parts(90_000, 1)[0].at(Attitude(30))
    there = moved(~strip.from_file, pixel_centres(strip.image.shape[1], strip.image.shape[0]))
    assert strip.valid.sum() > 80_000
    np.testing.assert_allclose(strip.image[strip.valid], wave(there)[strip.valid], atol=0.02)


def test_long_strip_keeps_its_width_in_its_part() -> None:
    raw = RawStrip(np.zeros((100, 5000), np.float32), np.ones((100, 5000), bool), matrix(0, 2), NORTH_UP)
    parts = raw.richest_parts(80_000, 3)
    assert [part.image.shape for part in parts] == [(100, 200)] * 3
    assert len({part.part for part in parts}) == 3


def test_middle_of_a_turned_part_is_its_centre_and_no_larger() -> None:
    image, valid = wave(pixel_centres(300, 120)), np.ones((120, 300), bool)
    raw = RawStrip(image, valid, matrix(0, 1.1), NORTH_UP)
    strip = raw.middle_at(Attitude(30), 200)
    assert strip.image.shape == strip.valid.shape == (200, 200)
    assert strip.middle_px == pytest.approx([100, 100], abs=0.5)
    assert not strip.valid[0, -1]  # 120 px wide, it fills no square of 200 px
    there = moved(~strip.from_file, pixel_centres(200, 200))
    assert strip.valid.sum() > 20_000
    np.testing.assert_allclose(strip.image[strip.valid], wave(there)[strip.valid], atol=0.02)


def test_what_lies_near_a_point_is_cut_from_the_file() -> None:
    image, valid = wave(pixel_centres(900, 400)), np.ones((400, 900), bool)
    raw = RawStrip(image, valid, matrix(0, 2), NORTH_UP)
    near = raw.near(np.array([850.0, 200.0]), 200.0)  # 100 px of the file
    assert near.part == (750, 100, 900, 400)
    np.testing.assert_array_equal(near.image, image[100:300, 750:])
    np.testing.assert_allclose(near.middle, [825, 200])
    for attitude in (TOLD, Attitude(77, 1.2)):
        strip = raw.at(attitude)
        arm = np.subtract(moved(strip.from_file, (850.0, 200.0)), strip.middle_px)
        np.testing.assert_allclose(raw.arm_px(attitude, np.array([850.0, 200.0])), arm)
        np.testing.assert_allclose(near.arm_px(attitude, np.array([850.0, 200.0])), arm)


def test_unknown_heading_takes_the_scale_alone(tmp_path: Path) -> None:
    write_tiff(tmp_path / "s.tif", np.ones((100, 140), "float32"), crs=UTM33, transform=PLACE @ Affine.rotation(30))
    raw = read_strip(tmp_path / "s.tif", MAP, StripOptions(heading_deg="unknown"))
    assert raw.tolerance.any_turn
    assert raw.at(Attitude(10)).file_size == (140, 100)
    assert abs(np.linalg.det(raw.linear)) == pytest.approx(1)
    told = read_strip(tmp_path / "s.tif", MAP, StripOptions(heading_deg="unknown", gsd_m=1.0))
    assert abs(np.linalg.det(told.linear)) == pytest.approx(4, rel=0.01)
    write_tiff(tmp_path / "none.tif", np.ones((100, 100), "float32"), crs=None, transform=None)
    none = read_strip(tmp_path / "none.tif", MAP, StripOptions(heading_deg="unknown"))
    assert abs(np.linalg.det(none.linear)) == pytest.approx(1, rel=0.01)
    assert any("heading unknown" in note for note in none.notes)
