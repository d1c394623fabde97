"""Answers written to a file: RFC 7946 GeoJSON, GeoPackage or GeoParquet, by the suffix."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from shapely.geometry import shape

from geomatch.errors import OutputError, UsageError
from geomatch.extras import needs_extra
from geomatch.files import check_target, published
from geomatch.location import Location

Answers = Sequence[tuple[str, Location]]
Write = Callable[[dict[str, Any], Path], None]

LAYER = "locations"  # of a GeoPackage
_COLUMNS = {
    "file": "object",
    "status": "object",
    "confidence": "float64",
    "error_radius_m": "float64",
    "crs": "object",
    "center_x": "float64",
    "center_y": "float64",
    **{f"transform_{letter}": "float64" for letter in "abcdef"},
    "accuracy": "object",
    "peak": "float64",
    "peak_ratio": "float64",
    "fine_peak": "float64",
    "windows": "int64",
    "inliers": "int64",
    "seconds": "float64",
    "notes": "object",
}


def feature_collection(answers: Answers) -> dict[str, Any]:
    """An RFC 7946 FeatureCollection: a Feature per answer in the order given, footprints in CRS84.

    Args:
        answers: (file as the user named it, its Location); bytes of a name that are no UTF-8 become "?".

    Raises:
        InputError: a footprint has no longitude and latitude.
    """
    features = [location.to_feature(file.encode(errors="replace").decode()) for file, location in answers]
    return {"type": "FeatureCollection", "features": features}


def check_locations_path(path: str | os.PathLike[str]) -> None:
    """Find out before the work whether ``write_locations`` could write there.

    Raises:
        UsageError: the suffix is not known, or its writer needs a package that is not installed.
        OutputError: as ``check_target`` says.
    """
    target = Path(path)
    writer = _writer(target)
    if writer is not _write_geojson:
        with needs_extra("gis", f"writing {target.suffix}"):
            import geopandas  # noqa: F401
            import pyogrio  # noqa: F401
    check_target(target)


def write_locations(answers: Answers, path: str | os.PathLike[str]) -> None:
    """Write answers in the order given, whole or not at all.

    ``.geojson`` is ``feature_collection``. ``.gpkg`` (layer "locations") and ``.parquet`` (GeoParquet) are tables with
    one row per answer: the properties and the evidence of its Location side by side but for the candidates, ``seconds``
    in total, ``notes`` joined by "; ". Footprints are in longitude and latitude on WGS 84; an answer without a place
    has none.

    Args:
        answers: (file as the user named it, its Location).
        path: what is there is replaced.

    Raises:
        UsageError: the suffix is not known, or its writer needs a package that is not installed.
        OutputError: it cannot be written.
        InputError: a footprint has no longitude and latitude.
    """
    target = Path(path)
    check_locations_path(target)
    collection = feature_collection(answers)
    with output_file(target) as file:
        _writer(target)(collection, file)


@contextmanager
def output_file(target: Path) -> Iterator[Path]:
    """``published`` for one file, with whatever the operating system refuses told as OutputError.

    Read before the block, not in it: an OSError in it is blamed on ``target``.
    """
    try:
        with published(target) as file:
            yield file
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot be written ({reason})", where=target, hint="choose another place") from error


def _writer(target: Path) -> Write:
    try:
        return _WRITERS[target.suffix.lower()]
    except KeyError:
        what = f"unknown kind of file {target.suffix!r}"
        raise UsageError(what, where=target, hint=f"end its name in {', '.join(_WRITERS)}") from None


def _write_geojson(collection: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(collection, allow_nan=False) + "\n", encoding="utf-8")


def _write_geopackage(collection: dict[str, Any], file: Path) -> None:
    # In memory: where the disk is full, GDAL tells pages of SQL, and Python the cause.
    content = BytesIO()
    # One declared type whatever the answers are: an antimeridian makes a MultiPolygon, "absent" a null.
    frame = _frame(collection, "EPSG:4326")
    frame.to_file(content, driver="GPKG", layer=LAYER, engine="pyogrio", geometry_type="MultiPolygon")
    file.write_bytes(content.getvalue())


def _write_geoparquet(collection: dict[str, Any], file: Path) -> None:
    _frame(collection, "OGC:CRS84").to_parquet(file, index=False)


def _frame(collection: dict[str, Any], crs: str) -> Any:
    """The features as a GeoDataFrame with the columns of ``_COLUMNS``."""
    import geopandas
    import pandas as pd

    rows = [_row(feature["properties"]) for feature in collection["features"]]
    shapes = [shape(feature["geometry"]) if feature["geometry"] else None for feature in collection["features"]]
    table = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    return geopandas.GeoDataFrame(table, geometry=geopandas.GeoSeries(shapes, crs=crs))


def _row(properties: dict[str, Any]) -> dict[str, Any]:
    """A Location's properties without nesting."""
    evidence = properties["evidence"]
    center = properties["center"] or (None, None)
    transform = properties["transform"] or (None,) * 6
    return {
        **{name: properties[name] for name in ("file", "status", "confidence", "error_radius_m", "crs")},
        **dict(zip(("center_x", "center_y"), center, strict=True)),
        **{f"transform_{letter}": number for letter, number in zip("abcdef", transform, strict=True)},
        **{name: evidence[name] for name in ("accuracy", "peak", "peak_ratio", "fine_peak", "windows", "inliers")},
        "seconds": sum(evidence["seconds"].values()),
        "notes": "; ".join(evidence["notes"]),
    }


_WRITERS: dict[str, Write] = {
    ".geojson": _write_geojson,
    ".gpkg": _write_geopackage,
    ".parquet": _write_geoparquet,
}
