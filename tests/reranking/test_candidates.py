"""What is retrieved for a window, against brute force over all tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from towns import Town

from geomatch.correlate import around
from geomatch.hidden import hidden_windows
from geomatch.index.build import build_index
from geomatch.index.plan import BuildOptions
from geomatch.query import Query
from geomatch.reranking.candidates import retrieve_candidates
from geomatch.sampling import WindowOptions
from geomatch.tile_index import TileIndex

KINDS = ("auto", "Flat", "PQ16x4fs,RFlat", "IVF4,SQ8")


@pytest.fixture(scope="module")
def scene(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    town.write_strip(path, Affine.identity(), (768, 768), drift=(0, 0))
    return path


def opened(town: Town, folder: Path, vectors: str, components: int | None = None) -> TileIndex:
    path = folder / "town.gmi"
    build_index(
        town.path, path, BuildOptions(encoder="structural", vectors=vectors, components=components, stride_px=32)
    )
    return TileIndex.open(path)


def asked(index: TileIndex, scene: Path) -> Query:
    (window,) = hidden_windows(index, scene, WindowOptions(1, 200, seed=4))
    return Query.of(index, window.raw.at())


@pytest.mark.parametrize("vectors", KINDS)
def test_stored_vectors_have_the_scores_of_the_search(vectors: str, town: Town, scene: Path, tmp_path: Path) -> None:
    index = opened(town, tmp_path, vectors, components=32)
    query = asked(index, scene)
    found = retrieve_candidates(index, query.vectors[0], 20)
    np.testing.assert_allclose(found.vectors @ found.query, found.scores, atol=0.02)
    assert (np.diff(found.scores) <= 1e-6).all()


@pytest.mark.parametrize("components", [None, 24, 0])
def test_agreement_adds_up_to_the_score(components: int | None, town: Town, scene: Path, tmp_path: Path) -> None:
    index = opened(town, tmp_path, "Flat", components)
    found = retrieve_candidates(index, asked(index, scene).vectors[0], 10)
    np.testing.assert_allclose(found.agreement.sum(axis=(1, 2)), found.scores, atol=1e-3)


def test_without_axes_agreement_is_of_the_parts_of_the_tile(town: Town, scene: Path, tmp_path: Path) -> None:
    index = opened(town, tmp_path, "Flat", 0)
    vector = asked(index, scene).vectors[0]
    found = retrieve_candidates(index, vector, 3)
    pools = index.manifest.tiles.size_px // 16
    ours, theirs = vector.reshape(-1, pools, pools), found.vectors[0].reshape(-1, pools, pools)
    first = sum(float((ours[:, row, col] * theirs[:, row, col]).sum()) for row in range(3) for col in range(3))
    assert found.agreement[0, 0, 0] == pytest.approx(first, abs=1e-5)


def test_peaks_are_the_highest_correlation_at_the_tile(town: Town, scene: Path, tmp_path: Path) -> None:
    index = opened(town, tmp_path, "Flat")
    query = asked(index, scene)
    found = retrieve_candidates(index, query.vectors[0], 5, query.windows[0].template)
    assert found.peaks is not None
    for corner, peak in zip(found.corners_px, found.peaks, strict=True):
        col, row = np.rint(corner / 8).astype(np.int64)
        (surface,) = around(query.windows[0].template, index.features, np.array([col]), np.array([row]), 2)
        assert peak == pytest.approx(float(surface.max()))


def test_more_candidates_than_tiles_are_all_tiles(town: Town, scene: Path, tmp_path: Path) -> None:
    index = opened(town, tmp_path, "Flat")
    found = retrieve_candidates(index, asked(index, scene).vectors[0], len(index) + 50)
    assert len(found) == len(index)
    assert len(np.unique(found.corners_px, axis=0)) == len(index)
