"""Strips laid over the map: against hand-made transforms, pictures and GeoTIFFs read back by OpenCV and GDAL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from disk import small_disk
from drawing import NORTH_UP, UTM11, write_tiff
from numpy.typing import NDArray
from programs import Gdal
from shapely.geometry import Polygon

from geomatch import overlay
from geomatch.errors import InputError, OutputError
from geomatch.geo import Grid, as_crs, six
from geomatch.images import OpticalStretch
from geomatch.location import Location
from geomatch.locator import Locator
from geomatch.map_pixels import MapPixels
from geomatch.overlay import ORANGE, SKY_BLUE, Canvas, Outline, checkerboard, footprints, warp_strip
from geomatch.raster import open_raster
from geomatch.strip_files import StripOptions
from geomatch.tile_index import TileIndex

MAP_SIZE = (240, 200)  # columns, rows of the file
ORIGIN = (24, 16)  # first pixel of the indexed window in it
INDEXED = (200, 160)
STRETCH = OpticalStretch((1, 2, 3), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
GREY = 85  # a strip of one value is its own median, and three times that is white


@dataclass(frozen=True)
class StandIn:
    """What a picture needs of an index."""

    path: Path
    grid: Grid


def indexed_transform() -> Affine:
    return NORTH_UP @ Affine.translation(*ORIGIN)


@pytest.fixture
def locator(tmp_path: Path) -> Iterator[Locator]:
    """Of a map whose red is its column, whose green is its row and whose blue is 200."""
    folder = tmp_path / "map"
    folder.mkdir()
    rows, cols = np.indices(MAP_SIZE[::-1])
    file = write_tiff(folder / "map.tif", np.stack([cols, rows, np.full_like(cols, 200)]).astype("uint8"))
    index = StandIn(tmp_path / "map.gmi", Grid(as_crs(UTM11), indexed_transform(), *INDEXED))
    with open_raster(file) as raster:
        yield Locator(cast(TileIndex, index), MapPixels(raster, ORIGIN, STRETCH))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def located(to_index: Affine, width: int, height: int) -> Location:
    """The answer for a strip whose pixels lie at ``to_index`` in the indexed window."""
    transform = indexed_transform() @ to_index
    ring = [transform @ corner for corner in ((0, 0), (width, 0), (width, height), (0, height))]
    center = transform @ (width / 2, height / 2)
    return Location("located", UTM11, six(transform), Polygon(ring), center, 10.0, 0.9)


def centres(to_index: Affine, width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the centres of a strip's pixels lie in the indexed window: columns and rows, each [H x W]."""
    row, col = np.indices((height, width)) + 0.5
    a, b, c, d, e, f = six(to_index)
    return a * col + b * row + c, d * col + e * row + f


def plane(col: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear, so that any bilinear interpolation gives it back."""
    return np.asarray(1000 + 3 * col + 7 * row)


def picture_of(file: Path) -> NDArray[np.uint8]:
    blue_first = cv2.imread(str(file), cv2.IMREAD_COLOR)
    assert blue_first is not None
    return np.asarray(blue_first[..., ::-1], dtype=np.uint8)


class TestWarp:
    @pytest.mark.parametrize(
        ("to_index", "tolerance_px"),
        [
            (Affine.translation(40, 30), 1e-4),
            (Affine.translation(40.37, 30.81), 1e-3),
            (Affine.translation(90, 20) @ Affine.rotation(27), 1e-3),
            (Affine.translation(-12.5, 140.25) @ Affine.rotation(-90), 1e-3),  # partly off the map
            (Affine.translation(60, 40) @ Affine.scale(1.7), 1e-3),
            (Affine.translation(60, 40) @ Affine.rotation(10) @ Affine.scale(0.4, 0.5), 0.1),  # averaged
        ],
    )
    def test_every_pixel_lands_where_it_was_taken(
        self, tmp_path: Path, out: Path, locator: Locator, to_index: Affine, tolerance_px: float
    ) -> None:
        width, height = 110, 80
        values = plane(*centres(to_index, width, height)).astype("float32")
        strip = write_tiff(tmp_path / "strip.tif", values, crs=None, transform=None)
        location = located(to_index, width, height)
        warp_strip(strip, location, Canvas.of(locator), out / "warped.tif")
        with rasterio.open(out / "warped.tif") as warped:
            found, transform = warped.read(1), warped.transform
            assert warped.crs.to_epsg() == 32611
            assert np.isnan(warped.nodata)
        col0, row0 = ~indexed_transform() @ (transform.c, transform.f)
        assert (col0, row0) == pytest.approx((round(col0), round(row0)), abs=1e-6)  # whole pixels of the map
        assert (transform.a, transform.b, transform.d, transform.e) == (10, 0, 0, -10)
        row, col = np.indices(found.shape) + 0.5
        known = np.isfinite(found)
        points = shapely.points(transform.c + 10 * col, transform.f - 10 * row)
        assert location.footprint is not None
        inside = shapely.contains(location.footprint, points)
        assert (known == inside)[shapely.distance(location.footprint.exterior, points) > 1e-3].all()
        deep = shapely.contains(location.footprint.buffer(-20), points)
        assert deep.sum() > 500
        error_px = np.abs(found - plane(col + round(col0), row + round(row0))) / 7
        assert error_px[deep].max() < tolerance_px
        assert error_px[known].max() < 2  # at the rim there is no neighbour to interpolate with

    def test_it_lies_on_the_map_it_was_cut_from(self, tmp_path: Path, out: Path, locator: Locator) -> None:
        assert locator.pixels is not None
        red = locator.pixels.raster.read(60, 50, 70, 64, bands=[1]).data[0]  # the map's column
        strip = write_tiff(tmp_path / "strip.tif", red, crs=None, transform=None)
        warp_strip(
            strip,
            located(Affine.translation(60 - ORIGIN[0], 50 - ORIGIN[1]), 70, 64),
            Canvas.of(locator),
            out / "w.tif",
        )
        with rasterio.open(out / "w.tif") as warped, rasterio.open(locator.pixels.raster.path) as optical:
            window = optical.window(*warped.bounds)
            np.testing.assert_array_equal(warped.read(1), optical.read(1, window=window))

    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [
            ("uint8", "float32"),
            ("int16", "float32"),
            ("float32", "float32"),
            ("int32", "float64"),
            ("float64", "float64"),
            ("complex64", "complex64"),
        ],
    )
    def test_bands_and_holes_are_kept(
        self, tmp_path: Path, out: Path, locator: Locator, dtype: str, expected: str
    ) -> None:
        rows, cols = np.indices((50, 60))
        data = np.stack([cols + 1, rows + 1]).astype(dtype)
        mask = np.ones((50, 60), dtype=bool)
        mask[10:20, 5:25] = False
        strip = write_tiff(tmp_path / "strip.tif", data, crs=None, transform=None, mask=mask)
        warp_strip(strip, located(Affine.translation(30, 20), 60, 50), Canvas.of(locator), out / "w.tif")
        with rasterio.open(out / "w.tif") as warped:
            assert warped.dtypes == (expected, expected)
            found = warped.read()
        assert (np.isnan(found) == ~mask).all()
        np.testing.assert_allclose(found[:, mask], data[:, mask], rtol=1e-6)

    def test_the_file_is_a_cloud_optimized_geotiff(
        self, tmp_path: Path, out: Path, locator: Locator, gdal: Gdal
    ) -> None:
        strip = write_tiff(tmp_path / "strip.tif", np.full((1300, 700), 5, "uint8"), crs=None, transform=None)
        warp_strip(strip, located(Affine.translation(10.5, 10.5), 700, 1300), Canvas.of(locator), out / "w.tif")
        with rasterio.open(out / "w.tif") as warped:
            assert warped.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert warped.profile["tiled"]
            assert warped.overviews(1) == [2, 4]
        assert "LAYOUT=COG" in gdal("gdalinfo", out / "w.tif")

    def test_a_strip_without_a_place_is_refused(self, tmp_path: Path, out: Path, locator: Locator) -> None:
        strip = write_tiff(tmp_path / "strip.tif", np.full((40, 40), 5, "uint8"))
        for draw in (warp_strip, checkerboard):
            with pytest.raises(InputError, match="no place to draw, it is absent"):
                draw(strip, Location("absent", UTM11), Canvas.of(locator), out / "w.tif")
        assert not list(out.iterdir())


class TestCheckerboard:
    def draw(
        self, tmp_path: Path, out: Path, locator: Locator, values: NDArray[Any], to_index: Affine, **how: Any
    ) -> Any:
        strip = write_tiff(tmp_path / "strip.tif", values, crs=None, transform=None, mask=how.pop("mask", None))
        location = located(to_index, values.shape[1], values.shape[0])
        checkerboard(strip, location, Canvas.of(locator), out / "board.png", **how)
        return picture_of(out / "board.png")

    def test_squares_alternate_inside_the_outline_and_the_map_lies_around(
        self, tmp_path: Path, out: Path, locator: Locator
    ) -> None:
        values = np.full((60, 80), 7, "uint8")
        board = self.draw(tmp_path, out, locator, values, Affine.translation(50, 40), cell_px=10, margin_px=20)
        assert board.shape == (100, 120, 3)
        for row in range(5, 100, 10):
            for col in range(5, 120, 10):
                inside = 20 < col < 100 and 20 < row < 80
                expected = (col + 50 - 20 + ORIGIN[0], row + 40 - 20 + ORIGIN[1], 200)
                if inside and (row // 10 + col // 10) % 2:
                    expected = (GREY, GREY, GREY)
                assert tuple(board[row, col]) == expected, (row, col)
        for row, col in ((20, 60), (79, 60), (50, 20), (50, 99)):
            assert np.abs(board[row, col].astype(int) - ORANGE).max() < 40

    def test_edges_of_a_turned_strip_lie_where_its_transform_says(
        self, tmp_path: Path, out: Path, locator: Locator
    ) -> None:
        values = np.full((60, 80), 2, "uint8")
        values[:, 37:] = 3
        to_index = Affine(0, -1, 120.0, 1, 0, 30.0)  # columns run down the map, rows to the left
        board = self.draw(tmp_path, out, locator, values, to_index, cell_px=10, margin_px=0)
        assert board.shape == (80, 60, 3)
        grey = board[..., 0].astype(int)
        shown = (board[..., 2] != 200) & (np.ptp(board, axis=2) == 0)
        row = np.indices(shown.shape)[0]
        above, below = set(grey[shown & (row < 37)].tolist()), set(grey[shown & (row >= 37)].tolist())
        assert (len(above), len(below)) == (1, 1)
        assert max(below) == pytest.approx(1.5 * max(above), abs=1)

    def test_holes_of_the_strip_show_the_map(self, tmp_path: Path, out: Path, locator: Locator) -> None:
        mask = np.ones((60, 80), dtype=bool)
        mask[:30] = False
        values = np.full((60, 80), 7, "uint8")
        board = self.draw(
            tmp_path, out, locator, values, Affine.translation(50, 40), mask=mask, cell_px=10, margin_px=0
        )
        assert (board[5:29, 5:75, 2] == 200).all()
        assert (board[31:55, 5:75, 2] == GREY).any()

    def test_off_the_map_is_black(self, tmp_path: Path, out: Path, locator: Locator) -> None:
        board = self.draw(
            tmp_path, out, locator, np.full((60, 80), 7, "uint8"), Affine.translation(-60, 40), margin_px=5
        )
        off = -(-60 - 5) - ORIGIN[0]  # columns before the file's first
        assert (board[:3, :off] == 0).all()
        assert (board[:3, off:, 2] == 200).all()

    @pytest.mark.parametrize("piece", [1 << 24, 500])
    def test_large_views_are_drawn_smaller(
        self, tmp_path: Path, out: Path, locator: Locator, monkeypatch: pytest.MonkeyPatch, piece: int
    ) -> None:
        monkeypatch.setattr(overlay, "MAX_PICTURE_PX", 50)
        monkeypatch.setattr(overlay, "PIECE_PIXELS", piece)
        values = np.full((180, 240), 7, "uint8")  # finer than the map
        to_index = Affine.translation(30, 20) @ Affine.scale(0.5)
        board = self.draw(tmp_path, out, locator, values, to_index, cell_px=10, margin_px=12)
        assert board.shape == (38, 48, 3)  # 114 rows and 144 columns by 3
        # Averages of three columns and rows of the map from (18, 8) of the index on.
        assert tuple(board[1, 1]) == (18 + 3 + 1 + ORIGIN[0], 8 + 3 + 1 + ORIGIN[1], 200)
        assert tuple(board[15, 25]) == (GREY, GREY, GREY)

    def test_options_choose_band_and_kind(self, tmp_path: Path, out: Path, locator: Locator) -> None:
        values = np.stack([np.zeros((60, 80)), np.full((60, 80), -9.0)]).astype("float32")
        strip = write_tiff(tmp_path / "strip.tif", values, crs=None, transform=None)
        location = located(Affine.translation(50, 40), 80, 60)
        options = StripOptions(kind="db", bands=(2,))
        checkerboard(strip, location, Canvas.of(locator), out / "board.png", options=options, cell_px=10, margin_px=0)
        assert tuple(picture_of(out / "board.png")[5, 15]) == (GREY, GREY, GREY)

    def test_without_the_maps_pixels_it_says_how_to_give_them(
        self, tmp_path: Path, out: Path, locator: Locator
    ) -> None:
        strip = write_tiff(tmp_path / "strip.tif", np.full((60, 80), 7, "uint8"))
        blind = Locator(locator.index, None)
        with pytest.raises(InputError, match="--map"):
            checkerboard(strip, located(Affine.translation(50, 40), 80, 60), Canvas.of(blind), out / "board.png")
        with pytest.raises(InputError, match="--map"):
            footprints(Canvas.of(blind), [], out / "board.png")
        assert not list(out.iterdir())


def test_footprints_lie_on_the_whole_indexed_map(out: Path, locator: Locator) -> None:
    place = located(Affine.translation(100, 60) @ Affine.rotation(45), 50, 50).footprint
    assert place is not None
    footprints(Canvas.of(locator), [Outline(place, SKY_BLUE), Outline(place.buffer(-50), label="1")], out / "map.png")
    picture = picture_of(out / "map.png")
    assert picture.shape == (*INDEXED[::-1], 3)
    assert tuple(picture[150, 10]) == (10 + ORIGIN[0], 150 + ORIGIN[1], 200)
    blue = np.abs(picture.astype(int) - SKY_BLUE).max(axis=2) < 30
    rows, cols = np.nonzero(blue)
    half = 50 / np.sqrt(2)
    extent = (cols.min(), cols.max() + 1, rows.min(), rows.max() + 1)
    assert extent == pytest.approx((100 - half, 100 + half, 60, 60 + 2 * half), abs=3)
    assert (np.abs(picture.astype(int) - ORANGE).max(axis=2) < 30).any()
    assert (picture == 255).all(axis=2).any()  # the label


Draw = Callable[[Path, Location, Locator, Path], None]


@pytest.mark.parametrize("draw", [checkerboard, warp_strip])
class TestBadPaths:
    @pytest.fixture
    def strip(self, tmp_path: Path) -> Path:
        speckle = np.random.default_rng(0).integers(1, 255, (90, 120), dtype=np.uint8)
        return write_tiff(tmp_path / "strip.tif", speckle)

    place = located(Affine.translation(50, 40), 120, 90)

    def test_missing_folder(self, out: Path, strip: Path, locator: Locator, draw: Draw) -> None:
        with pytest.raises(OutputError, match="does not exist"):
            draw(strip, self.place, Canvas.of(locator), out / "nowhere" / "file")

    def test_a_folder_in_the_way_stays(self, out: Path, strip: Path, locator: Locator, draw: Draw) -> None:
        (out / "file").mkdir()
        with pytest.raises(OutputError):
            draw(strip, self.place, Canvas.of(locator), out / "file")
        assert [entry.name for entry in out.iterdir()] == ["file"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
    def test_read_only_folder(self, out: Path, strip: Path, locator: Locator, draw: Draw) -> None:
        out.chmod(0o500)
        try:
            with pytest.raises(OutputError, match="permission"):
                draw(strip, self.place, Canvas.of(locator), out / "file")
        finally:
            out.chmod(0o700)

    @pytest.mark.parametrize("limit_bytes", [0, 2000, 43_000])
    def test_what_was_there_survives_a_full_disk(
        self, out: Path, strip: Path, locator: Locator, draw: Draw, limit_bytes: int
    ) -> None:
        file = out / "file"
        file.write_text("the old")
        if draw is checkerboard:
            limit_bytes //= 10  # its file is smaller
        with small_disk(limit_bytes), pytest.raises(OutputError):
            draw(strip, self.place, Canvas.of(locator), file)
        assert file.read_text() == "the old"
        assert list(out.iterdir()) == [file]

    def test_a_strip_that_is_no_geotiff(self, out: Path, tmp_path: Path, locator: Locator, draw: Draw) -> None:
        fake = tmp_path / "fake.tif"
        fake.write_text("<VRTDataset/>")
        with pytest.raises(InputError):
            draw(fake, self.place, Canvas.of(locator), out / "file")
        assert not list(out.iterdir())
