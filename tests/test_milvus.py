"""Searching in Milvus against brute force over the vectors on disk, and collections that cannot be searched."""

from __future__ import annotations

import fcntl
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray
from programs import complaint, geomatch, program
from towns import Town, view

from geomatch import milvus
from geomatch.errors import IndexFormatError
from geomatch.index.publish import publish_index
from geomatch.locator import Locator
from geomatch.manifest import MANIFEST, VECTORS
from geomatch.milvus import MilvusVectors
from geomatch.near import Disc, Near
from geomatch.reranking.candidates import retrieve_candidates
from geomatch.stores import PROPERTY, Store
from geomatch.tile_index import TileIndex

SIZE = (240, 260)


@pytest.fixture(scope="module")
def store(town_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A file of Milvus Lite that the town's index is published to, as ``town``."""
    file = tmp_path_factory.mktemp("milvus") / "m.db"
    made = Store(publish_index(town_index, f"milvus://{file}/town"), IndexFormatError)
    yield made
    made.close()
    end = time.monotonic() + 10
    while any("milvus_lite" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < end, "the last connection left the server's threads behind"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def ours(store: Store) -> Iterator[TileIndex]:
    index = TileIndex.open(str(store.address))
    yield index
    assert index._published is not None
    index._published.store.close()


@pytest.fixture(scope="module")
def gallery(town_index: Path) -> NDArray[np.float32]:
    """[N x D] of all tiles as FAISS decodes them."""
    whole = faiss.read_index(str(town_index / VECTORS))
    assert isinstance(whole, faiss.IndexPreTransform)
    return np.asarray(faiss.downcast_index(whole.index).reconstruct_n(0, whole.ntotal))


@pytest.fixture(scope="module")
def queries(town_index: Path) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(5, faiss.read_index(str(town_index / VECTORS)).d)).astype(np.float32)


def compared(town_index: Path, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Queries after the two transforms of the index, by hand."""
    whole = faiss.read_index(str(town_index / VECTORS))
    assert isinstance(whole, faiss.IndexPreTransform)
    chain: Any = whole.chain
    linear = faiss.downcast_VectorTransform(chain.at(0))
    axes = faiss.vector_to_array(linear.A).reshape(linear.d_out, linear.d_in)
    out = queries @ axes.T + faiss.vector_to_array(linear.b)
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float32)


def test_search_is_brute_force_over_all_tiles(
    ours: TileIndex, town_index: Path, gallery: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    scores = compared(town_index, queries) @ gallery.T
    hits = ours.search(queries, 40)
    np.testing.assert_allclose(hits.scores, -np.sort(-scores, axis=1)[:, :40], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(scores, hits.tiles, axis=1), hits.scores, atol=1e-5)
    assert all(len(set(tiles)) == 40 for tiles in hits.tiles.tolist())
    assert (hits.corners_px == TileIndex.open(town_index).corners[hits.tiles]).all()
    assert "corners" not in vars(ours)  # the table was not read


def test_more_than_all_tiles_are_all_tiles(ours: TileIndex, queries: NDArray[np.float32]) -> None:
    hits = ours.search(queries, len(ours) + 100)
    assert (np.sort(hits.tiles, axis=1) == np.arange(len(ours))).all()


@pytest.fixture(params=[1.5, 0.1])
def spare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the second, too few are asked for at first, and more have to be."""
    monkeypatch.setattr(milvus, "SPARE", request.param)


@pytest.mark.usefixtures("spare")
@pytest.mark.parametrize(("k", "reach_px"), [(1, 0.0), (30, 0.0), (30, 64.0), (5000, 64.0)])
def test_circle_is_brute_force_over_the_tiles_in_it(
    k: int, reach_px: float, ours: TileIndex, gallery: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    town_index = ours.path
    near = ours.near(Near(*middle(ours), 60.0))
    assert near.disc is not None
    side = ours.manifest.tiles.size_px
    middles = np.asarray(TileIndex.open(town_index).corners) + side / 2
    away, (column, row) = (middles - near.disc.center_px) @ near.disc.ground.T, np.linalg.norm(near.disc.ground, axis=0)
    assert column == pytest.approx(row, rel=1e-3)
    among = np.nonzero(np.hypot(*away.T) <= 60 + reach_px * np.linalg.norm(near.disc.ground, 2))[0]
    assert 30 < len(among) < len(ours) / 2
    scores = compared(town_index, queries) @ gallery[among].T
    hits = near.search(queries, k, reach_px)
    width = min(k, len(among))
    assert hits.tiles.shape == (len(queries), width)
    assert np.isin(hits.tiles, among).all()
    np.testing.assert_allclose(hits.scores, -np.sort(-scores, axis=1)[:, :width], atol=1e-5)


def test_tiles_beyond_the_box_of_a_circle_do_not_leave_the_store(
    ours: TileIndex, queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[NDArray[np.float64]] = []
    nearest = MilvusVectors._nearest

    def answered(self: MilvusVectors, *given: Any) -> list[NDArray[np.float64]]:
        found = nearest(self, *given)
        told.extend(found)
        return found

    monkeypatch.setattr(MilvusVectors, "_nearest", answered)
    near = ours.near(Near(*middle(ours), 60.0))
    assert near.disc is not None
    left, right, top, bottom = near.disc.box
    assert near.search(queries, 5000).tiles.shape[1] > 30
    cols, rows = np.concatenate(told)[:, 2:].T + ours.manifest.tiles.size_px / 2
    assert ((cols >= left) & (cols <= right) & (rows >= top) & (rows <= bottom)).all()
    assert len(told[0]) < len(ours) / 2


def middle(index: TileIndex) -> tuple[float, float]:
    """Longitude and latitude of the map's."""
    from geomatch.geo import footprint, to_crs84

    point = to_crs84(footprint(index.grid), index.grid.crs).centroid
    return point.x, point.y


def test_circle_without_tiles_finds_none(ours: TileIndex, queries: NDArray[np.float32]) -> None:
    for disc in (Disc(np.array([-5000.0, 0.0]), 10.0, np.eye(2)), Disc(np.array([8.5, 8.5]), 0.1, np.eye(2))):
        assert ours.vectors.search(queries, 7, disc).tiles.shape == (len(queries), 0)


def test_vectors_are_those_on_disk_in_the_order_asked(
    ours: TileIndex, gallery: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus, "BYTES", 4 * gallery.shape[1] * 7)
    tiles = np.random.default_rng(1).permutation(len(ours))[:30]
    np.testing.assert_array_equal(ours.vectors.stored(tiles), gallery[tiles])
    assert ours.vectors.stored(tiles[:0]).shape == (0, gallery.shape[1])
    with pytest.raises(IndexFormatError, match=r"tile 999999 is not in the collection"):
        ours.vectors.stored(np.array([3, 999999]))


def test_candidates_of_a_re_ranker_are_those_of_the_folder(
    ours: TileIndex, town_index: Path, queries: NDArray[np.float32]
) -> None:
    theirs = retrieve_candidates(TileIndex.open(town_index), queries[0], 20)
    found = retrieve_candidates(ours, queries[0], 20)
    for name in ("scores", "corners_px", "query", "vectors", "agreement"):
        np.testing.assert_allclose(getattr(found, name), getattr(theirs, name), atol=1e-5)


def test_index_in_milvus_is_sound(ours: TileIndex) -> None:
    assert ours.check() == []


@pytest.mark.parametrize("near", [False, True])
def test_strip_is_located_as_from_the_folder(
    near: bool, store: Store, town: Town, town_index: Path, tmp_path: Path
) -> None:
    town.write_strip(tmp_path / "s.tif", view((380, 400), 0, 1, *SIZE), SIZE)
    told = Near(*middle(TileIndex.open(town_index)), 60.0) if near else None
    theirs, found = (
        Locator.open(index, near=told).locate(tmp_path / "s.tif") for index in (town_index, str(store.address))
    )
    assert found.status == "located"
    assert found.transform == pytest.approx(theirs.transform, abs=1e-3)
    assert found.confidence == pytest.approx(theirs.confidence, abs=1e-3)


def test_program_locates_and_says_nothing_else(store: Store, town: Town, town_index: Path, tmp_path: Path) -> None:
    """In a process of its own, as a user runs it, with a file of its own, since one process at a time has it."""
    town.write_strip(tmp_path / "s.tif", view((380, 400), 0, 1, *SIZE), SIZE)
    publish_index(town_index, f"milvus://{tmp_path / 'm.db'}/town")
    done = program("locate", "s.tif", "--index", "milvus://m.db/town", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (feature,) = json.loads(done.stdout)["features"]
    assert feature["properties"]["status"] == "located"


@pytest.mark.parametrize(
    ("address", "code", "told"),
    [
        ("milvus://h:port/c", 2, "is no address of a collection"),
        ("milvus://127.0.0.1:1/c", 4, "Milvus cannot be asked"),
        ("milvus://gone.db/c", 4, "no such file of Milvus Lite"),
        ("{store}/nobody", 4, "there is no such collection"),
        ("{store}/town?folder=/nowhere", 4, "/nowhere is not there"),
        ("{store}/town?folder=/", 4, "not an index"),
    ],
)
def test_bad_addresses_end_in_one_message(address: str, code: int, told: str, store: Store, tmp_path: Path) -> None:
    asked = address.format(store=f"milvus://{store.address.place}")
    done = geomatch("locate", tmp_path / "s.tif", "--index", asked)
    assert done.exit_code == code
    assert told in complaint(done.stderr)


def test_collection_of_somebody_else_is_refused(store: Store) -> None:
    store.client.create_collection("strangers", dimension=4, timeout=10)
    with pytest.raises(IndexFormatError, match="strangers holds no index of geomatch's"):
        TileIndex.open(f"milvus://{store.address.place}/strangers")
    with pytest.raises(IndexFormatError, match="strangers holds no index"):
        store.drop("strangers")
    store.client.drop_collection("strangers")


@pytest.fixture
def spoilt(store: Store) -> Iterator[Store]:
    """The store, whose collection may be told to say other things about itself for a while."""
    card = store.card("town").to_json()
    yield store
    store.client.alter_collection_properties("town", {PROPERTY: card})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"encoder_sha256": "0" * 64}, "holds vectors of the encoder"),
        ({"manifest_sha256": "0" * 64}, "holds the vectors of another index"),
        ({"folder": "/nowhere"}, r"its index /nowhere is not there\. Say where .*\?folder=PATH"),
        ({"tiles": 5}, "holds 1369 of 5 tiles"),
        ({"format": 99}, "its format is 99"),
    ],
)
def test_collection_that_is_not_the_folders_is_refused(change: dict[str, Any], told: str, spoilt: Store) -> None:
    card = replace(spoilt.card("town"), **change)
    spoilt.client.alter_collection_properties("town", {PROPERTY: card.to_json()})
    with pytest.raises(IndexFormatError, match=rf"m\.db/town: .*{told}"):
        TileIndex.open(str(spoilt.address))


def test_index_that_was_moved_is_found_where_it_is_said_to_be(
    store: Store, town_index: Path, tmp_path: Path, queries: NDArray[np.float32]
) -> None:
    moved = Path(shutil.copytree(town_index, tmp_path / "a b.gmi"))
    index = TileIndex.open(f"{store.address}?folder={moved}")
    assert index.path == moved
    assert index.search(queries, 3).tiles.shape == (len(queries), 3)
    text = (moved / MANIFEST).read_text()
    (moved / MANIFEST).write_text(text + "\n")
    with pytest.raises(IndexFormatError, match=r"another index than .*a b\.gmi"):
        TileIndex.open(f"{store.address}?folder={moved}")


def test_file_that_another_program_has_open_is_told(store: Store, town_index: Path, tmp_path: Path) -> None:
    publish_index(town_index, f"milvus://{tmp_path / 'm.db'}/town")
    with (tmp_path / "m.db" / "LOCK").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(IndexFormatError, match="no other program has it open"):
            TileIndex.open(f"milvus://{tmp_path / 'm.db'}/town")


def test_milvus_that_goes_away_is_told(
    town_index: Path, queries: NDArray[np.float32], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from milvus_lite.server_manager import server_manager_instance

    index = TileIndex.open(str(publish_index(town_index, f"milvus://{tmp_path / 'm.db'}/town")))
    assert index.search(queries, 3).tiles.shape == (len(queries), 3)
    server_manager_instance.release_server(str(tmp_path / "m.db"))
    with pytest.raises(IndexFormatError, match=r"m\.db/town: Milvus cannot be asked"):
        index.search(queries, 3)
    assert capfd.readouterr() == ("", "")


def test_transforms_are_those_of_the_folder(ours: TileIndex, town_index: Path) -> None:
    theirs = TileIndex.open(town_index).vectors
    assert ours.vectors.axes is not None
    np.testing.assert_array_equal(ours.vectors.axes, theirs.axes)
    np.testing.assert_array_equal(ours.vectors.back, theirs.back)
