"""GDAL as geomatch wants it: plain local GeoTIFFs only, nothing that lies beside them, its errors told as ours."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import CRS
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geomatch.errors import InputError, UnrectifiedError
from geomatch.geo import Grid, as_crs

GDAL_OPTIONS: dict[str, str | int] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecars
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_CACHEMAX": 64 << 20,  # bytes, for the whole process
}


def set_block_cache(size_bytes: int) -> None:
    """Keep at least up to so many bytes of decoded blocks in this process, for who reads the same again and again."""
    GDAL_OPTIONS["GDAL_CACHEMAX"] = max(size_bytes, int(GDAL_OPTIONS["GDAL_CACHEMAX"]))


_WARNINGS_LOCK = threading.Lock()  # warnings.catch_warnings changes the state of the whole process


def local_file(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a readable regular file, which GDAL cannot take for one of its own notations.

    Raises:
        InputError: missing, not readable, not a regular file, or virtual.
    """
    given = Path(path)
    hint = "give the path of a GeoTIFF on this machine"
    try:
        resolved = given.resolve()
        if not is_text(resolved):
            raise InputError("its name is not UTF-8", where=given, hint="rename it")
        if resolved.is_dir():
            raise InputError("this is a folder", where=given, hint=hint)
        if str(resolved).startswith("/vsi"):
            raise InputError("virtual and remote files are not opened", where=given, hint=hint)
        if not resolved.exists():
            raise InputError("no such file", where=given, hint=hint)
        if not resolved.is_file():
            raise InputError("not a regular file", where=given, hint=hint)
        with resolved.open("rb"):
            return resolved
    except PermissionError as error:
        raise InputError("permission denied", where=given, hint="check who may read it with ls -l") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be opened ({error})", where=given, hint=hint) from error


def is_text(path: Path) -> bool:
    """Whether a path can be written as UTF-8, as GDAL wants it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def open_dataset(path: Path, **options: int) -> Any:
    """A rasterio dataset of the GeoTIFF at ``path``, an absolute path that ``local_file`` gave.

    Args:
        path: where it is.
        options: of GDAL's GeoTIFF driver or rasterio, such as ``overview_level``.

    Raises:
        InputError: GDAL cannot open it.
    """
    with gdal_session(path), lies_nowhere():
        return rasterio.open(path, driver="GTiff", GEOREF_SOURCES="INTERNAL", **options)


@contextmanager
def lies_nowhere() -> Iterator[None]:
    """Without warnings of images that have no place: files may have none, and rasterio's copies of arrays have none."""
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def gdal_session(path: Path) -> Iterator[None]:
    """GDAL with the options above, its errors told as InputError about ``path``.

    Damaged tags surface as GDAL's own errors or as text that is no UTF-8 wherever rasterio looks at them first.
    """
    try:
        with rasterio.Env(**GDAL_OPTIONS):
            yield
    except (RasterioError, CPLE_BaseError, UnicodeDecodeError, MemoryError) as error:
        cause = error.__cause__ or error
        raise InputError(
            f"cannot be read as a GeoTIFF ({cause})",
            where=path,
            hint="gdalinfo -checksum shows whether the file is intact; if it is not, copy it again",
        ) from error


def control_points(dataset: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], CRS] | None:
    """Ground control points of a file: [N x 2] columns and rows, [N x 2] map coordinates, and their CRS, or None."""
    points, crs = dataset.gcps
    if not points or not crs:
        return None
    table = np.array([(point.col, point.row, point.x, point.y) for point in points], np.float64)
    return table[:, :2], table[:, 2:], as_crs(crs)


def georeference(dataset: Any, path: Path) -> tuple[Grid | None, InputError | None]:
    """The georeference of a file, or why it has none."""
    gcps, _ = dataset.gcps
    rectify = f"rectify it with gdalwarp -t_srs EPSG:CODE {path.name} rectified.tif"
    located = not dataset.transform.is_identity
    if dataset.crs and located:
        try:
            return Grid(as_crs(dataset.crs), dataset.transform, dataset.width, dataset.height), None
        except InputError as error:
            return None, InputError(error.what, where=path, hint=error.hint)
    if gcps:
        return None, UnrectifiedError("located by ground control points only", where=path, hint=rectify)
    if dataset.rpcs is not None:
        return None, UnrectifiedError(
            "located by an RPC model only", where=path, hint=rectify.replace("-t_srs", "-rpc -t_srs")
        )
    if located:
        hint = f"say which it is with gdal_translate -a_srs EPSG:CODE {path.name} located.tif"
        return None, InputError("the file has no CRS", where=path, hint=hint)
    hint = f"write one with gdal_translate -a_srs EPSG:CODE -a_ullr LEFT TOP RIGHT BOTTOM {path.name} located.tif"
    return None, InputError("the file has no geotransform", where=path, hint=hint)
