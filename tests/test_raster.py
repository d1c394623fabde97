"""Reading against numpy and GDAL's tools; opening against files that lie."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from drawing import NORTH_UP, UTM11, handmade_tiff, ramp, write_tiff
from programs import Gdal
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from towns import PLACE, UTM33

from geomatch.errors import InputError, LimitError, UsageError
from geomatch.raster import Limits, fingerprint, open_raster

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
OFFSETS, SAMPLES, ROWS, COUNTS = 273, 277, 278, 279
DEFLATE = 8
NOBODY = 65534


def strip_tags(width: int, height: int, changed: dict[int, int] | None = None) -> dict[int, int]:
    tags = {WIDTH: width, HEIGHT: height, BITS: 8, COMPRESSION: 1, PHOTOMETRIC: 1, SAMPLES: 1}
    return tags | {OFFSETS: 150, ROWS: height, COUNTS: 50} | (changed or {})


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64", "complex64", "complex128"]
)
def test_every_dtype_comes_back(dtype: str, tmp_path: Path) -> None:
    data = ramp(7, 9, dtype)
    with open_raster(write_tiff(tmp_path / "a.tif", data)) as raster:
        patch = raster.read(0, 0, 9, 7)
        assert raster.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(patch.data[0], data)
    assert patch.valid.all()


def test_complex_integers_are_read_as_complex64(tmp_path: Path, gdal: Gdal) -> None:
    source = write_tiff(tmp_path / "a.tif", np.full((4, 5), 3 - 4j, "complex64"))
    gdal("gdal_translate", "-ot", "CInt16", source, tmp_path / "b.tif")
    with open_raster(tmp_path / "b.tif") as raster:
        assert raster.dtype == np.dtype("complex64")
        assert (raster.read(0, 0, 5, 4).data == 3 - 4j).all()


@pytest.mark.parametrize("window", [(2, 1, 5, 4), (-3, -2, 6, 6), (7, 5, 10, 10), (-5, -5, 40, 40), (50, 50, 3, 3)])
def test_windows_over_the_edge_are_padded_and_invalid(window: tuple[int, int, int, int], tmp_path: Path) -> None:
    data = ramp(8, 11)
    with open_raster(write_tiff(tmp_path / "a.tif", data)) as raster:
        patch = raster.read(*window)
    col0, row0, width, height = window
    for row in range(height):
        for col in range(width):
            inside = 0 <= row + row0 < 8 and 0 <= col + col0 < 11
            assert patch.valid[row, col] == inside
            assert patch.data[0, row, col] == (data[row + row0, col + col0] if inside else 0)


def test_bands_are_chosen_by_number(tmp_path: Path) -> None:
    data = np.stack([ramp(4, 4), ramp(4, 4) + 100, ramp(4, 4) + 200])
    with open_raster(write_tiff(tmp_path / "a.tif", data)) as raster:
        np.testing.assert_array_equal(raster.read(0, 0, 4, 4, bands=[3, 1]).data, data[[2, 0]])
        with pytest.raises(UsageError, match="bands"):
            raster.read(0, 0, 4, 4, bands=[4])
        with pytest.raises(UsageError, match="empty"):
            raster.read(0, 0, 0, 4)


def test_nodata_counts_where_all_bands_have_it(tmp_path: Path) -> None:
    data = np.ones((2, 3, 3), "uint8")
    data[:, 0, 0] = 0
    data[0, 1, 1] = 0
    with open_raster(write_tiff(tmp_path / "a.tif", data, nodata=0)) as raster:
        valid = raster.read(0, 0, 3, 3).valid
        one_band = raster.read(0, 0, 3, 3, bands=[1]).valid
    assert (~valid).sum() == 1
    assert not valid[0, 0]
    assert (~one_band).sum() == 2


def test_float_nodata_is_compared_in_the_files_type(tmp_path: Path) -> None:
    data = np.ones((3, 3), "float32")
    data[1, 2] = np.finfo("float32").min
    with open_raster(write_tiff(tmp_path / "a.tif", data, nodata=float(np.finfo("float32").min))) as raster:
        valid = raster.read(0, 0, 3, 3).valid
    assert [tuple(place) for place in np.argwhere(~valid)] == [(1, 2)]


def test_masks_nodata_and_nan_add_up(tmp_path: Path) -> None:
    data = np.full((4, 4), 5, "float32")
    data[0, 0], data[0, 1], data[0, 2] = np.nan, np.inf, -9999
    mask = np.ones((4, 4), bool)
    mask[3, 3] = False
    with open_raster(write_tiff(tmp_path / "a.tif", data, mask=mask, nodata=-9999)) as raster:
        valid = raster.read(-1, -1, 6, 6).valid
    expected = np.zeros((6, 6), bool)
    expected[1:5, 1:5] = mask & np.isfinite(data) & (data != -9999)
    np.testing.assert_array_equal(valid, expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_is_a_mask_and_no_data_band(dtype: str, tmp_path: Path) -> None:
    data = np.full((4, 5, 6), 9, dtype)
    data[3, 2, 2:] = 0
    path = write_tiff(tmp_path / "a.tif", data, photometric="RGB", alpha="yes")
    with open_raster(path) as raster:
        assert (raster.count, raster.data_bands) == (4, (1, 2, 3))
        np.testing.assert_array_equal(raster.read(0, 0, 6, 5).valid, data[3] > 0)
    with rasterio.open(path) as file:
        assert file.colorinterp[3] == ColorInterp.alpha


@pytest.mark.parametrize("profile", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}, {"compress": "deflate"}])
def test_overview_takes_the_nearest_pixels(profile: dict[str, Any], tmp_path: Path) -> None:
    data = ramp(60, 90)
    mask = data % 7 > 0
    with open_raster(write_tiff(tmp_path / "a.tif", data, mask=mask, **profile)) as raster:
        small, whole = raster.overview(30), raster.overview(500)
    rows, cols = np.arange(20) * 3 + 1, np.arange(30) * 3 + 1
    np.testing.assert_array_equal(small.data[0], data[np.ix_(rows, cols)])
    np.testing.assert_array_equal(small.valid, mask[np.ix_(rows, cols)])
    np.testing.assert_array_equal(whole.data[0], data)


@pytest.mark.parametrize("profile", [{}, {"tiled": True, "blockxsize": 256, "blockysize": 256}])
def test_overview_decodes_no_more_than_it_is_told(profile: dict[str, Any], tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(1, 255, (1, 2000, 3000)).astype("uint8")
    with open_raster(write_tiff(tmp_path / "a.tif", data, **profile)) as raster:
        whole, some = raster.overview(600), raster.overview(600, most_px=2_000_000)
        np.testing.assert_array_equal(raster.overview(600, most_px=6_000_000).data, whole.data)
    assert 0.25 < some.valid.mean() < 0.42
    np.testing.assert_array_equal(some.data[:, some.valid], whole.data[:, some.valid])
    rows, cols = np.nonzero(some.valid)
    assert np.ptp(rows) > 300
    assert np.ptp(cols) > 450


def test_internal_overviews_are_used_and_external_ones_are_not(tmp_path: Path, gdal: Gdal) -> None:
    mask = np.ones((64, 96), bool)
    mask[:, 48:] = False
    path = write_tiff(tmp_path / "a.tif", ramp(64, 96), mask=mask, tiled=True, blockxsize=16, blockysize=16)
    gdal("gdaladdo", "-r", "average", path, "2", "4")
    (tmp_path / "a.tif.ovr").write_bytes(b"garbage")
    with open_raster(path) as raster:
        small = raster.overview(24)
    told = json.loads(gdal("gdalinfo", "-json", path))["bands"][0]["overviews"]
    assert told[1]["size"] == [24, 16]
    assert small.data[0, 0, 0] == pytest.approx(ramp(64, 96)[:4, :4].mean(), abs=1)
    np.testing.assert_array_equal(small.valid, mask[::4, ::4])


def test_blocks_cover_the_raster_once_with_their_halo(tmp_path: Path) -> None:
    data = ramp(10, 13)
    seen = np.zeros((10, 13), int)
    with open_raster(write_tiff(tmp_path / "a.tif", data)) as raster:
        blocks = list(raster.blocks(4, halo=2))
        for block in blocks:
            seen[block.row0 : block.row0 + block.height, block.col0 : block.col0 + block.width] += 1
            again = raster.read(block.col0 - 2, block.row0 - 2, block.width + 4, block.height + 4)
            np.testing.assert_array_equal(block.patch.data, again.data)
            core = block.patch.data[0, 2:-2, 2:-2]
            assert core[0, 0] == data[block.row0, block.col0]
    assert (seen == 1).all()
    assert [(block.col0, block.row0) for block in blocks[:5]] == [(0, 0), (4, 0), (8, 0), (12, 0), (0, 4)]


@pytest.mark.parametrize(("scale", "resampling"), [(2.0, "average"), (3.3, "average"), (0.5, "bilinear")])
@pytest.mark.parametrize("turn", [0, 30])
def test_other_pixels_are_those_of_gdalwarp(
    scale: float, resampling: str, turn: int, tmp_path: Path, gdal: Gdal
) -> None:
    data, mask = np.random.default_rng(1).integers(0, 255, (3, 90, 120)).astype("uint8"), np.ones((90, 120), bool)
    mask[:, 100:] = False
    place = PLACE @ Affine.rotation(turn)
    path = write_tiff(tmp_path / "a.tif", data, mask=mask, crs=UTM33, transform=place)
    width, height = round(120 / scale), round(90 / scale)
    target = tmp_path / "b.tif"
    if turn == 0:
        gsd = PLACE.a * scale
        corner = place @ (width * scale, height * scale)
        extent = (place.c, corner[1], corner[0], place.f)
        gdal("gdalwarp", "-q", "-r", resampling, "-tr", gsd, gsd, "-te", *extent, "-dstalpha", path, target)
        with rasterio.open(target) as file:
            expected = file.read()
    with open_raster(path) as raster, raster.at_scale(scale) as other:
        assert other.grid is not None
        assert (other.width, other.height) == (width, height)
        assert tuple(other.grid.transform)[:6] == pytest.approx(tuple(place @ Affine.scale(scale))[:6])
        assert other.data_bands == (1, 2, 3)
        patch = other.read(-2, -1, width + 4, height + 3)
        assert not patch.valid[0].any()
        inside = patch.data[:, 1 : height + 1, 2 : width + 2]
        valid = patch.valid[1 : height + 1, 2 : width + 2]
        last = int(100 / scale) - 2
        assert valid[:, :last].all()
        assert not valid[:, last + 4 :].any()
        if turn == 0:
            np.testing.assert_array_equal(valid, expected[3] > 0)
            np.testing.assert_allclose(inside[:, valid], expected[:3][:, valid], atol=1)
        if scale == 2:
            means = data[:, :90, :96].reshape(3, 45, 2, 48, 2).mean(axis=(2, 4))
            np.testing.assert_allclose(inside[:, :, :48], means, atol=1.01)
        part = other.read(7, 5, 20, 11)
        np.testing.assert_array_equal(part.data, patch.data[:, 6:17, 9:29])


def test_same_pixels_are_the_same_raster_and_too_many_are_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp(50, 50), crs=UTM33, transform=PLACE)
    with open_raster(path, limits=Limits(max_pixels=5000)) as raster:
        assert raster.at_scale(1.0) is raster
        with pytest.raises(LimitError, match=r"100 × 100 px at that pixel size.*larger pixel"):
            raster.at_scale(0.5)
    with (
        open_raster(write_tiff(tmp_path / "none.tif", ramp(50, 50), crs=None, transform=None)) as raster,
        pytest.raises(InputError, match="no geotransform"),
    ):
        raster.at_scale(2)


def test_fingerprint_is_sha256sum(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp(5, 5))
    source = fingerprint(path)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (source.size_bytes, source.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)


@pytest.mark.parametrize("kind", ["AREA", "POINT"])
def test_pixel_is_point_and_pixel_is_area_agree_with_gdalinfo(kind: str, tmp_path: Path, gdal: Gdal) -> None:
    source = write_tiff(tmp_path / "a.tif", ramp(5, 5))
    path = tmp_path / "b.tif"
    gdal("gdal_translate", "-mo", f"AREA_OR_POINT={kind}", source, path)
    with open_raster(path, need_grid=True) as raster:
        assert raster.grid is not None
        told = json.loads(gdal("gdalinfo", "-json", path))["geoTransform"]
        assert raster.grid.transform.to_gdal() == pytest.approx(told)
        assert raster.grid.transform == NORTH_UP


def test_files_without_georeference_say_why(tmp_path: Path) -> None:
    bare = write_tiff(tmp_path / "bare.tif", ramp(5, 5), crs=None, transform=None)
    no_crs = write_tiff(tmp_path / "no_crs.tif", ramp(5, 5), crs=None)
    no_transform = write_tiff(tmp_path / "no_transform.tif", ramp(5, 5), transform=None)
    corners = [GroundControlPoint(0, 0, 1, 2), GroundControlPoint(0, 5, 2, 2), GroundControlPoint(5, 0, 1, 1)]
    gcps = write_tiff(tmp_path / "gcps.tif", ramp(5, 5), crs="EPSG:4326", transform=None, gcps=corners)
    rpcs = write_tiff(tmp_path / "rpcs.tif", ramp(5, 5), crs=None, transform=None, rpcs=rational_model())
    for path, why in [
        (bare, "no geotransform.*gdal_translate -a_srs"),
        (no_crs, "no CRS.*gdal_translate -a_srs"),
        (no_transform, "no geotransform"),
        (gcps, "control points only.*gdalwarp"),
        (rpcs, "RPC.*gdalwarp -rpc"),
    ]:
        with open_raster(path) as raster:
            assert raster.grid is None
            assert raster.no_grid is not None
        with pytest.raises(InputError, match=why):
            open_raster(path, need_grid=True)


def rational_model() -> rasterio.rpc.RPC:
    names = ["height_off", "height_scale", "lat_off", "lat_scale", "line_off", "line_scale"]
    names += ["long_off", "long_scale", "samp_off", "samp_scale"]
    terms = ["line_num_coeff", "line_den_coeff", "samp_num_coeff", "samp_den_coeff"]
    return rasterio.rpc.RPC(**dict.fromkeys(names, 1.0), **dict.fromkeys(terms, [1.0] * 20), err_bias=0.0, err_rand=0.0)


def test_sidecars_are_not_looked_at(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp(5, 5), crs=None, transform=None)
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n400005\n3699995\n")
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset><SRS>{UTM11}</SRS></PAMDataset>")
    write_tiff(tmp_path / "a.tif.msk", np.zeros((5, 5), "uint8"), crs=None, transform=None)
    with open_raster(path) as raster:
        assert raster.grid is None
        assert raster.read(0, 0, 5, 5).valid.all()


def hostile_files(folder: Path) -> dict[str, tuple[Path | str, str]]:
    victim = write_tiff(folder / "victim.tif", ramp(64, 64))
    (folder / "vrt.tif").write_text(
        f"<VRTDataset rasterXSize='64' rasterYSize='64'><VRTRasterBand dataType='UInt16' band='1'><SimpleSource>"
        f"<SourceFilename>{victim}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (folder / "text.tif").write_text("this is not an image\n")
    (folder / "empty.tif").touch()
    (folder / "short.tif").write_bytes(b"II*\0")
    (folder / "loop.tif").write_bytes(b"II*\0" + (8).to_bytes(4, "little") + bytes(2) + (8).to_bytes(4, "little"))
    (folder / "cut.tif").write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    os.mkfifo(folder / "pipe.tif")
    with rasterio.open(write_tiff(folder / "overview.tif", ramp(64, 64)), "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(victim))
    return {
        "vrt": (folder / "vrt.tif", "not a TIFF"),
        "text": (folder / "text.tif", "not a TIFF"),
        "empty": (folder / "empty.tif", "empty"),
        "short": (folder / "short.tif", "truncated"),
        "loop": (folder / "loop.tif", "truncated or damaged"),
        "cut": (folder / "cut.tif", "truncated"),
        "folder": (folder, "folder"),
        "pipe": (folder / "pipe.tif", "regular file"),
        "missing": (folder / "missing.tif", "no such file"),
        "overview": (folder / "overview.tif", "another file"),
        "url": ("https://example.org/a.tif", "no such file"),
        "vsicurl": ("/vsicurl/https://example.org/a.tif", "virtual"),
        "vsizip": (f"/vsizip/{folder}/a.zip/a.tif", "virtual"),
        "directory notation": (f"GTIFF_DIR:1:{victim}", "no such file"),
        "raw notation": (f"GTIFF_RAW:{victim}", "no such file"),
        "null byte": ("a\0.tif", "cannot be opened"),
    }


HOSTILE = ["vrt", "text", "empty", "short", "loop", "cut", "folder", "pipe", "missing", "overview", "url", "vsicurl"]
HOSTILE += ["vsizip", "directory notation", "raw notation", "null byte"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_with_a_reason_and_a_step(name: str, tmp_path: Path) -> None:
    path, why = hostile_files(tmp_path)[name]
    with pytest.raises(InputError, match=why) as caught:
        open_raster(path)
    assert caught.value.where
    assert caught.value.hint


def test_unreadable_file_is_an_input_error(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp(4, 4))
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(NOBODY)  # root may read everything
        with pytest.raises(InputError, match="permission"):
            open_raster(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("tags", "error", "why"),
    [
        (strip_tags(0, 10), InputError, "0 × 10|damaged"),
        (strip_tags(30_000, 21_000), InputError, "truncated"),
        (strip_tags(30_000, 21_000, {COMPRESSION: DEFLATE}), LimitError, "block.*MAX_BLOCK_BYTES"),
        (strip_tags(4_000_000_000, 4_000_000_000, {ROWS: 1}), InputError, "takes|damaged"),
        (strip_tags(4_000_000_000, 4_000_000_000), LimitError, "MAX_PIXELS"),
        (strip_tags(10, 10, {OFFSETS: 4_000_000_000}), InputError, "truncated"),
        (strip_tags(10, 10, {ROWS: 0}), InputError, "damaged"),
        ({WIDTH: 10, HEIGHT: 10}, InputError, "damaged"),
    ],
)
def test_lying_headers_are_refused(tags: dict[int, int], error: type[InputError], why: str, tmp_path: Path) -> None:
    path = handmade_tiff(tmp_path / "a.tif", tags)
    with pytest.raises(error, match=why) as caught:
        open_raster(path)
    assert caught.value.hint


def test_handmade_header_is_itself_good(tmp_path: Path) -> None:
    with open_raster(handmade_tiff(tmp_path / "a.tif", strip_tags(5, 10))) as raster:
        assert (raster.width, raster.height) == (5, 10)
        assert raster.read(0, 0, 5, 10).valid.all()


def test_refusing_a_huge_header_takes_no_memory(tmp_path: Path) -> None:
    path = handmade_tiff(tmp_path / "a.tif", strip_tags(30_000, 21_000, {COMPRESSION: DEFLATE}))
    code = "import sys, resource\nfrom geomatch.raster import open_raster\nfrom geomatch.errors import LimitError\n"
    code += "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    code += "try:\n    open_raster(sys.argv[1])\nexcept LimitError:\n"
    code += "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    told = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert int(told) < 20_000  # KiB


def test_limits_can_be_raised(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", ramp(40, 40), compress="deflate", blockysize=40)
    with pytest.raises(LimitError, match="MAX_PIXELS"):
        open_raster(path, limits=Limits(max_pixels=1599))
    with pytest.raises(LimitError, match="MAX_BLOCK_BYTES"):
        open_raster(path, limits=Limits(max_block_bytes=3199))
    with open_raster(path, limits=Limits(max_read_bytes=3199)) as raster:
        raster.read(0, 0, 39, 40)
        with pytest.raises(LimitError, match="MAX_READ_BYTES"):
            raster.read(0, 0, 40, 40)
    with open_raster(path, limits=Limits(max_pixels=1600, max_block_bytes=3200, max_read_bytes=3200)) as raster:
        raster.read(0, 0, 40, 40)


def test_users_raise_limits_by_the_variable_that_the_hint_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = handmade_tiff(tmp_path / "a.tif", strip_tags(30_000, 21_000, {COMPRESSION: DEFLATE}))
    with pytest.raises(LimitError, match="GEOMATCH_MAX_BLOCK_BYTES=630000000") as caught:
        open_raster(path)
    name, value = caught.value.hint.split()[-1].split("=")
    monkeypatch.setenv(name, value)
    with open_raster(path) as raster:
        assert raster.width == 30_000
    monkeypatch.setenv(name, "lots")
    with pytest.raises(UsageError, match="lots"):
        open_raster(path)


def test_damage_inside_is_an_input_error_when_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype("uint8")
    path = write_tiff(tmp_path / "a.tif", noise, compress="deflate")
    damaged = bytearray(path.read_bytes())
    damaged[-2000:-1000] = bytes(1000)
    path.write_bytes(damaged)
    with open_raster(path) as raster, pytest.raises(InputError, match="cannot be read"):
        raster.read(0, 0, 64, 64)


def test_reading_a_closed_raster_is_an_input_error(tmp_path: Path) -> None:
    with open_raster(write_tiff(tmp_path / "a.tif", ramp(4, 4))) as raster:
        pass
    with pytest.raises(InputError):
        raster.read(0, 0, 4, 4)


@pytest.mark.parametrize(
    "profile",
    [
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"},
        {"interleave": "pixel"},
        {"interleave": "band"},
        {"SPARSE_OK": True, "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel"},
        {"compress": "lzw", "tiled": True, "blockxsize": 16, "blockysize": 32, "interleave": "band"},
        {"NBITS": 1},
        {"driver": "COG"},
    ],
)
def test_layouts_of_good_files_are_accepted(profile: dict[str, Any], tmp_path: Path) -> None:
    data = np.zeros((3, 50, 70), "uint8")
    data[:, 16:, 48:] = 1 if "NBITS" in profile else 200
    with open_raster(write_tiff(tmp_path / "a.tif", data, **profile)) as raster:
        np.testing.assert_allclose(raster.read(0, 0, 70, 50).data, data, atol=2)  # JPEG rounds


@pytest.mark.parametrize(
    "name", ["with space.tif", "a#b.tif", "a?b.tif", "zip:a.tif", "a!b.tif", "ä.tif", "GTIFF_DIR:1:a.tif"]
)
def test_odd_names_are_only_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiff(tmp_path / "plain.tif", ramp(4, 4)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with open_raster(name) as raster:
        assert raster.width == 4


def test_one_pixel_is_a_raster(tmp_path: Path) -> None:
    with open_raster(write_tiff(tmp_path / "a.tif", ramp(1, 1)), need_grid=True) as raster:
        assert raster.overview().data.tolist() == [[[1]]]
        assert raster.grid is not None
        assert raster.grid.transform == Affine(*NORTH_UP[:6])


@pytest.mark.parametrize("seed", range(4))
def test_files_with_flipped_bytes_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    mask = ramp(64, 80) > 500
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    profiles: list[dict[str, Any]] = [
        tiled | {"compress": "deflate"},
        {},
        {"compress": "lzw", "BIGTIFF": "YES"},
        {"compress": "jpeg"},
    ]
    good = write_tiff(tmp_path / "good.tif", ramp(64, 80, "uint8"), mask=mask, **profiles[seed]).read_bytes()
    path = tmp_path / "a.tif"
    refused = 0
    for _ in range(60):
        flipped = np.frombuffer(good, np.uint8).copy()
        places = rng.integers(0, 600, 3)
        flipped[places] = rng.choice([0, 1, 255], 3)
        path.write_bytes(flipped.tobytes())
        try:
            with open_raster(path, limits=Limits(max_pixels=10**6, max_read_bytes=10**7)) as raster:
                raster.overview(40)
                raster.read(-2, -2, 20, 20)
        except InputError as error:
            refused += 1
            assert error.hint
    assert 0 < refused < 60
