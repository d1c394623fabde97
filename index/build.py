"""An orthomosaic to an index, in bounded memory: features block by block, then vectors from the features.

Everything is written into a temporary sibling of the output and published by one rename.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window as RasterWindow

from geomatch.errors import InputError, OutputError
from geomatch.files import alone_at, published, sha256_of, writing
from geomatch.gdal import gdal_session, open_dataset
from geomatch.geo import Grid
from geomatch.manifest import (
    FEATURES,
    MANIFEST,
    TILES,
    EncoderRecord,
    FileRecord,
    Manifest,
    SourceRecord,
    TileRecord,
    is_index_file,
)
from geomatch.memory import give_back
from geomatch.mosaic import open_orthomosaic
from geomatch.raster import Limits, fingerprint, open_raster
from geomatch.stored_features import BLOCK_CELLS
from geomatch.threads import one_thread
from geomatch.tile_index import TileIndex

from .fastest import backend_of, settled
from .job import NO_FEATURE, BuildJob, reader_of
from .kinds import plan_vectors
from .plan import BuildOptions, blocks
from .shards import FileState, Recipe
from .tables import TileTable
from .vectors import fit_vectors, sample_vectors
from .work import Work, is_here, work_of

Progress = Callable[[str, int, int], None]  # stage, done, total
OnePath = str | os.PathLike[str]

HASHED = 2  # files at a time


def _silent(stage: str, done: int, total: int) -> None:
    """The progress of someone who does not watch."""


def build_index(
    orthomosaic: OnePath | Sequence[OnePath],
    output: OnePath,
    options: BuildOptions | None = None,
    *,
    overwrite: bool = False,
    limits: Limits | None = None,
    scheduler: str | None = None,
    progress: Progress = _silent,
) -> TileIndex:
    """Build the index of an orthomosaic.

    Args:
        orthomosaic: a georeferenced GeoTIFF, or several that together are one map, see ``geomatch.mosaic``.
        output: the directory to appear, by convention ``NAME.gmi``.
        options: what to build, default all of the map.
        overwrite: replace an index that is there; until the new one is complete the old one stays.
        limits: what the raster may ask for, default as the environment says.
        scheduler: address of a Dask scheduler whose workers see the orthomosaic and the output under the same paths, or
            "local:N" for N processes here; None for this process alone. By the same backend the index is the same byte
            for byte. Shards stay in ``OUTPUT.shards`` until the index is complete, and a build that is repeated goes on
            with them.
        progress: called with the stage, what is done and the total.

    Raises:
        InputError: the orthomosaic or a file of it cannot be used, is smaller than a tile, or has no valid tile.
        UsageError: options that contradict each other, or a file that is given twice.
        OutputError: the output cannot be written, another process is building it, or it is there and ``overwrite`` is
            not set or something else than an index would go with it.
    """
    options = options or BuildOptions()
    target = Path(output).resolve() if Path(output).is_symlink() else Path(output)  # a link stays one
    _check_replaceable(target)
    files = [orthomosaic] if isinstance(orthomosaic, str | os.PathLike) else orthomosaic
    with open_orthomosaic(files, limits) as raster, alone_at(target):
        _check_outside(target, raster.paths)
        began = tuple(map(FileState.of, raster.paths))
        planned = BuildJob.plan(raster, options)
        job = settled(planned, here=is_here(scheduler), has_begun=lambda job: Recipe.of(job, target, began).has_begun())
        recipe = Recipe.of(job, target, began, limits)
        with (
            published(target, directory=True, overwrite=overwrite) as folder,
            writing(target),
            one_thread(),
            work_of(job, recipe, scheduler) as work,
        ):
            builder = _Builder(job, work, progress)
            give_back()  # what the trial of backends needed
            rms = builder.write_features(folder / FEATURES)
            give_back()
            tiles = builder.write_tiles(folder)
            manifest = builder.manifest(folder, target, tiles, rms)
            recipe.check()  # after the files were hashed too
            (folder / MANIFEST).write_text(manifest.to_json())
            _check_replaceable(target)  # something may have come meanwhile
        recipe.remove()
    return TileIndex.open(target)


def _check_outside(target: Path, files: Sequence[Path]) -> None:
    """Raise if one of the files lies in ``target``, with which it would go."""
    for file in files:
        if target.resolve() in file.parents:
            hint = "choose another place, or move the orthomosaic out of it"
            raise OutputError(f"holds the orthomosaic {file.name}", where=target, hint=hint)


def _check_replaceable(target: Path) -> None:
    """Raise if ``target`` is a folder that holds something else than an index."""
    if not target.is_dir():
        return
    if not (target / MANIFEST).is_file():
        raise OutputError("is there already and is no index", where=target, hint="choose another place")
    with writing(target):
        others = sorted(file.name for file in target.iterdir() if not is_index_file(file.name))
    if others:
        what = f"holds more than an index ({others[0]}{', ...' if others[1:] else ''})"
        raise OutputError(what, where=target, hint="move that elsewhere, or choose another place")


def build_index_with(
    orthomosaic: OnePath | Sequence[OnePath],
    output: OnePath,
    *,
    overwrite: bool = False,
    scheduler: str | None = None,
    progress: Progress = _silent,
    **options: Any,
) -> TileIndex:
    """``build_index`` with the fields of BuildOptions as keywords; what ``geomatch.build_index`` calls."""
    how = BuildOptions(**options)
    return build_index(orthomosaic, output, how, overwrite=overwrite, scheduler=scheduler, progress=progress)


class _Builder:
    """Writes the files of an index, from what is made here or by others.

    Args:
        job: what is built.
        work: where its parts are made.
        progress: told the stages.
    """

    def __init__(self, job: BuildJob, work: Work, progress: Progress) -> None:
        self._job, self._work, self._progress = job, work, progress

    def write_features(self, file: Path) -> float:
        """Encode the window block by block into a GeoTIFF; returns the root mean square of the features per cell."""
        cell = self._job.encoder.cell_px
        energy, known, total = 0.0, 0, 0
        todo = list(blocks(self._job.window))
        sparse = len(self._job.raster.paths) > 1  # what lies between rasters far apart takes no room
        with (
            _feature_file(file, self._job.grid.shrunk(cell), self._job.encoder.channels, sparse=sparse) as out,
            closing(self._work.features()) as encoded,
        ):
            for done, (block, made) in enumerate(zip(todo, encoded, strict=True)):
                energy += made.energy
                known += made.known
                total += int(made.values.sum(dtype=np.int64))
                height, width = made.values.shape[1:]
                window = RasterWindow(block.col0 // cell, block.row0 // cell, width, height)
                out.write(made.values, window=window)
                self._progress("encoding", done + 1, len(todo))
        _check_written(file, total)
        return float(np.sqrt(energy / max(known, 1)))

    def write_tiles(self, folder: Path) -> TileRecord:
        """Vectors and table of the tiles that have enough valid pixels, from the features on disk.

        Raises:
            InputError: no tile has.
        """
        job, options = self._job, self._job.options
        with open_raster(folder / FEATURES) as features:
            sample = sample_vectors(reader_of(features), job.tiles, job.cells, job.encoder, options.min_valid)
        wanted = options.vectors, options.components
        dimensions = sample.vectors.shape[1]
        plan = plan_vectors(sample.of_tiles, dimensions, job.encoder.channels, *wanted, kinds=options.kinds)
        index = fit_vectors(plan, sample.vectors)
        del sample
        give_back()
        kept = 0
        with TileTable(folder / TILES, job.grid) as table, closing(self._work.tiles(folder, index)) as shards:
            for rows in shards:
                table.add(rows.table)
                kept += len(rows)
                self._progress("vectors", rows.done, len(job.tiles))
        return TileRecord(job.tiles.size_px, job.tiles.stride_px, kept, str(plan))

    def manifest(self, folder: Path, target: Path, tiles: TileRecord, rms: float) -> Manifest:
        """What the index in ``folder`` says about itself once it is at ``target``."""
        job = self._job
        files = job.raster.paths
        sources = []
        for done, path in enumerate(files):
            self._progress("hashing", done, len(files))
            sources.append(self._source(path, target))
        manifest = Manifest(
            geomatch_version=version("geomatch"),
            encoder=EncoderRecord(
                job.encoder.name, job.encoder.fingerprint(), job.encoder.channels, job.encoder.cell_px, backend_of(job)
            ),
            tiles=tiles,
            sources=tuple(sources),
            grid=job.grid,
            stretch=job.stretch,
            feature_rms=rms,
            files=_records(sorted(folder.iterdir())),
        )
        self._progress("hashing", len(files), len(files))
        return manifest

    def _source(self, path: Path, target: Path) -> SourceRecord:
        content, window = fingerprint(path), self._job.window
        return SourceRecord(
            path=str(path),
            relative_path=os.path.relpath(path, target.resolve()),
            size_bytes=content.size_bytes,
            mtime_ns=content.mtime_ns,
            sha256=content.sha256,
            col0=window.col0,
            row0=window.row0,
            scale=self._job.scale,
        )


def _records(files: Sequence[Path]) -> dict[str, FileRecord]:
    """Of files by their names, some read at a time."""
    with ThreadPoolExecutor(HASHED) as threads:
        hashes = threads.map(sha256_of, files)
        return {file.name: FileRecord(file.stat().st_size, sha256) for file, sha256 in zip(files, hashes, strict=True)}


def _feature_file(file: Path, cells: Grid, channels: int, *, sparse: bool) -> rasterio.io.DatasetWriter:
    out = rasterio.open(
        file,
        "w",
        driver="GTiff",
        width=cells.width,
        height=cells.height,
        count=channels,
        dtype="int8",
        crs=cells.crs.to_wkt(),
        transform=cells.transform,
        nodata=NO_FEATURE,
        tiled=True,
        blockxsize=BLOCK_CELLS,
        blockysize=BLOCK_CELLS,
        bigtiff="if_safer",
        sparse_ok=sparse,
    )
    out.scales = (1 / 127,) * channels
    return out


def _check_written(file: Path, total: int) -> None:
    """Raise OSError unless the file reads back as it was written: GDAL closes a file on a full disk without a word."""
    try:
        with gdal_session(file), open_dataset(file) as raster:
            pieces = (raster.read(window=window) for _, window in raster.block_windows(1))  # a block holds all bands
            found = sum(int(piece.sum(dtype=np.int64)) for piece in pieces)
    except InputError as error:
        raise OSError(errno.EIO, f"GDAL could not write the features: {error.what}", str(file)) from error
    if found != total:
        raise OSError(errno.EIO, "GDAL could not write all features", str(file))


__all__ = ["BuildOptions", "build_index", "build_index_with"]
