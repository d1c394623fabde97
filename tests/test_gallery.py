"""What vectors go through before they are compared, against FAISS's own transforms."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from geomatch.gallery import searched


@pytest.mark.parametrize("kind", ["PCA8,L2norm,Flat", "PCAW8,L2norm,Flat", "OPQ4_8,PQ4x4", "L2norm,Flat", "Flat"])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_vectors_are_compared_as_faiss_would(kind: str, count: int) -> None:
    rng = np.random.default_rng(0)
    index = faiss.index_factory(24, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(rng.normal(1, 2, (300, 24)).astype(np.float32))
    vectors = rng.normal(1, 2, (count, 24)).astype(np.float32)
    expected = vectors
    if isinstance(index, faiss.IndexPreTransform):
        for number in range(index.chain.size()):
            expected = index.chain.at(number).apply(expected)
    found = searched(index, vectors)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
