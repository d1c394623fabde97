"""Which search structure for how many tiles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from geomatch.errors import UsageError

PCA_DIMENSIONS = 256
MIN_SAMPLES_PER_DIMENSION = 4
AUTO = "auto"


@dataclass(frozen=True)
class Kind:
    """A search structure.

    Attributes:
        coded: FAISS factory string for vectors after the PCA, like "Flat" or "PQ128x4fs,Refine(SQ8)".
        up_to: the most tiles that it is taken for; None for any number.
        reranked: codes that ``Refine`` looks at again in full for every tile asked for, in all files together.
        probes: share of the lists of an inverted file (``IVF``) that are looked into.
        components: of the PCA before it; None for as many as do best.

    Raises:
        UsageError: numbers that cannot be.
    """

    coded: str
    up_to: int | None = None
    reranked: int = 10
    probes: float = 0.5
    components: int | None = None

    def __post_init__(self) -> None:
        if self.up_to is not None and self.up_to < 1:
            raise UsageError(f"a kind for up to {self.up_to} tiles", where="kinds", hint="leave up_to out for any")
        if self.reranked < 1 or not 0 < self.probes <= 1:
            what = f"{self.reranked} codes looked at again and a share of {self.probes:g} of the lists are not possible"
            raise UsageError(what, where="kinds", hint="take 1 code or more, and a share above 0, up to 1")
        if self.components is not None and self.components < 1:
            what = f"a PCA to {self.components} components"
            raise UsageError(what, where="kinds", hint="leave components out for as many as do best")


# Few vectors are all scanned with 8 bits a component, which takes half the time of floats and a quarter of the bytes,
# and finds the same. Many are scanned by fast-scan product quantisation (André et al. 2017) with re-ranking by vectors
# that stay on disk until they are looked at. Of very many three quarters of the components are kept, in which as many
# true tiles are among the hundred, and a quarter of the pass and of the bytes is saved. An inverted file is never
# chosen: half of its lists take a strip's windows nine tenths of the time of all codes, and tiles are missed
# (configs/index/partitioned.yaml has one). benchmarks/search.py; docs/scale.md has what it printed.
KINDS = (
    Kind("SQ8", up_to=100_000),
    Kind("PQ128x4fs,Refine(SQ8)", up_to=1_000_000),
    Kind("PQ96x4fs,Refine(SQfp16)", reranked=25, components=192),
)


@dataclass(frozen=True)
class VectorPlan:
    """How pooled vectors are kept.

    Attributes:
        components: of the PCA that they go through first, 0 for none.
        kind: for what comes out.
    """

    components: int
    kind: Kind

    def __str__(self) -> str:
        return f"PCA{self.components},L2norm,{self.kind.coded}" if self.components else self.kind.coded


def plan_vectors(
    count: int,
    dimensions: int,
    channels: int,
    vectors: str = AUTO,
    components: int | None = None,
    *,
    kinds: Sequence[Kind] = KINDS,
) -> VectorPlan:
    """How ``count`` pooled vectors of ``dimensions`` components, ``channels`` of whose means are removed, are kept.

    PCA is fitted on the map with half whitening.

    Args:
        count: tiles.
        dimensions: of a vector.
        channels: of the features.
        vectors: "auto", or a FAISS factory string that is taken for any number of tiles, see ``fitting``.
        components: of the PCA; None for as many as the kind says, 0 for none.
        kinds: what "auto" chooses from, the first that is for so many tiles; without a PCA all are scanned.

    Raises:
        UsageError: no kind is for so many.
    """
    kind = _chosen(count, kinds) if vectors == AUTO else Kind(vectors)
    if components == 0:
        return VectorPlan(0, fitting(Kind("SQ8") if vectors == AUTO else kind, dimensions))
    most = dimensions - channels  # the removed means leave as many components of no extent
    kept = min(components or kind.components or PCA_DIMENSIONS, most)
    if vectors == AUTO:
        kept -= kept % min(pieces_of(kind.coded), kept)  # the quantiser's pieces are of one size
    if count < MIN_SAMPLES_PER_DIMENSION * kept:
        return VectorPlan(0, fitting(kind, dimensions))
    return VectorPlan(kept, fitting(kind, kept))


def fitting(kind: Kind, length: int) -> Kind:
    """A kind for vectors of that length: product quantisers of which the pieces are none of one size have fewer."""

    def fewer(found: re.Match[str]) -> str:
        asked = int(found[1])
        pieces = next((n for n in range(min(asked, length), 0, -1) if length % n == 0), asked)
        return f"PQ{pieces}"

    return replace(kind, coded=_PIECES.sub(fewer, kind.coded))


def _chosen(count: int, kinds: Sequence[Kind]) -> Kind:
    found = next((kind for kind in kinds if kind.up_to is None or count <= kind.up_to), None)
    if found is None:
        hint = "let the last one be without up_to"
        raise UsageError(f"no kind of vectors is for {count} tiles", where="kinds", hint=hint)
    return found


_PIECES = re.compile(r"(?<!O)PQ(\d+)")  # of OPQ, a rotation, the pieces are its own


def pieces_of(coded: str) -> int:
    """Of the product quantiser of a FAISS factory string; 1 where there is none."""
    found = _PIECES.search(coded)
    return max(1, int(found[1])) if found else 1
