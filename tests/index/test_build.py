"""Building: what lands on disk is what GDAL and geopandas should read, and appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from drawing import write_tiff
from shapely.geometry import box
from towns import PLACE, UTM33, Town, moved, optical, write_town

from geomatch import defaults
from geomatch.backends import AUTO, installed
from geomatch.encoder import load_encoder
from geomatch.errors import IndexFormatError, InputError, OutputError, UsageError
from geomatch.files import sha256_of
from geomatch.index import build, plan, vectors, work
from geomatch.index.build import build_index
from geomatch.index.kinds import Kind
from geomatch.index.plan import BuildOptions, read_options
from geomatch.manifest import FEATURES, MANIFEST, TILES, VECTORS
from geomatch.tile_index import TileIndex
from geomatch.tiles import starts, tile_vectors, vector_size

QUICK = BuildOptions(stride_px=64)
KINDS = sorted((Path(__file__).parents[2] / "configs" / "index").glob("*.yaml"))
ROTATED = PLACE @ Affine.rotation(33)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """A map of 411 × 387 px, no multiple of anything."""
    return write_town(tmp_path_factory.mktemp("small") / "small.tif", optical(512)[:, :387, :411])


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_directory_holds_four_files_whose_hashes_the_manifest_knows(town_index: Path) -> None:
    assert {file.name for file in town_index.iterdir()} == {MANIFEST, TILES, VECTORS, FEATURES}
    manifest = json.loads((town_index / MANIFEST).read_text())
    assert manifest["format_version"] == 1
    for name, entry in manifest["files"].items():
        content = (town_index / name).read_bytes()
        assert entry == {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def components_of(index: TileIndex) -> int:
    """Of what is searched with: a tile's features, pooled to 12 x 12 cells."""
    return index.encoder.channels * 12 * 12


def test_manifest_tells_what_was_built_of_what(town: Town, town_index: Path) -> None:
    manifest = json.loads((town_index / MANIFEST).read_text())
    (source,) = manifest["sources"]
    assert source["path"] == str(town.path.resolve())
    assert (town_index / source["relative_path"]).resolve() == town.path.resolve()
    assert source["sha256"] == hashlib.sha256(town.path.read_bytes()).hexdigest()
    assert source["size_bytes"] == town.path.stat().st_size
    assert source["mtime_ns"] == town.path.stat().st_mtime_ns
    assert manifest["encoder"]["sha256"] == load_encoder(defaults.ENCODER).fingerprint()
    assert manifest["grid"]["transform"] == list(town.transform)[:6]


def test_same_map_twice_is_the_same_bytes(small: Town, tmp_path: Path) -> None:
    one, two = (build_index(small.path, tmp_path / f"{number}.gmi", QUICK).path for number in (1, 2))
    assert hashes(one) == hashes(two)


@pytest.mark.parametrize("transform", [PLACE, PLACE @ Affine.scale(1, -1), ROTATED], ids=["north", "south", "rotated"])
def test_cells_of_the_feature_file_lie_where_their_pixels_lie(transform: Affine, small: Town, tmp_path: Path) -> None:
    town = write_town(tmp_path / "map.tif", small.bands, transform)
    build_index(town.path, tmp_path / "a.gmi", QUICK)
    with rasterio.open(tmp_path / "a.gmi" / FEATURES) as file:
        assert file.shape == (49, 52)
        assert file.dtypes == ("int8",) * file.count
        assert file.crs == UTM33
        assert file.nodata == -128
        assert file.scales == pytest.approx((1 / 127,) * file.count)
        for row, col in [(0, 0), (10, 3), (48, 51)]:
            assert file.xy(row, col) == pytest.approx(tuple(moved(transform, [col * 8 + 4, row * 8 + 4])), abs=1e-6)


def test_bounding_box_cuts_features_and_tiles_alike(small: Town, tmp_path: Path) -> None:
    left, top = moved(PLACE, [101, 83])
    right, bottom = moved(PLACE, [361, 343])
    index = build_index(small.path, tmp_path / "a.gmi", BuildOptions(stride_px=64, bbox=(left, bottom, right, top)))
    assert (index.grid.width, index.grid.height) == (260, 260)
    assert index.manifest.origin_px == (101, 83)
    with rasterio.open(index.path / FEATURES) as file:
        assert file.xy(0, 0) == pytest.approx(tuple(moved(PLACE, [105, 87])))
    frame = geopandas.read_parquet(index.path / TILES)
    assert tuple(frame.total_bounds) == pytest.approx((left, bottom, right, top))


def test_working_pixel_is_that_of_a_map_averaged_beforehand(town: Town, tmp_path: Path) -> None:
    build_index(town.path, tmp_path / "a.gmi", BuildOptions(working_gsd_m=1.0))
    manifest = TileIndex.open(tmp_path / "a.gmi").manifest
    assert manifest.scale == pytest.approx(2, rel=0.001)  # the grid's scale factor
    halved = town.bands.reshape(3, 384, 2, 384, 2).mean(axis=(2, 4)).round().astype("uint8")
    coarse = write_town(tmp_path / "coarse.tif", halved, PLACE @ Affine.scale(2))
    expected = build_index(coarse.path, tmp_path / "b.gmi").features
    found = TileIndex.open(tmp_path / "a.gmi").features
    assert found.values.shape == expected.values.shape
    assert np.corrcoef(found.values.ravel(), expected.values.ravel())[0, 1] > 0.99
    with TileIndex.open(tmp_path / "a.gmi").open_map() as raster:
        np.testing.assert_allclose(raster.read(50, 60, 30, 20).data, halved[:, 60:80, 50:80], atol=3)


@pytest.mark.parametrize(("gsd", "told"), [(0.0, "no pixel size"), (float("nan"), "no pixel size"), (0.1, "finer")])
def test_working_pixel_that_cannot_be_is_refused(gsd: float, told: str, small: Town, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        build_index(small.path, tmp_path / "a.gmi", BuildOptions(working_gsd_m=gsd))
    assert not (tmp_path / "a.gmi").exists()


def test_working_pixel_too_large_for_a_tile_is_refused(small: Town, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tile"):
        build_index(small.path, tmp_path / "a.gmi", BuildOptions(working_gsd_m=30))


def test_box_gives_the_features_of_a_map_cut_there(small: Town, tmp_path: Path) -> None:
    """Apart from the stretch, which is that of the whole map either way when the map is uint8 0-255."""
    left, top = moved(PLACE, [104, 80])
    right, bottom = moved(PLACE, [364, 340])
    part = build_index(small.path, tmp_path / "part.gmi", BuildOptions(bbox=(left, bottom, right, top))).features
    alone = write_town(tmp_path / "alone.tif", small.bands[:, 80:340, 104:364], PLACE @ Affine.translation(104, 80))
    whole = build_index(alone.path, tmp_path / "alone.gmi").features
    difference = np.abs(part.values.astype(int) - whole.values)
    assert np.median(difference) <= 2
    assert np.corrcoef(part.values.ravel(), whole.values.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("encoder", "backend"),
    [("structural", AUTO), *((encoder, backend) for encoder in ("la2", "la3") for backend in installed())],
)
def test_vectors_do_not_depend_on_the_blocks(
    encoder: str, backend: str, small: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(QUICK, encoder=encoder, backend=backend, vectors="Flat", components=0)
    whole = build_index(small.path, tmp_path / "whole.gmi", options)
    order = np.lexsort(np.asarray(whole.corners).T)
    expected = whole.vectors.stored(order)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-5)
    monkeypatch.setattr(vectors, "CHUNK_VALUES", 20_000)
    for block_px in (64, 128, 200):
        monkeypatch.setattr(plan, "BLOCK_PX", block_px)
        pieces = build_index(small.path, tmp_path / f"{block_px}.gmi", options)
        np.testing.assert_array_equal(pieces.features.valid, whole.features.valid)
        np.testing.assert_array_equal(pieces.features.values, whole.features.values)
        found = pieces.vectors.stored(np.lexsort(np.asarray(pieces.corners).T))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_tiles_cover_the_map_to_its_last_row_and_column(small: Town, tmp_path: Path) -> None:
    index = build_index(small.path, tmp_path / "a.gmi", QUICK)
    frame = geopandas.read_parquet(index.path / TILES)
    assert len(frame) == len(index) == index.manifest.tiles.count
    assert sorted(set(frame["col"])) == starts(411, 200, 64).tolist()
    assert sorted(set(frame["row"])) == starts(387, 200, 64).tolist()
    assert frame.crs == UTM33
    outline = box(*frame.total_bounds)
    (left, top), (right, bottom) = moved(PLACE, [0, 0]), moved(PLACE, [411, 387])
    assert outline.equals_exact(box(left, bottom, right, top), 1e-6)
    assert frame.geometry.union_all().symmetric_difference(outline).area < 1e-6


def test_tiles_of_mostly_nodata_are_left_out_and_the_edge_is_kept(small: Town, tmp_path: Path) -> None:
    bands = small.bands.copy()
    bands[bands == 0] = 1
    bands[:, :, :250] = 0
    town = write_town(tmp_path / "map.tif", bands, nodata=0)
    index = build_index(town.path, tmp_path / "a.gmi", BuildOptions(stride_px=16))
    table = pq.read_table(index.path / TILES).to_pydict()
    for col, share in zip(table["col"], table["valid_fraction"], strict=True):
        known = (col + 200 - max(col, 250)) / 200  # share of the tile's columns that hold data
        assert share == pytest.approx(known, abs=0.06)  # less the margin of gradients beside nodata
        assert share >= 0.5
    assert max(table["col"]) == 211
    assert min(table["col"]) >= 150
    assert max(table["row"]) == 187
    assert not index.features.valid[:, :31].any()
    assert index.features.valid[:48, 33:51].all()  # whole cells
    more = build_index(town.path, tmp_path / "b.gmi", BuildOptions(stride_px=16, min_valid=0.2))
    assert len(more) > len(index)
    assert index.check() == more.check() == []


@pytest.mark.parametrize("band_count", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_maps_of_other_bands_and_types_are_indexed(band_count: int, dtype: str, small: Town, tmp_path: Path) -> None:
    bands = np.concatenate([small.bands, small.bands[:1]])[:band_count].astype(dtype)
    path = write_tiff(tmp_path / "map.tif", bands * 7, transform=PLACE, crs=UTM33, photometric="MINISBLACK")
    assert build_index(path, tmp_path / "a.gmi", QUICK).check() == []


@pytest.mark.parametrize(("width", "height"), [(199, 387), (411, 100), (1, 1)])
def test_map_smaller_than_a_tile_is_refused(width: int, height: int, small: Town, tmp_path: Path) -> None:
    town = write_town(
        tmp_path / "map.tif", small.bands[:, :height, :width], tiled=False, blockxsize=None, blockysize=None
    )
    with pytest.raises(UsageError, match="smaller than a tile"):
        build_index(town.path, tmp_path / "a.gmi")
    assert list(tmp_path.glob("*.gmi")) == []


def test_map_as_large_as_a_tile_is_an_index_of_one(small: Town, tmp_path: Path) -> None:
    town = write_town(tmp_path / "map.tif", small.bands[:, :200, :200], tiled=False, blockxsize=None, blockysize=None)
    index = build_index(town.path, tmp_path / "a.gmi")
    assert len(index) == 1
    assert index.check() == []


@pytest.mark.parametrize("fill", ["nodata", "nan"])
def test_map_without_a_valid_pixel_is_refused(fill: str, tmp_path: Path) -> None:
    bands = np.full((1, 300, 300), np.nan if fill == "nan" else -9999, "float32")
    path = write_tiff(tmp_path / "map.tif", bands, transform=PLACE, crs=UTM33, nodata=-9999)
    with pytest.raises(InputError, match=r"map\.tif: no valid pixel"):
        build_index(path, tmp_path / "a.gmi")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["map.tif"]


def test_map_without_any_tile_of_enough_pixels_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    bands = np.zeros((1, 300, 300), "uint8")
    bands[:, :40, :40] = np.random.default_rng(0).integers(1, 255, (40, 40))
    path = write_tiff(tmp_path / "map.tif", bands, transform=PLACE, crs=UTM33, nodata=0)
    with pytest.raises(InputError, match=r"no tile.*--min-valid"):
        build_index(path, tmp_path / "a.gmi")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["map.tif"]


def test_map_without_georeference_is_refused(small: Town, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "map.tif", small.bands, transform=None, crs=None)
    with pytest.raises(InputError, match="no geotransform"):
        build_index(path, tmp_path / "a.gmi")


def test_constant_map_is_an_index_that_opens(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "map.tif", np.full((300, 300), 7, "uint8"), transform=PLACE, crs=UTM33)
    index = build_index(path, tmp_path / "a.gmi", QUICK)
    assert index.check() == []
    assert np.isfinite(index.search(np.zeros((1, components_of(index)), np.float32), 3).scores).all()


def test_what_is_there_is_left_alone(small: Town, tmp_path: Path) -> None:
    index = build_index(small.path, tmp_path / "a.gmi", QUICK)
    before = hashes(index.path)
    with pytest.raises(OutputError, match=r"a\.gmi: is there already.*--overwrite"):
        build_index(small.path, tmp_path / "a.gmi", BuildOptions(stride_px=32))
    assert hashes(index.path) == before
    replaced = build_index(small.path, tmp_path / "a.gmi", BuildOptions(stride_px=32), overwrite=True)
    assert replaced.manifest.tiles.stride_px == 32
    assert [file.name for file in tmp_path.iterdir()] == ["a.gmi"]


@pytest.mark.parametrize("content", ["photo.jpg", None])
def test_folder_that_is_no_index_is_never_replaced(content: str | None, small: Town, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    if content:
        (tmp_path / "photos" / content).write_text("mine")
    with pytest.raises(OutputError, match=r"photos: is there already"):
        build_index(small.path, tmp_path / "photos", QUICK, overwrite=True)
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ([content] if content else [])


@pytest.mark.parametrize("overwrite", [True, False])
def test_index_is_not_replaced_with_what_someone_put_into_it(overwrite: bool, small: Town, tmp_path: Path) -> None:
    index = build_index(small.path, tmp_path / "a.gmi", QUICK)
    (index.path / "answers").mkdir()
    before = {file.name for file in index.path.iterdir()}
    with pytest.raises(OutputError, match=r"a\.gmi: holds more than an index \(answers\)\. Move"):
        build_index(small.path, index.path, QUICK, overwrite=overwrite)
    (index.path / "photo.jpg").write_text("mine")
    with pytest.raises(OutputError, match=r"\(answers, \.\.\.\)"):
        build_index(small.path, index.path, QUICK, overwrite=overwrite)
    assert {file.name for file in index.path.iterdir()} == before | {"photo.jpg"}
    assert [file.name for file in tmp_path.iterdir()] == ["a.gmi"]


def test_what_comes_into_the_old_index_meanwhile_is_not_lost(small: Town, tmp_path: Path) -> None:
    index = build_index(small.path, tmp_path / "a.gmi", QUICK)

    def another(stage: str, done: int, total: int) -> None:
        if stage == "hashing" and done == total:
            (index.path / "photo.jpg").write_text("mine")

    with pytest.raises(OutputError, match="holds more than an index"):
        build_index(small.path, index.path, QUICK, overwrite=True, progress=another)
    assert (index.path / "photo.jpg").read_text() == "mine"


def test_orthomosaic_inside_the_index_is_not_deleted(small: Town, tmp_path: Path) -> None:
    """Not even when it is named as a file of the index."""
    index = build_index(small.path, tmp_path / "a.gmi", QUICK)
    shutil.copy(small.path, index.path / FEATURES)
    before = hashes(index.path)
    (tmp_path / "link").symlink_to(index.path)
    for inside in (index.path, tmp_path / "link"):
        with pytest.raises(OutputError, match=r"a\.gmi: holds the orthomosaic features\.tif"):
            build_index(inside / FEATURES, index.path, QUICK, overwrite=True)
    assert hashes(index.path) == before


def test_index_inside_an_index_is_refused(small: Town, tmp_path: Path) -> None:
    index = build_index(small.path, tmp_path / "a.gmi", QUICK)
    before = hashes(index.path)
    with pytest.raises(OutputError, match="lies inside the index"):
        build_index(small.path, index.path / "b.gmi", QUICK)
    assert hashes(index.path) == before


def test_file_in_the_way_and_missing_folder_are_told(small: Town, tmp_path: Path) -> None:
    (tmp_path / "a.gmi").write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        build_index(small.path, tmp_path / "a.gmi", QUICK, overwrite=True)
    assert (tmp_path / "a.gmi").read_text() == "mine"
    with pytest.raises(OutputError, match="does not exist"):
        build_index(small.path, tmp_path / "deep" / "a.gmi", QUICK)


STAGES = ("encoding", "vectors", "hashing")


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("stage", STAGES)
def test_failing_build_leaves_the_old_index_and_nothing_else(
    failure: type[BaseException], stage: str, small: Town, tmp_path: Path
) -> None:
    old = build_index(small.path, tmp_path / "a.gmi", QUICK)
    before = hashes(old.path)

    def fail(name: str, done: int, total: int) -> None:
        if name == stage and done == total:
            raise failure("on purpose")

    for target in (old.path, tmp_path / "new.gmi"):
        with pytest.raises(failure, match="on purpose"):
            build_index(small.path, target, BuildOptions(stride_px=50), overwrite=True, progress=fail)
    assert hashes(old.path) == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.gmi"]


def test_someone_faster_is_not_overwritten(small: Town, tmp_path: Path) -> None:
    """The place was free when this build began, and is not when it ends."""
    target, other = tmp_path / "a.gmi", build_index(small.path, tmp_path / "b.gmi", QUICK)

    def another(stage: str, done: int, total: int) -> None:
        if stage == "hashing" and done == 0:
            shutil.copytree(other.path, target)

    with pytest.raises(OutputError, match="is there already"):
        build_index(small.path, target, BuildOptions(stride_px=32), progress=another)
    assert TileIndex.open(target).manifest.tiles.stride_px == 64
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.gmi", "b.gmi"]


@pytest.mark.parametrize("scheduler", [None, "local:1"])
def test_two_builds_into_one_place_are_refused_before_any_work(
    scheduler: str | None, small: Town, tmp_path: Path
) -> None:
    target, told = tmp_path / "a.gmi", []

    def second(stage: str, done: int, total: int) -> None:
        if stage == "encoding" and done == total:
            with pytest.raises(OutputError, match="another process is building it") as caught:
                build_index(small.path, target, QUICK, overwrite=True, scheduler=scheduler)
            told.append(caught.value)

    build_index(small.path, target, QUICK, progress=second)
    assert len(told) == 1
    assert TileIndex.open(target).check() == []
    assert [file.name for file in tmp_path.iterdir()] == ["a.gmi"]


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from geomatch.errors import OutputError
from geomatch.index.build import build_index
from geomatch.index.kinds import Kind
from geomatch.index.plan import BuildOptions, read_options
for limit in map(int, sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        build_index(sys.argv[1], sys.argv[2], BuildOptions(stride_px=64), overwrite=True)
        print(limit, "built")
    except OutputError as error:
        print(limit, error)
"""


def test_full_disk_is_told_and_leaves_the_old_index(small: Town, tmp_path: Path) -> None:
    old = build_index(small.path, tmp_path / "a.gmi", QUICK)
    before = hashes(old.path)
    features, vectors = ((old.path / name).stat().st_size for name in (FEATURES, VECTORS))
    assert features > vectors  # so that every kind of file fails to be written below
    limits = [0, 100, 1_000, vectors - 1, features // 2, features - 300, features - 1]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(small.path), str(old.path), *map(str, limits)],
        capture_output=True,
        text=True,
        check=True,
    )
    told = done.stdout.splitlines()
    assert len(told) == len(limits)
    for line, limit in zip(told, limits, strict=True):
        assert line.startswith(f"{limit} {old.path}: ")
        assert "disk" in line or "larger than this place allows" in line
    assert hashes(old.path) == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.gmi"]


@pytest.mark.parametrize("harmed", [TILES, VECTORS, FEATURES, MANIFEST])
def test_no_room_for_one_file_is_an_output_error(
    harmed: str, small: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    if harmed == MANIFEST:
        monkeypatch.setattr(Path, "write_text", full)
    else:
        harms = {TILES: (build, "TileTable"), VECTORS: (work, "VectorFiles"), FEATURES: (build, "_feature_file")}
        monkeypatch.setattr(*harms[harmed], full)
    with pytest.raises(OutputError, match=r"a\.gmi: the disk is full"):
        build_index(small.path, tmp_path / "a.gmi", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_features_lost_on_the_way_to_the_disk_are_noticed(
    small: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL may close a file on a full disk without a word, leaving blocks out."""
    opened = build._feature_file

    def lossy(*arguments: Any, **keywords: Any) -> Any:
        out = opened(*arguments, **keywords)

        class Lossy:
            def __enter__(self) -> Lossy:
                return self

            def __exit__(self, *_: object) -> None:
                out.close()

            def write(self, data: Any, window: Any) -> None:
                out.write(np.where(np.arange(data.shape[2]) < 5, -128, data).astype("int8"), window=window)

        return Lossy()

    monkeypatch.setattr(build, "_feature_file", lossy)
    with pytest.raises(OutputError, match=r"a\.gmi: .*could not write all features"):
        build_index(small.path, tmp_path / "a.gmi", QUICK)


def test_progress_counts_up_to_the_total(small: Town, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build_index(small.path, tmp_path / "a.gmi", QUICK, progress=lambda *step: told.append(step))
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == list(STAGES)
    for stage in STAGES:
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1] > 0


@pytest.mark.parametrize("tile_px", [64, 100, 150])
def test_tiles_of_other_sizes_are_searched_at_their_size(tile_px: int, small: Town, tmp_path: Path) -> None:
    index = build_index(small.path, tmp_path / "a.gmi", BuildOptions(tile_px=tile_px, stride_px=50))
    frame = geopandas.read_parquet(index.path / TILES)
    assert frame.area.to_numpy() == pytest.approx(np.full(len(frame), (tile_px * 0.5) ** 2))


@pytest.mark.parametrize("wrong", [{"tile_px": 8}, {"stride_px": 0}, {"vectors": "Nonsense"}])
def test_options_that_cannot_be_leave_nothing(wrong: dict[str, Any], small: Town, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        build_index(small.path, tmp_path / "a.gmi", BuildOptions(**wrong))
    assert list(tmp_path.iterdir()) == []


def test_unknown_encoder_names_the_known(small: Town, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown weights 'nobody'"):
        build_index(small.path, tmp_path / "a.gmi", BuildOptions(encoder="nobody"))
    assert sha256_of(small.path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("vectors", ["SQ8", "HNSW16", "Flat"])
def test_other_search_structures_find_a_tile_by_itself(vectors: str, town: Town, tmp_path: Path) -> None:
    index = build_index(town.path, tmp_path / "a.gmi", BuildOptions(stride_px=32, vectors=vectors))
    assert index.manifest.tiles.vectors.endswith(vectors)
    tile = index.manifest.tiles
    for number in range(0, len(index), 37):
        corner = index.corner(number)
        cut = index.features.whole(), corner[:1], corner[1:], tile.size_px, index.encoder.cell_px
        found = index.search(tile_vectors(*cut).vectors[0], 1)
        assert found.tiles.item() == number
        assert (found.corners_px[0, 0] == corner).all()
    assert index.check() == []


def test_parts_of_the_vectors_answer_as_one(small: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = BuildOptions(stride_px=24, vectors="Flat")
    whole = build_index(small.path, tmp_path / "whole.gmi", options)
    monkeypatch.setattr("geomatch.index.codes.PART_TILES", len(whole) // 3 + 1)
    monkeypatch.setattr("geomatch.index.vectors.CHUNK_VALUES", 20_000)
    monkeypatch.setattr("geomatch.index.shards.TILES", 8)
    parts = build_index(small.path, tmp_path / "parts.gmi", options)
    names = parts.manifest.vector_parts
    assert len(names) >= 3
    assert {file.name for file in parts.path.iterdir()} == {MANIFEST, TILES, FEATURES, *names}
    assert len(parts) == len(whole)
    assert parts.check() == []
    size = vector_size(whole.encoder.channels, 200)
    queries = np.random.default_rng(0).normal(size=(5, size)).astype(np.float32)
    one, other = whole.search(queries, 9), parts.search(queries, 9)
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-6)
    assert (other.corners_px == one.corners_px).all()
    build_index(small.path, parts.path, QUICK, overwrite=True)  # fewer parts take the place of many
    assert {file.name for file in parts.path.iterdir()} == {MANIFEST, TILES, FEATURES, VECTORS}


def test_more_parts_than_files_may_be_open_by_default(
    small: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr("geomatch.index.codes.PART_TILES", 1)
    monkeypatch.setattr("geomatch.index.vectors.CHUNK_VALUES", 1)
    monkeypatch.setattr("geomatch.index.shards.TILES", 1)
    options = BuildOptions(stride_px=16, vectors="PQ16x4fs,Refine(SQfp16)", components=32)
    index = build_index(small.path, tmp_path / "parts.gmi", options)
    assert len(index.manifest.vector_parts) > 100
    code = (
        "import sys, numpy as np; from geomatch.tile_index import TileIndex\n"
        "print(len(TileIndex.open(sys.argv[1]).vectors.stored(np.array([0]))))"
    )

    def told(most: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, str(index.path)],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, most)),
        )

    assert told(1000).stdout == "1\n"
    assert "Let the process open more files (ulimit -n)" in told(100).stderr


def test_harmed_part_is_named(small: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomatch.index.codes.PART_TILES", 20)
    monkeypatch.setattr("geomatch.index.vectors.CHUNK_VALUES", 20_000)
    monkeypatch.setattr("geomatch.index.shards.TILES", 8)
    index = build_index(small.path, tmp_path / "a.gmi", BuildOptions(stride_px=24, vectors="Flat"))
    last = index.path / index.manifest.vector_parts[-1]
    assert last.name != VECTORS
    content = last.read_bytes()
    last.write_bytes(bytes(len(content)))
    with pytest.raises(IndexFormatError, match=rf"{last.name}.*cannot be read"):
        TileIndex.open(index.path).search(np.zeros((1, 10), np.float32), 1)
    assert TileIndex.open(index.path).check() == [f"{last.name}: its content has changed since the index was built"]
    last.unlink()
    with pytest.raises(IndexFormatError, match=rf"{last.name} is missing"):
        TileIndex.open(index.path)


@pytest.mark.parametrize("file", KINDS, ids=lambda file: file.stem)
def test_shipped_kinds_build(file: Path, small: Town, tmp_path: Path) -> None:
    options = read_options(file)
    index = build_index(small.path, tmp_path / "a.gmi", replace(options, stride_px=6))
    assert index.manifest.encoder.name == options.encoder
    tiles = index.manifest.tiles
    fits = next(kind.coded for kind in options.kinds if kind.up_to is None or tiles.count <= kind.up_to)
    assert tiles.vectors.endswith(fits if options.vectors == "auto" else options.vectors)
    assert index.check() == []


def test_number_of_tiles_decides_among_the_kinds_that_are_given(small: Town, tmp_path: Path) -> None:
    kinds = [Kind("SQ6", up_to=30), Kind("SQ4", components=8)]
    for stride_px, coded in ((64, "SQ6"), (24, "PCA8,L2norm,SQ4")):
        index = build_index(
            small.path, tmp_path / "a.gmi", replace(QUICK, stride_px=stride_px, kinds=kinds), overwrite=True
        )
        assert (len(index) <= 30) == (coded == "SQ6")
        assert index.manifest.tiles.vectors == coded


def test_there_are_shipped_kinds() -> None:
    assert KINDS


def test_index_behind_a_link_is_replaced_where_it_is(town: Town, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    there, link = tmp_path / "disk" / "town.gmi", tmp_path / "town.gmi"
    build_index(town.path, there, BuildOptions(encoder="structural", stride_px=64))
    link.symlink_to(there)
    build_index(town.path, link, BuildOptions(encoder="structural", stride_px=48), overwrite=True)
    assert link.is_symlink()
    assert TileIndex.open(there).manifest.tiles.stride_px == 48
