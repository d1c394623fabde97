"""The choice of a search structure by the number of tiles."""

from __future__ import annotations

import faiss
import pytest

from geomatch.errors import UsageError
from geomatch.index.kinds import KINDS, Kind, plan_vectors


@pytest.mark.parametrize("count", [1, 500, 99_999, 200_000, 10_000_000])
@pytest.mark.parametrize("dimensions", [12, 48, 108, 243, 432])
def test_every_plan_is_one_that_faiss_understands(count: int, dimensions: int) -> None:
    found = plan_vectors(count, dimensions, 3)
    assert found.components <= dimensions - 3
    index = faiss.index_factory(found.components or dimensions, found.kind.coded, faiss.METRIC_INNER_PRODUCT)
    assert index.d == (found.components or dimensions)


def test_what_is_told_stands_after_the_reduction() -> None:
    assert str(plan_vectors(10_000, 432, 3, "HNSW32")) == "PCA256,L2norm,HNSW32"
    assert str(plan_vectors(10_000, 432, 3, "HNSW32", 64)) == "PCA64,L2norm,HNSW32"
    assert str(plan_vectors(1_000_000, 432, 3, components=0)) == "SQ8"
    assert str(plan_vectors(10, 432, 3, "HNSW32")) == "HNSW32"  # too few to fit a reduction to


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_kind_is_the_first_that_is_for_so_many(number: int) -> None:
    least = (KINDS[number - 1].up_to or 0) + 1 if number else 1_200
    assert plan_vectors(least, 432, 3).kind == KINDS[number]
    assert plan_vectors(KINDS[number].up_to or 10**9, 432, 3).kind == KINDS[number]


def test_kind_says_how_many_components_unless_they_are_told() -> None:
    kinds = [Kind("Flat", components=20)]
    assert str(plan_vectors(10_000, 432, 3, kinds=kinds)) == "PCA20,L2norm,Flat"
    assert str(plan_vectors(10_000, 432, 3, components=30, kinds=kinds)) == "PCA30,L2norm,Flat"
    assert str(plan_vectors(10_000, 15, 3, kinds=kinds)) == "PCA12,L2norm,Flat"
    with pytest.raises(UsageError, match="a PCA to 0 components"):
        Kind("Flat", components=0)


def test_pieces_are_no_more_than_components() -> None:
    chosen = plan_vectors(2_000, 51, 3, kinds=[Kind("PQ128x4fs,Refine(SQ8)", reranked=3)])
    assert chosen.components == 48
    assert chosen.kind == Kind("PQ48x4fs,Refine(SQ8)", reranked=3)


def test_more_tiles_than_any_kind_is_for_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"no kind of vectors is for 11 tiles.*without up_to"):
        plan_vectors(11, 432, 3, kinds=[Kind("Flat", up_to=10)])
