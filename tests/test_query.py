"""A strip's query against a town's index: its true place is retrieved, verified, found nearby and by a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from towns import Town, view

from geomatch.locator import RETRIEVED_TILES
from geomatch.query import Query
from geomatch.strip_files import read_strip
from geomatch.tile_index import TileIndex

CENTRE = (380.0, 400.0)


@pytest.fixture(scope="module")
def index(town_index: Path) -> TileIndex:
    return TileIndex.open(town_index)


def query_of(town: Town, index: TileIndex, folder: Path, size: tuple[int, int]) -> Query:
    town.write_strip(folder / "s.tif", view(CENTRE, 0, 1, *size), size)
    return Query.of(index, read_strip(folder / "s.tif", index.grid).at())


def off(corners: NDArray[np.float64], query: Query) -> NDArray[np.float64]:
    return np.asarray(np.abs(corners + query.strip.middle_px - CENTRE).max(axis=-1))


@pytest.mark.parametrize("size", [(200, 200), (240, 420)])
def test_true_place_is_retrieved_and_verified_first(
    size: tuple[int, int], town: Town, index: TileIndex, tmp_path: Path
) -> None:
    query = query_of(town, index, tmp_path, size)
    assert query.tiled
    retrieved = query.retrieve(RETRIEVED_TILES)
    stride = index.manifest.tiles.stride_px
    assert off(retrieved.corners_px, query).min() <= stride
    verified = query.verify(retrieved)
    assert off(verified.corners_px[0], query).max() <= index.encoder.cell_px
    assert (np.diff(verified.scores) <= 0).all()
    assert off(query.scan().corners_px[0], query) <= index.encoder.cell_px


def test_place_is_found_nearby_but_not_far_off(town: Town, index: TileIndex, tmp_path: Path) -> None:
    query = query_of(town, index, tmp_path, (200, 200))
    near = query.nearby(np.array(CENTRE) + (11, -9))
    assert len(near) == 1
    assert off(near.corners_px[0], query) <= index.encoder.cell_px
    far = query.nearby(np.array(CENTRE) - 150)
    assert len(far) == 0 or far.scores[0] < 0.8 * near.scores[0]


def test_strip_smaller_than_a_tile_is_one_window(town: Town, index: TileIndex, tmp_path: Path) -> None:
    query = query_of(town, index, tmp_path, (120, 130))
    assert not query.tiled
    assert len(query.windows) == 1
    assert off(query.scan().corners_px[0], query) <= index.encoder.cell_px


@pytest.mark.parametrize(("size", "windows"), [((200, 200), 1), ((240, 240), 4), ((240, 420), 6)])
def test_cells_are_counted_once_however_windows_overlap(
    size: tuple[int, int], windows: int, town: Town, index: TileIndex, tmp_path: Path
) -> None:
    query = query_of(town, index, tmp_path, size)
    assert len(query.windows) == windows
    assert query.cells == query.dense.valid.sum()
    assert query.extent == pytest.approx(np.sqrt(size[0] * size[1]) / 200, rel=0.03)
