"""Where evaluation cuts its windows: at random places of a SAR scene that hold data and lie in the map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from shapely.geometry import Polygon, box

from geomatch.errors import InputError, UsageError
from geomatch.geo import Grid, pixel_between
from geomatch.raster import Raster
from geomatch.strips import MIN_STRIP_PX
from geomatch.tile_index import TileIndex

MIN_VALID = 0.99  # share of a window's pixels that must hold data
_TRIES = 200  # per window, before giving up on a scene that is mostly nodata


@dataclass(frozen=True)
class WindowOptions:
    """Which windows are cut.

    Attributes:
        windows: how many.
        size_px: side, pixels of the SAR scene.
        seed: of their places.
        bbox: (left, bottom, right, top) in the map's CRS that they must lie in, or None for the whole index.
        aligned: whether they lie on the index's tile grid, the easier protocol of the papers.
    """

    windows: int = 500
    size_px: int = 200
    seed: int = 0
    bbox: tuple[float, float, float, float] | None = None
    aligned: bool = False

    def __post_init__(self) -> None:
        if self.windows < 1 or self.size_px < MIN_STRIP_PX:
            raise UsageError(
                f"{self.windows} windows of {self.size_px} px are not possible",
                hint=f"take at least 1 window of at least {MIN_STRIP_PX} px",
            )


def window_corners(
    raster: Raster, grid: Grid, index: TileIndex, options: WindowOptions, *, on_map: bool
) -> Iterator[tuple[int, int]]:
    """First pixels of windows that hold data and, on the map, lie inside the part that is asked for."""
    rng = np.random.default_rng(options.seed)
    size = options.size_px
    area = _area(index, options) if on_map else None
    span = _span(raster, grid, index, size, area)
    found = 0
    for _ in range(_TRIES * options.windows):
        if found == options.windows:
            return
        if options.aligned and on_map:
            corner = index.corner(int(rng.integers(len(index))))
            at = pixel_between(index.grid, grid, corner)
            col, row = int(np.rint(at[0])), int(np.rint(at[1]))
        else:
            col, row = (int(rng.integers(low, high + 1)) for low, high in span)
        inside = 0 <= col <= raster.width - size and 0 <= row <= raster.height - size
        if inside and area is not None:
            window = grid.window(col, row, size, size)
            outline = Polygon(pixel_between(window, index.grid, window.corners_px))
            inside = area.covers(outline)
        if inside and raster.read(col, row, size, size).valid.mean() >= MIN_VALID:
            found += 1
            yield col, row
    raise InputError(
        f"only {found} of {options.windows} windows of {size} px lie in the map and hold data",
        where=raster.path,
        hint="look whether the scene overlaps the map, or take fewer or smaller windows",
    )


def _span(
    raster: Raster, grid: Grid, index: TileIndex, size: int, area: Polygon | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Columns and rows among which first pixels of windows are drawn: where the scene meets the area."""
    highest = np.array([raster.width, raster.height]) - size
    low, high = np.zeros(2), highest.astype(np.float64)
    if area is not None:
        px = pixel_between(index.grid, grid, np.asarray(area.exterior.coords))
        low, high = np.maximum(low, np.floor(px.min(axis=0))), np.minimum(high, np.ceil(px.max(axis=0)) - size)
    if (high < low).any():
        raise InputError(
            f"no window of {size} px of the scene lies in the map",
            where=raster.path,
            hint="look whether the two overlap, gdalinfo prints their extents, or take smaller windows",
        )
    return (int(low[0]), int(high[0])), (int(low[1]), int(high[1]))


def _area(index: TileIndex, options: WindowOptions) -> Polygon:
    """Where windows may lie, in pixels of the index's map; half a pixel beyond its edge is no matter."""
    whole = box(0, 0, index.grid.width, index.grid.height).buffer(0.5, join_style="mitre")
    if options.bbox is None:
        return whole
    left, bottom, right, top = options.bbox
    asked = Polygon(index.grid.to_pixel([(left, bottom), (right, bottom), (right, top), (left, top)]))
    common = asked.buffer(0.5, join_style="mitre").intersection(whole)
    if not isinstance(common, Polygon) or common.is_empty:
        raise UsageError(
            f"the box {options.bbox} does not touch the index", hint="geomatch index info prints its extent"
        )
    return common
