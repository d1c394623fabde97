"""The grid of tiles, and pooled vectors against plain averages of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.structure import Dense
from geomatch.tiles import MIN_POOL_VALID, POOL_PX, TileGrid, starts, tile_vectors, vector_size

CELL_PX = 8


def random_dense(rows: int = 12, cols: int = 15, seed: int = 0, holes: int = 0) -> Dense:
    rng = np.random.default_rng(seed)
    valid = np.ones((rows, cols), bool)
    for row, col in rng.integers(0, (rows, cols), (holes, 2)):
        valid[row : row + 3, col : col + 2] = False
    return Dense((rng.normal(0, 0.4, (3, rows, cols)) * valid).astype(np.float32), valid)


def by_pixels(dense: Dense, col: int, row: int, size_px: int) -> tuple[NDArray[np.float64], float]:
    """A tile's vector and valid share, by repeating every cell over its pixels and averaging pixel by pixel."""
    pixels = np.repeat(np.repeat(dense.values, CELL_PX, axis=1), CELL_PX, axis=2).astype(float)
    known = np.repeat(np.repeat(dense.valid, CELL_PX, axis=0), CELL_PX, axis=1)
    pools = size_px // POOL_PX
    margin = (size_px - pools * POOL_PX) // 2
    vector, shares = np.zeros((3, pools, pools)), np.zeros((pools, pools))
    for i in range(pools):
        for j in range(pools):
            top, left = row + margin + i * POOL_PX, col + margin + j * POOL_PX
            at = np.s_[top : top + POOL_PX, left : left + POOL_PX]
            mask = known[at]
            shares[i, j] = mask.sum() / POOL_PX**2  # pixels beyond the last cell are not known
            if mask.any():
                vector[:, i, j] = pixels[:, *at][:, mask].mean(axis=1)
    counts = shares >= MIN_POOL_VALID
    for channel in vector:
        channel[counts] -= channel[counts].mean() if counts.any() else 0
        channel[~counts] = 0
    length = np.linalg.norm(vector)
    return vector.ravel() / (length or 1), float(shares.mean())


@pytest.mark.parametrize("size_px", [64, 72, 70, 16])
@pytest.mark.parametrize("holes", [0, 6])
def test_vectors_are_plain_averages_of_pixels(size_px: int, holes: int) -> None:
    dense = random_dense(holes=holes)
    cols, rows = np.array([0, 16, 17, 23, 120 - size_px], np.int32), np.array([0, 5, 96 - size_px], np.int32)
    found = tile_vectors(dense, cols, rows, size_px, CELL_PX)
    assert found.vectors.shape == (3, 5, vector_size(3, size_px))
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            vector, share = by_pixels(dense, int(col), int(row), size_px)
            np.testing.assert_allclose(found.vectors[i, j], vector, atol=2e-6)
            assert found.valid_fraction[i, j] == pytest.approx(share, abs=1e-6)


def test_vectors_have_length_one_or_are_zero() -> None:
    dense = random_dense()
    dense.values[:, :, :8] = 0.25
    found = tile_vectors(dense, np.array([0, 50], np.int32), np.array([0, 8], np.int32), 64, CELL_PX)
    lengths = np.linalg.norm(found.vectors, axis=2)
    np.testing.assert_allclose(lengths[:, 0], 0, atol=1e-5)
    np.testing.assert_allclose(lengths[:, 1], 1, atol=1e-5)


def test_inner_product_ignores_gain_and_level_of_a_channel() -> None:
    dense = random_dense()
    here = np.array([8], np.int32)
    level = np.array([1.0, -2.0, 0.5], np.float32)[:, None, None]
    other = Dense(dense.values * np.float32(3) + level, dense.valid)
    one, two = (tile_vectors(part, here, here, 64, CELL_PX).vectors[0, 0] for part in (dense, other))
    assert one @ two == pytest.approx(1, abs=1e-5)


def test_nothing_valid_is_zero_and_of_no_share() -> None:
    dense = random_dense()
    found = tile_vectors(
        Dense(np.zeros_like(dense.values), np.zeros_like(dense.valid)),
        np.array([0], np.int32),
        np.array([0], np.int32),
        64,
        CELL_PX,
    )
    assert not found.vectors.any()
    assert found.valid_fraction == 0


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 90))
def test_starts_cover_without_reaching_out(size: int, more: int, stride: int) -> None:
    length = size + more - 1
    found = starts(length, size, stride)
    assert found[0] == 0
    assert found[-1] == length - size
    steps = np.diff(found)
    assert (steps > 0).all()
    assert (steps[:-1] == stride).all()
    assert not len(steps) or steps[-1] <= stride


def test_grid_ends_flush_with_the_map() -> None:
    grid = TileGrid(500, 333, 200, 64)
    assert grid.col_starts.tolist() == [0, 64, 128, 192, 256, 300]
    assert grid.row_starts.tolist() == [0, 64, 128, 133]


def test_map_as_large_as_a_tile_is_one_tile() -> None:
    grid = TileGrid(200, 200)
    assert grid.col_starts.tolist() == grid.row_starts.tolist() == [0]


@pytest.mark.parametrize("sizes", [(199, 500), (500, 199), (1, 1)])
def test_map_smaller_than_a_tile_says_how_to_go_on(sizes: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"smaller than a tile.*--tile"):
        TileGrid(*sizes)


@pytest.mark.parametrize(("size_px", "stride_px"), [(200, 0), (200, -5), (31, 8), (0, 8)])
def test_impossible_tiles_are_refused(size_px: int, stride_px: int) -> None:
    with pytest.raises(UsageError, match="not possible"):
        TileGrid(500, 500, size_px, stride_px)
