"""The attitude of a strip that is not told, or told roughly: many are tried, the best are corrected.

Features bear a few degrees and percent of error; so a coarse grid of headings and scales finds the place, at a fraction
of the full search for each, and the correlation there then tells the attitude by halving the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
POLISH = ((1.0, 0.014), (0.5, 0.007))  # steps of degrees and of the logarithm of the scale, on the map's pixels
FINALISTS = (16, 8, 6)  # places whose attitude is corrected by a half, a quarter, an eighth of the steps


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
        centers = poses.corners_px + query.middle_px
        found += [Hypothesis(attitude, *place) for place in zip(centers, poses.scores.tolist(), strict=True)]
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
    for count in FINALISTS:
        steps = steps / 2
        finalists = sorted((_stepped(one, ask, steps) for one in finalists[:count]), key=lambda one: -one.score)
    while finalists and max(np.radians(steps[0]), steps[1]) * reach_px > cell_px:
        steps = steps / 2
        finalists[0] = _stepped(finalists[0], ask, steps)
    return [*(_between(one, ask, steps) for one in finalists[:1]), *finalists[1:]]


def _moved(attitude: Attitude, turn_deg: float, log_scale: float) -> Attitude:
    """Turned and scaled further; turns stay within [-180, 180)."""
    turned = (attitude.turn_deg + turn_deg + 180) % 360 - 180
    return Attitude(turned, attitude.scale * float(np.exp(log_scale)))


def _aside(one: Hypothesis, ask: Asked, turn_deg: float, log_scale: float) -> Hypothesis:
    """The same place at another attitude, with a score of 0 where nothing there resembles it."""
    attitude = _moved(one.attitude, turn_deg, log_scale)
    query = ask(attitude)
    poses = query.nearby(one.center_px) if query.windows else None
    if poses is None or not len(poses):
        return replace(one, attitude=attitude, score=0.0)
    return Hypothesis(attitude, poses.corners_px[0] + query.middle_px, float(poses.scores[0]))


def _stepped(one: Hypothesis, ask: Asked, steps: NDArray[np.float64]) -> Hypothesis:
    """At its heading or one a step to either side, whichever correlates best; then so with its scale."""
    for turn_deg, log_scale in ((steps[0], 0.0), (0.0, steps[1])):
        if turn_deg or log_scale:
            tried = [one, *(_aside(one, ask, sign * turn_deg, sign * log_scale) for sign in (-1, 1))]
            one = max(tried, key=lambda hypothesis: hypothesis.score)
    return one


def _between(one: Hypothesis, ask: Asked, steps: NDArray[np.float64]) -> Hypothesis:
    """At the vertex of the parabola through its score and those a step to either side, of heading and of scale."""
    shift = np.zeros(2)
    for axis in np.flatnonzero(steps):
        step = np.where(np.arange(2) == axis, steps, 0.0)
        before, after = (_aside(one, ask, *(sign * step)).score for sign in (-1, 1))
        shift[axis] = steps[axis] * vertex(before, one.score, after)
    if not shift.any():
        return one
    found = _aside(one, ask, *shift)
    return found if found.score else one


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
            before, after = (_peak(look_at(_moved(one.attitude, *(sign * step)), one.center_px)) for sign in (-1, 1))
            at = _peak(one)
            # Beside the highest of the three, or a whole step on where it is the first or the last.
            shift = vertex(before, at, after) if at >= max(before, after) else float(np.sign(after - before))
            tried = look_at(_moved(one.attitude, *(shift * step)), one.center_px)
            one = max(one, tried, key=_peak)
    return one


def _peak(one: Hypothesis) -> float:
    return one.look.peak if one.look is not None and one.look.fixed else 0.0
