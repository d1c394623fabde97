"""How the probability that a strip is on the map at all is shared among its places.

All windows of a strip have one pose. At a wrong place a window's correlation is noise of zero mean whose variance falls
with the cells that are compared, at the right one it has a mean of its own; so the logarithm of the ratio of the two
likelihoods is linear in the correlation times the square root of the cells, and for all windows together in their mean
correlation. The factor is fitted and checked by ``benchmarks/calibrate.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

SHARPNESS = 3.5
LEVEL = 0.95
BEST_OF_WRONG = 2.37  # deviations: the highest of 64 normals, on the average


def standings(supports: NDArray[np.float64], cells: float) -> NDArray[np.float64]:
    """How places stand against the best of them, in deviations of what wrong places give: 0 or below.

    Args:
        supports: [N] mean correlation of the windows at each, that of pixels included where they were looked at.
        cells: of the features that were compared, of all windows together, each once.
    """
    return np.asarray(np.sqrt(cells) * (supports - supports.max()))


def lead(supports: NDArray[np.float64], cells: float, by_chance: float = 0.0) -> float:
    """How far the likeliest other place stands behind the first of [N], in deviations; 0 where it does not.

    Where a map has room for few places the best of many wrong ones stands in for those it has not.

    Args:
        supports, cells: as of ``standings``.
        by_chance: what pixels add to the support of a wrong place, on the average.
    """
    others = supports[1:].max(initial=by_chance + BEST_OF_WRONG / np.sqrt(cells))
    return max(0.0, float(np.sqrt(cells) * (supports[0] - others)))


def shares(stand: ArrayLike, sharpness: float = SHARPNESS) -> NDArray[np.float64]:
    """Probability of each of [N] places that stand so, given that one of them is right: sums to 1.

    ``sharpness`` is the factor from standings to the logarithms of the likelihoods.
    """
    likelihoods = np.exp(sharpness * np.asarray(stand, np.float64))
    return np.asarray(likelihoods / likelihoods.sum())


def needed(probabilities: NDArray[np.float64], level: float = LEVEL) -> int:
    """How many of the likeliest places hold ``level`` of the probability of all of them."""
    held = np.cumsum(np.sort(probabilities)[::-1])
    return int(np.searchsorted(held, level * held[-1] - 1e-12) + 1)
