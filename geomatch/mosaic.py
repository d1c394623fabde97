"""A map that is delivered as many GeoTIFFs, read as one raster.

The first file's CRS, pixel size and origin make the grid. Files on that grid are pasted as they are; others are
resampled onto it. Where several cover a pixel, the first one given that has data there counts.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely.geometry import Polygon

from geomatch.errors import InputError, UsageError
from geomatch.geo import Grid, pixel_between
from geomatch.imagery import Closing, Imagery, Orthomosaic
from geomatch.patches import Patch, blank, chosen_bands, nearest
from geomatch.raster import Raster, open_raster
from geomatch.rescaled import Rescaled
from geomatch.tiff import Limits

ON_GRID_PX = 1e-3  # corners no farther than this from whole pixels are on them
OPEN_FILES = 64  # at a time; systems allow a process some hundreds
SQUARE_PX = 512  # side of the parts that a sample is taken of
SIDE_POINTS = 16  # along a side of a file that lies otherwise, to find what it covers


@dataclass(frozen=True)
class Part:
    """A file of a mosaic.

    Attributes:
        path: absolute.
        col0, row0, width, height: whole pixels of the mosaic that it lies in.
        aligned: whether its pixels are the mosaic's, so that none is resampled.
        outline: of the file, (column, row) of the mosaic.
    """

    path: Path
    col0: int
    row0: int
    width: int
    height: int
    aligned: bool
    outline: Polygon

    def moved(self, cols: int, rows: int) -> Part:
        """The same, counted from elsewhere."""
        outline = shapely.transform(self.outline, lambda points: points + (cols, rows))
        return replace(self, col0=self.col0 + cols, row0=self.row0 + rows, outline=outline)


class Mosaic(Closing):
    """Many files as one map, ``geomatch.imagery.Orthomosaic``; files are opened when a window meets them.

    Args:
        parts: the files, the one that counts first.
        grid: where the mosaic lies.
        dtype: of all files.
        data_bands: of all files.
        limits: what each of them and each window may ask for.
    """

    def __init__(
        self, parts: Sequence[Part], grid: Grid, dtype: np.dtype[Any], data_bands: tuple[int, ...], limits: Limits
    ) -> None:
        self.grid, self.dtype, self.data_bands = grid, dtype, data_bands
        self._parts, self._limits = parts, limits
        self._tree = shapely.STRtree([part.outline for part in parts])
        self._boxes = shapely.STRtree([shapely.box(*_box(part)) for part in parts])
        self._open: OrderedDict[int, tuple[ExitStack, Raster]] = OrderedDict()

    @classmethod
    def open(cls, paths: Sequence[str | os.PathLike[str]], limits: Limits | None = None) -> Mosaic:
        """A mosaic of files, each of which is looked at.

        Args:
            paths: GeoTIFFs, the one that counts first.
            limits: what each and all may ask for, default as the environment says.

        Raises:
            UsageError: a file is given twice.
            InputError: a file cannot be used, see ``open_raster``, has no georeferencing, or has other bands or
                another type than the first.
            LimitError: the grid over all of them is larger than the limits allow.
        """
        limits = limits or Limits.from_env()
        heads = [_Head.of(path, limits) for path in paths]
        _check_apart(heads)
        first = heads[0]
        parts = [head.part(first) for head in heads]
        low = np.min([_box(part)[:2] for part in parts], axis=0)
        width, height = np.max([_box(part)[2:] for part in parts], axis=0) - low
        what = f"a map of {width} × {height} pixels over all {len(parts)} rasters"
        hint = "build an index of each group of neighbouring rasters"
        limits.check("max_pixels", int(width) * int(height), what, _name(heads[0].path, len(parts)), hint)
        col0, row0 = (int(value) for value in low)
        grid = first.grid.window(col0, row0, int(width), int(height))
        return cls([part.moved(-col0, -row0) for part in parts], grid, first.dtype, first.data_bands, limits)

    @property
    def name(self) -> str:
        """What messages call it."""
        return _name(self._parts[0].path, len(self._parts))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of the files, in the order in which they count."""
        return tuple(part.path for part in self._parts)

    @property
    def width(self) -> int:
        """Columns, pixels."""
        return self.grid.width

    @property
    def height(self) -> int:
        """Rows, pixels."""
        return self.grid.height

    def close(self) -> None:
        """Close the files that are open; whoever reads afterwards opens them again."""
        while self._open:
            _, (opened, _) = self._open.popitem()
            opened.close()

    def at_scale(self, scale: float) -> Imagery:
        """As ``geomatch.imagery.Orthomosaic``."""
        return self if scale == 1 else Rescaled(self, self.grid, scale, self._limits)

    def read(self, col0: int, row0: int, width: int, height: int, *, bands: Sequence[int] | None = None) -> Patch:
        """As ``geomatch.imagery.Imagery``; of files that meet the window, those are read that fill a gap."""
        chosen = chosen_bands(bands, self.data_bands, self.name)
        patch = blank((len(chosen), height, width), self.dtype, self._limits, self.name)
        for number in np.sort(self._boxes.query(shapely.box(col0, row0, col0 + width, row0 + height))):
            part = self._parts[number]
            left, right = max(col0, part.col0), min(col0 + width, part.col0 + part.width)
            top, bottom = max(row0, part.row0), min(row0 + height, part.row0 + part.height)
            inside = np.s_[top - row0 : bottom - row0, left - col0 : right - col0]
            if left >= right or top >= bottom or patch.valid[inside].all():
                continue
            window = left - part.col0, top - part.row0, right - left, bottom - top
            seen = self._opened(int(number)).read(*window, bands=chosen)
            np.copyto(patch.data[:, *inside], seen.data, where=seen.valid & ~patch.valid[inside])
            patch.valid[inside] |= seen.valid
        return patch

    def holders(self, corners_px: ArrayLike, size_px: float) -> NDArray[np.int32]:
        """As ``geomatch.imagery.Imagery``."""
        corners = np.asarray(corners_px, np.float64)
        middles = np.floor(corners + size_px / 2) + 0.5  # of the pixel there, which lies in one file of those that abut
        held = self._firsts(np.asarray(shapely.points(middles)))
        left = held < 0
        held[left] = self._firsts(np.asarray(shapely.box(*corners[left].T, *(corners[left] + size_px).T)))
        return np.maximum(held, 0)

    def sample(self, size_px: int, *, bands: Sequence[int], least: int, most_px: int) -> NDArray[Any]:
        """As ``geomatch.imagery.Orthomosaic``: what an overview of ``size_px`` shows, of squares spread over the files.

        Where files lie far apart an overview shows little of them; then every pixel of the squares is taken.
        """
        coarse = min(1.0, size_px / max(self.width, self.height))
        found = np.empty((len(bands), 0), self.dtype)
        for ratio, most in ((coarse, most_px), (1.0, most_px), (coarse, None)):
            values = self._spread(ratio, bands, most)
            found = max(found, values, key=lambda some: some.shape[1])
            if found.shape[1] >= least:
                break
        return found

    def _spread(self, ratio: float, bands: Sequence[int], most_px: int | None) -> NDArray[Any]:
        """Valid values [B x N] under a grid of pixels ``1 / ratio`` wide, of squares of about ``most_px`` in all."""
        rows, cols = (nearest(side, max(1, round(side * ratio))) for side in (self.height, self.width))
        values = [np.empty((len(bands), 0), self.dtype)]
        for row0, col0 in self._squares(most_px) * SQUARE_PX:
            down = rows[slice(*np.searchsorted(rows, [row0, row0 + SQUARE_PX]))] - row0
            across = cols[slice(*np.searchsorted(cols, [col0, col0 + SQUARE_PX]))] - col0
            if len(down) and len(across):
                patch = self.read(int(col0), int(row0), SQUARE_PX, SQUARE_PX, bands=bands)
                pick = np.ix_(down, across)
                values.append(patch.data[:, *pick][:, patch.valid[pick]])
        return np.concatenate(values, axis=1)

    def _squares(self, most_px: int | None) -> NDArray[np.int64]:
        """Rows and columns [N x 2] of squares that files lie in, or of some that lie scattered over them."""
        met = np.zeros((-(-self.height // SQUARE_PX), -(-self.width // SQUARE_PX)), np.bool_)
        for part in self._parts:
            left, top, right, bottom = _box(part)
            met[top // SQUARE_PX : -(-bottom // SQUARE_PX), left // SQUARE_PX : -(-right // SQUARE_PX)] = True
        places = np.argwhere(met)
        count = len(places) if most_px is None else max(1, most_px // SQUARE_PX**2)
        if count >= len(places):
            return places
        return places[np.sort(np.random.default_rng(0).permutation(len(places))[:count])]

    def _firsts(self, shapes: NDArray[Any]) -> NDArray[np.int32]:
        """Number of the first file that each of some shapes [N] meets, -1 where none does: [N]."""
        which, files = self._tree.query(shapes, predicate="intersects")
        first = np.full(len(shapes), len(self._parts), np.int32)
        np.minimum.at(first, which, files.astype(np.int32))
        return np.where(first < len(self._parts), first, np.int32(-1))

    def _opened(self, number: int) -> Raster:
        """A file on the mosaic's grid; of those open, the one that was longest not asked for is closed for it."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number][1]
        if len(self._open) >= OPEN_FILES:
            _, (oldest, _) = self._open.popitem(last=False)
            oldest.close()
        part = self._parts[number]
        with ExitStack() as stack:
            raster = stack.enter_context(open_raster(part.path, limits=self._limits, need_grid=True))
            if not part.aligned:
                window = part.col0, part.row0, part.width, part.height
                raster = stack.enter_context(raster.on_grid(self.grid.window(*window)))
            self._open[number] = stack.pop_all(), raster
        return raster


def open_orthomosaic(paths: Sequence[str | os.PathLike[str]], limits: Limits | None = None) -> Orthomosaic:
    """A map of one file or of many.

    Args:
        paths: GeoTIFFs, the one that counts first.
        limits: what each and all may ask for, default as the environment says.

    Raises:
        UsageError, InputError, LimitError: as ``Mosaic.open``; or there is no path.
    """
    if not paths:
        raise UsageError("no orthomosaic is given", hint="name a georeferenced GeoTIFF, or several")
    if len(paths) == 1:
        return open_raster(paths[0], limits=limits, need_grid=True)
    return Mosaic.open(paths, limits)


@dataclass(frozen=True)
class _Head:
    """What a file says about itself."""

    path: Path
    grid: Grid
    dtype: np.dtype[Any]
    data_bands: tuple[int, ...]

    @classmethod
    def of(cls, path: str | os.PathLike[str], limits: Limits) -> _Head:
        with open_raster(path, limits=limits, need_grid=True) as raster:
            assert raster.grid is not None, "opened with need_grid"
            return cls(raster.path, raster.grid, raster.dtype, raster.data_bands)

    @property
    def kind(self) -> str:
        """What all files of a mosaic must have in common."""
        return f"{len(self.data_bands)} bands of {self.dtype}"

    def part(self, first: _Head) -> Part:
        """Where it lies, in pixels of the first file."""
        hint = "leave it out, or bring all to one CRS with gdalwarp -t_srs"
        try:
            outline = pixel_between(self.grid, first.grid, _along(self.grid.corners_px))
        except InputError as error:
            what = f"has no place on the grid of {first.path.name}: {error.what}"
            raise InputError(what, where=self.path, hint=hint) from error
        size = self.grid.width, self.grid.height
        corner = np.rint(outline[0])
        whole = np.abs(outline - corner - _along(self.grid.corners_px)).max() <= ON_GRID_PX
        if self.grid.crs == first.grid.crs and whole:
            col0, row0 = (int(value) for value in corner)
            return Part(self.path, col0, row0, *size, True, shapely.box(col0, row0, col0 + size[0], row0 + size[1]))
        low, high = np.floor(outline.min(axis=0)).astype(int), np.ceil(outline.max(axis=0)).astype(int)
        (col0, row0), (width, height) = low.tolist(), (high - low).tolist()
        return Part(self.path, col0, row0, width, height, False, Polygon(outline))


def _along(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points along the sides between four corners, the first corner first: [N x 2]."""
    steps = np.linspace(0, 1, SIDE_POINTS, endpoint=False)[:, None]
    sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    return np.concatenate([start + steps * (end - start) for start, end in sides])


def _check_apart(heads: Sequence[_Head]) -> None:
    """Raise unless files are different ones that hold the same kind of pixels."""
    first, seen = heads[0], set()
    for head in heads:
        if head.path in seen:
            raise UsageError("is given twice", where=head.path, hint="name each raster of the map once")
        seen.add(head.path)
        if head.kind != first.kind:
            hint = "leave it out, or make it like the others with gdal_translate -b and -ot"
            raise InputError(f"has {head.kind}, {first.path.name} has {first.kind}", where=head.path, hint=hint)


def _box(part: Part) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a part, pixels."""
    return part.col0, part.row0, part.col0 + part.width, part.row0 + part.height


def _name(first: Path, count: int) -> str:
    return f"{first} and {count - 1} more"
