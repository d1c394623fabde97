"""Candidates made up by hand."""

from __future__ import annotations

import numpy as np

from geomatch.reranking.candidates import PARTS, Candidates


def candidates(count: int = 12, seed: int = 0, size_px: int = 200, components: int = 6) -> Candidates:
    """Random vectors of length one around a query, at random places of a map."""
    rng = np.random.default_rng(seed)
    query = rng.normal(size=components)
    vectors = query + 1.5 * rng.normal(size=(count, components))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query /= np.linalg.norm(query)
    vectors = vectors[np.argsort(-(vectors @ query))].astype(np.float32)
    scores = (vectors @ query.astype(np.float32)).astype(np.float32)
    agreement = rng.dirichlet(np.ones(PARTS**2), count).reshape(count, PARTS, PARTS) * scores[:, None, None]
    return Candidates(
        scores=scores,
        corners_px=rng.integers(0, 2000, (count, 2)).astype(np.int32),
        query=query.astype(np.float32),
        vectors=vectors,
        agreement=agreement.astype(np.float32),
        size_px=size_px,
        peaks=rng.uniform(0, 1, count).astype(np.float32),
    )
