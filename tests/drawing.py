"""Draws the tiny GeoTIFFs that tests read, by rasterio or, for hostile ones, byte by byte."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

UTM11 = "EPSG:32611"
NORTH_UP = Affine(10.0, 0.0, 400_000.0, 0.0, -10.0, 3_700_000.0)


def write_tiff(
    path: Path,
    data: NDArray[Any],
    *,
    crs: str | None = UTM11,
    transform: Affine | None = NORTH_UP,
    mask: NDArray[np.bool_] | None = None,
    **profile: Any,
) -> Path:
    """Write [B x H x W] or [H x W] as a GeoTIFF, ``mask`` as its internal mask, and give its path back."""
    bands = data if data.ndim == 3 else data[None]
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "dtype": bands.dtype.name, "crs": crs, "transform": transform} | profile
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", width=width, height=height, count=count, **profile) as file:
            file.write(bands)
            if mask is not None:
                file.write_mask(mask)
    return path


def handmade_tiff(path: Path, tags: dict[int, int], *, body_bytes: int = 100) -> Path:
    """Write a little-endian TIFF of one directory with these tags (tag -> LONG) and a body of zeros after it."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    path.write_bytes(head + entries + struct.pack("<I", 0) + bytes(body_bytes))
    return path


def ramp(height: int, width: int, dtype: str = "uint16") -> NDArray[Any]:
    """[H x W] in which every pixel tells where it is: row × width + column, starting at 1."""
    return np.arange(1, height * width + 1).reshape(height, width).astype(dtype)
