"""Whether more matches agree on a transform than would by chance: a contrario, after Moisan & Stival (2004).

Were matches paired at random, each would agree with a transform with some probability, and some transform of all that
can be drawn through the matches would find many that do. The expected number of transforms with as many agreeing
matches is the number of false alarms. The probability is read from the matches themselves, each SAR point with every
optical one, so that points that crowd, or that many matches share, make agreement less surprising. Neighbours whose
patches overlap err together; so what is counted are the squares of the SAR image, of the matches' grain, in which any
agrees.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc

from geomatch.matching.matches import Matches
from geomatch.matching.transforms import MINIMAL, Matrix, Model, Points, apply

ALARMS = 1e-3  # expected of matches that mean nothing
AT_ONCE = 1 << 21  # pairs of points that are compared at a time


def surprising(matches: Matches, matrix: Matrix, model: Model, radius_px: float, kinds: int = 1) -> bool:
    """Whether so many matches agree that chance hardly makes it; arguments as ``false_alarms``."""
    return false_alarms(matches, matrix, model, radius_px, kinds) <= ALARMS


def false_alarms(matches: Matches, matrix: Matrix, model: Model, radius_px: float, kinds: int = 1) -> float:
    """Expected number of transforms with as many agreeing matches.

    Args:
        matches: N of them.
        matrix: [3 x 3] the transform.
        model: its kind.
        radius_px: within which a match agrees.
        kinds: of transforms among which this one was chosen.
    """
    needed, count = MINIMAL[model], len(matches)
    moved = apply(matrix, matches.sar_px)
    agrees = _distance(moved, matches.optical_px) <= radius_px
    squares = np.unique((matches.sar_px // matches.grain_px).astype(np.int64), axis=0, return_inverse=True)[1]
    every, agreeing = len(np.unique(squares)), len(np.unique(squares[agrees]))
    if agreeing <= needed:
        return math.inf
    parts = np.array_split(moved, -(-count * count // AT_ONCE))
    paired = sum(int((_distance(part[:, None], matches.optical_px[None]) <= radius_px).sum()) for part in parts)
    # Of true matches each agrees with its own anyway; what chance gives stands beside it.
    single = max(paired - int(agrees.sum()), 1) / max(count * (count - 1), 1)
    by_chance = 1 - (1 - single) ** (count / every)
    tail = float(bdtrc(agreeing - needed - 1, every - needed, by_chance))
    return kinds * math.comb(count, needed) * tail


def _distance(first: Points, second: Points) -> NDArray[np.float64]:
    """Between points [... x 2], infinite where there is no place."""
    return np.asarray(np.nan_to_num(np.linalg.norm(first - second, axis=-1), nan=np.inf))
