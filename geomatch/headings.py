"""The heading of a strip that does not tell it: every one a few degrees apart is tried, the best are corrected.

Features of orientated structure bear a few degrees of error; so a coarse turn through the circle finds the place, at a
fraction of the full search for each heading, and the correlation there then tells the heading by halving the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from geomatch.fusion import MAX_PEAKS, Poses
from geomatch.query import Query
from geomatch.refine import Refined

HEADINGS = 45  # 8 degrees apart: what is 4 off is found nearly as often as what is not, what is 8 off seldom
RETRIEVED_TILES = 600  # at each
PLACES = 60  # of these that are correlated
PART_PX = 120_000  # of a larger strip so much is turned through the circle, all of it only to correct the heading
FINALISTS = (16, 8, 6)  # places whose heading is corrected by a half, a quarter, an eighth of the step


@dataclass(frozen=True)
class Hypothesis:
    """A place at a heading.

    Attributes:
        turn_deg: of the strip, clockwise, from where it lies unturned.
        center_px: [2] its centre, map pixels.
        score: mean correlation of its windows.
        look: what the map's pixels say of it, or None where they were not looked at.
    """

    turn_deg: float
    center_px: NDArray[np.float64]
    score: float
    look: Refined | None = None


Asked = Callable[[float], Query]  # the query at a turn, degrees


def try_headings(ask: Asked, apart_px: float, *, exhaustive: bool = False) -> list[Hypothesis]:
    """The best places over all headings, best first, each at its best heading among those tried.

    Args:
        ask: the strip at a turn, or a part of it.
        apart_px: places nearer than this are one.
        exhaustive: correlate with the whole map.
    """
    found: list[Hypothesis] = []
    for turn_deg in np.arange(HEADINGS) * (360 / HEADINGS):
        query = ask(float(turn_deg))
        if not query.windows:
            continue
        use_tiles = query.tiled and not exhaustive
        poses = query.verify(query.retrieve(RETRIEVED_TILES).best(PLACES)) if use_tiles else query.scan()
        centers = poses.corners_px + query.middle_px
        found += [Hypothesis(float(turn_deg), *place) for place in zip(centers, poses.scores.tolist(), strict=True)]
    return distinct(found, apart_px)


def distinct(hypotheses: Sequence[Hypothesis], apart_px: float) -> list[Hypothesis]:
    """The best MAX_PEAKS of those that are not within ``apart_px`` of a better one, best first."""
    kept: list[Hypothesis] = []
    centers = np.empty((0, 2))
    for hypothesis in sorted(hypotheses, key=lambda tried: -tried.score):
        if len(kept) == MAX_PEAKS:
            break
        if (np.abs(centers - hypothesis.center_px).max(axis=1) >= apart_px).all():
            kept.append(hypothesis)
            centers = np.vstack([centers, hypothesis.center_px])
    return kept


def correct(hypotheses: Sequence[Hypothesis], ask: Asked, reach_px: float, cell_px: int) -> list[Hypothesis]:
    """The best hypotheses after their headings were corrected, best first.

    Args:
        hypotheses: best first.
        ask: the strip at a turn.
        reach_px: from its centre to its corners, map pixels; the step is halved until those move less than a cell.
        cell_px: side of a cell.
    """
    ask = cache(ask)
    finalists, step_deg = list(hypotheses), 360 / HEADINGS
    for count in FINALISTS:
        step_deg /= 2
        finalists = _halved(finalists[:count], ask, step_deg)
    while np.radians(step_deg) * reach_px > cell_px:
        step_deg /= 2
        finalists[:1] = _halved(finalists[:1], ask, step_deg)
    return finalists


def _halved(finalists: Sequence[Hypothesis], ask: Asked, step_deg: float) -> list[Hypothesis]:
    """Each at its heading or one a step to either side, whichever correlates best; best first."""
    better = []
    for finalist in finalists:
        tried = [finalist]
        for turn_deg in (finalist.turn_deg - step_deg, finalist.turn_deg + step_deg):
            query = ask(turn_deg % 360)
            poses = query.nearby(finalist.center_px) if query.windows else Poses(np.empty((0, 2)), np.empty(0))
            tried += [
                Hypothesis(turn_deg % 360, corner + query.middle_px, float(score))
                for corner, score in zip(poses.corners_px, poses.scores, strict=True)
            ]
        better.append(max(tried, key=lambda hypothesis: hypothesis.score))
    return sorted(better, key=lambda hypothesis: -hypothesis.score)
