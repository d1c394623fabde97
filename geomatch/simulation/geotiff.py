"""Rasters written as tiled GeoTIFF."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

TILE_PX = 256
COMPRESSION = {"driver": "GTiff", "compress": "deflate", "zlevel": 1, "num_threads": 2}


def write_geotiff(
    path: Path,
    image: NDArray[np.uint8] | NDArray[np.float32],
    transform: Affine | None,
    crs: str | None,
    *,
    tags: Mapping[str, str] | None = None,
    overviews: bool = False,
) -> None:
    """Write an image [H, W] or [H, W, 3] as a deflated GeoTIFF, with averaged overviews down to a tile if asked.

    GDAL writes to memory, since its overviews crash the process when the disk is full.

    Args:
        path: the file to write.
        image: uint8 or float32.
        transform: pixel corner to ``crs``, rotated if need be; None, like ``crs``, leaves the file without a
            georeference.
        crs: authority and code.
        tags: metadata.
        overviews: whether to add overviews.

    Raises:
        OSError: when the file cannot be written.
    """
    bands = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    count, height, width = bands.shape
    options: dict[str, object] = {**COMPRESSION, "photometric": "RGB" if count == 3 else "MINISBLACK"}
    options["predictor"] = 3 if image.dtype == np.float32 else 2
    if min(height, width) >= TILE_PX:
        options |= {"tiled": True, "blockxsize": TILE_PX, "blockysize": TILE_PX}
    if transform is not None:
        options |= {"transform": transform, "crs": crs}
    shape = {"count": count, "height": height, "width": width, "dtype": image.dtype.name}
    with MemoryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(**shape, **options) as target:
            target.write(bands)
            target.update_tags(**(tags or {}))
            factors = [2**level for level in range(1, 8) if min(height, width) >= TILE_PX * 2**level]
            if overviews and factors:
                target.build_overviews(factors, Resampling.average)
        path.write_bytes(file.getbuffer())
