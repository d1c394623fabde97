"""geomatch finds where a SAR image was taken on an optical map.

    import geomatch

    geomatch.build_index("city.tif", "city.gmi")
    location = geomatch.Locator.open("city.gmi").locate("strip.tif")
    print(location.status, location.center, location.error_radius_m)

Names are imported when they are first used, so that ``import geomatch`` costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from geomatch import defaults

if TYPE_CHECKING:
    from geomatch.errors import GeomatchError
    from geomatch.location import Evidence, Location
    from geomatch.locator import Locator
    from geomatch.near import Near
    from geomatch.strip_files import StripOptions
    from geomatch.tile_index import TileIndex

__all__ = ["Evidence", "GeomatchError", "Location", "Locator", "Near", "StripOptions", "TileIndex", "build_index"]

_HOMES = {
    "Evidence": "geomatch.location",
    "GeomatchError": "geomatch.errors",
    "Location": "geomatch.location",
    "Locator": "geomatch.locator",
    "Near": "geomatch.near",
    "StripOptions": "geomatch.strip_files",
    "TileIndex": "geomatch.tile_index",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'geomatch' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def build_index(
    orthomosaic: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    bbox: tuple[float, float, float, float] | None = None,
    bbox_crs: str | None = None,
    tile_px: int = 200,
    stride_px: int = 16,
    encoder: str = defaults.ENCODER,
    backend: str = defaults.BACKEND,
    vectors: str = "auto",
    components: int | None = None,
    min_valid: float = 0.5,
    working_gsd_m: float | None = None,
    overwrite: bool = False,
    scheduler: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> TileIndex:
    """Build the index of an orthomosaic and open it.

    Args:
        orthomosaic: a georeferenced GeoTIFF, or several that together are one map, on the grid of the first; where
            several cover a pixel, the first that has data there counts.
        output: the directory to appear, by convention ``NAME.gmi``; written beside itself and renamed when complete.
        bbox: (left, bottom, right, top) of the part to index, default all of it.
        bbox_crs: CRS of ``bbox``, default the map's.
        tile_px: side of a tile.
        stride_px: from one tile to the next.
        encoder: what makes the features: "structural", the name of weights, or the path of a .safetensors file.
        backend: what runs its network: "auto", "torch", "onnxruntime", "openvino", "onnxruntime-int8" or
            "openvino-int8".
        vectors: "auto", or a FAISS factory string.
        components: of the PCA that vectors go through; None for as many as do best, 0 for no PCA.
        min_valid: tiles with a smaller share of valid pixels are left out.
        working_gsd_m: pixel at which map and strips are compared, metres; default the map's own.
        overwrite: replace an index that is there; it stays until the new one is complete.
        scheduler: address of a Dask scheduler, or "local:N" for N processes here; default this process alone.
        progress: called with the stage, what is done and the total.

    Raises:
        InputError: the orthomosaic cannot be used.
        UsageError: options that contradict each other.
        OutputError: the output cannot be written.
    """
    (job,) = entry_points(group="geomatch.jobs", name="build_index")
    watched = {} if progress is None else {"progress": progress}
    index: TileIndex = job.load()(
        orthomosaic,
        output,
        bbox=bbox,
        bbox_crs=bbox_crs,
        tile_px=tile_px,
        stride_px=stride_px,
        encoder=encoder,
        backend=backend,
        vectors=vectors,
        components=components,
        min_valid=min_valid,
        working_gsd_m=working_gsd_m,
        overwrite=overwrite,
        scheduler=scheduler,
        **watched,
    )
    return index
