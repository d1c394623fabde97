"""The tile table as GeoParquet, written in pieces so that its length does not matter."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geomatch.geo import Grid

from .pooler import Tiles

_REPEATED = ["source", "row", "valid_fraction"]  # columns worth a dictionary, which of others only takes time and room
_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("source", pa.int32()),
        ("row", pa.int32()),
        ("col", pa.int32()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("valid_fraction", pa.float32()),
        ("geometry", pa.binary()),
    ]
)
_SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
_WKB = np.dtype(  # of a polygon of one ring, after OGC 06-103r4
    [("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("ring", "<f8", _SQUARE.shape)]
)
_LITTLE_ENDIAN, _POLYGON = 1, 3


def table_rows(grid: Grid, size_px: int, tiles: Tiles, sources: NDArray[np.int32]) -> pa.Table:
    """Rows of tiles, all columns but their numbers.

    Args:
        grid: of the indexed window.
        size_px: side of a tile.
        tiles: N of them.
        sources: [N] numbers of the rasters that hold their centres.
    """
    corners = np.stack([tiles.cols, tiles.rows], axis=1).astype(np.float64)
    centers = grid.to_map(corners + size_px / 2)
    columns: dict[str, NDArray[Any]] = {
        "source": sources,
        "row": tiles.rows,
        "col": tiles.cols,
        "x": centers[:, 0],
        "y": centers[:, 1],
        "valid_fraction": tiles.valid_fraction,
    }
    arrays = [_column(values, _SCHEMA.field(name).type) for name, values in columns.items()]
    polygons = _wkb(grid.to_map(corners[:, None] + _SQUARE * size_px))
    return pa.Table.from_arrays([*arrays, polygons], schema=_SCHEMA.remove(0))


def _column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """As pyarrow makes it of numpy, but that it imports pandas first, where that is installed."""
    plain = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(plain), [None, pa.py_buffer(plain)])


def _wkb(rings: NDArray[np.float64]) -> pa.Array:
    """Polygons of rings [N x 5 x 2], as shapely writes them, without an object of Python for each."""
    made = np.zeros(len(rings), _WKB)
    made["order"], made["type"], made["rings"], made["points"] = _LITTLE_ENDIAN, _POLYGON, 1, len(_SQUARE)
    made["ring"] = rings
    ends = np.arange(len(rings) + 1, dtype=np.int32) * _WKB.itemsize
    return pa.Array.from_buffers(pa.binary(), len(rings), [None, pa.py_buffer(ends), pa.py_buffer(made)])


class TileTable:
    """Writes tiles in the order of their vectors; a context manager.

    Columns: id (row of the vectors), source (number of the raster that holds the centre), row and col (first pixel in
    the indexed window), x and y (centre, in the map's CRS), valid_fraction, geometry (polygon as WKB, after the
    GeoParquet 1.1 specification).

    Args:
        file: to write.
        grid: whose CRS the geometries are in.
    """

    def __init__(self, file: Path, grid: Grid) -> None:
        self._count = 0
        column = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": json.loads(grid.crs.to_json())}
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        schema = _SCHEMA.with_metadata({"geo": json.dumps(geo)})
        self._writer = pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=_REPEATED)

    def __enter__(self) -> TileTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, rows: pa.Table) -> None:
        """Append tiles as ``table_rows`` gives them, and number them."""
        numbers = _column(np.arange(self._count, self._count + len(rows)), pa.int64())
        numbered = rows.add_column(0, _SCHEMA.field(0), numbers)
        # A cast to the same types would load all of pyarrow.compute, which takes longer than to write a small table.
        self._writer.write_table(numbered.replace_schema_metadata(self._writer.schema.metadata))
        self._count += len(rows)
