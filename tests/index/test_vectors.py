"""Vectors by rows are the vectors of the whole, and FAISS finds what brute force finds."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from geomatch.encoder import StructuralEncoder
from geomatch.errors import InputError, UsageError
from geomatch.index import vectors
from geomatch.index.plan import BuildOptions
from geomatch.index.vectors import ReadRows, fit_vectors, vectors_by_rows, write_vectors
from geomatch.structure import Dense
from geomatch.tiles import TileGrid, tile_vectors, vector_size

CELL_PX = 8
FLAT = BuildOptions(vectors="Flat")


def field(width_px: int, height_px: int, seed: int = 0) -> Dense:
    rows, cols = -(-height_px // CELL_PX), -(-width_px // CELL_PX)
    rng = np.random.default_rng(seed)
    valid = rng.random((rows, cols)) > 0.1
    return Dense((rng.normal(0, 0.3, (3, rows, cols)) * valid).astype(np.float32), valid)


def reader(dense: Dense) -> ReadRows:
    def read(row0: int, height: int) -> Dense:
        assert row0 >= 0
        assert height > 0
        assert row0 + height <= dense.valid.shape[0]
        return dense.crop(0, row0, dense.valid.shape[1], height)

    return read


@pytest.mark.parametrize("chunk", [1, 5_000, 1 << 23])
@pytest.mark.parametrize(("height", "stride"), [(333, 16), (330, 17), (200, 8), (207, 50)])
def test_rows_at_a_time_give_the_vectors_of_the_whole(
    chunk: int, height: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "CHUNK_VALUES", chunk)
    dense, tiles = field(260, height), TileGrid(260, height, 200, stride)
    whole = tile_vectors(dense, tiles.col_starts, tiles.row_starts, 200, CELL_PX)
    pieces = list(vectors_by_rows(reader(dense), tiles, dense.valid.shape[0], CELL_PX, 3))
    assert np.concatenate([part for _, _, part, _ in pieces]).tolist() == tiles.row_starts.tolist()
    assert [done for done, _, _, _ in pieces] == sorted({done for done, _, _, _ in pieces})
    assert {total for _, total, _, _ in pieces} == {len(tiles.row_starts)}
    np.testing.assert_allclose(np.concatenate([found.vectors for *_, found in pieces]), whole.vectors, atol=1e-6)
    shares = np.concatenate([found.valid_fraction for *_, found in pieces])
    np.testing.assert_allclose(shares, whole.valid_fraction, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_rows_at_a_time_are_as_many_as_their_vectors_allow(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = TileGrid(260, 333, 200, 16)
    row = len(tiles.col_starts) * vector_size(channels, 200)
    monkeypatch.setattr(vectors, "CHUNK_VALUES", 3 * row)
    values = np.ones((channels, 42, 33), np.float32)
    dense = Dense(values, np.ones((42, 33), bool))
    pieces = [part for _, _, part, _ in vectors_by_rows(reader(dense), tiles, 42, CELL_PX, channels)]
    assert [len(part) for part in pieces] == [3, 3, 3, 1]


def test_flat_search_is_exact() -> None:
    dense, tiles = field(330, 290), TileGrid(330, 290, 200, 16)
    index, factory = fit_vectors(reader(dense), tiles, dense.valid.shape[0], StructuralEncoder(), FLAT)
    gallery = tile_vectors(dense, tiles.col_starts, tiles.row_starts, 200, CELL_PX).vectors.reshape(-1, 432)
    assert factory == "Flat"
    assert index.ntotal == 0
    index.add(gallery)
    queries = gallery[::7] + np.random.default_rng(1).normal(0, 0.03, gallery[::7].shape).astype(np.float32)
    scores, ids = index.search(queries, 5)
    plain = queries @ gallery.T
    np.testing.assert_allclose(scores, -np.sort(-plain, axis=1)[:, :5], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(plain, ids, axis=1), scores, atol=1e-5)


def test_reduction_is_fitted_to_the_tiles_that_count() -> None:
    dense, tiles = field(520, 520), TileGrid(520, 520, 200, 8)
    index, factory = fit_vectors(reader(dense), tiles, dense.valid.shape[0], StructuralEncoder(), BuildOptions())
    assert factory.startswith("PCA256,L2norm,")
    assert isinstance(index, faiss.IndexPreTransform)
    gallery = tile_vectors(dense, tiles.col_starts, tiles.row_starts, 200, CELL_PX).vectors.reshape(-1, 432)
    index.add(gallery)
    _, ids = index.search(gallery[::50], 1)
    assert ids[:, 0].tolist() == list(range(0, len(gallery), 50))


def test_map_of_nodata_says_so() -> None:
    dense, tiles = field(330, 290), TileGrid(330, 290)
    empty = Dense(np.zeros_like(dense.values), np.zeros_like(dense.valid))
    with pytest.raises(InputError, match=r"no tile of the map has 50% valid pixels.*--min-valid"):
        fit_vectors(reader(empty), tiles, dense.valid.shape[0], StructuralEncoder(), BuildOptions())


@pytest.mark.parametrize("wrong", ["Nonsense", "PQ7", "IVF4096,Flat", ""])
def test_what_faiss_cannot_make_is_a_usage_error(wrong: str) -> None:
    dense, tiles = field(330, 290), TileGrid(330, 290)
    with pytest.raises(UsageError, match=r"FAISS cannot make.*--vectors at auto"):
        fit_vectors(reader(dense), tiles, dense.valid.shape[0], StructuralEncoder(), BuildOptions(vectors=wrong))


def test_vectors_that_cannot_be_written_are_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="FAISS could not write"):
        write_vectors(faiss.IndexFlatIP(4), tmp_path / "missing" / "vectors.faiss")
