"""Ground control points of a placed SAR file, as GDAL and QGIS read them.

``.tif`` is the file itself with the points in the place of its georeferencing, ``.points`` what QGIS's georeferencer
opens, ``.txt`` options ``-gcp`` for ``gdal_translate --optfile``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import rasterio
import rasterio.crs
from pyproj import CRS
from pyproj.enums import WktVersion
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

from geomatch.errors import OutputError, UsageError
from geomatch.gdal import GDAL_OPTIONS, local_file, open_dataset
from geomatch.location import TiePoint
from geomatch.outputs import output_file
from geomatch.raster import open_raster

Write = Callable[[Sequence[TiePoint], CRS, Path, Path], None]


def write_gcps(
    points: Sequence[TiePoint], crs: CRS, sar: str | os.PathLike[str], target: str | os.PathLike[str]
) -> None:
    """Write ground control points of a SAR file.

    Args:
        points: pixels of the file and where they lie.
        crs: of where they lie.
        sar: the file.
        target: ``.tif``, ``.points`` or ``.txt``; what is there is replaced.

    Raises:
        UsageError: another kind of file.
        InputError: the SAR file cannot be read.
        OutputError: the target cannot be written.
    """
    path = Path(target)
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        hint = f"end its name in {', '.join(WRITERS)}"
        raise UsageError(f"unknown kind of file {path.suffix!r}", where=path, hint=hint)
    with output_file(path) as file:
        try:
            write(points, crs, Path(sar), file)
        except (RasterioError, CPLE_BaseError) as error:
            hint = "free some space or choose another place"
            raise OutputError(f"cannot be written ({error})", where=path, hint=hint) from error


def _write_points(points: Sequence[TiePoint], crs: CRS, sar: Path, file: Path) -> None:
    """As QGIS has it: rows are negative, and every point is enabled."""
    del sar
    lines = [f"#CRS: {crs.to_wkt()}", "mapX,mapY,sourceX,sourceY,enable,dX,dY,residual"]
    lines += [f"{one.x!r},{one.y!r},{one.col!r},{-one.row!r},1,0,0,0" for one in points]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_options(points: Sequence[TiePoint], crs: CRS, sar: Path, file: Path) -> None:
    authority = crs.to_authority()
    text = ":".join(authority) if authority else crs.to_wkt(WktVersion.WKT2_2019).replace("\n", " ")
    where = f"-a_srs {_quoted(text)}\n"
    lines = [f"-gcp {one.col!r} {one.row!r} {one.x!r} {one.y!r}" for one in points]
    file.write_text(where + "\n".join(lines) + "\n", encoding="utf-8")


def _quoted(text: str) -> str:
    """As one word of an ``--optfile``, in which a backslash keeps a quote and itself."""
    plain = not set(text) & set('" \\')
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _write_geotiff(points: Sequence[TiePoint], crs: CRS, sar: Path, file: Path) -> None:
    """A copy of the file's bands and of its mask, block by block."""
    gcps = [GroundControlPoint(row=one.row, col=one.col, x=one.x, y=one.y) for one in points]
    open_raster(sar).close()  # refuses what geomatch does not read
    with rasterio.Env(**GDAL_OPTIONS, GDAL_TIFF_INTERNAL_MASK=True), open_dataset(local_file(sar)) as source:
        masked = source.mask_flag_enums[0] == [MaskFlags.per_dataset]  # beside the bands, neither nodata nor alpha
        profile = {
            "driver": "GTiff",
            "width": source.width,
            "height": source.height,
            "count": source.count,
            "dtype": source.dtypes[0],
            "nodata": source.nodata,
            "compress": "DEFLATE",
            "tiled": True,
            "BIGTIFF": "IF_SAFER",
            "gcps": gcps,
            "crs": rasterio.crs.CRS.from_wkt(crs.to_wkt()),
        }
        with rasterio.open(file, "w", **profile) as copy:
            copy.colorinterp = source.colorinterp
            for _, window in copy.block_windows(1):
                copy.write(source.read(window=window), window=window)
                if masked:
                    copy.write_mask(source.read_masks(1, window=window), window=window)


WRITERS: dict[str, Write] = {".points": _write_points, ".tif": _write_geotiff, ".txt": _write_options}
