"""Tiles pooled and projected at once, against FAISS's transforms of the tiles' vectors."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from geomatch.index import pooler
from geomatch.index.pooler import Pooler, Tiles
from geomatch.index.vectors import PartFeatures, TilePart
from geomatch.structure import Dense
from geomatch.tiles import TileGrid, tile_vectors, vector_size

CELL_PX = 8
MIN_VALID = 0.5
KINDS = ["PCA12,L2norm,Flat", "PCAW12,Flat", "OPQ4_8,PQ4x4", "L2norm,Flat", "Flat"]


def features(width_px: int, height_px: int, channels: int, valid_share: float = 1.0) -> Dense:
    """Of another mean in every channel."""
    rows, cols = -(-height_px // CELL_PX), -(-width_px // CELL_PX)
    rng = np.random.default_rng(channels)
    valid = rng.random((rows, cols)) < valid_share
    means = rng.normal(0, 1, (channels, 1, 1))
    return Dense(((rng.normal(0, 0.3, (channels, rows, cols)) + means) * valid).astype(np.float32), valid)


def fitted(kind: str, dimensions: int) -> faiss.Index:
    index = faiss.index_factory(dimensions, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(np.random.default_rng(0).normal(0, 1, (400, dimensions)).astype(np.float32))
    return index


def by_faiss(index: faiss.Index, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    if isinstance(index, faiss.IndexPreTransform):
        for number in range(index.chain.size()):
            vectors = index.chain.at(number).apply(vectors)
    return vectors


def pooled(index: faiss.Index, dense: Dense, grid: TileGrid) -> Tiles:
    """All tiles of a grid as one part, which begins at 30 cells and 70 tiles of something larger."""
    make = Pooler(index, len(dense.values), grid.size_px, CELL_PX, MIN_VALID)
    part = TilePart(70, grid.col_starts + 240, grid.row_starts + 240)
    return make(part, PartFeatures(dense, grid.col_starts, grid.row_starts))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("valid_share", [1.0, 0.6, 0.0])
@pytest.mark.parametrize(
    "grid", [TileGrid(130, 120, 64, 16), TileGrid(131, 64, 64, 7), TileGrid(90, 99, 37, 25)], ids=str
)
def test_vectors_are_those_of_tiles_after_faiss(kind: str, valid_share: float, grid: TileGrid) -> None:
    dense, size = features(grid.width, grid.height, 4, valid_share), grid.size_px
    plain = tile_vectors(dense, grid.col_starts, grid.row_starts, size, CELL_PX)
    keep = plain.valid_fraction >= MIN_VALID
    assert keep.any() == (valid_share > 0)
    index = fitted(kind, vector_size(4, size))
    found = pooled(index, dense, grid)
    rows, cols = np.nonzero(keep)
    assert found.done == 70 + len(grid)
    assert found.searched.dtype == np.float32
    np.testing.assert_allclose(found.searched, by_faiss(index, plain.vectors[keep]), atol=1e-5)
    np.testing.assert_array_equal(found.cols, grid.col_starts[cols] + 240)
    np.testing.assert_array_equal(found.rows, grid.row_starts[rows] + 240)
    np.testing.assert_allclose(found.valid_fraction, plain.valid_fraction[keep], atol=1e-6)


def test_where_all_is_valid_long_vectors_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("they were")

    monkeypatch.setattr(pooler, "tile_vectors", refuse)
    grid = TileGrid(130, 120, 64, 16)
    index = fitted(KINDS[0], vector_size(3, 64))
    assert len(pooled(index, features(130, 120, 3), grid).searched) == len(grid)
    with pytest.raises(AssertionError, match="they were"):
        pooled(index, features(130, 120, 3, 0.9), grid)


def test_tile_that_shows_nothing_is_what_a_zero_vector_becomes() -> None:
    grid = TileGrid(64, 64, 64, 16)
    index = fitted(KINDS[0], vector_size(3, 64))
    flat = Dense(np.full((3, 8, 8), 0.5, np.float32), np.ones((8, 8), bool))
    expected = by_faiss(index, np.zeros((1, vector_size(3, 64)), np.float32))
    np.testing.assert_allclose(pooled(index, flat, grid).searched, expected, atol=1e-5)


def test_parts_are_put_one_behind_the_other() -> None:
    grid = TileGrid(130, 120, 64, 16)
    index = fitted("Flat", vector_size(3, 64))
    made = [pooled(index, features(130, 120, 3, share), grid) for share in (1.0, 0.0, 0.6)]
    whole = Tiles.joined(iter(made))
    assert whole.done == made[-1].done
    assert len(whole.searched) == sum(len(part.searched) for part in made) > len(grid)
    np.testing.assert_array_equal(whole.rows, np.concatenate([part.rows for part in made]))
