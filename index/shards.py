"""A build in shards that any process can make, each a file that appears whole or not at all.

A shard's name says what it is of: options, orthomosaic, encoder and version decide the folder, so that a build that was
ended finds what it has made, and no other build's.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from geomatch.errors import InputError, OutputError
from geomatch.files import published
from geomatch.mosaic import open_orthomosaic
from geomatch.raster import open_raster
from geomatch.threads import one_thread
from geomatch.vectors import read_part

from .job import BuildJob, Encoded, reader_of
from .plan import BuildOptions, blocks
from .vectors import TilePart, Tiles, kept_of, tile_block, tile_parts

PARTS = 16  # of ``tile_parts`` that a shard of vectors holds
TRAINED = "trained.faiss"


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
        options: of the build.
        folder: of the shards.
    """

    orthomosaic: tuple[FileState, ...]
    options: BuildOptions
    folder: str

    @classmethod
    def of(cls, job: BuildJob, target: Path) -> Recipe:
        """Of a job; its shards lie beside what it builds."""
        files = tuple(FileState.of(path) for path in job.raster.paths)
        key = {
            "orthomosaic": [asdict(file) for file in files],
            "options": asdict(job.options),
            "encoder": job.encoder.fingerprint(),
            "version": version("geomatch"),
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        folder = target.absolute().with_name(f"{target.name}.shards") / name
        return cls(files, job.options, str(folder))

    def check(self) -> None:
        """Raise InputError where the orthomosaic is not what it was as the build began."""
        for file in self.orthomosaic:
            file.check()

    def remove(self) -> None:
        """Remove the shards, and the folder of all builds' where nothing is left in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            Path(self.folder).parent.rmdir()

    def features(self, number: int) -> Path:
        """Where the features of a block are."""
        return Path(self.folder) / f"features-{number:06d}.npz"

    def vectors(self, number: int) -> Path:
        """Where the vectors of some parts are."""
        return Path(self.folder) / f"vectors-{number:06d}.npz"


def make_features(recipe: Recipe, number: int) -> int:
    """Make a shard of features, unless it is there; gives the number back."""
    file = recipe.features(number)
    if not file.is_file():
        recipe.check()
        job = _job(recipe)
        with one_thread():
            made = job.encode(job.read(list(blocks(job.window))[number]))
        with published(file) as part, part.open("wb") as out:
            np.savez(out, values=made.values, energy=made.energy, known=made.known)
    return number


def read_features(recipe: Recipe, number: int) -> Encoded:
    """A shard of features."""
    kept = _load(recipe.features(number))
    return Encoded(kept["values"], float(kept["energy"]), int(kept["known"]))


def make_vectors(recipe: Recipe, features: str, number: int) -> int:
    """Make a shard of vectors from the features file, unless it is there; gives the number back."""
    file = recipe.vectors(number)
    if not file.is_file():
        job = _job(recipe)
        index = read_part(Path(recipe.folder) / TRAINED)
        parts = shard_of(tile_parts(job.tiles, job.encoder.channels), number)
        with one_thread(), open_raster(features) as raster:
            given = (job.tiles, job.cells, job.encoder.cell_px)
            read, least = reader_of(raster), job.options.min_valid
            found = [kept_of(tile_block(read, part, *given), index, least) for part in parts]
        with published(file) as part, part.open("wb") as out:
            columns: dict[str, Any] = {name: np.concatenate([getattr(one, name) for one in found]) for name in _COLUMNS}
            counts = np.array([[one.done, len(one.cols)] for one in found])
            np.savez(out, counts=counts, **columns)
    return number


def read_vectors(recipe: Recipe, number: int) -> list[Tiles]:
    """A shard of vectors, part by part as they were made."""
    kept = _load(recipe.vectors(number))
    ends = np.cumsum(kept["counts"][:, 1])[:-1]
    columns = {name: np.split(kept[name], ends) for name in _COLUMNS}
    return [Tiles(int(done), *(columns[name][i] for name in _COLUMNS)) for i, done in enumerate(kept["counts"][:, 0])]


def shard_of(parts: Sequence[TilePart], number: int) -> Sequence[TilePart]:
    """The parts that a shard holds."""
    return parts[number * PARTS : (number + 1) * PARTS]


_COLUMNS = ("searched", "cols", "rows", "valid_fraction")


@lru_cache(maxsize=2)
def _job(recipe: Recipe) -> BuildJob:
    """The job of a recipe, planned once in a process."""
    return BuildJob.plan(open_orthomosaic([file.path for file in recipe.orthomosaic]), recipe.options)


def _load(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file) as kept:
            return {name: kept[name] for name in kept.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise OutputError(f"is no whole shard ({error})", where=file, hint="remove it and build again") from error
