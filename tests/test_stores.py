"""Addresses of collections, what collections say about themselves, and Milvus that is not there."""

from __future__ import annotations

import fcntl
import socket
import sys
import time
from pathlib import Path

import pytest

from geomatch.errors import IndexFormatError, UsageError
from geomatch.stores import FORMAT, Address, Card, Store, is_address

CARD = Card(FORMAT, "0.1.0", "structural", "a" * 64, "b" * 64, "/data/city.gmi", 12)


@pytest.mark.parametrize(
    ("text", "address", "uri"),
    [
        ("milvus://db.example:19530/city", Address("db.example:19530", "city"), "http://db.example:19530"),
        ("milvus://db/city_2", Address("db", "city_2"), "http://db:19530"),
        ("milvus://[::1]:7/c", Address("[::1]:7", "c"), "http://[::1]:7"),
        ("milvus:///data/a b/m.db/city", Address("/data/a b/m.db", "city"), "/data/a b/m.db"),
        ("milvus://m.db/city", Address("m.db", "city"), str(Path.cwd() / "m.db")),
        ("milvus://h:1/c?folder=/data/x%20y.gmi", Address("h:1", "c", Path("/data/x y.gmi")), "http://h:1"),
    ],
)
def test_address_is_read_as_it_was_meant(text: str, address: Address, uri: str) -> None:
    assert Address.parse(text) == address
    assert address.uri == uri
    assert Address.parse(str(address)).place == address.place


@pytest.mark.parametrize(
    "text",
    [
        "milvus://",
        "milvus:///",
        "milvus://city",
        "milvus://h:19530",
        "milvus://h:19530/",
        "milvus://m.db",
        "milvus://h:port/c",
        "milvus://h:123456/c",
        "milvus://h/a/c",
        "milvus://us er@h/c",
        "milvus://h/1c",
        "milvus://h/c-d",
        "milvus://h/ç",
        "milvus://h/c?",
        "milvus://h/c?folder",
        "milvus://h/c?folder=",
        "milvus://h/c?Folder=/a",
        "milvus://h/c?folder=/a&folder=/b",
        "milvus://h/c?folder=/a&k=1",
        "redis://h/c",
    ],
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Address.parse(text)
    assert caught.value.where == text
    assert caught.value.hint


def test_directories_are_no_addresses() -> None:
    assert is_address("milvus://h/c")
    assert not any(is_address(path) for path in ("city.gmi", Path("milvus.db"), "/milvus://h"))


def test_card_comes_back() -> None:
    assert Card.from_json(CARD.to_json()) == CARD


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', f'{{"format": {FORMAT}}}', "[" * 9])
def test_what_is_no_card_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Card.from_json(text)


def test_server_that_is_not_there_is_told() -> None:
    with pytest.raises(IndexFormatError, match=r"milvus://127\.0\.0\.1:1/c: Milvus cannot be asked .*GEOMATCH_MILVUS"):
        Store(Address("127.0.0.1:1", "c"), IndexFormatError)


def test_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomatch.stores.CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address(f"127.0.0.1:{silent.getsockname()[1]}", "c")
        start = time.perf_counter()
        with pytest.raises(IndexFormatError, match="Milvus cannot be asked"):
            Store(address, IndexFormatError)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(("module", "place"), [("pymilvus", "h:1"), ("milvus_lite.server_manager", "m.db")])
def test_missing_client_is_named(module: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.db").mkdir()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"needs {module}, which is not installed.*'geomatch\[milvus\]'"):
        Store(Address(place, "c"), IndexFormatError)


def test_file_that_is_none_of_milvus_lite_is_told(tmp_path: Path) -> None:
    (tmp_path / "old.db").write_bytes(b"SQLite format 3")
    with pytest.raises(IndexFormatError, match=r"old\.db/c: Milvus cannot be asked .*a file of Milvus Lite"):
        Store(Address(str(tmp_path / "old.db"), "c"), IndexFormatError)


def test_file_is_let_go_with_the_last_connection(tmp_path: Path) -> None:
    address = Address(str(tmp_path / "m.db"), "c")
    first, second = (Store(address, IndexFormatError, make=True) for _ in range(2))
    with (tmp_path / "m.db" / "LOCK").open() as lock:
        first.close()
        first.close()
        assert not second.has("c")
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        second.close()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
