"""Pixels of a window, and what all that read windows have in common, be their pixels one file's or many files'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.geo import Grid
from geomatch.tiff import Limits


@dataclass(frozen=True)
class Patch:
    """Pixels of a window.

    Attributes:
        data: [B x H x W] in the file's dtype; zero outside the raster.
        valid: [H x W] bool, where there is data.
    """

    data: NDArray[Any]
    valid: NDArray[np.bool_]


def blank(shape: tuple[int, int, int], dtype: np.dtype[Any], limits: Limits, where: object) -> Patch:
    """A window of which nothing is read yet: zero and invalid.

    Args:
        shape: bands, height and width.
        dtype: of the data.
        limits: on its bytes.
        where: the image, for messages.

    Raises:
        UsageError: an empty window.
        LimitError: the window takes more memory than the limits allow.
    """
    bands, height, width = shape
    if width < 1 or height < 1:
        raise UsageError(f"a window of {width} × {height} pixels is empty", where=where)
    what = f"reading {bands} × {width} × {height}, in bytes,"
    limits.check("max_read_bytes", bands * width * height * dtype.itemsize, what, where, "read a smaller window")
    return Patch(np.zeros(shape, dtype=dtype), np.zeros((height, width), dtype=np.bool_))


def chosen_bands(bands: Sequence[int] | None, data_bands: Sequence[int], where: object) -> list[int]:
    """The bands that are asked for, default all data bands; raises UsageError where there are none, or no such."""
    chosen = list(data_bands if bands is None else bands)
    if not chosen or any(band not in data_bands for band in chosen):
        raise UsageError(f"bands {chosen} asked for, the file has {list(data_bands)}", where=where)
    return chosen


def nearest(source: int, target: int) -> NDArray[np.int64]:
    """Which of ``source`` pixels along a side lies under the centre of each of ``target`` pixels: [target]."""
    return ((np.arange(target) + 0.5) * source / target).astype(np.int64)


def scaled_grid(grid: Grid, scale: float, limits: Limits, where: object) -> Grid:
    """A grid's extent in pixels of another size.

    Args:
        grid: of the image.
        scale: sides of the other pixels, in those of ``grid``.
        limits: on their number.
        where: the image, for messages.

    Raises:
        LimitError: so many pixels are more than the limits allow.
    """
    width, height = max(1, round(grid.width / scale)), max(1, round(grid.height / scale))
    what, hint = f"{width} × {height} px at that pixel size", "take a larger pixel, or a part of the map"
    limits.check("max_pixels", width * height, what, where, hint)
    return Grid(grid.crs, grid.transform @ Affine.scale(scale), width, height)
