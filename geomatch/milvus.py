"""Tiles' vectors in a Milvus collection: as those of the index's own files, compared on another machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geomatch.errors import IndexFormatError
from geomatch.files import sha256_of
from geomatch.gallery import Gallery, Hits
from geomatch.index_files import coded
from geomatch.manifest import MANIFEST, Manifest
from geomatch.near import Disc
from geomatch.stores import ANSWER_S, BYTES, COL, ROW, TILE, VECTOR, WORK_S, Address, Card, Store

if TYPE_CHECKING:
    import faiss

MOST = 16_384  # hits that Milvus gives a query at most
SPARE = 1.5  # of the tiles in a box so many are asked for per tile wanted in the circle, which fills 0.79 of it

_AGAIN = "publish it again with geomatch index publish --overwrite"


def _check_there(store: Store) -> None:
    """Raise IndexFormatError unless the collection of the store's address is there."""
    address = store.address
    if store.has(address.collection):
        return
    if store.being_filled():
        hint = "repeat geomatch index publish, and wait for its end"
        raise IndexFormatError("was not published to its end", where=address, hint=hint)
    hint = "geomatch index publish INDEX --to ADDRESS makes it"
    raise IndexFormatError("there is no such collection", where=address, hint=hint)


@dataclass(frozen=True)
class Published:
    """A collection that an index was published to.

    Attributes:
        store: that holds it.
        card: what it says about itself.
        folder: where the index is, for all but the vectors.
    """

    store: Store
    card: Card
    folder: Path

    @classmethod
    def at(cls, address: Address) -> Published:
        """The collection at an address.

        Raises:
            IndexFormatError: missing, incomplete, none of geomatch's, not to be reached, or its index's folder is
                missing.
            UsageError: pymilvus is not installed.
        """
        store = Store(address, IndexFormatError)
        _check_there(store)
        card = store.card(address.collection)
        with store.asking():
            store.client.load_collection(address.collection, timeout=WORK_S)
        count = store.count(address.collection)
        if count != card.tiles:
            raise IndexFormatError(f"holds {count} of {card.tiles} tiles", where=address, hint=_AGAIN)
        folder = address.folder or Path(card.folder)
        if not folder.is_dir():
            hint = f"say where it is on this machine with {address}?folder=PATH"
            raise IndexFormatError(f"its index {folder} is not there", where=address, hint=hint)
        return cls(store, card, folder)

    def check(self, manifest: Manifest) -> None:
        """Raise IndexFormatError unless the manifest of the index in ``folder`` is the one that was published."""
        ours, theirs = self.card, manifest.encoder
        if ours.encoder_sha256 != theirs.sha256:
            what = f"holds vectors of the encoder {ours.encoder!r} ({ours.encoder_sha256[:8]}), {self.folder} has "
            what += f"features of {theirs.name!r} ({theirs.sha256[:8]})"
        elif ours.manifest_sha256 != sha256_of(self.folder / MANIFEST):
            what = f"holds the vectors of another index than {self.folder}"
        else:
            return
        raise IndexFormatError(what, where=self.store.address, hint=f"name its folder with ?folder=PATH, or {_AGAIN}")

    def vectors(self, fitted: faiss.Index) -> MilvusVectors:
        """The tiles' vectors, given the transforms that they went through."""
        return MilvusVectors(self.store, self.card.tiles, fitted)


class MilvusVectors(Gallery):
    """Vectors in a collection.

    Args:
        store: that holds it, under its address's name.
        count: of tiles.
        fitted: see ``Gallery``.
    """

    def __init__(self, store: Store, count: int, fitted: faiss.Index) -> None:
        super().__init__(fitted)
        self._store, self._count = store, count

    def __len__(self) -> int:
        """Number of tiles."""
        return self._count

    def search(self, queries: NDArray[np.float32], k: int, within: Disc | None = None) -> Hits:
        """As ``Gallery.search``, with at most MOST tiles per query; -inf and tile 0 beyond those that were found.

        Of a circle Milvus looks at the box around it; more are asked for until enough of them lie in the circle.
        """
        asked = self.searched(queries)
        if within is None:
            return _hits(self._nearest(asked, min(k, MOST)), k)
        limit = min(int(SPARE * k) + 1, MOST)
        while True:
            boxed = self._nearest(asked, limit, within)
            found = [tiles[within.holds(tiles[:, 2:])] for tiles in boxed]
            wanting = any(len(inside) < k and len(tiles) == limit for inside, tiles in zip(found, boxed, strict=True))
            if limit == MOST or not wanting:
                return _hits(found, k)
            limit = min(2 * limit, MOST)

    def stored(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of tiles as they are compared: [N] -> [N x D]."""
        found = np.empty((len(ids), coded(self._fitted).d), np.float32)
        at_once = max(1, BYTES // found.itemsize // found.shape[1])
        for first in range(0, len(ids), at_once):
            part = ids[first : first + at_once].tolist()
            with self._store.asking():
                rows = self._store.client.get(
                    self._store.address.collection, ids=part, output_fields=[VECTOR], timeout=ANSWER_S
                )
                vectors = {int(row[TILE]): row[VECTOR] for row in rows}
            if missing := set(part) - vectors.keys():
                what = f"tile {min(missing)} is not in the collection any more"
                raise IndexFormatError(what, where=self._store.address, hint=_AGAIN)
            found[first : first + at_once] = [vectors[tile] for tile in part]
        return found

    def _nearest(self, asked: NDArray[np.float32], limit: int, within: Disc | None = None) -> list[NDArray[np.float64]]:
        """For each of [Q x D] the tiles in a circle's box, [n x 4] score, number, column and row; best first."""
        chosen = "" if within is None else _inside(within)
        with self._store.asking():
            answers: Any = self._store.client.search(
                self._store.address.collection,
                data=list(asked),
                filter=chosen,
                limit=limit,
                output_fields=[COL, ROW],
                search_params={"metric_type": "IP"},
                anns_field=VECTOR,
                timeout=ANSWER_S,
            )
            found = [
                [(hit["distance"], hit[TILE], hit["entity"][COL], hit["entity"][ROW]) for hit in hits]
                for hits in answers
            ]
        return [np.array(tiles, np.float64).reshape(-1, 4) for tiles in found]


def _inside(disc: Disc) -> str:
    """The box around a circle in Milvus's language of filters."""
    left, right, top, bottom = disc.box
    return f"{COL} >= {left} and {COL} <= {right} and {ROW} >= {top} and {ROW} <= {bottom}"


def _hits(found: list[NDArray[np.float64]], k: int) -> Hits:
    """Of [n x 4] score, number, column and row for each query; as many as the query with the most has, k at most."""
    width = min(k, max(map(len, found), default=0))
    table = np.zeros((len(found), width, 4))
    table[:, :, 0] = -np.inf
    for row, tiles in zip(table, found, strict=True):
        row[: len(tiles)] = tiles[:width]
    return Hits(table[:, :, 0].astype(np.float32), table[:, :, 2:].astype(np.int32), table[:, :, 1].astype(np.int64))
