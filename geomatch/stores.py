"""Milvus: what an address means, a connection to one, and what a collection says about itself."""

from __future__ import annotations

import json
import logging
import os
import re
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from geomatch.errors import GeomatchError, UsageError
from geomatch.extras import needs_extra
from geomatch.files import check_target, has_ended, host_mark, sha256_of
from geomatch.manifest import MANIFEST, Manifest

SCHEME = "milvus://"
TOKEN = "GEOMATCH_MILVUS_TOKEN"  # the environment variable that holds it
FORMAT = 1
PROPERTY = "geomatch"  # of a collection, holds its card
TILE, COL, ROW, VECTOR = "tile", "col", "row", "vector"  # fields
CONNECT_S, ANSWER_S = 5.0, 10.0  # how long that may take at most
WORK_S = 120.0  # likewise, what goes over all of a collection
BYTES = 4 << 20  # of vectors at a time, well below what a message may hold

_FORM = "write milvus://HOST:PORT/COLLECTION, or milvus://FOLDER/NAME.db/COLLECTION for a file of Milvus Lite"
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d{1,5})?", re.ASCII)
_COLLECTION = re.compile(r"[A-Za-z_]\w{0,200}", re.ASCII)
_UNFINISHED = "__unfinished"
_PORT = 19530
_TALKATIVE = ("pymilvus", "pymilvus.milvus_client", "pymilvus.bulk_writer", "milvus_lite")  # they log tracebacks

_served: Counter[str] = Counter()  # connections to each file of Milvus Lite, which this process serves and locks


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether it names a collection rather than a directory."""
    return os.fspath(path).startswith(SCHEME)


@dataclass(frozen=True)
class Address:
    """Where a collection is.

    Attributes:
        place: HOST:PORT of a server, or the path of a file of Milvus Lite, NAME.db.
        collection: its name.
        folder: where the index that was published is now, None where the collection says.
    """

    place: str
    collection: str
    folder: Path | None = None

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> Address:
        """Of ``milvus://PLACE/COLLECTION[?folder=PATH]``; raises UsageError where it is none."""
        told = os.fspath(text)
        rest, asked, query = told.removeprefix(SCHEME).partition("?")
        place, _, collection = rest.rpartition("/")
        if not told.startswith(SCHEME) or not place or not (place.endswith(".db") or _HOST.fullmatch(place)):
            raise UsageError("is no address of a collection", where=told, hint=_FORM)
        if not _COLLECTION.fullmatch(collection):
            hint = "letters, digits and underscores make one, the first no digit"
            raise UsageError(f"{collection!r} is no name of a collection", where=told, hint=hint)
        try:
            options = parse_qs(query, strict_parsing=True) if query else {}
        except ValueError:
            options = {}
        folders = options.get("folder", [])
        if asked and not len(folders) == len(options) == 1:
            raise UsageError(f"{query!r} is not understood", where=told, hint="only ?folder=PATH may follow the name")
        return cls(place, collection, Path(folders[0]) if folders else None)

    @property
    def is_file(self) -> bool:
        """Whether it is one of Milvus Lite's."""
        return self.place.endswith(".db")

    @property
    def uri(self) -> str:
        """As pymilvus takes it."""
        if self.is_file:
            return str(Path(self.place).absolute())
        return f"http://{self.place}" if re.search(r":\d+$", self.place) else f"http://{self.place}:{_PORT}"

    @property
    def unfinished(self) -> str:
        """Name of the collection while this process fills it; others that publish there fill their own."""
        return f"{self.collection}{_UNFINISHED}_{host_mark()}_{os.getpid()}"

    @property
    def replaced(self) -> str:
        """Name of the collection while another takes its place."""
        return f"{self.collection}__replaced"

    def __str__(self) -> str:
        return f"{SCHEME}{self.place}/{self.collection}"


@dataclass(frozen=True)
class Card:
    """What a collection says about itself, as JSON in a property of its.

    Attributes:
        format: of collection and card.
        geomatch_version: that built the index.
        encoder, encoder_sha256: what made the vectors.
        manifest_sha256: of the manifest.json of the index that was published.
        folder: of that index, absolute.
        tiles: how many.
    """

    format: int
    geomatch_version: str
    encoder: str
    encoder_sha256: str
    manifest_sha256: str
    folder: str
    tiles: int

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> Card:
        """For a collection of an index."""
        encoder, sha256 = manifest.encoder, sha256_of(folder / MANIFEST)
        place = str(folder.resolve())
        version, count = manifest.geomatch_version, manifest.tiles.count
        return cls(FORMAT, version, encoder.name, encoder.sha256, sha256, place, count)

    def to_json(self) -> str:
        """The text of the property."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Of the property's text; raises ValueError where it is none, or of another format."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("no object")
        if values.get("format") != FORMAT:
            raise ValueError(f"its format is {values.get('format')!r}, this geomatch reads {FORMAT}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from error


class Store:
    """A connection, closed with the last reference to it.

    Args:
        address: where to.
        refusal: what is raised where it does not do what it is asked.
        make: whether a file of Milvus Lite that is not there is made.

    Raises:
        UsageError: pymilvus is not installed.
        OutputError: the file may be made, but its place cannot be written.
        GeomatchError: of the kind ``refusal``: it cannot be reached.

    Attributes:
        address: where to.
        client: pymilvus's, to be used within ``asking``.
    """

    def __init__(self, address: Address, refusal: type[GeomatchError], *, make: bool = False) -> None:
        _load(address)
        self.address, self._refusal = address, refusal
        if address.is_file and make:
            check_target(Path(address.place), directory=True)
        elif address.is_file and not Path(address.place).exists():
            raise refusal("there is no such file of Milvus Lite", where=address, hint="look at its path")
        with self.asking():
            self.client = _client(address)
        if address.is_file:
            _served[address.uri] += 1
        self._close = weakref.finalize(self, _close, self.client, address)
        self._close.atexit = False  # milvus-lite ends its own servers then

    def close(self) -> None:
        """End the connection, and what serves a file if it was the last one to it."""
        self._close()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Turns what the client raises in the block into one error that names the address."""
        import grpc
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except (MilvusException, grpc.RpcError, OSError, RuntimeError, ValueError) as error:
            hint = f"see that it runs, can be reached from here and takes the token in {TOKEN}"
            if self.address.is_file:
                hint = "see that it is a file of Milvus Lite and that no other program has it open"
            what = f"Milvus cannot be asked ({_reason(error)})"
            raise self._refusal(what, where=self.address, hint=hint) from error

    def has(self, name: str) -> bool:
        """Whether there is a collection of that name."""
        with self.asking():
            return bool(self.client.has_collection(name, timeout=ANSWER_S))

    def count(self, name: str) -> int:
        """Tiles of a collection that is loaded, all that were ever added."""
        with self.asking():
            asked = {"output_fields": ["count(*)"], "consistency_level": "Strong", "timeout": ANSWER_S}
            return int(self.client.query(name, filter="", **asked)[0]["count(*)"])

    def card(self, name: str) -> Card:
        """What a collection says about itself; raises ``refusal`` where it cannot be understood."""
        try:
            return Card.from_json(self._told(name))
        except ValueError as error:
            what = f"what the collection says about itself cannot be read ({error})"
            hint = "publish the index again with geomatch index publish --overwrite"
            raise self._refusal(what, where=self.address, hint=hint) from error

    def being_filled(self) -> dict[str, bool]:
        """Names of collections that are filled for the address, and whether who did has ended, as far as that is known.

        It is of processes of this machine.
        """
        ours = re.compile(rf"{re.escape(self.address.collection)}{_UNFINISHED}(?:_(\w+)_(\d+))?")
        with self.asking():
            names = self.client.list_collections(timeout=ANSWER_S)
        met = {name: ours.fullmatch(name) for name in names}
        return {name: has_ended(*one.groups()) for name, one in met.items() if one is not None}

    def drop(self, name: str) -> None:
        """Remove a collection that may be there; raises ``refusal`` where it is none of geomatch's."""
        if self.has(name):
            self._told(name)
            with self.asking():
                self.client.drop_collection(name, timeout=WORK_S)

    def rename(self, name: str, other: str) -> None:
        """Give a collection that is geomatch's another name, which is free."""
        self._told(name)
        with self.asking():
            self.client.rename_collection(name, other, timeout=WORK_S)

    def _told(self, name: str) -> str:
        with self.asking():
            properties = self.client.describe_collection(name, timeout=ANSWER_S).get("properties", {})
        if PROPERTY not in properties:
            hint = "look at the name, or publish under another one"
            raise self._refusal(f"the collection {name} holds no index of geomatch's", where=self.address, hint=hint)
        return str(properties[PROPERTY])


def _load(address: Address) -> None:
    """Import the client, and have it and what it brings keep their tracebacks to themselves."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read as it is imported; it tells of every process started
    with needs_extra("milvus", f"an index at {SCHEME}"):
        import pymilvus  # noqa: F401

        if address.is_file:
            import milvus_lite.server_manager  # noqa: F401
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _client(address: Address) -> Any:
    from pymilvus import MilvusClient

    return MilvusClient(address.uri, token=os.environ.get(TOKEN, ""), timeout=CONNECT_S)


def _close(client: Any, address: Address) -> None:
    client.close()
    if address.is_file:
        from milvus_lite.server_manager import server_manager_instance

        _served[address.uri] -= 1
        if not _served[address.uri]:
            server_manager_instance.release_server(address.uri)


def _reason(error: Exception) -> str:
    """What an exception says, on one line."""
    details = getattr(error, "details", None)  # of gRPC's
    said = details() if callable(details) else getattr(error, "message", None) or error
    return " ".join(str(said).split())[:200]
