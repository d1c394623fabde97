"""Codes made some at a time and put together are those made at once, and files of them find what brute force finds."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from geomatch import vectors
from geomatch.index import codes
from geomatch.index.codes import Coder, VectorFiles, write_faiss
from geomatch.index.kinds import Kind, VectorPlan
from geomatch.index.vectors import fit_vectors
from geomatch.index_files import Part, coded, read_part
from geomatch.manifest import part_names
from geomatch.vectors import Vectors


@pytest.mark.parametrize(
    "kind", ["SQ8", "Flat", "PQ16x4fs", "PQ16x4fs,Refine(SQfp16)", "IVF4,PQ16x4fs,Refine(SQ8)", "HNSW16"]
)
def test_codes_put_together_are_those_made_at_once(kind: str, tmp_path: Path) -> None:
    gallery = np.random.default_rng(0).normal(size=(2_900, 32)).astype(np.float32)
    whole, index = (fit_vectors(VectorPlan(0, Kind(kind)), gallery) for _ in range(2))
    none = gallery[:0]  # as of a shard that shows no valid pixel
    pieces = (none, gallery[:60], gallery[60:171], none, gallery[171:], none)  # not whole blocks of 32
    for some in filter(len, pieces):
        whole.add(some)
    files, coder = VectorFiles(tmp_path, index), Coder(index)
    for some in pieces:
        files.add(coder.code(some))
    files.close()
    faiss.write_index(whole, str(tmp_path / "whole.faiss"))
    assert (tmp_path / "vectors.faiss").read_bytes() == (tmp_path / "whole.faiss").read_bytes()


FACTORIES = [
    "Flat",
    "SQ8",
    "PQ16x4fs,Refine(SQ8)",
    "PQ16x4fs,Refine(SQfp16)",
    "IVF2,PQ16x4fs,Refine(SQfp16)",
    "L2norm,Flat",
]


@pytest.mark.parametrize("factory", FACTORIES)
def test_parts_hold_what_one_file_holds(factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(400, 32)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    index = fit_vectors(VectorPlan(0, Kind(factory, reranked=40, probes=1.0)), gallery)
    corners = np.arange(800, dtype=np.int32).reshape(400, 2)
    found = []
    for size in (1000, 150):
        monkeypatch.setattr(codes, "PART_TILES", size)
        folder = tmp_path / str(size)
        folder.mkdir()
        files, coder = VectorFiles(folder, index), Coder(index)
        for first in range(0, 400, 60):
            files.add(coder.code(gallery[first : first + 60]))
        files.close()
        names = part_names(len(list(folder.iterdir())))
        assert {file.name for file in folder.iterdir()} == set(names)
        parts = [read_part(folder / name) for name in names]
        assert [isinstance(part.index, faiss.IndexPreTransform) for part in parts[1:]] == [False] * (len(parts) - 1)
        stored = Vectors(parts, corners)
        assert len(stored) == 400
        hits = stored.search(gallery[::9], 5)
        assert (hits.corners_px == corners[hits.tiles]).all()
        found.append((hits.scores, hits.tiles))
    assert len(list((tmp_path / "150").iterdir())) == 4  # of at most two additions of 60 each
    (scores, ids), (in_parts, ids_in_parts) = found
    np.testing.assert_allclose(in_parts, scores, atol=1e-6)
    assert (ids == ids_in_parts).mean() > 0.95
    assert ids_in_parts[:, 0].tolist() == list(range(0, 400, 9))


@pytest.mark.parametrize("kind", ["PQ16x4fs,Refine(SQ8)", "IVF8,PQ16x4fs,Refine(SQfp16)", "IVF8,Flat"])
def test_file_tells_how_it_is_searched(kind: str, tmp_path: Path) -> None:
    sample = np.random.default_rng(0).normal(size=(1_000, 32)).astype(np.float32)
    index = fit_vectors(VectorPlan(32, Kind(kind, reranked=7, probes=0.25)), sample)
    faiss.write_index(index, str(tmp_path / "a.faiss"))
    part = read_part(tmp_path / "a.faiss")
    found = coded(part.index)
    if "Refine" in kind:
        assert found.k_factor == 7
        found = faiss.downcast_index(found.base_index)
    if "IVF" in kind:
        assert found.nprobe == 2


@pytest.mark.parametrize("spare", [1, 4])
def test_best_codes_of_all_parts_are_found_wherever_they_lie(
    spare: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is near a query lies in one part, of another's in a second, of the third's all over."""
    monkeypatch.setattr(codes, "PART_TILES", 100)
    monkeypatch.setattr(vectors, "SPARE", spare)
    rng = np.random.default_rng(2)
    places = rng.normal(size=(3, 16)).astype(np.float32)
    gallery = rng.normal(size=(800, 16)).astype(np.float32)
    gallery[100:190] += 8 * places[0]
    gallery[500:560] += 8 * places[1]
    index = fit_vectors(VectorPlan(0, Kind("PQ8x4fs,Refine(SQfp16)", reranked=6)), gallery)
    files, coder = VectorFiles(tmp_path, index), Coder(index)
    for first in range(0, 800, 100):
        files.add(coder.code(gallery[first : first + 100]))
    files.close()
    parts = [read_part(tmp_path / name) for name in part_names(8)]
    stored = Vectors(parts, np.zeros((800, 2), np.int32))
    scores, _ = stored._scanned(places, 60, range(8))
    every = np.sort(np.concatenate([part.scan(places, 100)[0] for part in parts], axis=1), axis=1)[:, ::-1]
    np.testing.assert_allclose(scores, every[:, :60], rtol=1e-6)


def in_a_file(kind: Kind, gallery: NDArray[np.float32], folder: Path) -> tuple[faiss.Index, Part]:
    """Vectors as FAISS itself holds them, and as they are read from the file that it wrote."""
    index = fit_vectors(VectorPlan(0, kind), gallery)
    index.add(gallery)
    faiss.write_index(index, str(folder / "a.faiss"))
    return index, read_part(folder / "a.faiss")


@pytest.mark.parametrize("kind", ["PQ8x4fs,Refine(SQfp16)", "L2norm,PQ8x4fs,Refine(SQ8)", "PQ8x4fs,Refine(Flat)"])
def test_vectors_in_full_are_read_from_where_they_lie(kind: str, tmp_path: Path) -> None:
    gallery = np.random.default_rng(3).normal(size=(300, 16)).astype(np.float32)
    index, part = in_a_file(Kind(kind), gallery, tmp_path)
    ids = np.array([299, 0, 17, 17, 150])
    assert part.rows is not None
    inner = coded(index)
    np.testing.assert_array_equal(part.stored(ids), faiss.downcast_index(inner.refine_index).reconstruct_batch(ids))


@pytest.mark.parametrize("kind", ["SQ8", "IVF8,SQ8", "PQ8x4fs,Refine(PQ8x4)"])
def test_vectors_that_end_elsewhere_are_left_to_faiss(kind: str, tmp_path: Path) -> None:
    gallery = np.random.default_rng(3).normal(size=(600, 16)).astype(np.float32)
    index, part = in_a_file(Kind(kind), gallery, tmp_path)
    ids = np.array([5, 599])
    assert part.rows is None
    exact = faiss.downcast_index(index.refine_index) if "Refine" in kind else index
    if "IVF" in kind:
        exact.make_direct_map()
    np.testing.assert_allclose(part.stored(ids), exact.reconstruct_batch(ids), atol=1e-6)


@pytest.mark.parametrize("reranked", [1, 5])
def test_scores_are_those_of_the_vectors_in_full(reranked: float, tmp_path: Path) -> None:
    gallery = np.random.default_rng(4).normal(size=(500, 16)).astype(np.float32)
    _, part = in_a_file(Kind("PQ8x4fs,Refine(Flat)", reranked=reranked), gallery, tmp_path)
    stored = Vectors([part], np.zeros((500, 2), np.int32))
    hits = stored.search(gallery[:7], 3)
    np.testing.assert_allclose(hits.scores, np.einsum("qd,qkd->qk", gallery[:7], gallery[hits.tiles]), rtol=1e-5)
    assert stored.search(gallery[:0], 3).scores.shape == (0, 3)


@pytest.mark.parametrize("kind", ["SQ8", "Flat", "PQ16x4fs,Refine(SQfp16)", "IVF8,PQ16x4fs,Refine(SQfp16)"])
def test_vectors_on_disk_find_what_brute_force_finds_where_all_are_looked_at(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(1_000, 32)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    index = fit_vectors(VectorPlan(0, Kind(kind, reranked=100, probes=1.0)), gallery)
    files, coder = VectorFiles(tmp_path, index), Coder(index)
    files.add(coder.code(gallery))
    files.close()
    stored = Vectors([read_part(tmp_path / "vectors.faiss")], np.zeros((1_000, 2), np.int32))
    queries = rng.normal(size=(20, 32)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores = stored.search(queries, 10).scores
    plain = -np.sort(-queries @ gallery.T, axis=1)[:, :10]
    np.testing.assert_allclose(scores, plain, atol=0.01)
    np.testing.assert_allclose(stored.stored(np.array([3, 999])), gallery[[3, 999]], atol=0.01)


def test_empty_shard_behind_a_full_file_begins_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "PART_TILES", 400)
    assert codes.has_room(500, 0)
    assert codes.has_room(0, 500)
    assert codes.has_room(300, 100)
    assert not codes.has_room(300, 101)


def test_no_vector_is_a_file_too(tmp_path: Path) -> None:
    files = VectorFiles(tmp_path, faiss.IndexFlatIP(4))
    files.close()
    assert [file.name for file in tmp_path.iterdir()] == ["vectors.faiss"]


def test_vectors_that_cannot_be_written_are_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        VectorFiles(tmp_path / "missing", faiss.IndexFlatIP(4)).close()
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match="No space left"):
            write_faiss(faiss.IndexFlatIP(4), Path("/dev/full"))
