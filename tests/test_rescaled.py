"""A map of many files at another pixel: what GDAL makes of one file of it all, with no edge between files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from drawing import write_tiff
from quarters import piece, quarters
from towns import PLACE, UTM33, Town, write_town

from geomatch import rescaled
from geomatch.errors import LimitError
from geomatch.mosaic import Mosaic
from geomatch.raster import Limits, open_raster


@pytest.fixture(scope="module", params=["whole", "holed", "turned"])
def maps(request: pytest.FixtureRequest, town: Town, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mosaic]:
    """One file, and the same in four."""
    folder = tmp_path_factory.mktemp("maps")
    bands = town.bands[:, :297, :264].copy()
    if request.param == "holed":
        bands[bands == 0] = 1
        bands[:, 100:170, 90:200] = 0
    place = PLACE @ Affine.rotation(20 if request.param == "turned" else 0)
    one = write_town(folder / "one.tif", bands, place, nodata=0)
    return one.path, Mosaic.open(quarters(one, folder / "four", (131, 117), nodata=0))


@pytest.mark.parametrize("scale", [1.5, 2.0, 3.3, 0.5, 0.75])
@pytest.mark.parametrize("piece_px", [2048, 64])
def test_pixels_are_those_of_one_file(
    scale: float, piece_px: int, maps: tuple[Path, Mosaic], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for halves, which are rounded up or down as the last digit says."""
    monkeypatch.setattr(rescaled, "PIECE_PX", piece_px)
    with open_raster(maps[0]) as whole:
        one, many = whole.at_scale(scale), maps[1].at_scale(scale)
        assert one.grid == many.grid
        assert one.grid is not None
        window = (-3, -2, one.grid.width + 5, one.grid.height + 7)
        expected, found = (raster.read(*window, bands=[1, 3]) for raster in (one, many))
    np.testing.assert_array_equal(found.valid, expected.valid)
    off = np.abs(found.data.astype(int) - expected.data)[:, expected.valid]
    assert off.max() <= 1
    assert off.mean() < 0.2
    part = many.read(20, 31, 40, 50, bands=[1, 3])
    np.testing.assert_array_equal(part.valid, found.valid[33:83, 23:63])
    assert np.abs(part.data.astype(int) - found.data[:, 33:83, 23:63])[:, part.valid].max() <= 1


def test_floats_stay_floats(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(2, 40, 60)).astype("float32")
    files = [
        write_tiff(tmp_path / f"{n}.tif", part, crs=UTM33, transform=PLACE @ Affine.translation(30 * n, 0))
        for n, part in enumerate((data[:, :, :30], data[:, :, 30:]))
    ]
    with Mosaic.open(files) as many, many.at_scale(4) as raster:
        patch = raster.read(0, 0, 15, 10)
    np.testing.assert_allclose(patch.data, data.reshape(2, 10, 4, 15, 4).mean(axis=(2, 4)), atol=1e-6)


def test_squares_are_held_by_the_files_beneath(town: Town, tmp_path: Path) -> None:
    with Mosaic.open(quarters(town, tmp_path / "four", (400, 200))) as many, many.at_scale(2) as raster:
        assert raster.holders(np.array([[0, 0], [190, 0], [194, 0], [0, 96], [300, 300]]), 10).tolist() == [
            0,
            0,
            0,
            2,
            3,
        ]
        assert raster.holders(np.array([[195, 95]]), 10).tolist() == [3]
        assert raster.paths == many.paths


def test_own_pixels_are_the_map_itself_and_too_many_are_refused(town: Town, tmp_path: Path) -> None:
    files = [piece(town, tmp_path / f"{n}.tif", (100 * n, 0, 100, 100)) for n in range(2)]
    with Mosaic.open(files, Limits(max_pixels=30_000)) as raster:
        assert raster.at_scale(1) is raster
        with pytest.raises(LimitError, match=r"0\.tif and 1 more: 400 × 200 px at that pixel size.*larger pixel"):
            raster.at_scale(0.5)
