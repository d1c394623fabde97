"""An orthomosaic to an index, in bounded memory: features block by block, then vectors from the features.

Everything is written into a temporary sibling of the output and published by one rename.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from geomatch.correlate import QUANTUM
from geomatch.encoder import Encoder, load_encoder
from geomatch.errors import InputError, OutputError, UsageError
from geomatch.files import published, sha256_of, writing
from geomatch.geo import Grid, check_even
from geomatch.images import OpticalStretch
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
from geomatch.raster import Limits, Raster, open_raster
from geomatch.structure import Dense
from geomatch.threads import one_thread
from geomatch.tile_index import TileIndex
from geomatch.tiles import TileGrid

from .plan import BLOCK_PX, BuildOptions, Window, blocks, plan_vectors, window_of, working_scale
from .tables import TileTable
from .vectors import VectorFiles, fit_vectors, sample_vectors, tile_blocks

Progress = Callable[[str, int, int], None]  # stage, done, total

_FEATURE_BLOCK = 256
_NO_FEATURE = -128


def _silent(stage: str, done: int, total: int) -> None:
    """The progress of someone who does not watch."""


def build_index(
    orthomosaic: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    overwrite: bool = False,
    limits: Limits | None = None,
    progress: Progress = _silent,
) -> TileIndex:
    """Build the index of an orthomosaic.

    Args:
        orthomosaic: a georeferenced GeoTIFF.
        output: the directory to appear, by convention ``NAME.gmi``.
        options: what to build, default all of the map.
        overwrite: replace an index that is there; until the new one is complete the old one stays.
        limits: what the raster may ask for, default as the environment says.
        progress: called with the stage, what is done and the total.

    Raises:
        InputError: the orthomosaic cannot be used, is smaller than a tile, or has no valid tile.
        UsageError: options that contradict each other.
        OutputError: the output cannot be written, or is there and ``overwrite`` is not set or something else than an
            index would go with it.
    """
    options = options or BuildOptions()
    target = Path(output)
    _check_replaceable(target)
    with open_raster(orthomosaic, limits=limits, need_grid=True) as raster:
        if target.resolve() in raster.path.parents:
            hint = "choose another place, or move the orthomosaic out of it"
            raise OutputError(f"holds the orthomosaic {raster.path.name}", where=target, hint=hint)
        job = _Job.plan(raster, options, progress)
        with published(target, directory=True, overwrite=overwrite) as folder, writing(target), one_thread():
            rms = job.write_features(folder / FEATURES)
            tiles = job.write_tiles(folder)
            manifest = job.manifest(folder, target, tiles, rms)
            (folder / MANIFEST).write_text(manifest.to_json())
            _check_replaceable(target)  # something may have come meanwhile
    return TileIndex.open(target)


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
    orthomosaic: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress = _silent,
    **options: Any,
) -> TileIndex:
    """``build_index`` with the fields of BuildOptions as keywords; what ``geomatch.build_index`` calls."""
    return build_index(orthomosaic, output, BuildOptions(**options), overwrite=overwrite, progress=progress)


@dataclass(frozen=True)
class _Job:
    """One build: where it reads, what it makes of it."""

    raster: Raster
    scale: float
    window: Window
    grid: Grid
    tiles: TileGrid
    encoder: Encoder
    stretch: OpticalStretch
    options: BuildOptions
    progress: Progress

    @classmethod
    def plan(cls, raster: Raster, options: BuildOptions, progress: Progress) -> _Job:
        assert raster.grid is not None, "opened with need_grid"
        try:
            check_even(raster.grid.window(*window_of(raster.grid, options).box))
        except InputError as error:
            raise InputError(error.what, where=raster.path, hint=error.hint) from error
        scale, stretch = working_scale(raster.grid, options), OpticalStretch.fit(raster)
        raster = raster.at_scale(scale)
        assert raster.grid is not None, "resampled pixels lie somewhere too"
        window = window_of(raster.grid, options)
        try:
            tiles = TileGrid(window.width, window.height, options.tile_px, options.stride_px)
        except UsageError as error:
            raise UsageError(error.what, where=raster.path, hint=error.hint) from error
        return cls(
            raster=raster,
            scale=scale,
            window=window,
            grid=raster.grid.window(window.col0, window.row0, window.width, window.height),
            tiles=tiles,
            encoder=load_encoder(options.encoder, options.backend),
            stretch=stretch,
            options=options,
            progress=progress,
        )

    def write_features(self, file: Path) -> float:
        """Encode the window block by block into a GeoTIFF; returns the root mean square of the features per cell."""
        cell = self.encoder.cell_px
        energy, known, total = 0.0, 0, 0
        todo = list(blocks(self.window))
        with _feature_file(file, self.grid.shrunk(cell), self.encoder.channels) as out:
            for done, block in enumerate(todo):
                self.progress("encoding", done, len(todo))
                dense = self.encode(block)
                energy += float(np.square(dense.values).sum(dtype=np.float64))
                known += int(dense.valid.sum())
                quantised = np.where(dense.valid, np.rint(dense.values * 127), _NO_FEATURE).astype(np.int8)
                total += int(quantised.sum(dtype=np.int64))
                height, width = dense.valid.shape
                out.write(quantised, window=RasterWindow(block.col0 // cell, block.row0 // cell, width, height))
            self.progress("encoding", len(todo), len(todo))
        _check_written(file, total)
        return float(np.sqrt(energy / max(known, 1)))

    def encode(self, block: Window) -> Dense:
        """Features of a block of the window, computed with a margin so that they do not depend on the blocking."""
        halo, cell = self.encoder.halo_px, self.encoder.cell_px
        left, top = min(halo, block.col0), min(halo, block.row0)
        right = min(halo, self.window.width - block.col0 - block.width)
        bottom = min(halo, self.window.height - block.row0 - block.height)
        patch = self.raster.read(
            self.window.col0 + block.col0 - left,
            self.window.row0 + block.row0 - top,
            block.width + left + right,
            block.height + top + bottom,
            bands=self.stretch.bands,
        )
        dense = self.encoder.dense(self.stretch.bands_of(patch), patch.valid, "optical")
        return dense.crop(left // cell, top // cell, -(-block.width // cell), -(-block.height // cell))

    def write_tiles(self, folder: Path) -> TileRecord:
        """Vectors and table of the tiles that have enough valid pixels, from the features on disk.

        Raises:
            InputError: no tile has.
        """
        with open_raster(folder / FEATURES) as features:

            def read(col0: int, row0: int, width: int, height: int) -> Dense:
                patch = features.read(col0, row0, width, height)
                values: NDArray[np.float32] = patch.data.astype(np.float32) * patch.valid * QUANTUM
                return Dense(values, patch.valid)

            cells, cell_px, channels = (features.height, features.width), self.encoder.cell_px, self.encoder.channels
            sample = sample_vectors(read, self.tiles, cells, self.encoder, self.options.min_valid)
            wanted = self.options.vectors, self.options.components
            plan = plan_vectors(len(self.tiles), sample.shape[1], channels, *wanted)
            vectors = VectorFiles(folder, fit_vectors(plan, sample))
            del sample
            with TileTable(folder / TILES, self.grid, self.tiles.size_px) as table:
                for block in tile_blocks(read, self.tiles, cells, cell_px, channels):
                    self.progress("vectors", block.done, block.total)
                    keep = block.found.valid_fraction >= self.options.min_valid
                    at_rows, at_cols = np.nonzero(keep)
                    vectors.add(block.found.vectors[keep])
                    table.add(block.col_starts[at_cols], block.row_starts[at_rows], block.found.valid_fraction[keep])
                self.progress("vectors", len(self.tiles), len(self.tiles))
            count = vectors.close()
        return TileRecord(self.tiles.size_px, self.tiles.stride_px, count, str(plan))

    def manifest(self, folder: Path, target: Path, tiles: TileRecord, rms: float) -> Manifest:
        """What the index in ``folder`` says about itself once it is at ``target``."""
        self.progress("hashing", 0, 1)
        source = self.raster.fingerprint()
        manifest = Manifest(
            geomatch_version=version("geomatch"),
            encoder=EncoderRecord(
                self.encoder.name, self.encoder.fingerprint(), self.encoder.channels, self.encoder.cell_px
            ),
            tiles=tiles,
            source=SourceRecord(
                path=str(self.raster.path),
                relative_path=os.path.relpath(self.raster.path, target.resolve()),
                size_bytes=source.size_bytes,
                mtime_ns=source.mtime_ns,
                sha256=source.sha256,
                col0=self.window.col0,
                row0=self.window.row0,
                scale=self.scale,
            ),
            grid=self.grid,
            stretch=self.stretch,
            feature_rms=rms,
            files={file.name: FileRecord(file.stat().st_size, sha256_of(file)) for file in sorted(folder.iterdir())},
        )
        self.progress("hashing", 1, 1)
        return manifest


def _feature_file(file: Path, cells: Grid, channels: int) -> rasterio.io.DatasetWriter:
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
        nodata=_NO_FEATURE,
        tiled=True,
        blockxsize=_FEATURE_BLOCK,
        blockysize=_FEATURE_BLOCK,
        bigtiff="if_safer",
    )
    out.scales = (1 / 127,) * channels
    return out


def _check_written(file: Path, total: int) -> None:
    """Raise OSError unless the file reads back as it was written: GDAL closes a file on a full disk without a word."""
    try:
        with open_raster(file) as raster:
            found = sum(int(block.patch.data.sum(dtype=np.int64)) for block in raster.blocks(BLOCK_PX))
    except InputError as error:
        raise OSError(errno.EIO, f"GDAL could not write the features: {error.what}", str(file)) from error
    if found != total:
        raise OSError(errno.EIO, "GDAL could not write all features", str(file))


__all__ = ["BuildOptions", "build_index", "build_index_with"]
