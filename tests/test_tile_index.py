"""The index on disk: what is damaged is told, what is searched is what brute force finds, the map is found again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from quarters import quarters
from towns import Town, optical, write_town

from geomatch.errors import IndexFormatError, InputError
from geomatch.index.build import build_index
from geomatch.index.plan import BuildOptions
from geomatch.manifest import FEATURES, MANIFEST, TILES, VECTORS
from geomatch.tile_index import TileIndex
from geomatch.tiles import tile_vectors

OTHERS = (TILES, VECTORS, FEATURES)


@pytest.fixture
def copy(town_index: Path, tmp_path: Path) -> Path:
    """A copy of the town's index, to be spoilt."""
    return Path(shutil.copytree(town_index, tmp_path / "copy.gmi"))


@pytest.fixture(scope="module")
def opened(town_index: Path) -> TileIndex:
    return TileIndex.open(town_index)


def random_queries(index: TileIndex, count: int = 12, seed: int = 0) -> NDArray[np.float32]:
    """Vectors between those of random tiles and noise."""
    rng = np.random.default_rng(seed)
    size, cell = index.manifest.tiles.size_px, index.manifest.encoder.cell_px
    field = index.features.whole()
    corners = np.stack([index.corner(int(tile)) for tile in rng.integers(0, len(index), count)]).astype(np.int32)
    found = [tile_vectors(field, corner[:1], corner[1:], size, cell).vectors[0, 0] for corner in corners]
    return (np.array(found) + rng.normal(0, 0.02, (count, found[0].size))).astype(np.float32)


def test_search_is_brute_force_over_all_tiles(opened: TileIndex) -> None:
    """The vectors are pooled anew from the features on disk and compared one by one in the reduced space."""
    queries = random_queries(opened)
    stored = faiss.read_index(str(opened.path / VECTORS))
    assert isinstance(stored, faiss.IndexPreTransform)
    chain: Any = stored.chain
    reduce = faiss.downcast_VectorTransform(chain.at(0))
    tiles = opened.manifest.tiles
    corners = np.array([opened.corner(tile) for tile in range(len(opened))])
    cols, rows = np.unique(corners[:, 0]), np.unique(corners[:, 1])
    pooled = tile_vectors(opened.features.whole(), cols, rows, tiles.size_px, opened.manifest.encoder.cell_px).vectors
    gallery = np.stack([pooled[np.searchsorted(rows, row), np.searchsorted(cols, col)] for col, row in corners])

    def reduced(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        out = reduce.apply(np.ascontiguousarray(vectors))
        return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float32)

    scores = reduced(queries) @ reduced(gallery).T
    hits = opened.search(queries, 10)
    assert hits.scores.shape == (12, 10)
    assert hits.corners_px.shape == (12, 10, 2)
    for row, found, places in zip(scores, hits.scores, hits.corners_px, strict=True):
        np.testing.assert_allclose(found, np.sort(row)[::-1][:10], atol=5e-3)  # stored in eight bits
        at = [int(np.nonzero((corners == place).all(axis=1))[0][0]) for place in places]
        np.testing.assert_allclose(row[at], found, atol=5e-3)
        assert len(set(at)) == 10


def test_tile_finds_itself(opened: TileIndex) -> None:
    size, cell = opened.manifest.tiles.size_px, opened.manifest.encoder.cell_px
    for tile in (0, len(opened) // 2, len(opened) - 1):
        corner = opened.corner(tile).astype(np.int32)
        vector = tile_vectors(opened.features.whole(), corner[:1], corner[1:], size, cell).vectors[0]
        hits = opened.search(vector, 3)
        assert hits.corners_px[0, 0].tolist() == corner.tolist()
        assert hits.scores[0, 0] == pytest.approx(1, abs=5e-3)
        assert (np.diff(hits.scores[0]) <= 0).all()


def test_more_than_all_tiles_are_all_tiles(opened: TileIndex) -> None:
    hits = opened.search(random_queries(opened, 2), len(opened) + 500)
    assert hits.scores.shape == (2, len(opened))
    assert len(np.unique(hits.corners_px[0], axis=0)) == len(opened)


def test_sound_index_has_no_fault(opened: TileIndex) -> None:
    assert opened.check() == []


@pytest.mark.parametrize("name", OTHERS)
def test_one_flipped_bit_is_found(name: str, copy: Path) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    (fault,) = TileIndex.open(copy).check()
    assert fault.startswith(name)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("harm", ["gone", "empty", "shorter", "longer", "folder"])
def test_files_of_another_size_are_refused_on_opening(name: str, harm: str, copy: Path) -> None:
    file = copy / name
    content = file.read_bytes()
    file.unlink()
    if harm == "folder":
        file.mkdir()
    elif harm != "gone":
        file.write_bytes({"empty": b"", "shorter": content[:-1], "longer": content + b"x"}[harm])
    with pytest.raises(IndexFormatError, match=rf"copy\.gmi: {name} .*manifest.*geomatch index build"):
        TileIndex.open(copy)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        (TILES, lambda index: index.corner(0)),
        (VECTORS, lambda index: index.search(np.zeros((1, 432), np.float32), 1)),
        (FEATURES, lambda index: index.features),
    ],
)
def test_garbage_of_the_right_size_is_an_index_error_that_names_the_file(name: str, use: object, copy: Path) -> None:
    (copy / name).write_bytes(bytes((copy / name).stat().st_size))
    index = TileIndex.open(copy)
    assert callable(use)
    with pytest.raises(IndexFormatError, match=rf"{name}.*cannot be read.*geomatch index build"):
        use(index)


def test_check_of_garbage_tells_and_does_not_raise(copy: Path) -> None:
    for name in OTHERS:
        (copy / name).write_bytes(bytes((copy / name).stat().st_size))
    assert [fault.split(":")[0] for fault in TileIndex.open(copy).check()] == sorted(OTHERS)


def edit(folder: Path, change: dict[str, object]) -> None:
    values = json.loads((folder / MANIFEST).read_text())
    for key, value in change.items():
        target = values
        *path, last = key.split(".")
        for part in path:
            target = target[part]
        target[last] = value
    (folder / MANIFEST).write_text(json.dumps(values))


def test_files_that_contradict_the_manifest_are_faults(copy: Path) -> None:
    edit(copy, {"tiles.count": 7, "grid.width": 400})
    faults = TileIndex.open(copy).check()
    assert [fault.split(":")[0] for fault in faults] == [TILES, VECTORS, FEATURES]
    assert "manifest says 7" in faults[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"encoder.sha256": "0" * 64}, "has changed since it was built"),
        ({"encoder.name": "nobody"}, "unknown weights 'nobody'"),
    ],
)
def test_index_of_another_encoder_is_refused(change: dict[str, object], told: str, copy: Path) -> None:
    edit(copy, change)
    with pytest.raises(IndexFormatError, match=rf"copy\.gmi: .*{told}.*[Bb]uild the index again"):
        TileIndex.open(copy)


def test_features_are_at_the_right_cells(opened: TileIndex) -> None:
    field = opened.features
    assert field.values.dtype == np.int8
    assert field.values.shape == (opened.encoder.channels, *opened.manifest.cells)
    known = field.values[:, field.valid].astype(float) / 127
    assert field.rms == pytest.approx(np.sqrt(np.square(known).sum() / field.valid.sum()), rel=1e-2)


def test_corners_are_those_of_the_table(opened: TileIndex) -> None:
    table = pq.read_table(opened.path / TILES)
    assert table["id"].to_pylist() == list(range(len(opened)))
    for tile in (0, 5, len(opened) - 1):
        assert opened.corner(tile).tolist() == [table["col"][tile].as_py(), table["row"][tile].as_py()]


def test_map_is_found_where_it_was(town: Town, opened: TileIndex) -> None:
    assert opened.find_map() == (town.path.resolve(),)


@pytest.fixture
def pair(town: Town, town_index: Path, tmp_path: Path) -> Path:
    """A folder with a map and its index, both copies with times kept, built there."""
    folder = tmp_path / "pair"
    folder.mkdir()
    shutil.copy2(town.path, folder / "town.tif")
    shutil.copytree(town_index, folder / "town.gmi")
    edit(folder / "town.gmi", {"sources": [_here(town_index, folder / "town.tif")]})
    return folder


def _here(index: Path, path: Path) -> dict[str, object]:
    (source,) = json.loads((index / MANIFEST).read_text())["sources"]
    return dict(source, path=str(path))


def test_index_moved_with_its_map_finds_it(pair: Path, tmp_path: Path) -> None:
    pair.rename(tmp_path / "elsewhere")
    index = TileIndex.open(tmp_path / "elsewhere" / "town.gmi")
    assert index.find_map() == ((tmp_path / "elsewhere" / "town.tif").resolve(),)


def test_index_moved_alone_finds_the_map_where_it_was(pair: Path, tmp_path: Path) -> None:
    (tmp_path / "far" / "off").mkdir(parents=True)
    (pair / "town.gmi").rename(tmp_path / "far" / "off" / "town.gmi")
    index = TileIndex.open(tmp_path / "far" / "off" / "town.gmi")
    assert index.find_map() == ((pair / "town.tif").resolve(),)


def test_moved_map_is_found_where_it_is_said_to_be(pair: Path, tmp_path: Path) -> None:
    index = TileIndex.open(pair / "town.gmi")
    moved = (pair / "town.tif").rename(tmp_path / "moved.tif")
    with pytest.raises(InputError, match=r"town\.tif: .*not there.*--map"):
        index.find_map()
    assert index.find_map(moved) == (moved.resolve(),)
    with index.open_map(moved) as raster:
        assert raster.width == index.grid.width


def test_touched_map_is_still_the_one(pair: Path) -> None:
    os.utime(pair / "town.tif")
    assert TileIndex.open(pair / "town.gmi").find_map() == ((pair / "town.tif").resolve(),)


@pytest.mark.parametrize("change", ["longer", "same size"])
@pytest.mark.parametrize("named", [False, True])
def test_changed_map_is_refused(change: str, named: bool, pair: Path) -> None:
    file = pair / "town.tif"
    content = bytearray(file.read_bytes())
    if change == "longer":
        content += b"x"
    else:
        content[-100] ^= 1
    status = file.stat()
    file.write_bytes(content)
    if named:  # what is named is read, even if its time says that nothing has changed
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputError, match=r"town\.tif: the map has changed.*--map"):
        TileIndex.open(pair / "town.gmi").find_map(file if named else None)


def test_another_map_at_the_relative_path_does_not_hide_the_true_one(pair: Path, tmp_path: Path) -> None:
    """An index that was copied beside some other town.tif still finds its own where it was built."""
    other = tmp_path / "other"
    other.mkdir()
    write_town(other / "town.tif", optical(256))
    shutil.copytree(pair / "town.gmi", other / "town.gmi")
    assert TileIndex.open(other / "town.gmi").find_map() == ((pair / "town.tif").resolve(),)


def test_map_reached_through_a_link_is_found(pair: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pair, target_is_directory=True)
    built = build_index(tmp_path / "link" / "town.tif", tmp_path / "link" / "new.gmi", BuildOptions(stride_px=64))
    assert built.find_map() == ((pair / "town.tif").resolve(),)
    pair.rename(tmp_path / "moved")
    assert TileIndex.open(tmp_path / "moved" / "new.gmi").find_map() == ((tmp_path / "moved" / "town.tif").resolve(),)


@pytest.fixture
def group(town: Town, tmp_path: Path) -> Path:
    """A folder with a map of four files in two folders, two of one name, and its index."""
    folder = tmp_path / "group"
    folder.mkdir()
    files = quarters(town, folder / "west")
    (folder / "east").mkdir()
    files[3] = files[3].rename(folder / "east" / "0.tif")
    build_index(files, folder / "town.gmi", BuildOptions(encoder="structural", stride_px=64))
    return folder


NAMES = ("west/0.tif", "west/1.tif", "west/2.tif", "east/0.tif")


def test_files_are_found_where_they_were_and_where_they_moved_with_the_index(group: Path, tmp_path: Path) -> None:
    assert TileIndex.open(group / "town.gmi").find_map() == tuple((group / name).resolve() for name in NAMES)
    other = tmp_path / "deep" / "other"
    other.parent.mkdir()
    group.rename(other)
    index = TileIndex.open(other / "town.gmi")
    assert index.find_map() == tuple((other / name).resolve() for name in NAMES)
    (other / "town.gmi").rename(tmp_path / "town.gmi")
    with pytest.raises(InputError, match=r"west/0\.tif: the map of the index is not there.*folder.*--map"):
        TileIndex.open(tmp_path / "town.gmi").find_map()


def test_folder_of_the_files_may_be_named(group: Path, town: Town, tmp_path: Path) -> None:
    index = TileIndex.open(group / "town.gmi")
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("west", "east"):
        (group / name).rename(moved / name)
    assert index.find_map(moved) == tuple((moved / name).resolve() for name in NAMES)
    with index.open_map(moved) as raster:
        np.testing.assert_array_equal(raster.read(300, 300, 200, 200).data, town.bands[:, 300:500, 300:500])
    for name in ("0.tif", "1.tif", "2.tif"):
        (moved / "west" / name).rename(moved / name)
    assert index.find_map(moved)[:3] == tuple((moved / f"{number}.tif").resolve() for number in range(3))
    with pytest.raises(InputError, match=r"/0\.tif: the map of the index is not there"):
        index.find_map(tmp_path)
    with pytest.raises(InputError, match="not there"):
        index.find_map(moved / "0.tif")


def test_first_file_that_is_missing_or_changed_is_named(group: Path) -> None:
    index = TileIndex.open(group / "town.gmi")
    content = bytearray((group / NAMES[2]).read_bytes())
    content[-100] ^= 1
    (group / NAMES[2]).write_bytes(content)
    for find in (index.find_map, lambda: index.find_map(group)):
        with pytest.raises(InputError, match=r"west/2\.tif: the map has changed"):
            find()
    (group / NAMES[1]).unlink()
    with pytest.raises(InputError, match=r"west/1\.tif: the map of the index is not there"):
        index.open_map()


def test_features_beyond_what_may_be_read_at_once_are_read_in_pieces(
    town_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TileIndex.open(town_index).features
    monkeypatch.setattr("geomatch.tile_index.FEATURES_PX", 32)
    monkeypatch.setenv("GEOMATCH_MAX_READ_BYTES", str(2 * whole.values.shape[0] * 32 * 32))
    assert whole.values.nbytes > 4 * whole.values.shape[0] * 32 * 32
    pieces = TileIndex.open(town_index).features
    np.testing.assert_array_equal(pieces.values, whole.values)
    np.testing.assert_array_equal(pieces.valid, whole.valid)
