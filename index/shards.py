"""A build in shards that any process can make, each a file that appears whole or not at all.

A shard's name says what it is of: options, orthomosaic, encoder and version decide the folder, so that a build that was
ended finds what it has made, and no other build's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geomatch.errors import InputError, OutputError, UsageError
from geomatch.files import published, writing
from geomatch.memory import keep_freed
from geomatch.mosaic import open_orthomosaic
from geomatch.raster import Limits, open_raster
from geomatch.threads import one_thread

from .codes import Coder, VectorFile, write_faiss
from .job import BuildJob, Encoded, TileRows, reader_of
from .plan import BuildOptions, blocks
from .pooler import Pooler
from .vectors import TilePart, tile_parts

if TYPE_CHECKING:
    import faiss

TILES = 9_600  # about, of the parts that a shard holds; more take more memory, and longer for it
_FOLDER = re.compile(r"[0-9a-f]{16}")
_FILE = re.compile(r"\.?(features|trained|codes|rows|vectors)-[0-9a-f-]+\.(npz|faiss)(\..+\.tmp)?")  # some unfinished
_MAKING = Lock()  # a raster serves one thread, and a worker of Dask may have several


@dataclass(frozen=True)
class FileState:
    """A raster of the orthomosaic as the build began.

    Attributes:
        path: absolute.
        size_bytes, mtime_ns: what tells that it has changed.
    """

    path: str
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Of a file that is there."""
        status = path.stat()
        return cls(str(path), status.st_size, status.st_mtime_ns)

    def check(self) -> None:
        """Raise InputError where the file is not what it was."""
        try:
            now = FileState.of(Path(self.path))
        except OSError as error:
            what = "the orthomosaic has gone during the build"
            raise InputError(what, where=self.path, hint="put it back and build again") from error
        if now != self:
            what = "the orthomosaic has changed during the build"
            raise InputError(what, where=self.path, hint="build again when it is complete")


@dataclass(frozen=True)
class Recipe:
    """All that a process needs to make a shard of a build.

    Attributes:
        orthomosaic: its files.
        options: of the build; a file of weights by its whole path.
        encoder: the fingerprint of its encoder.
        version: of geomatch.
        folder: of the shards.
        limits: what the orthomosaic may ask for.
    """

    orthomosaic: tuple[FileState, ...]
    options: BuildOptions
    encoder: str
    version: str
    folder: str
    limits: Limits

    @classmethod
    def of(
        cls, job: BuildJob, target: Path, began: tuple[FileState, ...] | None = None, limits: Limits | None = None
    ) -> Recipe:
        """Of a job; its shards lie beside what it builds.

        Args:
            job: as it was planned.
            target: what it builds.
            began: the orthomosaic's files before the job was planned; default as they are now.
            limits: what the orthomosaic may ask for; default as the environment of this process says.
        """
        files = tuple(map(FileState.of, job.raster.paths)) if began is None else began
        options = replace(job.options, encoder=job.encoder.name)
        key = {
            "orthomosaic": [asdict(file) for file in files],
            "options": asdict(options),
            "encoder": (encoder := job.encoder.fingerprint()),
            "version": (now := version("geomatch")),
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        folder = target.absolute().with_name(f"{target.name}.shards") / name
        return cls(files, options, encoder, now, str(folder), limits or Limits.from_env())

    def check(self) -> None:
        """Raise InputError where the orthomosaic is not what it was as the build began."""
        for file in self.orthomosaic:
            file.check()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A folder for the shards, which stays while there are some; raises OutputError where none can be made."""
        folder = Path(self.folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()
                folder.parent.rmdir()

    def has_begun(self) -> bool:
        """Whether there are shards."""
        return Path(self.folder).is_dir()

    def remove(self) -> None:
        """Remove the shards, and those that builds with other options or of another state of the map left.

        What else lies there is not ours, and stays.
        """
        with suppress(OSError):
            parent = Path(self.folder).parent
            for folder in parent.iterdir():
                if _FOLDER.fullmatch(folder.name):
                    _remove_shards(folder)
            parent.rmdir()

    def features(self, number: int) -> Path:
        """Where the features of a block are."""
        return Path(self.folder) / f"features-{number:06d}.npz"

    def trained(self, fit: str) -> Path:
        """Where the fitted index is by which tiles are coded; ``fit`` tells it from others."""
        return Path(self.folder) / f"trained-{fit}.faiss"

    def codes(self, fit: str, number: int) -> Path:
        """Where the vectors of the tiles of some parts are, coded by a fitted index."""
        return Path(self.folder) / f"codes-{fit}-{number:06d}.faiss"

    def rows(self, fit: str, number: int) -> Path:
        """Where the rows of these tiles are; written after their codes."""
        return Path(self.folder) / f"rows-{fit}-{number:06d}.npz"

    def vector_file(self, fit: str, number: int) -> Path:
        """Where one of the index's files of vectors is until it is moved there."""
        return Path(self.folder) / f"vectors-{fit}-{number:06d}.faiss"


def _remove_shards(folder: Path) -> None:
    with suppress(OSError):
        for file in folder.iterdir():
            if _FILE.fullmatch(file.name):
                file.unlink()
        folder.rmdir()


def make_features(recipe: Recipe, number: int) -> int:
    """Make a shard of features, unless it is there; gives the number back.

    As ``make_vectors`` and ``make_vector_file``, one at a time in a process, whatever thread asks.
    """
    file = recipe.features(number)
    if not file.is_file():
        recipe.check()
        with _MAKING, one_thread():
            job = _job(recipe)
            made = job.encode(job.read(list(blocks(job.window))[number]))
        recipe.check()  # a shard of what has changed meanwhile would be taken up once it is as it was
        with published(file) as part, part.open("wb") as out:
            np.savez(out, values=made.values, energy=made.energy, known=made.known)
    return number


def read_features(recipe: Recipe, number: int) -> Encoded:
    """A shard of features."""
    kept = _load(recipe.features(number))
    return Encoded(kept["values"], float(kept["energy"]), int(kept["known"]))


def keep_fit(recipe: Recipe, index: faiss.Index) -> str:
    """Write a fitted index for whoever codes tiles by it; gives what tells it from others, of other libraries say."""
    import faiss

    fit = hashlib.sha256(faiss.serialize_index(index).data).hexdigest()[:16]
    with published(recipe.trained(fit)) as part:
        write_faiss(index, part)
    return fit


def make_vectors(recipe: Recipe, features: str, fit: str, number: int) -> int:
    """Make a shard of coded tiles from the features file, unless it is there; gives the number back."""
    codes, file = recipe.codes(fit, number), recipe.rows(fit, number)
    if not (codes.is_file() and file.is_file()):
        with _MAKING, one_thread(), open_raster(features) as raster:
            job, (pooler, coder) = _job(recipe), _tools(recipe, fit)
            parts = shards_of(tile_parts(job.tiles, job.encoder.channels))[number]
            made = job.shard(job.pool(reader_of(raster), parts, pooler), coder)
        with published(codes) as part:
            write_faiss(made.codes, part)
        with published(file) as part, part.open("wb") as out:
            np.savez(out, done=made.rows.done, table=_to_bytes(made.rows.table))
    return number


def read_rows(recipe: Recipe, fit: str, number: int) -> TileRows:
    """The rows of a shard of coded tiles."""
    kept = _load(recipe.rows(fit, number))
    return TileRows(int(kept["done"]), _from_bytes(kept["table"]))


def make_vector_file(recipe: Recipe, fit: str, first: int, beyond: int, number: int) -> int:
    """Make one of the index's files of vectors from shards of coded tiles.

    Args:
        recipe: of the shards.
        fit: what the vectors were coded by.
        first, beyond: numbers of the first shard, and of the one after the last.
        number: of the file, which is given back.
    """
    whole = VectorFile(_faiss(recipe.trained(fit)))
    with _MAKING, one_thread():
        for shard in range(first, beyond):
            whole.add(_faiss(recipe.codes(fit, shard)))
    with published(recipe.vector_file(fit, number)) as part:
        whole.write(part, first=not number)
    return number


def shards_of(parts: Sequence[TilePart]) -> list[Sequence[TilePart]]:
    """The parts that each shard holds."""
    at_once = max(1, round(TILES / len(parts[0])))
    return [parts[first : first + at_once] for first in range(0, len(parts), at_once)]


def _to_bytes(rows: pa.Table) -> NDArray[np.uint8]:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, rows.schema) as stream:
        stream.write_table(rows)
    return np.frombuffer(out.getvalue(), np.uint8)


def _from_bytes(values: NDArray[np.uint8]) -> pa.Table:
    with pa.ipc.open_stream(pa.py_buffer(values)) as stream:
        return stream.read_all()


@lru_cache(maxsize=2)
def _job(recipe: Recipe) -> BuildJob:
    """The job of a recipe, planned once in a process.

    Raises:
        UsageError: this process has other code or other weights than the one that wrote the recipe.
    """
    if version("geomatch") != recipe.version:
        what = f"a worker has geomatch {version('geomatch')}, not {recipe.version}"
        raise UsageError(what, where="--scheduler", hint="install the same version on all machines")
    keep_freed()
    job = BuildJob.plan(open_orthomosaic([file.path for file in recipe.orthomosaic], recipe.limits), recipe.options)
    if job.encoder.fingerprint() != recipe.encoder:
        what = f"a worker has another encoder of the name {recipe.options.encoder!r}"
        raise UsageError(what, where="--scheduler", hint="give all machines the same weights and geomatch")
    return job


@lru_cache(maxsize=1)
def _tools(recipe: Recipe, fit: str) -> tuple[Pooler, Coder]:
    """What makes vectors of tiles and codes them by a fitted index, read once in a process."""
    index = _faiss(recipe.trained(fit))
    return _job(recipe).pooler(index), Coder(index)


def _load(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file) as kept:
            return {name: kept[name] for name in kept.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise _not_whole(file, str(error)) from error


def _faiss(file: Path) -> faiss.Index:
    import faiss

    try:
        return faiss.read_index(str(file))
    except RuntimeError as error:
        raise _not_whole(file, str(error).strip().splitlines()[-1]) from error


def _not_whole(file: Path, why: str) -> OutputError:
    return OutputError(f"is no whole shard ({why})", where=file, hint="remove it and build again")
