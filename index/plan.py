"""What will be built: options, the window of the map, the blocks to encode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geomatch import defaults
from geomatch.config import read_config
from geomatch.errors import UsageError
from geomatch.geo import Grid, as_crs, ground_resolution_m, transform_points
from geomatch.tiles import MIN_TILE_VALID, STRIDE_PX, TILE_PX, TileGrid

from .kinds import KINDS, Kind

BLOCK_PX = 2048  # a multiple of any cell; one block and its working copies take about 400 MB
WORKING_HINT = "give metres per pixel on the ground, or leave it out for the map's own"
MOST_FINER = 4.0  # than its own pixels a map may be indexed: what is between them it does not show


@dataclass(frozen=True)
class BuildOptions:
    """How to build an index.

    Attributes:
        tile_px: side of a tile.
        stride_px: from one tile to the next.
        encoder: as ``geomatch.encoder.load_encoder`` takes it.
        backend: what runs its network, see ``geomatch.backends``; "auto" tries on a large map what is fastest.
        vectors: "auto", or a FAISS factory string for the vectors after PCA, like "Flat" or "PQ64x4fs,RFlat"; pieces
            (``PQn``) that are not all of one size become fewer.
        components: of the PCA before the search; None for as many as do best, 0 for no PCA.
        kinds: what "auto" chooses from by the number of tiles: the first that is for so many.
        bbox: (left, bottom, right, top) of the part to index, or None for the whole map.
        bbox_crs: CRS of ``bbox``, or None for the map's.
        min_valid: tiles with a smaller share of valid pixels are left out.
        working_gsd_m: metres per pixel on the ground at which the map is indexed and strips are compared with it;
            None for the map's own.
    """

    tile_px: int = TILE_PX
    stride_px: int = STRIDE_PX
    encoder: str = defaults.ENCODER
    backend: str = defaults.BACKEND
    vectors: str = "auto"
    components: int | None = None
    bbox: tuple[float, float, float, float] | None = None
    bbox_crs: str | None = None
    min_valid: float = MIN_TILE_VALID
    working_gsd_m: float | None = None
    kinds: list[Kind] = field(default_factory=lambda: list(KINDS), hash=False)

    def __post_init__(self) -> None:
        if self.working_gsd_m is not None and not 0 < self.working_gsd_m < np.inf:
            raise UsageError(f"{self.working_gsd_m:g} m is no pixel size", where="working gsd", hint=WORKING_HINT)
        if not 0 < self.min_valid <= 1:
            what, hint = f"a valid share of {self.min_valid:g} is not possible", "take one above 0, up to 1"
            raise UsageError(what, where="--min-valid", hint=hint)
        if self.components is not None and self.components < 0:
            what, hint = f"{self.components} components are not possible", "take 0 for no PCA, or more"
            raise UsageError(what, where="--components", hint=hint)
        TileGrid(self.tile_px, self.tile_px, self.tile_px, self.stride_px)  # which says what is not possible


def read_options(file: Path | None, **given: Any) -> BuildOptions:
    """Options from YAML, default none, and on top of it those given that are not None.

    Raises:
        InputError: the file cannot be read as YAML.
        UsageError: an unknown key, or a value of the wrong kind.
    """
    options = read_config(file, BuildOptions, examples="configs/index") if file else BuildOptions()
    return replace(options, **{key: value for key, value in given.items() if value is not None})


def working_scale(grid: Grid, options: BuildOptions) -> float:
    """Sides of the pixels that are indexed, in those of the map.

    Raises:
        UsageError: they would be much finer than the map's, or so coarse that no tile is left.
    """
    if options.working_gsd_m is None:
        return 1.0
    own = ground_resolution_m(grid)
    scale = options.working_gsd_m / own
    if scale < 1 / MOST_FINER:
        raise UsageError(
            f"{options.working_gsd_m:g} m is much finer than the map's {own:.4g} m, which then shows nothing more",
            where="working gsd",
            hint=f"take {own / MOST_FINER:.3g} m or more",
        )
    return scale


@dataclass(frozen=True)
class Window:
    """Part of the map, in whole pixels."""

    col0: int
    row0: int
    width: int
    height: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """First column and row, width and height."""
        return self.col0, self.row0, self.width, self.height


def window_of(grid: Grid, options: BuildOptions) -> Window:
    """The pixels of the map that the options ask for: those that the bounding box touches.

    Raises:
        UsageError: the box has no area, or does not touch the map.
    """
    if options.bbox is None:
        return Window(0, 0, grid.width, grid.height)
    left, bottom, right, top = options.bbox
    if not (left < right and bottom < top):
        what, hint = f"the box {options.bbox} has no area", "give left,bottom,right,top, in this order"
        raise UsageError(what, where="--bbox", hint=hint)
    along = np.linspace(0, 1, 17)
    across, up = left + along * (right - left), bottom + along * (top - bottom)
    edge = np.concatenate(
        [
            np.stack(np.broadcast_arrays(x, y), axis=-1)
            for x, y in ((across, bottom), (across, top), (left, up), (right, up))
        ]
    )
    crs = grid.crs if options.bbox_crs is None else as_crs(options.bbox_crs)
    px = grid.to_pixel(transform_points(edge, crs, grid.crs))
    low = np.clip(np.floor(px.min(axis=0) + 1e-6), 0, grid.center_px * 2).astype(int)
    high = np.clip(np.ceil(px.max(axis=0) - 1e-6), 0, grid.center_px * 2).astype(int)
    if (high <= low).any():
        what, hint = f"the box {options.bbox} does not touch the map", "gdalinfo prints the map's extent"
        raise UsageError(what, where="--bbox", hint=hint)
    return Window(int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))


def blocks(window: Window) -> Iterator[Window]:
    """The window cut into blocks, row by row, the last ones smaller; relative to the window's first pixel."""
    for row0 in range(0, window.height, BLOCK_PX):
        for col0 in range(0, window.width, BLOCK_PX):
            yield Window(col0, row0, min(BLOCK_PX, window.width - col0), min(BLOCK_PX, window.height - row0))
