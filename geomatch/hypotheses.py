"""The attitude of a strip that is not told, or told roughly: many are tried, for places that look like it.

Features bear a few degrees and percent of error; so a coarse grid of headings and scales finds the place. The vectors
of one window, turned to every attitude, are searched, and only the best of all that they retrieve is correlated.
Where the window leaves a doubt another part of the strip is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geomatch.attitude import Attitude
from geomatch.fusion import MAX_PEAKS, Poses
from geomatch.query import Query
from geomatch.refine import Refined

PROBE_PX = 80_000  # of the map's pixels: its middle fills a tile at every heading
PROBES = 3  # parts of a strip that are asked, one after the other, until one answers clearly
RETRIEVED_TILES = 100  # at each attitude
CORRELATED = 200  # of the best of all attitudes' (benchmarks/proposals.py)
CLEAR = 1.15  # times the weight of the best other place that leaves no doubt


@dataclass(frozen=True)
class Hypothesis:
    """A place at an attitude.

    Attributes:
        attitude: of the strip.
        center_px: [2] its centre, map pixels.
        score: mean correlation of its windows.
        look: what the map's pixels say of it, or None where they were not looked at.
        extent: square root of the area that was compared, against the same of other attitudes.
        probe: number of the part of the strip that found it.
    """

    attitude: Attitude
    center_px: NDArray[np.float64]
    score: float
    look: Refined | None = None
    extent: float = 1.0
    probe: int = 0

    @property
    def weight(self) -> float:
        """The score, as it compares with that at other attitudes: of fewer cells chance gives a higher correlation.

        Of n cells, correlation r has the log-likelihood -n / 2 log(1 - r^2) over chance, nearly n r^2 / 2.
        """
        return self.score * self.extent

    @property
    def look_weight(self) -> float:
        """So of the pixels' correlation; 0 where it has no peak."""
        return self.look.peak * self.attitude.scale if self.look is not None and self.look.fixed else 0.0


Asked = Callable[[Attitude], Query]  # the query at an attitude


def try_attitudes(
    probes: Sequence[Asked], attitudes: Sequence[Attitude], apart_px: float, *, exhaustive: bool = False
) -> list[Hypothesis]:
    """The best places over all attitudes, best first, each at its best attitude among those tried.

    Args:
        probes: parts of the strip at an attitude; the next is asked where those before leave a doubt.
        attitudes: that are tried.
        apart_px: places nearer than this are one.
        exhaustive: correlate with the whole map.
    """
    found: list[Hypothesis] = []
    for number, probe in enumerate(probes):
        found += [replace(one, probe=number) for one in _places(probe, attitudes, exhaustive=exhaustive)]
        best = distinct(found, apart_px)
        if len(best) == 1 or (best and best[0].weight >= CLEAR * best[1].weight):
            break
    return distinct(found, apart_px)


def _places(ask: Asked, attitudes: Sequence[Attitude], *, exhaustive: bool) -> list[Hypothesis]:
    """Places that correlate, of those that the vectors of all attitudes retrieve, or of the whole map."""
    asked = [(attitude, query) for attitude in attitudes if (query := ask(attitude)).windows]
    by_vectors = [query.tiled and not exhaustive for _, query in asked]
    retrieved = [
        query.retrieve(RETRIEVED_TILES) if tiled else None for (_, query), tiled in zip(asked, by_vectors, strict=True)
    ]
    scores = np.concatenate([np.empty(0), *(poses.scores for poses in retrieved if poses is not None)])
    least = np.partition(scores, -CORRELATED)[-CORRELATED] if len(scores) > CORRELATED else -np.inf
    found: list[Hypothesis] = []
    for (attitude, query), poses in zip(asked, retrieved, strict=True):
        if poses is None:
            verified = query.scan()
        else:
            good = poses.scores >= least
            if not good.any():
                continue
            verified = query.verify(Poses(poses.corners_px[good], poses.scores[good]))
        centers = verified.corners_px + query.strip.middle_px
        found += [
            Hypothesis(attitude, center, score, extent=query.extent)
            for center, score in zip(centers, verified.scores.tolist(), strict=True)
        ]
    return found


def distinct(hypotheses: Iterable[Hypothesis], apart_px: float) -> list[Hypothesis]:
    """The best MAX_PEAKS of those that are not within ``apart_px`` of a better one, best first."""
    kept: list[Hypothesis] = []
    centers = np.empty((0, 2))
    for hypothesis in sorted(hypotheses, key=lambda tried: -tried.weight):
        if len(kept) == MAX_PEAKS:
            break
        if (np.abs(centers - hypothesis.center_px).max(axis=1) >= apart_px).all():
            kept.append(hypothesis)
            centers = np.vstack([centers, hypothesis.center_px])
    return kept
