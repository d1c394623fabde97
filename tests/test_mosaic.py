"""Many files read as one: the pixels of the whole, of the first that has data, and where GDAL's own warp puts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from drawing import ramp, write_tiff
from pyproj import Transformer
from quarters import piece, quarters
from scipy.ndimage import gaussian_filter, map_coordinates
from towns import PLACE, UTM33, Town, moved, pixel_centres, write_town

from geomatch import mosaic
from geomatch.errors import InputError, LimitError, UsageError
from geomatch.images import OpticalStretch
from geomatch.mosaic import Mosaic, open_orthomosaic
from geomatch.raster import Limits, Raster, open_raster

WINDOWS = [(0, 0, 768, 768), (-9, -7, 800, 790), (400, 320, 30, 40), (410, 333, 5, 5), (700, -50, 20, 20)]


@pytest.fixture(scope="module")
def cut(town: Town, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return quarters(town, tmp_path_factory.mktemp("cut"))


def at(col0: int, row0: int) -> Affine:
    return PLACE @ Affine.translation(col0, row0)


def flat(path: Path, value: int, place: Affine, size: tuple[int, int] = (20, 30), **more: Any) -> Path:
    """A file of one value, ``size`` rows and columns."""
    options: dict[str, Any] = {"crs": UTM33, "transform": place} | more
    return write_tiff(path, np.full(size, value, "uint8"), **options)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_pixels_are_those_of_the_whole(
    window: tuple[int, int, int, int], order: tuple[int, ...], town: Town, cut: list[Path]
) -> None:
    with Mosaic.open([cut[number] for number in order]) as many, open_raster(town.path) as one:
        assert (many.width, many.height, many.dtype, many.data_bands) == (768, 768, np.uint8, (1, 2, 3))
        np.testing.assert_allclose(many.grid.to_map([[0, 0], [768, 768]]), moved(PLACE, [[0, 0], [768, 768]]))
        for bands in (None, [2], [3, 1]):
            found, expected = (raster.read(*window, bands=bands) for raster in (many, one))
            np.testing.assert_array_equal(found.data, expected.data)
            np.testing.assert_array_equal(found.valid, expected.valid)


def test_first_file_with_data_counts(tmp_path: Path) -> None:
    holed = np.ones((20, 30), bool)
    holed[5:9, 20:] = False
    files = [
        flat(tmp_path / "a.tif", 1, at(0, 0), mask=holed),
        flat(tmp_path / "b.tif", 2, at(15, 3)),
        flat(tmp_path / "c.tif", 3, at(-4, 3)),
    ]
    expected = np.zeros((23, 49), "uint8")  # painted from the last to the first
    expected[3:23, 0:30] = 3
    expected[3:23, 19:49] = 2
    expected[:20, 4:34][holed] = 1
    with Mosaic.open(files) as raster:
        patch = raster.read(0, 0, 49, 23)
        np.testing.assert_array_equal(patch.data[0], expected)
        np.testing.assert_array_equal(patch.valid, expected > 0)
        np.testing.assert_allclose(raster.grid.to_map([0, 0]), moved(PLACE, [-4, 0]))
    with Mosaic.open(files[::-1]) as raster:
        assert (raster.read(0, 3, 30, 20).data == 3).all()


@pytest.mark.parametrize("off", [0.0009, -0.0009])
def test_pixels_a_little_off_the_grid_are_pasted(off: float, tmp_path: Path) -> None:
    data = ramp(20, 30, "uint8")
    shifted = write_tiff(tmp_path / "b.tif", data, crs=UTM33, transform=at(30, 0) @ Affine.translation(off, -off))
    with Mosaic.open([flat(tmp_path / "a.tif", 1, at(0, 0)), shifted]) as raster:
        np.testing.assert_array_equal(raster.read(30, 0, 30, 20).data[0], data)


OTHERWISE = {
    "half a pixel off": (UTM33, at(40, 10) @ Affine.translation(0.5, 0.25)),
    "turned": (UTM33, at(80, 10) @ Affine.rotation(25)),
    "south up": (UTM33, at(40, 130) @ Affine.scale(1, -1)),
    "finer": (UTM33, at(40, 10) @ Affine.scale(0.6)),
    "coarser": (UTM33, at(40, 10) @ Affine.scale(2.5)),
    "zone 34": ("EPSG:32634", Affine(0.5, 0, 150_000, 0, -0.5, 5_340_000)),
    "degrees": ("EPSG:4326", Affine(7e-6, 0, 16.28, 0, -5e-6, 48.14)),
}


@pytest.mark.parametrize("name", OTHERWISE)
@pytest.mark.parametrize("nodata", [0, None])
def test_file_on_another_grid_lies_where_it_says(name: str, nodata: int | None, tmp_path: Path) -> None:
    """Interpolated by scipy where PROJ puts the mosaic's pixels in the file."""
    crs, place = OTHERWISE[name]
    noise = gaussian_filter(np.random.default_rng(4).normal(size=(120, 150)), 3)
    data = np.rint(1 + 254 * (noise - noise.min()) / np.ptp(noise)).astype("uint8")
    other = write_tiff(tmp_path / "b.tif", data, crs=crs, transform=place, nodata=nodata)
    x, y = Transformer.from_crs(crs, UTM33, always_xy=True).transform(*moved(place, [0, 0]))
    first = flat(tmp_path / "a.tif", 1, Affine(0.5, 0, np.floor(x), 0, -0.5, np.floor(y)), (30, 20))
    with Mosaic.open([other, first][::-1]) as raster:
        patch = raster.read(0, 0, raster.width, raster.height)
        there = raster.grid.to_map(pixel_centres(raster.width, raster.height))
        beside = raster.read(-9, -9, 5, 5)
    own = np.stack(Transformer.from_crs(UTM33, crs, always_xy=True).transform(there[..., 0], there[..., 1]), -1)
    px = moved(~place, own)
    margin = np.minimum(px, [150, 120] - px).min(axis=-1)  # how far inside the file
    free = ~((patch.data[0] == 1) & patch.valid)  # of the first
    np.testing.assert_array_equal(patch.valid[free & (margin > 1)], True)
    np.testing.assert_array_equal(patch.valid[free & (margin < -2.5)], False)
    assert not beside.valid.any()
    inside = free & (margin > 3)
    assert inside.sum() > 2000

    def off(shift: float) -> float:
        expected = map_coordinates(data.astype(float), [px[..., 1] - 0.5, px[..., 0] - 0.5 + shift], order=1)
        return float(np.quantile(np.abs(patch.data[0] - expected)[inside], 0.95))

    assert off(0) < 3
    assert off(0) < off(0.4) / 1.5
    assert off(0) < off(-0.4) / 1.5


def test_sample_is_that_of_the_whole(town: Town, cut: list[Path], tmp_path: Path) -> None:
    overlapping = [*cut, piece(town, tmp_path / "again.tif", (300, 200, 256, 256))]
    with Mosaic.open(overlapping) as many, open_raster(town.path) as one:
        assert OpticalStretch.fit(many) == OpticalStretch.fit(one)
        for size in (200, 5000):
            values = [raster.sample(size, bands=[2], least=1, most_px=1 << 24) for raster in (many, one)]
            np.testing.assert_array_equal(*(np.sort(one, axis=1) for one in values))


def test_sample_is_bounded_and_of_all_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = [flat(tmp_path / f"{n}.tif", n + 1, at(1024 * n, 512 * n), (512, 1024)) for n in range(4)]
    asked: list[tuple[int, ...]] = []
    read = Raster.read

    def counted(self: Raster, *window: int, **more: Any) -> Any:
        asked.append(window[2:])
        return read(self, *window, **more)

    with Mosaic.open(files) as raster:
        monkeypatch.setattr(Raster, "read", counted)
        values = raster.sample(4096, bands=[1], least=1, most_px=4 * 512 * 512)
        assert values.shape == (1, 4 * 512 * 512)
        assert len(np.unique(values)) > 1
        assert sum(width * height for width, height in asked) == 4 * 512 * 512


def test_sample_of_files_far_apart_is_not_of_what_lies_between(tmp_path: Path) -> None:
    """At a pixel in 3000 an overview would show a handful of each."""
    rng = np.random.default_rng(0)
    files = [
        write_tiff(tmp_path / f"{n}.tif", rng.integers(0, 255, (150, 150)).astype("uint8"), crs=UTM33, transform=place)
        for n, place in enumerate((at(0, 0), at(3_000_000, 5_000)))
    ]
    with Mosaic.open(files) as raster:
        assert raster.sample(1024, bands=[1], least=10_000, most_px=1 << 24).shape == (1, 2 * 150 * 150)
        low, high = np.percentile(np.concatenate([_pixels(file) for file in files]), [1, 99])
        assert OpticalStretch.fit(raster) == OpticalStretch((1,), (low,), (high,))


def _pixels(file: Path) -> Any:
    with rasterio.open(file) as opened:
        return opened.read().ravel()


def test_files_without_a_valid_pixel_are_told(tmp_path: Path) -> None:
    files = [flat(tmp_path / f"{n}.tif", 0, at(30 * n, 0), nodata=0) for n in range(2)]
    with Mosaic.open(files) as raster, pytest.raises(InputError, match=r"0\.tif and 1 more: no valid pixel"):
        OpticalStretch.fit(raster)


def test_few_files_are_open_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = [flat(tmp_path / f"{n}.tif", n + 1, at(30 * n, 0)) for n in range(9)]
    monkeypatch.setattr(mosaic, "OPEN_FILES", 2)
    opened: list[Path] = []
    closed: list[Path] = []
    open_file, close = mosaic.open_raster, Raster.close

    def opening(path: Path, **more: Any) -> Raster:
        opened.append(path)
        return open_file(path, **more)

    def closing(self: Raster) -> None:
        closed.append(self.path)
        close(self)

    with Mosaic.open(files) as raster:
        monkeypatch.setattr(mosaic, "open_raster", opening)
        monkeypatch.setattr(Raster, "close", closing)
        assert np.unique(raster.read(0, 0, 270, 20).data).tolist() == list(range(1, 10))
        assert (opened, closed) == (files, files[:-2])
        raster.read(215, 0, 50, 20)
        raster.read(245, 0, 5, 5)
        assert opened == files  # they were open
        raster.read(35, 0, 5, 5)
        assert opened == [*files, files[1]]
    assert sorted(closed) == sorted(opened)


def test_only_files_that_fill_a_gap_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = [flat(tmp_path / "a.tif", 1, at(0, 0)), flat(tmp_path / "b.tif", 2, at(10, 0)), tmp_path / "c.tif"]
    flat(files[2], 3, at(500, 0))
    with Mosaic.open(files) as raster:
        opened = raster._opened
        asked: list[int] = []
        monkeypatch.setattr(raster, "_opened", lambda number: asked.append(number) or opened(number))
        assert (raster.read(5, 5, 20, 10).data == 1).all()
        assert not raster.read(200, 5, 20, 10).valid.any()
        assert asked == [0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_holder_of_a_square_is_the_first_with_its_middle_or_that_touches_it(side: str, tmp_path: Path) -> None:
    places = [at(0, 0), at(20, 0), at(100, 0)]
    with Mosaic.open([flat(tmp_path / f"{n}.tif", 9, place) for n, place in enumerate(places)]) as raster:
        corners = {"left": [[0, 0], [19, 3], [20, 0], [24, 0]], "right": [[40, 2], [57, 0], [95, 0], [96, 0]]}[side]
        expected = {"left": [0, 0, 0, 0], "right": [1, 0, 2, 2]}[side]
        assert raster.holders(np.array(corners), 10).tolist() == expected
    with open_raster(tmp_path / "0.tif") as one:
        assert one.holders(np.array(corners), 10).tolist() == [0, 0, 0, 0]


def test_turned_file_holds_what_lies_in_it_and_not_in_its_frame(tmp_path: Path) -> None:
    files = [flat(tmp_path / "a.tif", 1, at(0, 0), (10, 10)), flat(tmp_path / "c.tif", 3, at(100, 0), (100, 100))]
    turned = at(150, 0) @ Affine.rotation(45)
    files.insert(1, flat(tmp_path / "b.tif", 2, turned, (71, 71)))
    with Mosaic.open(files) as raster:
        assert raster.holders(np.array([[145, 45], [101, 1]]), 10).tolist() == [1, 2]


def test_one_path_is_a_raster_and_none_is_refused(town: Town) -> None:
    with open_orthomosaic([town.path]) as raster:
        assert isinstance(raster, Raster)
        assert raster.paths == (town.path.resolve(),)
    with pytest.raises(UsageError, match="no orthomosaic"):
        open_orthomosaic([])


def test_files_that_are_no_map_together_are_named(town: Town, cut: list[Path], tmp_path: Path) -> None:
    bands = town.bands[:, :40, :40]
    bare = write_tiff(tmp_path / "bare.tif", bands, crs=None, transform=None)
    one_band = write_town(tmp_path / "one.tif", bands[:1], photometric="MINISBLACK").path
    wide = write_town(tmp_path / "wide.tif", bands.astype("uint16")).path
    link = tmp_path / "link.tif"
    link.symlink_to(cut[0])
    cases: list[tuple[Path, type[Exception], str]] = [
        (bare, InputError, r"bare\.tif: the file has no geotransform"),
        (one_band, InputError, r"one\.tif: has 1 bands of uint8, 0\.tif has 3 bands of uint8\. Leave it out"),
        (wide, InputError, r"wide\.tif: has 3 bands of uint16, 0\.tif has 3 bands of uint8"),
        (cut[0], UsageError, r"0\.tif: is given twice"),
        (link, UsageError, r"0\.tif: is given twice"),
        (tmp_path / "none.tif", InputError, r"none\.tif: no such file"),
        (tmp_path, InputError, "this is a folder"),
    ]
    for path, kind, told in cases:
        with pytest.raises(kind, match=told):
            Mosaic.open([*cut, path])


def test_alpha_is_no_band_of_data(town: Town, cut: list[Path], tmp_path: Path) -> None:
    alpha = np.full((1, 768, 768), 255, "uint8")
    alpha[:, :, :5] = 0
    bands = np.concatenate([town.bands, alpha])
    path = write_town(tmp_path / "alpha.tif", bands, PLACE @ Affine.translation(-2, 0), alpha="yes").path
    with Mosaic.open([path, cut[0]]) as raster:
        patch = raster.read(0, 0, 10, 10)
        np.testing.assert_array_equal(patch.valid[0], np.arange(10) >= 2)  # where the first has none, the second has
        np.testing.assert_array_equal(patch.data[:, :, 5:], town.bands[:, :10, 5:10])
        np.testing.assert_array_equal(patch.data[:, :, 2:5], town.bands[:, :10, :3])


def test_files_too_far_apart_for_one_map_are_refused(tmp_path: Path) -> None:
    files = [flat(tmp_path / "a.tif", 1, at(0, 0)), flat(tmp_path / "b.tif", 2, at(2_000_000, 1_000_000))]
    with pytest.raises(LimitError, match=r"a\.tif and 1 more: a map of 2000030 × 1000020 .*of each group of neigh"):
        Mosaic.open(files)
    with Mosaic.open(files, Limits(max_pixels=3 * 10**12)) as raster:
        assert raster.read(2_000_000, 1_000_000, 30, 20).valid.all()


def test_file_with_no_place_on_the_grid_is_named(tmp_path: Path) -> None:
    polar = "+proj=ortho +lat_0=90 +lon_0=0 +datum=WGS84 +type=crs"
    north = flat(tmp_path / "a.tif", 1, Affine(10, 0, 0, 0, -10, 0), crs=polar)
    south = flat(tmp_path / "b.tif", 2, Affine(1e-3, 0, 16, 0, -1e-3, -48), crs="EPSG:4326")
    with pytest.raises(InputError, match=r"b\.tif: has no place on the grid of a\.tif"):
        Mosaic.open([north, south])


def test_windows_keep_to_the_limits(cut: list[Path]) -> None:
    with Mosaic.open(cut, Limits(max_read_bytes=30_000)) as raster:
        assert raster.read(0, 0, 100, 100).valid.all()
        with pytest.raises(LimitError, match=r"0\.tif and 3 more: reading 3 × 101 × 100"):
            raster.read(0, 0, 101, 100)
        with pytest.raises(UsageError, match="bands"):
            raster.read(900, 0, 10, 10, bands=[4])
        with pytest.raises(UsageError, match="empty"):
            raster.read(0, 0, 0, 4)
