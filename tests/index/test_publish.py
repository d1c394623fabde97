"""Publishing an index to Milvus: whole or not at all, and again after whatever went wrong."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from programs import complaint, geomatch

from geomatch.errors import IndexFormatError, OutputError
from geomatch.files import host_mark, sha256_of
from geomatch.index import publish
from geomatch.index.publish import publish_index
from geomatch.manifest import MANIFEST, VECTORS
from geomatch.stores import COL, ROW, TILE, VECTOR, Address, Store
from geomatch.tile_index import TileIndex

SOME = 300 * 4 * 256  # bytes, of some hundred vectors at a time


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(Address(str(tmp_path_factory.mktemp("milvus") / "m.db"), "town"), OutputError, make=True)
    yield made
    made.close()


@pytest.fixture
def empty(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store without collections, filled in several batches."""
    for name in store.client.list_collections():
        store.client.drop_collection(name)
    monkeypatch.setattr(publish, "BYTES", SOME)
    return store


def test_collection_holds_all_tiles_and_says_what_it_is(empty: Store, town_index: Path) -> None:
    index, told = TileIndex.open(town_index), []
    publish_index(town_index, str(empty.address), progress=lambda *step: told.append(step))
    assert [step[0] for step in told] == ["publishing"] * len(told)
    done = [step[1] for step in told]
    assert len(done) > 3
    assert done == sorted(done)
    assert (told[-1][1], {step[2] for step in told}) == (len(index), {len(index)})
    assert empty.client.list_collections() == ["town"]
    card = empty.card("town")
    assert (card.folder, card.tiles) == (str(town_index.resolve()), len(index))
    assert (card.encoder, card.encoder_sha256) == (index.manifest.encoder.name, index.manifest.encoder.sha256)
    assert card.manifest_sha256 == sha256_of(town_index / MANIFEST)
    rows = sorted(
        empty.client.query("town", filter=f"{TILE} >= 0", output_fields=[COL, ROW, VECTOR]), key=lambda row: row[TILE]
    )
    assert [row[TILE] for row in rows] == list(range(len(index)))
    np.testing.assert_array_equal([(row[COL], row[ROW]) for row in rows], index.corners)
    np.testing.assert_array_equal([row[VECTOR] for row in rows], index.vectors.stored(np.arange(len(index))))


def test_what_is_there_is_replaced_only_when_told(empty: Store, town_index: Path) -> None:
    asked = ("index", "publish", town_index, "--to", empty.address)
    assert geomatch(*asked).stdout == f"{empty.address}\n"
    refused = geomatch(*asked)
    assert refused.exit_code == 5
    assert "already. Choose another name, or --overwrite." in complaint(refused.stderr)
    again = geomatch(*asked, "--overwrite", "--quiet")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")
    assert empty.client.list_collections() == ["town"]
    assert empty.count("town") == len(TileIndex.open(str(empty.address)))


def test_collection_of_somebody_else_is_not_overwritten(empty: Store, town_index: Path) -> None:
    empty.client.create_collection("town", dimension=4)
    with pytest.raises(OutputError, match="holds no index of geomatch's"):
        publish_index(town_index, str(empty.address), overwrite=True)
    assert empty.client.list_collections() == ["town"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_interrupt_leaves_what_was_there(overwrite: bool, empty: Store, town_index: Path) -> None:
    if overwrite:
        publish_index(town_index, str(empty.address))

    def interrupt(stage: str, done: int, total: int) -> None:
        if done:
            assert empty.has(empty.address.unfinished)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_index(town_index, str(empty.address), overwrite=overwrite, progress=interrupt)
    assert empty.client.list_collections() == ["town"] * overwrite
    publish_index(town_index, str(empty.address), overwrite=overwrite)
    assert empty.count("town") == len(TileIndex.open(str(empty.address)))


def test_collection_stays_until_another_has_its_name(
    empty: Store, town_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_index(town_index, str(empty.address))
    rename, asked = Store.rename, []

    def fails(store: Store, name: str, other: str) -> None:
        asked.append(name)
        if name == store.address.unfinished:
            raise OutputError("it did not work")
        rename(store, name, other)

    monkeypatch.setattr(Store, "rename", fails)
    with pytest.raises(OutputError, match="it did not work"):
        publish_index(town_index, str(empty.address), overwrite=True)
    assert asked == ["town", empty.address.unfinished, empty.address.replaced]
    assert empty.client.list_collections() == ["town"]
    # Killed between the two names: the next one finds the old one aside.
    rename(empty, "town", empty.address.replaced)
    monkeypatch.undo()
    with pytest.raises(OutputError, match="already"):
        publish_index(town_index, str(empty.address))
    assert empty.client.list_collections() == ["town"]
    # Killed after both names were given: what was replaced is there beside the new one.
    monkeypatch.setattr(publish, "_replace", lambda store, new: store.rename(new, store.address.replaced))
    publish_index(town_index, str(empty.address), overwrite=True)
    assert set(empty.client.list_collections()) == {"town", empty.address.replaced}
    monkeypatch.undo()
    publish_index(town_index, str(empty.address), overwrite=True)
    assert empty.client.list_collections() == ["town"]


def test_what_a_killed_one_left_is_not_searched_and_does_not_hinder(town_index: Path, tmp_path: Path) -> None:
    """A process that publishes to a file is killed after its first batches."""
    address = f"milvus://{tmp_path / 'm.db'}/town"
    code = (
        "import sys, time, geomatch.index.publish as publish\n"
        f"publish.BYTES = {SOME}\n"
        "step = lambda stage, done, total: done and (print(done, flush=True), time.sleep(60))\n"
        "publish.publish_index(sys.argv[1], sys.argv[2], progress=step)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(town_index), address], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert int(killed.stdout.readline()) > 0
        os.kill(killed.pid, signal.SIGKILL)
    with pytest.raises(IndexFormatError, match=r"was not published to its end\. Repeat geomatch index publish"):
        TileIndex.open(address)
    store = Store(Address.parse(address), IndexFormatError)
    ((left, ended),) = store.being_filled().items()
    assert ended
    with pytest.raises(IndexFormatError, match=r"holds \d+ of 1369 tiles"):
        TileIndex.open(f"{address.removesuffix('town')}{left}")
    publish_index(town_index, address)
    assert len(TileIndex.open(address).vectors) == 1369
    assert store.client.list_collections() == ["town"]


def test_who_publishes_to_the_same_place_is_left_alone(empty: Store, town_index: Path) -> None:
    """What others fill, here or on another machine, is theirs; the one who ends first has the name."""
    others = [
        f"town__unfinished_{host_mark()}_{os.getppid()}",
        f"town__unfinished_{host_mark()[::-1]}x_1",
        "downtown__unfinished_0_0",
    ]
    for name in others:
        empty.client.create_collection(name, dimension=4)
    publish_index(town_index, str(empty.address))
    assert sorted(empty.client.list_collections()) == sorted([*others, "town"])


def test_what_steps_aside_for_another_is_not_put_back(
    empty: Store, town_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is between the two renames would find its name taken, and drop what it has made."""
    publish_index(town_index, str(empty.address))
    rename, renamed = Store.rename, []
    rename(empty, "town", empty.address.replaced)
    empty.client.create_collection(f"town__unfinished_{host_mark()}_{os.getppid()}", dimension=4)

    def noted(store: Store, name: str, other: str) -> None:
        renamed.append((name, other))
        rename(store, name, other)

    monkeypatch.setattr(Store, "rename", noted)
    publish_index(town_index, str(empty.address))
    assert renamed == [(empty.address.unfinished, "town")]


def test_damaged_vectors_make_no_store(town_index: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(town_index, tmp_path / "town.gmi")
    (damaged / VECTORS).write_bytes(bytes((damaged / VECTORS).stat().st_size))
    with pytest.raises(IndexFormatError, match="cannot be read"):
        publish_index(damaged, f"milvus://{tmp_path / 'm.db'}/town")
    assert not (tmp_path / "m.db").exists()


def test_milvus_that_goes_away_is_told(town_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from milvus_lite.server_manager import server_manager_instance

    monkeypatch.setattr(publish, "BYTES", SOME)

    def end(stage: str, done: int, total: int) -> None:
        if done:
            server_manager_instance.release_server(str(tmp_path / "m.db"))

    start = time.perf_counter()
    with pytest.raises(OutputError, match=r"m\.db/town: Milvus cannot be asked"):
        publish_index(town_index, f"milvus://{tmp_path / 'm.db'}/town", progress=end)
    assert time.perf_counter() - start < 20


def test_tiles_that_do_not_arrive_are_missed(empty: Store, town_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "count", lambda self, name: 7)
    with pytest.raises(OutputError, match=r"7 tiles arrived, not 1369"):
        publish_index(town_index, str(empty.address))
    assert empty.client.list_collections() == []


def test_type_of_index_is_the_one_told(empty: Store, town_index: Path) -> None:
    def kind() -> str:
        return str(empty.client.describe_index("town", VECTOR)["index_type"])

    publish_index(town_index, str(empty.address))
    assert kind() == "FLAT"
    asked = ("index", "publish", town_index, "--to", empty.address, "--overwrite", "--index-type")
    assert geomatch(*asked, "AUTOINDEX").exit_code == 0
    assert kind() == "AUTOINDEX"
    assert geomatch(*asked, "BEST").exit_code == 2
    assert kind() == "AUTOINDEX"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Address, subprocess.Popen[bytes]]]:
    """Milvus Lite's own server in another process, which is reached as any Milvus is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = "import sys, milvus_lite.cmdline as cmdline; sys.exit(cmdline.main())"
    words = ["server", "--data-dir", str(tmp_path / "data"), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL) as running:
        end = time.monotonic() + 60
        while not _listens(port):
            assert running.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        yield Address(f"127.0.0.1:{port}", "town"), running
        running.kill()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_server_answers_as_the_folder_until_it_ends(
    server: tuple[Address, subprocess.Popen[bytes]], town_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, running = server
    publish_index(town_index, str(address), index_type="FLAT")
    ours, theirs = TileIndex.open(str(address)), TileIndex.open(town_index)
    queries = theirs.vectors.back
    assert queries is not None
    found, true = ours.search(queries[:4], 600), theirs.search(queries[:4], 600)
    np.testing.assert_allclose(found.scores, true.scores, atol=1e-5)
    assert (found.tiles == true.tiles).mean() > 0.98  # ties
    monkeypatch.setattr("geomatch.milvus.ANSWER_S", 1.0)
    running.send_signal(signal.SIGSTOP)
    start = time.perf_counter()
    with pytest.raises(IndexFormatError, match="Milvus cannot be asked"):
        ours.search(queries[:4], 5)
    assert time.perf_counter() - start < 5
    running.kill()
    with pytest.raises(IndexFormatError, match="Milvus cannot be asked"):
        ours.search(queries[:4], 5)


@pytest.mark.parametrize(
    ("to", "code", "told"),
    [
        ("city.gmi", 2, "is no address of a collection"),
        ("milvus://127.0.0.1:1/c", 5, "Milvus cannot be asked"),
        ("milvus://{tmp}/no/m.db/c", 5, "the folder to write to does not exist"),
        ("milvus://{index}/m.db/c", 5, "lies inside the index"),
    ],
)
def test_bad_targets_end_in_one_message(to: str, code: int, told: str, town_index: Path, tmp_path: Path) -> None:
    done = geomatch("index", "publish", town_index, "--to", to.format(tmp=tmp_path, index=town_index))
    assert done.exit_code == code
    assert told in complaint(done.stderr)


def test_what_is_no_index_is_not_published(tmp_path: Path) -> None:
    done = geomatch("index", "publish", tmp_path / "no.gmi", "--to", f"milvus://{tmp_path / 'm.db'}/town")
    assert done.exit_code == 4
    assert not (tmp_path / "m.db").exists()
