"""An index of many files: that of the whole, wherever it is cut, and honest about what lies between them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from affine import Affine
from drawing import write_tiff
from programs import complaint, geomatch, listing
from pyproj import Transformer
from quarters import CUT, piece, quarters
from rasterio.warp import reproject
from towns import PLACE, UTM33, Town, moved, off_px, view, write_town

import geomatch as library
from geomatch.encoder import StructuralEncoder
from geomatch.errors import InputError, UsageError
from geomatch.files import sha256_of
from geomatch.index.build import build_index
from geomatch.index.plan import BuildOptions
from geomatch.locator import Locator
from geomatch.manifest import FEATURES, MANIFEST, TILES, VECTORS
from geomatch.structure import Dense
from geomatch.tile_index import TileIndex

QUICK = BuildOptions(encoder="structural", stride_px=32)


@pytest.fixture(scope="module")
def cut(town: Town, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return quarters(town, tmp_path_factory.mktemp("cut"))


@pytest.fixture(scope="module")
def many(cut: list[Path]) -> Path:
    """The index of the quarters, beside them, at the default options; not to be changed."""
    return build_index(cut, cut[0].parent / "many.gmi").path


def assert_same(many: Path, whole: Path) -> None:
    """Two indexes are the same but for the names of their sources."""
    for name in (FEATURES, VECTORS):
        assert sha256_of(many / name) == sha256_of(whole / name), name
    found, expected = (pq.read_table(folder / TILES).drop(["source"]) for folder in (many, whole))
    assert found.equals(expected)
    manifests = [json.loads((folder / MANIFEST).read_text()) for folder in (many, whole)]
    for values in manifests:
        del values["sources"], values["files"][TILES]
    assert manifests[0] == manifests[1]


def test_map_in_four_files_is_the_map_in_one(many: Path, town_index: Path) -> None:
    assert_same(many, town_index)
    assert TileIndex.open(many).check() == []


BOX = tuple(np.array([moved(PLACE, [101, 640]), moved(PLACE, [613, 83])]).ravel().tolist())


@pytest.mark.parametrize("options", [QUICK, replace(QUICK, bbox=BOX), replace(QUICK, working_gsd_m=1.0)])
def test_options_mean_what_they_mean_for_one_file(
    options: BuildOptions, cut: list[Path], town: Town, tmp_path: Path
) -> None:
    found, expected = build_index(cut, tmp_path / "a.gmi", options), build_index(town.path, tmp_path / "b.gmi", options)
    assert (found.grid, found.manifest.scale) == (expected.grid, expected.manifest.scale)
    assert found.manifest.origin_px == expected.manifest.origin_px
    np.testing.assert_array_equal(found.features.valid, expected.features.valid)
    off = np.abs(found.features.values.astype(int) - expected.features.values)
    assert off.max() <= (0 if options.working_gsd_m is None else 1)
    with found.open_map() as one, expected.open_map() as other:
        window = (*found.manifest.origin_px, 40, 50)
        np.testing.assert_array_equal(one.read(*window).data, other.read(*window).data)


def test_one_path_in_a_list_is_the_path_alone(town: Town, town_index: Path, tmp_path: Path) -> None:
    build_index([town.path], tmp_path / "a.gmi")
    values = [json.loads((folder / MANIFEST).read_text()) for folder in (tmp_path / "a.gmi", town_index)]
    for each in values:
        del each["sources"][0]["relative_path"]
    assert values[0] == values[1]
    assert sha256_of(tmp_path / "a.gmi" / TILES) == sha256_of(town_index / TILES)


def test_sources_are_the_files_in_their_order(cut: list[Path], many: Path) -> None:
    manifest = TileIndex.open(many).manifest
    assert [source.path for source in manifest.sources] == [str(path.resolve()) for path in cut]
    for source, path in zip(manifest.sources, cut, strict=True):
        assert (many / source.relative_path).resolve() == path.resolve()
        assert (source.sha256, source.size_bytes) == (sha256_of(path), path.stat().st_size)
    table = pq.read_table(many / TILES).to_pydict()
    for col, row, source in zip(table["col"], table["row"], table["source"], strict=True):
        assert source == (col + 100 >= CUT[0]) + 2 * (row + 100 >= CUT[1])


def test_what_no_file_covers_is_left_out(cut: list[Path], town: Town, tmp_path: Path) -> None:
    """The upper right quarter is not there."""
    index = build_index([cut[0], *cut[2:]], tmp_path / "a.gmi", QUICK)
    assert (index.grid.width, index.grid.height) == (768, 768)
    valid = index.features.valid
    assert not valid[: CUT[1] // 8, -(-CUT[0] // 8) :].any()
    assert valid[-(-CUT[1] // 8) + 2 :].all()
    table = pq.read_table(index.path / TILES).to_pydict()
    assert len(index) < 18 * 18
    for col, row, share in zip(table["col"], table["row"], table["valid_fraction"], strict=True):
        missing = max(0, col + 200 - max(col, CUT[0])) * max(0, min(row + 200, CUT[1]) - row) / 200**2
        assert share == pytest.approx(1 - missing, abs=0.08)  # less the margin of gradients beside what is missing
        assert share >= 0.5
    whole = build_index(town.path, tmp_path / "b.gmi", QUICK).features
    # The stretch is that of the pixels that are there.
    np.testing.assert_allclose(index.features.values[:, 70:], whole.values[:, 70:], atol=3)


def test_land_between_files_far_apart_is_neither_encoded_nor_written(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense, encoded = StructuralEncoder.dense, []

    def counted(self: StructuralEncoder, image: Any, *more: Any) -> Dense:
        encoded.append(image.shape)
        return dense(self, image, *more)

    monkeypatch.setattr(StructuralEncoder, "dense", counted)
    far = (30_000, 20_000)
    bands = town.bands[:, :300, :300]
    files = [write_town(tmp_path / "a.tif", bands).path]
    files.append(write_town(tmp_path / "b.tif", bands, PLACE @ Affine.translation(*far)).path)
    index = build_index(files, tmp_path / "a.gmi", replace(QUICK, stride_px=100))
    assert len(encoded) == 2  # of 150 blocks
    assert (index.grid.width, index.grid.height) == (30_300, 20_300)
    assert (index.path / FEATURES).stat().st_size < 3_000_000  # of 3 × 3788 × 2538 cells
    assert index.check() == []
    assert sorted(set(pq.read_table(index.path / TILES)["source"].to_pylist())) == [0, 1]
    values, valid = index.features.values, index.features.valid
    here, there = values[:, 4:33, 4:33], values[:, 2504:2533, 3754:3783]
    assert np.corrcoef(here.ravel(), there.ravel())[0, 1] > 0.98
    assert not valid[100:2490].any()


@pytest.mark.parametrize("moved_away", [False, True])
def test_strip_over_the_seams_is_found(
    moved_away: bool, town: Town, cut: list[Path], many: Path, tmp_path: Path
) -> None:
    size = (240, 300)
    truth = town.write_strip(tmp_path / "s.tif", view((CUT[0] + 11.3, CUT[1] + 27.9), 30, 1, *size), size)
    map_path = Path(shutil.copytree(cut[0].parent, tmp_path / "moved")) if moved_away else None
    location = Locator.open(many, map_path=map_path).locate(tmp_path / "s.tif")
    assert (location.status, location.evidence.accuracy) == ("located", "pixel")
    assert off_px(location, town, truth, size) < 0.5


def test_files_in_two_zones_are_one_map(town: Town, tmp_path: Path) -> None:
    """The right half was warped to the neighbouring zone by GDAL; a strip over the edge is still found."""
    left = piece(town, tmp_path / "left.tif", (0, 0, 400, 768))
    right = town.bands[:, :, 390:]
    x, y = Transformer.from_crs(UTM33, "EPSG:32632", always_xy=True).transform(*moved(PLACE, [[390, 390], [0, 768]]).T)
    place = Affine(0.5, 0, np.floor(x.min()) - 5, 0, -0.5, np.ceil(y.max()) + 25)
    warped = np.zeros((3, 900, 500), "uint8")
    at = PLACE @ Affine.translation(390, 0)
    reproject(right, warped, src_crs=UTM33, src_transform=at, dst_crs="EPSG:32632", dst_transform=place)
    other = write_town(tmp_path / "right.tif", warped, place, "EPSG:32632", nodata=0).path
    index = library.build_index([left, other], tmp_path / "a.gmi", stride_px=32)
    assert index.grid.crs == UTM33
    size = (240, 300)
    truth = town.write_strip(tmp_path / "s.tif", view((430, 400), 0, 1, *size), size)
    location = Locator.open(index.path).locate(tmp_path / "s.tif")
    assert location.status == "located"
    assert off_px(location, town, truth, size) < 1.5


def test_index_info_tells_the_files(cut: list[Path], many: Path) -> None:
    told = geomatch("index", "info", many).stdout
    assert f"map:        4 rasters, the first {cut[0].resolve()}\n" in told
    assert len(json.loads(geomatch("index", "info", many, "--json").stdout)["sources"]) == 4


def test_index_info_tells_which_files_are_missing_or_changed(town: Town, tmp_path: Path) -> None:
    files = quarters(town, tmp_path / "maps")
    build_index(files, tmp_path / "a.gmi", QUICK)
    files[1].unlink()
    files[3].write_bytes(files[3].read_bytes() + b"x")
    (told,) = [line for line in geomatch("index", "info", tmp_path / "a.gmi").stdout.splitlines() if "map:" in line]
    assert "4 rasters, 2 of them missing or changed; " in told
    assert f"{files[1]}: the map of the index is not there; " in told
    assert told.endswith("3.tif: the map has changed since the index was built")


def test_many_files_on_the_command_line(cut: list[Path], tmp_path: Path) -> None:
    words = ["--encoder", "structural", "--stride", 64]
    result = geomatch("index", "build", *cut, "-o", tmp_path / "a.gmi", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "100 tiles of 768 × 768 px" in result.stdout


def test_files_that_are_no_map_together_leave_nothing(town: Town, cut: list[Path], tmp_path: Path) -> None:
    grey = write_tiff(tmp_path / "grey.tif", town.bands[0], crs=UTM33, transform=PLACE)
    bare = write_tiff(tmp_path / "bare.tif", town.bands, crs=None, transform=None)
    cut_off = tmp_path / "cut.tif"
    cut_off.write_bytes(cut[1].read_bytes()[:5000])
    before = listing(tmp_path)
    cases: list[tuple[Path, int, str]] = [
        (cut[2], 2, f"{cut[2].resolve()}: is given twice. Name each"),
        (grey, 3, f"{grey}: has 1 bands of uint8, 0.tif has 3 bands of uint8. Leave it out"),
        (bare, 3, f"{bare}: the file has no geotransform"),
        (tmp_path / "none.tif", 3, "none.tif: no such file"),
        (cut_off, 3, f"{cut_off}: the TIFF is truncated"),
    ]
    for path, code, told in cases:
        result = geomatch("index", "build", *cut, path, "-o", tmp_path / "a.gmi")
        assert (result.exit_code, result.stdout) == (code, "")
        assert told in complaint(result.stderr)
        assert listing(tmp_path) == before


def test_map_too_large_to_be_one_is_refused(
    town: Town, cut: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = write_town(tmp_path / "far.tif", town.bands, PLACE @ Affine.translation(90_000, 0)).path
    monkeypatch.setenv("GEOMATCH_MAX_PIXELS", "50000000")
    result = geomatch("index", "build", cut[0], far, "-o", tmp_path / "a.gmi")
    assert result.exit_code == 3
    assert "a map of 90768 × 768 pixels over all 2 rasters takes" in complaint(result.stderr)
    assert "Build an index of each group" in result.stderr


def test_file_inside_the_index_is_not_deleted(town: Town, cut: list[Path], tmp_path: Path) -> None:
    index = build_index(town.path, tmp_path / "a.gmi", QUICK)
    inside = index.path / FEATURES
    inside.write_bytes(town.path.read_bytes())
    result = geomatch("index", "build", *cut, inside, "-o", index.path, "--overwrite")
    assert result.exit_code == 5
    assert "holds the orthomosaic features.tif" in complaint(result.stderr)
    assert inside.is_file()


def test_any_file_that_changes_during_the_build_is_named(town: Town, tmp_path: Path) -> None:
    files = quarters(town, tmp_path / "maps")

    def touch(stage: str, done: int, total: int) -> None:
        if stage == "vectors" and done == total:
            files[2].write_bytes(files[2].read_bytes() + b"x")

    with pytest.raises(InputError, match=r"2\.tif: the orthomosaic has changed during the build"):
        build_index(files, tmp_path / "a.gmi", QUICK, progress=touch)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["maps"]


def test_no_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no orthomosaic is given"):
        library.build_index([], tmp_path / "a.gmi")
