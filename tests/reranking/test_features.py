"""The graph of candidates, against plain loops."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from retrieved import candidates

from geomatch.nets.shapes import Positions, RerankerShape
from geomatch.reranking.features import EDGE_VALUES, FALL, Nodes, graph_of, node_values


def near(apart: list[list[float]], count: int) -> set[tuple[int, int]]:
    edges = set()
    for i, row in enumerate(apart):
        others = sorted((j for j in range(len(row)) if j != i), key=lambda j, row=row: row[j])  # type: ignore[misc]
        edges |= {(j, i) for j in others[:count]}
    return edges


@pytest.mark.parametrize("positions", get_args(Positions))
def test_edges_are_the_nearest_in_position_and_in_vector(positions: Positions) -> None:
    found, shape = candidates(), RerankerShape(near=3, alike=2, positions=positions)
    made = graph_of(Nodes.of(found), shape)
    places = found.corners_px / found.size_px
    apart = [[math.dist(a, b) for b in places] for a in places]
    unlike = [[-float(a @ b) for b in found.vectors] for a in found.vectors]
    by_place = near(apart, 3) if positions in ("offsets", "edges") else set()
    by_vector = near(unlike, 2 if by_place else 5)
    edges = list(map(tuple, made.edge_index.T.tolist()))
    assert set(edges[: len(by_place)]) == by_place
    assert set(edges[len(by_place) :]) == by_vector
    assert made.edge_attr.shape == (len(edges), EDGE_VALUES)
    for (source, target), known in zip(edges, made.edge_attr.tolist(), strict=True):
        offset = (places[source] - places[target]) * (positions == "offsets")
        distance = math.hypot(*offset)
        assert known[:4] == pytest.approx([*offset, distance, math.exp(-distance / FALL)], abs=1e-5)
        assert known[4] == pytest.approx(float(found.vectors[source] @ found.vectors[target]), abs=1e-5)
        assert known[5] == pytest.approx(10 * float(found.scores[source] - found.scores[target]), abs=1e-5)


@pytest.mark.parametrize("peaks", [True, False])
@pytest.mark.parametrize("agreement", [True, False])
@pytest.mark.parametrize("positions", ["offsets", "embedding"])
def test_nodes_know_what_the_shape_says(peaks: bool, agreement: bool, positions: Positions) -> None:
    found, shape = candidates(), RerankerShape(peaks=peaks, agreement=agreement, positions=positions)
    values = graph_of(Nodes.of(found), shape).x.numpy()
    assert values.shape == (len(found), node_values(shape))
    np.testing.assert_allclose(values[:, 0], found.scores, rtol=1e-6)
    np.testing.assert_allclose(values[:, 2], (found.scores - found.scores.mean()) / found.scores.std(), rtol=1e-3)
    if positions == "embedding":
        places = found.corners_px / found.size_px
        np.testing.assert_allclose(values[:, -2:], places - places.mean(axis=0), atol=1e-4)
