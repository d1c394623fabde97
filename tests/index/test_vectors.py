"""Vectors of blocks of tiles are the vectors of the whole, and FAISS finds what brute force finds."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from towns import Town

from geomatch.encoder import StructuralEncoder
from geomatch.errors import InputError, UsageError
from geomatch.index import vectors
from geomatch.index.build import BuildOptions, build_index
from geomatch.index.kinds import KINDS, Kind, VectorPlan, plan_vectors
from geomatch.index.plan import BLOCK_PX
from geomatch.index.vectors import ReadCells, check_kind, fit_vectors, sample_vectors, tile_blocks, tile_parts
from geomatch.structure import Dense
from geomatch.tiles import MIN_TILE_VALID, TileGrid, tile_vectors, vector_size

CELL_PX = 8


def field(width_px: int, height_px: int, seed: int = 0) -> Dense:
    rows, cols = -(-height_px // CELL_PX), -(-width_px // CELL_PX)
    rng = np.random.default_rng(seed)
    valid = rng.random((rows, cols)) > 0.1
    return Dense((rng.normal(0, 0.3, (3, rows, cols)) * valid).astype(np.float32), valid)


def reader(dense: Dense) -> ReadCells:
    rows, cols = dense.valid.shape

    def read(col0: int, row0: int, width: int, height: int) -> Dense:
        assert 0 <= col0 < col0 + width <= cols
        assert 0 <= row0 < row0 + height <= rows
        return dense.crop(col0, row0, width, height)

    return read


def fitted(dense: Dense, tiles: TileGrid, kind: str = "auto") -> tuple[faiss.Index, str]:
    """As a build fits its vectors."""
    sample = sample_vectors(reader(dense), tiles, dense.valid.shape, StructuralEncoder(), MIN_TILE_VALID)
    chosen = plan_vectors(sample.of_tiles, sample.vectors.shape[1], 3, kind)
    return fit_vectors(chosen, sample.vectors), str(chosen)


def test_sample_of_a_map_that_is_full_counts_its_tiles() -> None:
    dense, tiles = field(700, 500), TileGrid(700, 500, 200, 16)
    sample = sample_vectors(reader(dense), tiles, dense.valid.shape, StructuralEncoder(), MIN_TILE_VALID)
    assert sample.of_tiles == len(tiles)


@pytest.mark.parametrize("wanted", [200, 20])
def test_sample_is_denser_where_little_of_the_map_is_valid(wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid in a corner: tiles there are a twentieth of the grid's, and the sample is of them."""
    monkeypatch.setattr(vectors, "SAMPLE_TILES", wanted)
    dense, tiles = field(1600, 1600), TileGrid(1600, 1600, 200, 16)
    dense.valid[60:] = False
    dense.valid[:, 60:] = False
    here = tile_vectors(dense, tiles.col_starts, tiles.row_starts, 200, CELL_PX).valid_fraction >= MIN_TILE_VALID
    assert here.mean() < 0.08
    sample = sample_vectors(reader(dense), tiles, dense.valid.shape, StructuralEncoder(), MIN_TILE_VALID)
    assert len(sample.vectors) >= vectors.ENOUGH * wanted
    assert len(sample.vectors) <= 4 * wanted
    assert here.sum() / 2 <= sample.of_tiles <= 2 * here.sum()


@pytest.mark.parametrize("chunk", [1, 1_000, 5_000, 1 << 23])  # one tile, two, a row, all
@pytest.mark.parametrize(("height", "stride"), [(333, 16), (330, 17), (200, 8), (207, 50)])
def test_blocks_of_tiles_are_the_vectors_of_the_whole(
    chunk: int, height: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "CHUNK_VALUES", chunk)
    dense, tiles = field(260, height), TileGrid(260, height, 200, stride)
    whole = tile_vectors(dense, tiles.col_starts, tiles.row_starts, 200, CELL_PX)
    done = 0
    for block in tile_blocks(reader(dense), tiles, dense.valid.shape, CELL_PX, 3):
        done += block.found.valid_fraction.size
        at = np.ix_(
            np.searchsorted(tiles.row_starts, block.row_starts), np.searchsorted(tiles.col_starts, block.col_starts)
        )
        np.testing.assert_allclose(block.found.vectors, whole.vectors[at], atol=1e-6)
        np.testing.assert_allclose(block.found.valid_fraction, whole.valid_fraction[at], atol=1e-6)
        whole.vectors[at] = np.nan  # each tile once
    assert done == whole.valid_fraction.size
    assert np.isnan(whole.vectors).all()


@pytest.mark.parametrize("channels", [1, 3, 16])
@pytest.mark.parametrize(
    ("tiles_at_once", "height", "shapes"),
    [
        (15, 333, [(5, 3), (5, 2)] * 2),  # of 10 rows of 5
        (40, 333, [(8, 5), (2, 5)]),
        (2, 333, [(2, 1)] * 25),
        (1, 333, [(1, 1)] * 50),
        (4, 200, [(1, 4), (1, 1)]),  # one row, in parts as long as those of many rows are large
    ],
)
def test_blocks_are_squares_as_large_as_their_vectors_allow(
    channels: int, tiles_at_once: int, height: int, shapes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles, rows = TileGrid(260, height, 200, 16), -(-height // CELL_PX)
    monkeypatch.setattr(vectors, "CHUNK_VALUES", tiles_at_once * vector_size(channels, 200))
    dense = Dense(np.ones((channels, rows, 33), np.float32), np.ones((rows, 33), bool))
    found = list(tile_blocks(reader(dense), tiles, (rows, 33), CELL_PX, channels))
    assert [(len(block.row_starts), len(block.col_starts)) for block in found] == shapes


@pytest.mark.parametrize(("size", "stride"), [(200, 16), (200, 200), (200, 530), (64, 3000), (4000, 100)])
def test_tiles_of_a_part_lie_on_no_more_than_a_block(size: int, stride: int) -> None:
    """Or a part is one tile: what is read must not grow with the map, of which samples lie ever farther apart."""
    tiles = TileGrid(30_000, 17_000, size, stride)
    parts = tile_parts(tiles, 19)
    for part in parts:
        for starts in (part.col_starts, part.row_starts):
            assert len(starts) == 1 or starts[-1] - starts[0] + size <= BLOCK_PX
    assert sum(len(part.col_starts) * len(part.row_starts) for part in parts) == len(tiles)
    done = [part.done for part in parts]
    assert done == sorted(set(done))
    many = parts[0]
    assert (len(many.col_starts) > 1) == (size + stride <= BLOCK_PX)


def test_flat_search_is_exact() -> None:
    dense, tiles = field(330, 290), TileGrid(330, 290, 200, 16)
    index, factory = fitted(dense, tiles, "Flat")
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
    index, factory = fitted(dense, tiles)
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
        fitted(empty, tiles)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("Nonsense", r"FAISS knows no kind of vectors 'Nonsense' \(could not parse"),
        ("", "FAISS knows no kind"),
        ("PQ0x4fs", r"FAISS knows no kind of vectors 'PQ0x4fs' \(M must be > 0"),
        ("IDMap,Flat", "cannot be put together"),
        ("RaBitQfs", "FAISS knows no kind"),
        ("IVF8,RaBitQfs", "cannot be read back"),
        ("NSG16", "cannot be put together"),
        ("L2norm,SQ8", "FAISS knows no kind"),
        ("IVF8,FlatDedup", "cannot be read back"),
        ("OPQ16,IVF8,PQ16x4", "cannot be read back"),
        ("IVF8,PQ16x4fs", r"cannot be read back.*Refine"),
    ],
)
def test_kind_that_cannot_be_is_refused_before_the_work(wrong: str, told: str, town: Town, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        build_index(town.path, tmp_path / "a.gmi", BuildOptions(encoder="structural", vectors=wrong))
    with pytest.raises(UsageError, match=told):
        build_index(town.path, tmp_path / "a.gmi", BuildOptions(encoder="structural", kinds=[Kind(wrong)]))


@pytest.mark.parametrize("kind", [*(kind.coded for kind in KINDS), "OPQ16,PQ16x4fs", "HNSW16", "IVF8,SQ8", "PQ7"])
def test_kind_that_can_be_is_let_through(kind: str) -> None:
    check_kind(Kind(kind))


def test_pieces_fit_vectors_of_any_length() -> None:
    """Few tiles have no PCA, and 432 components are no multiple of 128."""
    dense, tiles = field(330, 290), TileGrid(330, 290)
    assert len(tiles) < 1024
    assert fitted(dense, tiles, "PQ100x4fs")[0].d == vector_size(3, 200)
    assert plan_vectors(900, 432, 19, "PQ128x4fs") == VectorPlan(0, Kind("PQ108x4fs"))
    assert plan_vectors(2000, 432, 19, "PQ7") == VectorPlan(256, Kind("PQ4"))
    for kept in ("OPQ16_64,PQ8", "PQ32x4fs,Refine(PQ64)", "IVF16(PQ8),PQ64", "OPQ32_128,PQ16x4fs"):
        assert plan_vectors(2000, 432, 19, kept) == VectorPlan(256, Kind(kept))


@pytest.mark.parametrize("wrong", ["IVF4096,Flat"])
def test_what_faiss_cannot_make_is_a_usage_error(wrong: str) -> None:
    dense, tiles = field(330, 290), TileGrid(330, 290)
    with pytest.raises(UsageError, match=r"FAISS cannot make.*--vectors at auto"):
        fitted(dense, tiles, wrong)
