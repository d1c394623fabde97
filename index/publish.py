"""Copy the tiles' vectors of an index to a Milvus collection, which searches them for many machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import numpy as np

from geomatch.errors import GeomatchError, OutputError
from geomatch.stores import BYTES, COL, PROPERTY, ROW, TILE, VECTOR, WORK_S, Address, Card, Store
from geomatch.tile_index import TileIndex

Progress = Callable[[str, int, int], None]  # stage, done, total
IndexType = Literal["FLAT", "AUTOINDEX"]  # of Milvus's, those that need no parameters


def publish_index(
    index: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    index_type: IndexType | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Address:
    """Copy the vectors and corners of an index's tiles to a collection, which appears when it is complete.

    Args:
        index: the directory; it stays where it is, for all but the vectors.
        to: the collection's address, ``milvus://HOST:PORT/NAME`` or ``milvus://FILE.db/NAME``.
        overwrite: replace a collection that is there; it stays until the new one is complete.
        index_type: of Milvus's; default FLAT in a file, which compares all tiles, and AUTOINDEX at a server, which is
            faster and may miss some.
        progress: called with the stage, what is done and the total.

    Raises:
        UsageError: the address is malformed, or its client is not installed.
        IndexFormatError: the index cannot be used.
        OutputError: Milvus cannot be reached, a collection is there already, or not all tiles arrived.
    """
    address = Address.parse(to)
    opened = TileIndex.open(index)
    size = _components(opened)  # before a store is made: the vectors may be damaged
    kind = index_type or ("FLAT" if address.is_file else "AUTOINDEX")
    store = Store(address, OutputError, make=True)
    try:
        if all(store.being_filled().values()):  # else somebody may be between the two steps of ``_replace``
            _restore(store)
        _check_free(store, overwrite=overwrite)
        with _unfinished(store) as name:
            _create(store, name, opened, kind, size)
            _fill(store, name, opened, size, progress)
            _check_complete(store, name, len(opened))
            _check_free(store, overwrite=overwrite)  # someone else may have been faster
            _replace(store, name)
    finally:
        store.close()
    return address


def _replace(store: Store, new: str) -> None:
    """Give a complete collection its name; one that is there steps aside first, and goes when that is done."""
    address = store.address
    if store.has(address.collection):
        store.rename(address.collection, address.replaced)
    try:
        store.rename(new, address.collection)
    except BaseException:
        with suppress(GeomatchError):
            _restore(store)
        raise
    with store.asking():
        store.client.load_collection(address.collection, timeout=WORK_S)
    store.drop(address.replaced)


def _restore(store: Store) -> None:
    """Where a collection stepped aside and no other took its place, put it back; else it is not needed any more."""
    address = store.address
    if not store.has(address.collection) and store.has(address.replaced):
        store.rename(address.replaced, address.collection)
    store.drop(address.replaced)


def _check_free(store: Store, *, overwrite: bool) -> None:
    if not overwrite and store.has(store.address.collection):
        hint = "choose another name, or --overwrite"
        raise OutputError("there is a collection of that name already", where=store.address, hint=hint)


@contextmanager
def _unfinished(store: Store) -> Iterator[str]:
    """The name of a collection that is to be filled; whatever goes wrong, it is dropped. What killed ones left too."""
    name = store.address.unfinished
    for left, of_nobody in store.being_filled().items():
        if of_nobody or left == name:
            store.drop(left)
    try:
        yield name
    except BaseException:
        with suppress(GeomatchError):
            store.drop(name)
        raise


def _components(index: TileIndex) -> int:
    """Of each of its tiles' vectors."""
    return int(index.vectors.stored(np.zeros(1, np.int64)).shape[1])


def _fill(store: Store, name: str, index: TileIndex, size: int, progress: Progress) -> None:
    """Copy all tiles' vectors, of so many components, to the collection, BYTES of them at a time."""
    at_once = max(1, BYTES // (4 * size))
    for first in range(0, len(index), at_once):
        progress("publishing", first, len(index))
        tiles = np.arange(first, min(first + at_once, len(index)))
        vectors, corners = index.vectors.stored(tiles), index.corners[tiles].tolist()
        rows = [
            {TILE: tile, COL: col, ROW: row, VECTOR: vector}
            for tile, (col, row), vector in zip(tiles.tolist(), corners, vectors, strict=True)
        ]
        with store.asking():
            store.client.insert(name, rows, timeout=WORK_S)
    with store.asking():
        store.client.flush(name, timeout=WORK_S)
    progress("publishing", len(index), len(index))


def _create(store: Store, name: str, index: TileIndex, kind: IndexType, size: int) -> None:
    """An empty collection for an index's vectors of so many components, compared by their inner product."""
    from pymilvus import DataType

    card = Card.of(index.path, index.manifest)
    with store.asking():
        schema = store.client.create_schema(auto_id=False)
        schema.add_field(TILE, DataType.INT64, is_primary=True)
        schema.add_field(COL, DataType.INT32)
        schema.add_field(ROW, DataType.INT32)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=size)
        kinds = store.client.prepare_index_params()
        kinds.add_index(VECTOR, index_type=kind, metric_type="IP")
        store.client.create_collection(
            name, schema=schema, index_params=kinds, properties={PROPERTY: card.to_json()}, timeout=WORK_S
        )


def _check_complete(store: Store, name: str, tiles: int) -> None:
    count = store.count(name)
    if count != tiles:
        hint = "see that nobody else publishes to it, and repeat it"
        raise OutputError(f"{count} tiles arrived, not {tiles}", where=store.address, hint=hint)
