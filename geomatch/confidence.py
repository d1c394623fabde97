"""How sure an answer is: a logistic model of its evidence, and the thresholds on it.

Fitted by ``benchmarks/calibrate.py``, which prints the numbers below and how they do on queries not used in the fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from geomatch.location import Accuracy, Status

BIAS = -6.0
WEIGHTS = {"margin": 8.0, "prominence": 0.5, "fine": 1.0}

LOCATED_FROM = 0.5
AMBIGUOUS_FROM = 0.1
PIXEL_RADIUS_PX = 6.0
CELL_RADIUS_CELLS = 1.0


@dataclass(frozen=True)
class Signs:
    """What the confidence is read from; none depends on the sensor's units or the strip's size.

    Attributes:
        margin: logarithm of the best score over the runner-up's, at most 1.
        prominence: the best score above the mean of the others, in their standard deviations.
        fine: correlation of the pixels times the square root of the number of cells compared, or None.
    """

    margin: float
    prominence: float
    fine: float | None


def probability(signs: Signs) -> float:
    """Probability that the place is right, in [0, 1]."""
    fine = 0.0 if signs.fine is None else signs.fine
    logit = BIAS + WEIGHTS["margin"] * signs.margin + WEIGHTS["prominence"] * signs.prominence + WEIGHTS["fine"] * fine
    return 1 / (1 + math.exp(-max(-40.0, min(40.0, logit))))


def status_of(confidence: float) -> Status:
    """The status that a confidence stands for."""
    if confidence >= LOCATED_FROM:
        return "located"
    return "ambiguous" if confidence >= AMBIGUOUS_FROM else "absent"


def error_radius_px(accuracy: Accuracy, cell_px: int) -> float:
    """Radius in map pixels within which the centre of a right answer lies with 95 % probability."""
    return PIXEL_RADIUS_PX if accuracy == "pixel" else CELL_RADIUS_CELLS * cell_px
