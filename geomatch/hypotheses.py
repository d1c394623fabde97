"""The attitude of a strip that is not told, or told roughly: many are tried, the best are corrected.

Features bear a few degrees and percent of error; so a coarse grid of headings and scales finds the place, at a fraction
of the full search for each, and the correlation there then tells the attitude by halving the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from geomatch.attitude import Attitude, Tolerance
from geomatch.fusion import MAX_PEAKS, vertex
from geomatch.query import Query
from geomatch.refine import Refined

RETRIEVED_TILES = 600  # at each attitude
PLACES = 60  # of these that are correlated
PART_PX = 120_000  # of a larger strip so much is tried at all attitudes, all of it only to correct them
POLISH = ((2.0, 0.028), (1.0, 0.014), (0.5, 0.007))  # steps of degrees and of the logarithm of the scale, on pixels
HOPELESS = 0.8  # of the best place's score: what is below is not corrected any further
FINALISTS = (16, 8, 6)  # places at most whose attitude is corrected by a half, a quarter, an eighth of the steps


@dataclass(frozen=True)
class Hypothesis:
    """A place at an attitude.

    Attributes:
        attitude: of the strip.
        center_px: [2] its centre, map pixels.
        score: mean correlation of its windows.
        look: what the map's pixels say of it, or None where they were not looked at.
    """

    attitude: Attitude
    center_px: NDArray[np.float64]
    score: float
    look: Refined | None = None

    @property
    def weight(self) -> float:
        """The score, as it compares with that at other scales: of fewer cells chance gives a higher correlation.

        Of n cells, correlation r has the log-likelihood -n / 2 log(1 - r^2) over chance, nearly n r^2 / 2.
        """
        return self.score * self.attitude.scale

    @property
    def look_weight(self) -> float:
        """So of the pixels' correlation; 0 where it has no peak."""
        return self.look.peak * self.attitude.scale if self.look is not None and self.look.fixed else 0.0


Asked = Callable[[Attitude], Query]  # the query at an attitude


def try_attitudes(ask: Asked, tolerance: Tolerance, apart_px: float, *, exhaustive: bool = False) -> list[Hypothesis]:
    """The best places over all attitudes, best first, each at its best attitude among those tried.

    Args:
        ask: the strip at an attitude, or a part of it.
        tolerance: which attitudes there may be.
        apart_px: places nearer than this are one.
        exhaustive: correlate with the whole map.
    """
    found: list[Hypothesis] = []
    for attitude in tolerance.attitudes():
        query = ask(attitude)
        if not query.windows:
            continue
        use_tiles = query.tiled and not exhaustive
        poses = query.verify(query.retrieve(RETRIEVED_TILES).best(PLACES)) if use_tiles else query.scan()
        centers = poses.corners_px + query.strip.middle_px
        found += [Hypothesis(attitude, *place) for place in zip(centers, poses.scores.tolist(), strict=True)]
    return distinct(found, apart_px)


def distinct(hypotheses: Sequence[Hypothesis], apart_px: float) -> list[Hypothesis]:
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


def correct(
    hypotheses: Sequence[Hypothesis], ask: Asked, tolerance: Tolerance, reach_px: float, cell_px: int
) -> list[Hypothesis]:
    """The best hypotheses after their attitudes were corrected, best first.

    Args:
        hypotheses: best first.
        ask: the strip at an attitude.
        tolerance: that they were tried over.
        reach_px: from its centre to its corners, map pixels; steps are halved until those move less than a cell, and
            the best one's attitude is then read between the last steps.
        cell_px: side of a cell.
    """
    ask = cache(ask)
    finalists, steps = list(hypotheses), np.array(tolerance.steps)

    def stepped(one: Hypothesis) -> Hypothesis:
        """At its heading or one a step to either side, whichever correlates best; then so with its scale."""
        for step in np.diag(steps)[steps > 0]:
            one = max(one, *(aside(one, *(sign * step)) for sign in (-1, 1)), key=lambda tried: tried.weight)
        return one

    def aside(one: Hypothesis, turn_deg: float, log_scale: float) -> Hypothesis:
        """The same place at another attitude, with a score of 0 where nothing there resembles it."""
        attitude = tolerance.moved(one.attitude, turn_deg, log_scale)
        query = ask(attitude)
        poses = query.nearby(one.center_px) if query.windows else None
        if poses is None or not len(poses):
            return Hypothesis(attitude, one.center_px, 0.0)
        return Hypothesis(attitude, poses.corners_px[0] + query.strip.middle_px, float(poses.scores[0]))

    def between(one: Hypothesis) -> Hypothesis:
        """At the vertices of the parabolas through it and those a step to either side."""
        shift = np.zeros(2)
        for step in np.diag(steps)[steps > 0]:
            before, after = (aside(one, *(sign * step)).weight for sign in (-1, 1))
            shift += step * vertex(before, one.weight, after)
        moved = aside(one, *shift)
        return moved if moved.score else one

    for count in FINALISTS:
        steps = steps / 2
        going = [one for one in finalists[:count] if one.weight >= HOPELESS * finalists[0].weight]
        finalists = sorted(map(stepped, going), key=lambda one: -one.weight)
    while finalists and max(np.radians(steps[0]), steps[1]) * reach_px > cell_px:
        steps = steps / 2
        finalists[0] = stepped(finalists[0])
    return [*map(between, finalists[:1]), *finalists[1:]]


Looked = Callable[[Attitude, NDArray[np.float64]], Hypothesis]  # what the pixels say at an attitude, about a centre


def polish(one: Hypothesis, look_at: Looked, tolerance: Tolerance) -> Hypothesis:
    """A place at the attitude at which the map's pixels resemble it most, by parabolas about the one that it has.

    Args:
        one: after it was looked at.
        look_at: looks at it at another attitude.
        tolerance: that it was found within; what was told for sure stays.
    """
    for steps in POLISH:
        for axis in np.flatnonzero(tolerance.steps):
            step = np.where(np.arange(2) == axis, steps, 0.0)
            before, after = (
                look_at(tolerance.moved(one.attitude, *(sign * step)), one.center_px).look_weight for sign in (-1, 1)
            )
            at = one.look_weight
            # Beside the highest of the three, or a whole step on where it is the first or the last.
            shift = vertex(before, at, after) if at >= max(before, after) else float(np.sign(after - before))
            tried = look_at(tolerance.moved(one.attitude, *(shift * step)), one.center_px)
            one = max(one, tried, key=lambda tried: tried.look_weight)
    return one
