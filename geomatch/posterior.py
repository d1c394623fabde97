"""How the probability that a strip is on the map at all is shared among its places.

All windows of a strip have one pose. At a wrong place a window's correlation is noise of zero mean whose variance falls
with the cells that are compared, at the right one it has a mean of its own; so the logarithm of the ratio of the two
likelihoods is linear in the correlation times the square root of the cells, and for all windows together in their mean
correlation. The factor is fitted and checked by ``benchmarks/posterior.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHARPNESS = 0.5
LEVEL = 0.95


def shares(supports: NDArray[np.float64], cells: float, sharpness: float = SHARPNESS) -> NDArray[np.float64]:
    """Probability of each place, given that one of them is right: sums to 1.

    Args:
        supports: [N] mean correlation of the windows at each, that of pixels included where they were looked at.
        cells: of the features that were compared, of all windows together.
        sharpness: of the logarithm of the likelihoods, per unit of correlation and square root of a cell.
    """
    logs = sharpness * np.sqrt(cells) * (supports - supports.max())
    likelihoods = np.exp(logs)
    return np.asarray(likelihoods / likelihoods.sum())


def needed(probabilities: NDArray[np.float64], level: float = LEVEL) -> int:
    """How many of the likeliest places hold ``level`` of the probability of all of them."""
    held = np.cumsum(np.sort(probabilities)[::-1])
    return int(np.searchsorted(held, level * held[-1] - 1e-12) + 1)
