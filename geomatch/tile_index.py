"""The index of a map on disk: open it, check it, search it, read the features around a place.

An index is a directory, written whole by ``geomatch.index`` and never changed in place:

    manifest.json   what it is: versions, encoder, tiles, CRS, the map's files, sha256 of the files beside it
    tiles.parquet   GeoParquet: id, source, row, col, x, y, valid_fraction, geometry
    vectors.faiss   FAISS: a pre-transform (PCA and norm) and the tiles' vectors, ids are rows of the table; of many
                    tiles the first part, vectors-2.faiss and so on go on where it ends, without the pre-transform
    features.tif    int8 GeoTIFF of dense features, one pixel per cell, with its own georeferencing
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomatch import defaults
from geomatch.backends import check_backend
from geomatch.correlate import Features, Field
from geomatch.encoder import Encoder, load_encoder
from geomatch.errors import GeomatchError, IndexFormatError, InputError
from geomatch.files import sha256_of
from geomatch.gallery import Gallery, Hits
from geomatch.geo import Grid
from geomatch.imagery import Imagery
from geomatch.index_files import Corners, let_open, read_part, reading
from geomatch.manifest import FEATURES, REBUILD, TILES, VECTORS, Manifest, SourceRecord
from geomatch.mosaic import open_orthomosaic
from geomatch.near import Disc, Near
from geomatch.raster import open_raster
from geomatch.stored_features import StoredFeatures
from geomatch.stores import Address, is_address
from geomatch.vectors import Vectors

if TYPE_CHECKING:
    from geomatch.milvus import Published


READERS = 2  # of files of vectors at the same time
FEATURES_PX = 2048  # side of what is read of the features at a time
FEATURES_BYTES = 512 << 20  # of features that are kept in memory


class TileIndex:
    """An opened index. Its parts are read when they are first needed.

    Attributes:
        path: the directory.
        manifest: what it says about itself.
        encoder: what made its features, and must make a query's.
        disc: the circle that the middles of strips lie in, pixels of the map; None where they may lie anywhere.
    """

    disc: Disc | None = None

    def __init__(self, path: Path, manifest: Manifest, encoder: Encoder, published: Published | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self.encoder = encoder
        self._published = published

    @classmethod
    def open(cls, path: str | os.PathLike[str], backend: str = defaults.BACKEND) -> TileIndex:
        """Open an index, having looked at its manifest and at the sizes of its files.

        Args:
            path: the directory, or the address of a collection that its vectors were published to.
            backend: what runs the network of its encoder.

        Raises:
            IndexFormatError: missing, no index, of another format version, incomplete, or made by an encoder that is
                not here; or a collection that is missing, incomplete, of another index, or not to be reached.
            UsageError: the address is malformed, its client is not installed, or there is no such backend.
        """
        if is_address(path):
            from geomatch.milvus import Published

            published = Published.at(Address.parse(path))
            index = cls.open(published.folder, backend)
            published.check(index.manifest)
            return cls(index.path, index.manifest, index.encoder, published)
        folder = Path(path)
        manifest = Manifest.read(folder)
        for name, entry in manifest.files.items():
            file = folder / name
            if not file.is_file() or file.stat().st_size != entry.size_bytes:
                state = "has another size than" if file.is_file() else "is missing though it stands in"
                raise IndexFormatError(f"{name} {state} the manifest", where=folder, hint=REBUILD)
        return cls(folder, manifest, _encoder_of(manifest, folder, backend))

    def __len__(self) -> int:
        """Number of tiles."""
        return self.manifest.tiles.count

    @property
    def grid(self) -> Grid:
        """Where the indexed part of the map lies."""
        return self.manifest.grid

    def check(self) -> list[str]:
        """Verify every file against its hash, and that they agree; one sentence per fault, none when sound."""
        faults = [
            f"{name}: its content has changed since the index was built"
            for name, entry in self.manifest.files.items()
            if sha256_of(self.path / name) != entry.sha256
        ]
        if faults:
            return faults
        counts = {TILES: len(self.corners), VECTORS: len(self.vectors)}
        faults += [
            f"{name}: {count} tiles, the manifest says {len(self)}"
            for name, count in counts.items()
            if count != len(self)
        ]
        expected = (self.encoder.channels, *self.manifest.cells)
        if self.features.shape != expected:
            faults.append(f"{FEATURES}: shape {self.features.shape}, the manifest asks for {expected}")
        return faults

    def corner(self, tile: int) -> NDArray[np.int32]:
        """First column and row of a tile by its id, pixels of the map."""
        return self.corners[np.array(tile)]

    def near(self, near: Near) -> TileIndex:
        """This index for strips that lie within a circle.

        Raises:
            UsageError: the circle does not touch the map.
        """
        made = copy(self)
        made.disc = near.on(self.grid)
        return made

    def search(self, vectors: NDArray[np.float32], k: int, reach_px: float = 0.0) -> Hits:
        """The ``k`` tiles nearest to each vector.

        Args:
            vectors: [Q x D] pooled features as ``geomatch.tiles`` makes them.
            k: how many.
            reach_px: how far outside the circle, where there is one, the middles of tiles may lie.
        """
        within = None
        if self.disc is not None:
            within = self.disc.moved(-self.manifest.tiles.size_px / 2).grown(reach_px)
        return self.vectors.search(vectors, min(k, len(self)), within)

    @cached_property
    def features(self) -> Features:
        """Dense features of the map: in memory, or, of a map that has more than FEATURES_BYTES, where they lie."""
        rows, cols = self.manifest.cells
        if self.encoder.channels * rows * cols > FEATURES_BYTES:
            return StoredFeatures(self.path / FEATURES, self.manifest.feature_rms)
        with reading(self.path / FEATURES) as file, open_raster(file) as raster:
            values = np.empty((raster.count, raster.height, raster.width), np.int8)
            valid = np.empty(values.shape[1:], bool)
            for block in raster.blocks(FEATURES_PX):
                part = np.s_[block.row0 : block.row0 + block.height, block.col0 : block.col0 + block.width]
                values[:, *part], valid[part] = block.patch.data, block.patch.valid
        return Field(values, valid, self.manifest.feature_rms)

    def find_map(self, override: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
        """The rasters of the orthomosaic that the index was built from, in their order.

        Args:
            override: where the user says it is now: the file, or the folder that holds the files if they are several.

        Raises:
            InputError: one is not there, or not the one.
        """
        return tuple(self.find_source(source, override) for source in self.manifest.sources)

    def find_source(self, source: SourceRecord, override: str | os.PathLike[str] | None = None) -> Path:
        """One raster of the orthomosaic; arguments and errors as of ``find_map``."""
        several = len(self.manifest.sources) > 1
        places = [self.path / source.relative_path, Path(source.path)]
        if override:
            places = self._moved_to(Path(override), source) if several else [Path(override)]
        where = "name the folder of its rasters" if several else "say where it is"
        hint = f"{where} with --map, or locate without it at the accuracy of a cell"
        found = [place for place in places if place.is_file()]
        if not found:
            raise InputError("the map of the index is not there", where=places[-1], hint=hint)
        for place in found:
            if _is_source(source, place, trust_time=not override):
                return place.resolve()
        raise InputError("the map has changed since the index was built", where=found[0], hint=f"{hint}; or {REBUILD}")

    def _moved_to(self, folder: Path, source: SourceRecord) -> list[Path]:
        """Where one of several rasters may be in a folder: as deep as it was below what all were in, or at the top."""
        file = Path(source.path)
        return [folder / file.relative_to(self._sources_folder), folder / file.name]

    @cached_property
    def _sources_folder(self) -> str:
        """What all rasters of the orthomosaic were in."""
        return os.path.commonpath([Path(source.path).parent for source in self.manifest.sources])

    def open_map(self, override: str | os.PathLike[str] | None = None) -> Imagery:
        """The orthomosaic opened for reading by the index's pixels; raises as ``find_map``, and when unreadable."""
        return open_orthomosaic(self.find_map(override)).at_scale(self.manifest.scale)

    @cached_property
    def corners(self) -> Corners:
        """First column and row of each tile, pixels of the map."""
        return Corners(self.path / TILES)

    @cached_property
    def vectors(self) -> Gallery:
        """The tiles' vectors by their numbers."""
        if self._published is not None:
            return self._published.vectors(read_part(self.path / VECTORS).index)
        files = [self.path / name for name in self.manifest.vector_parts]
        let_open(len(files))
        first = read_part(files[0])
        with ThreadPoolExecutor(READERS) as readers:
            others = list(readers.map(partial(read_part, first=first), files[1:]))
        return Vectors([first, *others], self.corners)


def _is_source(source: SourceRecord, file: Path, *, trust_time: bool) -> bool:
    """Whether a file is the raster that was indexed; by its content, unless size and time say so already."""
    status = file.stat()
    if status.st_size != source.size_bytes:
        return False
    return (trust_time and status.st_mtime_ns == source.mtime_ns) or sha256_of(file) == source.sha256


def _encoder_of(manifest: Manifest, folder: Path, backend: str) -> Encoder:
    """The encoder that made an index, and no other."""
    check_backend(backend)  # which is no fault of the index
    name = manifest.encoder.name
    try:
        encoder = load_encoder(name, backend)
    except GeomatchError as error:
        what = f"its encoder {name!r} is not here: {error.what}"
        raise IndexFormatError(what, where=folder, hint=f"put its weights back, or {REBUILD}") from error
    if encoder.fingerprint() != manifest.encoder.sha256:
        hint = f"{REBUILD}, or install geomatch {manifest.geomatch_version}"
        raise IndexFormatError(f"its encoder {name!r} has changed since it was built", where=folder, hint=hint)
    return encoder
