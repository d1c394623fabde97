"""Baseline re-rankers against plain loops, and what all re-rankers have in common."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from retrieved import candidates

from geomatch.errors import InputError, UsageError
from geomatch.nets.shapes import RerankerShape
from geomatch.reranking.candidates import Candidates
from geomatch.reranking.rerankers import (
    BASELINES,
    EXPANDED,
    EXPANSIONS,
    OWN,
    RECIPROCAL,
    SUPPORT,
    SUPPORT_TILES,
    Reranker,
    find_reranker,
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    import torch

    from geomatch.nets.reranker import RerankerNet
    from geomatch.weights import save_weights

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("reranker") / "untrained.safetensors"
    save_weights(RerankerNet(RerankerShape(width=8, layers=2, heads=2)), file, {"run": "test"})
    return find_reranker(str(file))


def every(graph: Reranker) -> list[Reranker]:
    return [*BASELINES.values(), graph]


def test_none_keeps_the_order() -> None:
    found = candidates()
    made = BASELINES["none"](found)
    assert made.order.tolist() == list(range(len(found)))
    assert made.present == pytest.approx(float(found.scores[0]))


def test_expansion_asks_with_the_best_tiles_too() -> None:
    found = candidates()
    asked = [float(value) for value in found.query]
    for score, vector in list(zip(found.scores, found.vectors, strict=True))[:EXPANDED]:
        asked = [a + max(float(score), 0.0) ** 3 * float(b) for a, b in zip(asked, vector, strict=True)]
    expected = [sum(a * float(b) for a, b in zip(asked, vector, strict=True)) for vector in found.vectors]
    np.testing.assert_allclose(BASELINES["expansion"](found).scores, expected, rtol=1e-4)


def test_smoothing_adds_what_neighbours_score() -> None:
    found = candidates()
    expected = []
    for i, (x, y) in enumerate(found.corners_px.tolist()):
        support = 0.0
        for j, (u, v) in enumerate(found.corners_px.tolist()):
            if i != j:
                tiles = math.hypot(x - u, y - v) / found.size_px
                support += math.exp(-tiles / SUPPORT_TILES) * max(float(found.scores[j]), 0.0)
        expected.append(float(found.scores[i]) + SUPPORT * support)
    np.testing.assert_allclose(BASELINES["smoothing"](found).scores, expected, rtol=1e-4)


def test_correlation_orders_by_the_peaks() -> None:
    found = candidates()
    assert found.peaks is not None
    assert BASELINES["correlation"](found).order.tolist() == np.argsort(-found.peaks).tolist()


def test_reciprocal_is_the_jaccard_distance_of_reciprocal_neighbours() -> None:
    """With fewer vectors than RECIPROCAL all are neighbours of all, and what is left can be written out."""
    found = candidates(count=EXPANSIONS + 2)
    assert len(found) < RECIPROCAL
    everything = [found.query, *found.vectors]
    apart = [[max(0.0, 2 - 2 * float(a @ b)) for b in everything] for a in everything]
    encoded = []
    for row in apart:
        weights = [math.exp(-value) for value in row]
        encoded.append([value / sum(weights) for value in weights])
    expanded = []
    for row in apart:
        nearest = sorted(range(len(row)), key=lambda i, row=row: row[i])[:EXPANSIONS]  # type: ignore[misc]
        expanded.append(np.mean([encoded[i] for i in nearest], axis=0))
    expected = []
    for number in range(1, len(everything)):
        low = np.minimum(expanded[0], expanded[number]).sum()
        high = np.maximum(expanded[0], expanded[number]).sum()
        expected.append(-((1 - OWN) * (1 - low / high) + OWN * apart[0][number]))
    np.testing.assert_allclose(BASELINES["reciprocal"](found).scores, expected, rtol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_candidates_have_an_order(count: int, graph: Reranker) -> None:
    found = candidates(count) if count else _none()
    for one in every(graph):
        made = one(found)
        assert sorted(made.order.tolist()) == list(range(count)), one.name
        assert np.isfinite(made.scores).all()
        assert count == 0 or np.isfinite(made.present)


@pytest.mark.parametrize("same", ["places", "tiles"])
def test_candidates_at_one_place_and_duplicated_tiles_have_an_order(same: str, graph: Reranker) -> None:
    found = candidates()
    found = replace(found, corners_px=np.zeros_like(found.corners_px))
    if same == "tiles":
        found = replace(
            found, vectors=np.repeat(found.vectors[:1], len(found), axis=0), scores=np.full(len(found), found.scores[0])
        )
    for one in every(graph):
        assert np.isfinite(one(found).scores).all(), one.name


def test_graph_does_not_depend_on_where_the_map_lies(graph: Reranker) -> None:
    found = candidates()
    moved = replace(found, corners_px=found.corners_px + np.array([5000, 12_000], np.int32))
    np.testing.assert_allclose(graph(moved).scores, graph(found).scores, atol=1e-4)


def test_unknown_reranker_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="there is no re-ranker 'best'") as caught:
        find_reranker("best")
    assert "correlation" in str(caught.value)


def test_weights_of_another_network_are_refused(weights_file: Path) -> None:
    with pytest.raises(InputError, match="weights of another network"):
        find_reranker(str(weights_file))


def _none() -> Candidates:
    found = candidates(1)
    return Candidates(
        found.scores[:0], found.corners_px[:0], found.query, found.vectors[:0], found.agreement[:0], 200, np.empty(0)
    )
