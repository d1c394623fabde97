"""Open GeoTIFFs safely and read windows of them, with one answer to which pixels hold data.

What a file says about itself counts, never what lies beside it: world files, ``.aux.xml``, ``.ovr`` and ``.msk`` are
not looked at, so that one path is one source and its sha256 covers all that is read. Only plain local GeoTIFFs are
opened; a VRT or a GDAL path like ``/vsicurl/`` could make GDAL read anything that the process may.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geomatch.errors import InputError
from geomatch.gdal import control_points, gdal_session, georeference, local_file, open_dataset
from geomatch.geo import Grid, linear_between
from geomatch.imagery import Closing
from geomatch.patches import Patch, blank, chosen_bands, nearest, scaled_grid
from geomatch.tiff import DEFAULT_LIMITS, Limits, check_tiff

__all__ = ["DEFAULT_LIMITS", "Block", "Limits", "Patch", "Raster", "Source", "fingerprint", "open_raster"]

PIECE_BYTES = 32 << 20
PIECE_COLUMNS = 4096
SAMPLE_PIECE_PX = 512
AVERAGED_FROM = 1.5  # of its own pixels to a side of another grid's; below, averaging would blur what it turns


@dataclass(frozen=True)
class Block:
    """One piece of a raster cut into pieces, with a margin around it.

    Attributes:
        col0: first column of the core, pixels of the raster.
        row0: first row of the core.
        width: columns of the core.
        height: rows of the core.
        halo: margin on every side, pixels.
        patch: the core with its margin: [B x (height + 2 halo) x (width + 2 halo)].
    """

    col0: int
    row0: int
    width: int
    height: int
    halo: int
    patch: Patch


@dataclass(frozen=True)
class Source:
    """What identifies a file's content.

    Attributes:
        size_bytes: length of the file.
        mtime_ns: time of the last change, nanoseconds since 1970.
        sha256: of the content, hexadecimal.
    """

    size_bytes: int
    mtime_ns: int
    sha256: str


class Raster(Closing):
    """A GeoTIFF opened for reading; a context manager. One object serves one thread, as GDAL's datasets do.

    Attributes:
        path: absolute path of the file.
        grid: where its pixels lie, or None.
        control: for a file located by ground control points alone, their [N x 2] columns and rows, [N x 2] map
            coordinates and CRS, else None.
        no_grid: why ``grid`` is None and what to do, as an InputError to raise or to quote, else None.
        width: columns, pixels.
        height: rows, pixels.
        count: bands, alpha included.
        data_bands: 1-based numbers of the bands that hold data, so without alpha.
        dtype: numpy type of what is read (complex integers are read as complex64).
        nodata: the declared nodata value, or None.
    """

    def __init__(self, dataset: Any, path: Path, limits: Limits) -> None:
        self._dataset = dataset
        self._limits = limits
        self.path = path
        self.width: int = dataset.width
        self.height: int = dataset.height
        self.count: int = dataset.count
        self.nodata: float | None = dataset.nodata
        alpha = [i for i, color in enumerate(dataset.colorinterp, start=1) if color == ColorInterp.alpha]
        self._alpha_band = alpha[0] if alpha else None
        self.data_bands = tuple(i for i in dataset.indexes if i not in alpha)
        self.dtype = np.result_type(*(_numpy_dtype(dataset.dtypes[i - 1]) for i in self.data_bands or (1,)))
        self.grid, self.no_grid = georeference(dataset, path)
        self.control = None if self.grid else control_points(dataset)

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file alone, as ``geomatch.imagery.Imagery`` asks for."""
        return (self.path,)

    def holders(self, corners_px: ArrayLike, size_px: float) -> NDArray[np.int32]:
        """As ``geomatch.imagery.Imagery``: the one file holds all."""
        del size_px
        return np.zeros(len(np.asarray(corners_px)), np.int32)

    def close(self) -> None:
        """Close the file; reading afterwards is an InputError."""
        self._dataset.close()

    def at_scale(self, scale: float) -> Raster:
        """The same on pixels of another size, to be read by windows: averages, or bilinear where they are smaller.

        Args:
            scale: sides of its pixels, in those of the file.

        Raises:
            InputError: the file has no georeferencing, or GDAL cannot resample it.
            LimitError: so many pixels are more than the limits allow.
        """
        if scale == 1:
            return self
        if self.grid is None:
            raise self.no_grid or InputError("has no georeferencing", where=self.path)
        grid = scaled_grid(self.grid, scale, self._limits, self.path)
        return self._resampled(self._dataset.crs, grid, Resampling.average if scale > 1 else Resampling.bilinear)

    def on_grid(self, grid: Grid) -> Raster:
        """The same on any other grid, averaged where its pixels are much larger, else bilinear.

        Raises:
            InputError: the file has no georeferencing, or GDAL cannot bring it there.
        """
        if self.grid is None:
            raise self.no_grid or InputError("has no georeferencing", where=self.path)
        scale = np.sqrt(abs(np.linalg.det(linear_between(grid, self.grid))))
        resampling = Resampling.average if scale >= AVERAGED_FROM else Resampling.bilinear
        return self._resampled(grid.crs.to_wkt(), grid, resampling)

    def _resampled(self, crs: Any, grid: Grid, resampling: Resampling) -> Raster:
        with gdal_session(self.path):
            resampled = WarpedVRT(
                self._dataset,
                crs=crs,
                transform=grid.transform,
                width=grid.width,
                height=grid.height,
                resampling=resampling,
                add_alpha=self._alpha_band is None,
            )
            return Raster(resampled, self.path, self._limits)

    def read(self, col0: int, row0: int, width: int, height: int, *, bands: Sequence[int] | None = None) -> Patch:
        """The ``width`` × ``height`` px window whose first pixel is (col0, row0); outside the raster zero and invalid.

        A pixel is invalid where the internal mask or the alpha band is 0, where any band read is not finite, or where
        all bands read equal the nodata value (one band alone may reach it by chance, as black does in a colour image).

        Args:
            col0: first column, may be negative.
            row0: first row, may be negative.
            width: columns, at least 1.
            height: rows, at least 1.
            bands: 1-based band numbers, default all data bands.

        Raises:
            UsageError: no such band, or an empty window.
            LimitError: the window takes more memory than the limits allow.
            InputError: the file cannot be decoded there.
        """
        chosen = chosen_bands(bands, self.data_bands, self.path)
        patch = blank((len(chosen), height, width), self.dtype, self._limits, self.path)
        left, right = max(col0, 0), min(col0 + width, self.width)
        top, bottom = max(row0, 0), min(row0 + height, self.height)
        if left < right and top < bottom:
            inside = np.s_[top - row0 : bottom - row0, left - col0 : right - col0]
            window = Window(left, top, right - left, bottom - top)
            patch.data[:, *inside], patch.valid[inside] = self._decode(self._dataset, chosen, window)
        return patch

    def overview(
        self, max_size_px: int = 1024, *, bands: Sequence[int] | None = None, most_px: int | None = None
    ) -> Patch:
        """The whole raster by nearest neighbour, its longer side at most ``max_size_px``; internal overviews are used.

        GDAL's own decimated reads took 40 times as long on a tiled JPEG (GDAL 3.10), so pieces are read and thinned.

        Args:
            max_size_px: of the longer side.
            bands: 1-based, default all data bands.
            most_px: to decode; of a larger file, pieces that lie scattered over it, the rest invalid; default all.

        Raises:
            UsageError: no such band.
            InputError: the file cannot be decoded.
        """
        chosen = chosen_bands(bands, self.data_bands, self.path)
        ratio = min(1.0, max_size_px / max(self.width, self.height))
        height, width = max(1, round(self.height * ratio)), max(1, round(self.width * ratio))
        patch = blank((len(chosen), height, width), self.dtype, self._limits, self.path)
        with self._coarse(max(height, width)) as source:
            rows, cols = nearest(source.height, height), nearest(source.width, width)
            for window in self._some_pieces(source, len(chosen), most_px):
                top, bottom = np.searchsorted(rows, [window.row_off, window.row_off + window.height])
                left, right = np.searchsorted(cols, [window.col_off, window.col_off + window.width])
                if top < bottom and left < right:
                    pixels, usable = self._decode(source, chosen, window)
                    pick = np.ix_(rows[top:bottom] - window.row_off, cols[left:right] - window.col_off)
                    patch.data[:, top:bottom, left:right] = pixels[:, *pick]
                    patch.valid[top:bottom, left:right] = usable[pick]
        return patch

    def sample(self, size_px: int, *, bands: Sequence[int], least: int, most_px: int) -> NDArray[Any]:
        """As ``geomatch.imagery.Orthomosaic``, from overviews of at most ``size_px``."""
        patch = self.overview(size_px, bands=bands, most_px=most_px)
        if patch.valid.sum() < least:  # little data, of which the pieces may have missed most
            patch = self.overview(size_px, bands=bands)
        values: NDArray[Any] = patch.data[:, patch.valid]
        return values

    def blocks(self, size: int, halo: int = 0, *, bands: Sequence[int] | None = None) -> Iterator[Block]:
        """The raster cut into ``size`` × ``size`` px cores, row by row, the last ones smaller, each with its margin.

        Raises:
            UsageError, LimitError, InputError: as ``read``.
        """
        for row0 in range(0, self.height, size):
            for col0 in range(0, self.width, size):
                width, height = min(size, self.width - col0), min(size, self.height - row0)
                patch = self.read(col0 - halo, row0 - halo, width + 2 * halo, height + 2 * halo, bands=bands)
                yield Block(col0, row0, width, height, halo, patch)

    @contextmanager
    def _coarse(self, size_px: int) -> Iterator[Any]:
        """The smallest internal overview that still has ``size_px`` on its longer side, or the raster itself."""
        longer = max(self.width, self.height)
        levels = [i for i, factor in enumerate(self._dataset.overviews(1)) if longer // factor >= size_px]
        if not levels:
            yield self._dataset
            return
        with open_dataset(self.path, overview_level=levels[-1]) as dataset:
            yield dataset

    def _some_pieces(self, source: Any, bands: int, most_px: int | None) -> Iterator[Window]:
        """All pieces of ``source``, or some that have about ``most_px`` in all, in an order without a pattern."""
        share = 1.0 if most_px is None else most_px / (source.width * source.height)
        if share >= 1:
            yield from self._pieces(source, bands, PIECE_COLUMNS, PIECE_BYTES)
            return
        columns = SAMPLE_PIECE_PX
        pieces = list(self._pieces(source, bands, columns, columns**2 * bands * self.dtype.itemsize))
        for number in np.random.default_rng(0).permutation(len(pieces))[: max(1, round(share * len(pieces)))]:
            yield pieces[number]

    def _pieces(self, source: Any, bands: int, columns: int, size_bytes: int) -> Iterator[Window]:
        """Windows of whole internal blocks that cover ``source``, each about so large, or one block row."""
        block_height, block_width = source.block_shapes[0]
        width = min(source.width, -(-columns // block_width) * block_width)
        rows = size_bytes // (width * bands * self.dtype.itemsize)
        height = max(1, rows // block_height) * block_height
        for row in range(0, source.height, height):
            for col in range(0, source.width, width):
                yield Window(col, row, min(width, source.width - col), min(height, source.height - row))

    def _decode(self, source: Any, bands: list[int], window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        with gdal_session(self.path):
            data = source.read(bands, window=window, out_dtype=self.dtype)
            valid = _finite(data)
            if self._has_internal_mask:
                valid &= source.read_masks(bands[0], window=window) > 0
            if self._alpha_band is not None:
                valid &= source.read(self._alpha_band, window=window) > 0
        if self.nodata is not None:
            # Compared in the file's own type: a float32 minimum written as a decimal is another float64.
            valid &= ~(data == np.float64(self.nodata).astype(self.dtype)).all(axis=0)
        return data, valid

    @cached_property
    def _has_internal_mask(self) -> bool:
        flags = self._dataset.mask_flag_enums[0]
        return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def open_raster(path: str | os.PathLike[str], *, limits: Limits | None = None, need_grid: bool = False) -> Raster:
    """Open a local GeoTIFF for reading, having checked what it declares.

    Args:
        path: a regular file; GDAL's own kinds of path (``/vsicurl/``, ``GTIFF_DIR:1:``) are files that do not exist.
        limits: what it may ask for, default ``Limits.from_env()``.
        need_grid: whether a file without georeferencing is an error.

    Raises:
        InputError: missing, not a plain GeoTIFF, truncated, unsafe, or without georeferencing where it is needed.
        LimitError: it declares more than the limits allow.
    """
    resolved = local_file(path)
    limits = limits or Limits.from_env()
    check_tiff(resolved, limits)
    dataset = open_dataset(resolved)
    try:
        with gdal_session(resolved):
            # GDAL would open whatever OVERVIEW_FILE names, a URL included.
            if dataset.tags(ns="OVERVIEWS"):
                hint = f"copy it with gdal_translate -nomd {resolved.name} plain.tif"
                raise InputError("the file names another file as its overview", where=resolved, hint=hint)
            raster = Raster(dataset, resolved, limits)
        if need_grid and raster.no_grid is not None:
            raise raster.no_grid
    except BaseException:
        dataset.close()
        raise
    return raster


def fingerprint(path: Path) -> Source:
    """Size, time and sha256 of a file; the content is streamed, so it takes as long as reading the file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        status = os.fstat(file.fileno())
    return Source(status.st_size, status.st_mtime_ns, digest.hexdigest())


def _finite(data: NDArray[Any]) -> NDArray[np.bool_]:
    """Where all bands [B x H x W] are finite; whole numbers are, and need not be asked."""
    if np.issubdtype(data.dtype, np.integer):
        return np.ones(data.shape[1:], np.bool_)
    return np.asarray(np.isfinite(data).all(axis=0))


def _numpy_dtype(name: str) -> np.dtype[Any]:
    """numpy's type for rasterio's name; it has no complex integers."""
    return np.dtype("complex64" if name.startswith("complex_int") else name)
