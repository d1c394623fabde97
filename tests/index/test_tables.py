"""The tile table as geopandas reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from shapely.geometry import Polygon

from geomatch.geo import Grid, as_crs
from geomatch.index.pooler import Tiles
from geomatch.index.tables import TileTable, table_rows

TRANSFORMS = {
    "north up": Affine(0.5, 0, 595_000, 0, -0.5, 5_333_000),
    "south up": Affine(0.5, 0, 595_000, 0, 0.5, 5_333_000),
    "rotated": Affine.translation(595_000, 5_333_000) @ Affine.rotation(33) @ Affine.scale(0.5, -0.5),
}


def tiles(cols: list[int], rows: list[int], valid: list[float]) -> Tiles:
    """Whose vectors do not matter."""
    at = (np.array(side, np.int32) for side in (cols, rows))
    return Tiles(0, np.empty((len(cols), 0), np.float32), *at, np.array(valid, np.float32))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_geopandas_reads_the_right_squares(name: str, tmp_path: Path) -> None:
    a, b, c, d, e, f = tuple(TRANSFORMS[name])[:6]
    places = [(0, 0), (16, 0), (0, 32), (300, 123)]
    grid = Grid(as_crs("EPSG:32633"), TRANSFORMS[name], 900, 700)
    with TileTable(tmp_path / "t.parquet", grid) as table:
        some = tiles([0, 16, 0], [0, 0, 32], [1, 0.5, 0.75])
        table.add(table_rows(grid, 200, some, np.array([0, 2, 1], np.int32)))
        table.add(table_rows(grid, 200, tiles([300], [123], [0.9]), np.array([3], np.int32)))
    frame = geopandas.read_parquet(tmp_path / "t.parquet")
    assert frame.crs == "EPSG:32633"
    assert frame["id"].tolist() == [0, 1, 2, 3]
    assert list(zip(frame["col"], frame["row"], strict=True)) == places
    assert frame["valid_fraction"].tolist() == pytest.approx([1, 0.5, 0.75, 0.9])
    assert frame["source"].tolist() == [0, 2, 1, 3]
    for tile, (col, row) in zip(frame.itertuples(), places, strict=True):
        square = [(col, row), (col + 200, row), (col + 200, row + 200), (col, row + 200)]
        expected = Polygon([(a * x + b * y + c, d * x + e * y + f) for x, y in square])
        assert tile.geometry.equals_exact(expected, 1e-6) or tile.geometry.symmetric_difference(expected).area < 1e-3
        assert (tile.x, tile.y) == pytest.approx((expected.centroid.x, expected.centroid.y), abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 1_000])
def test_polygons_are_those_that_shapely_writes(count: int) -> None:
    rng = np.random.default_rng(count)
    cols, rows = rng.integers(0, 50_000, (2, count)).tolist()
    grid = Grid(as_crs("EPSG:32633"), TRANSFORMS["rotated"], 60_000, 60_000)
    made = table_rows(grid, 200, tiles(cols, rows, [1.0] * count), np.zeros(count, np.int32))
    corners = np.stack([cols, rows], axis=1).astype(float).reshape(-1, 1, 2)
    rings = grid.to_map(corners + np.array([[0, 0], [200, 0], [200, 200], [0, 200], [0, 0]]))
    assert made["geometry"].to_pylist() == shapely.to_wkb(shapely.polygons(rings)).tolist()


def test_degrees_stay_longitude_first(tmp_path: Path) -> None:
    grid = Grid(as_crs("EPSG:4326"), Affine(1e-5, 0, 16.2, 0, -1e-5, 48.1), 900, 700)
    with TileTable(tmp_path / "t.parquet", grid) as table:
        table.add(table_rows(grid, 200, tiles([0], [0], [1]), np.zeros(1, np.int32)))
    frame = geopandas.read_parquet(tmp_path / "t.parquet")
    assert frame.crs == "EPSG:4326"
    assert frame.geometry[0].bounds == pytest.approx((16.2, 48.098, 16.202, 48.1))
    assert (frame["x"][0], frame["y"][0]) == pytest.approx((16.201, 48.099))


def test_no_tile_is_a_table_of_none(tmp_path: Path) -> None:
    grid = Grid(as_crs("EPSG:32633"), TRANSFORMS["north up"], 900, 700)
    with TileTable(tmp_path / "t.parquet", grid) as table:
        table.add(table_rows(grid, 200, tiles([], [], []), np.empty(0, np.int32)))
    assert len(geopandas.read_parquet(tmp_path / "t.parquet")) == 0


def test_pandas_is_not_loaded_for_it(tmp_path: Path) -> None:
    """It takes longer to import than a small table to write."""
    script = f"""
import sys
import numpy as np
from affine import Affine
from pathlib import Path
from geomatch.geo import Grid, as_crs
from geomatch.index.pooler import Tiles
from geomatch.index.tables import TileTable, table_rows
grid, at = Grid(as_crs("EPSG:32633"), Affine(1, 0, 0, 0, -1, 0), 900, 700), np.arange(3, dtype=np.int32)
with TileTable(Path({str(tmp_path)!r}) / "t.parquet", grid) as table:
    table.add(table_rows(grid, 200, Tiles(0, np.empty((3, 0), np.float32), at, at, np.ones(3, np.float32)), at))
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=120, check=False).returncode == 0
