"""A map of many files on pixels of another size, resampled as one image so that no edge between files shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geomatch.gdal import gdal_session, lies_nowhere
from geomatch.geo import Grid
from geomatch.imagery import Closing, Orthomosaic
from geomatch.patches import Patch, blank, chosen_bands, scaled_grid
from geomatch.tiff import Limits

PIECE_PX = 2048  # side of what is read and resampled at a time, pixels of the map
MARGIN_PX = 2  # of the map, which bilinear interpolation looks at
_LEAST_SHARE = 1e-6  # of a pixel that must be valid


class Rescaled(Closing):
    """Averages of a map's pixels where those asked for are larger, else between them; ``geomatch.imagery.Imagery``.

    GDAL's kernels on arrays of what the map reads, rather than each file warped by itself: then a pixel that lies over
    an edge between two files is of both.

    Args:
        source: the map at its own pixels, closed with this.
        grid: of the map.
        scale: sides of the pixels, in those of the map.
        limits: on windows and on the number of pixels.

    Raises:
        LimitError: so many pixels are more than the limits allow.
    """

    def __init__(self, source: Orthomosaic, grid: Grid, scale: float, limits: Limits) -> None:
        self._source, self._own, self._scale, self._limits = source, grid, scale, limits
        self.grid = scaled_grid(grid, scale, limits, source.name)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._source.name

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of the map's files."""
        return self._source.paths

    def close(self) -> None:
        """Close the map's files."""
        self._source.close()

    def holders(self, corners_px: ArrayLike, size_px: float) -> NDArray[np.int32]:
        """As ``geomatch.imagery.Imagery``."""
        return self._source.holders(np.asarray(corners_px, np.float64) * self._scale, size_px * self._scale)

    def read(self, col0: int, row0: int, width: int, height: int, *, bands: Sequence[int] | None = None) -> Patch:
        """As ``geomatch.imagery.Imagery``; a window is resampled in pieces, so that memory is bounded."""
        chosen = chosen_bands(bands, self._source.data_bands, self.name)
        patch = blank((len(chosen), height, width), self._source.dtype, self._limits, self.name)
        side = max(1, int(PIECE_PX / self._scale))
        right, bottom = min(col0 + width, self.grid.width), min(row0 + height, self.grid.height)
        for top in range(max(row0, 0), bottom, side):
            for left in range(max(col0, 0), right, side):
                size = min(side, right - left), min(side, bottom - top)
                inside = np.s_[top - row0 : top - row0 + size[1], left - col0 : left - col0 + size[0]]
                patch.data[:, *inside], patch.valid[inside] = self._piece(left, top, *size, chosen)
        return patch

    def _piece(
        self, left: int, top: int, width: int, height: int, bands: list[int]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A window inside the map: data [B x H x W] and validity [H x W]."""
        edges = np.array([[left, top], [left + width, top + height]]) * self._scale
        first, last = np.floor(edges[0]).astype(int) - MARGIN_PX, np.ceil(edges[1]).astype(int) + MARGIN_PX
        (col0, row0), (cols, rows) = first.tolist(), (last - first).tolist()
        seen = self._source.read(col0, row0, cols, rows, bands=bands)
        if not seen.valid.any():
            return np.zeros((len(bands), height, width), self._source.dtype), np.zeros((height, width), np.bool_)
        sums, share = self._summed(seen, self._own.window(col0, row0, cols, rows), (left, top, width, height))
        if self._scale > 1:
            valid = np.asarray(share > _LEAST_SHARE)
        else:  # where the pixel of the map beneath the middle is
            down, across = (
                np.floor((np.arange(start, start + count) + 0.5) * self._scale).astype(int) - at
                for start, count, at in ((top, height, row0), (left, width, col0))
            )
            valid = seen.valid[np.ix_(down, across)]
        means = sums / np.maximum(share, _LEAST_SHARE)
        if np.issubdtype(self._source.dtype, np.integer):
            means = np.floor(means + 0.5)  # as GDAL rounds
        return np.where(valid, means, 0).astype(self._source.dtype), valid

    def _summed(
        self, seen: Patch, grid: Grid, window: tuple[int, int, int, int]
    ) -> tuple[NDArray[Any], NDArray[np.floating[Any]]]:
        """Weighted sums of the valid pixels of a patch [B x H x W], and of their weights [H x W].

        Args:
            seen: pixels of the map.
            grid: where they lie.
            window: first column and row, width and height to be made of them.
        """
        kind = np.result_type(self._source.dtype, np.float32)
        planes = np.concatenate([np.where(seen.valid, seen.data, 0), seen.valid[None]]).astype(kind)
        sums = np.zeros((len(planes), window[3], window[2]), kind)
        crs = grid.crs.to_wkt()
        with gdal_session(self.paths[0]), lies_nowhere():
            reproject(
                planes,
                sums,
                src_transform=grid.transform,
                dst_transform=self.grid.window(*window).transform,
                src_crs=crs,
                dst_crs=crs,
                resampling=Resampling.average if self._scale > 1 else Resampling.bilinear,
            )
        return sums[:-1], sums[-1]
