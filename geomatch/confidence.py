"""How sure an answer is: a logistic model of its evidence, and the thresholds on it.

Fitted by ``benchmarks/calibrate.py``, which prints the numbers below and how they do on queries not used in the fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from geomatch.location import Accuracy, Status


@dataclass(frozen=True)
class Model:
    """Weights of the signs.

    Attributes:
        features: bias, prominence, extent, lead; where the map's pixels were not at hand.
        pixels: bias, prominence, extent, lead, standing of the pixels.
        sought: the same, for a strip whose heading or scale was found with its place: the best of many attitudes at a
            wrong place looks better than one. Of structural features none were fitted: they are those of ``pixels``.
            Of learned ones 207 answers were.
        ambiguous_from: confidence from which a place is told at all; benchmarks/calibrate.py prints what that keeps and
            lets through.
    """

    features: tuple[float, ...]
    pixels: tuple[float, ...]
    sought: tuple[float, ...]
    ambiguous_from: float


STRUCTURAL = Model(
    features=(-5.6, 0.727, -0.315, 1.01),
    pixels=(-8.66, 0.224, -0.388, 2.27, 1.04),
    sought=(-8.66, 0.224, -0.388, 2.27, 1.04),
    ambiguous_from=0.03,
)
LEARNED = Model(
    features=(-6.31, 0.362, -0.959, 3.58),
    pixels=(-9.21, 0.42, -0.963, 2.4, 0.986),
    sought=(-8.02, 0.104, 0.925, 3.25, 1.18),
    ambiguous_from=0.02,
)

MAX_PROMINENCE = 20.0
MAX_STANDING = 12.0
MAX_LEAD = 4.0
TYPICAL_CELLS = 625  # of a window of 200 px
MAX_EXTENT = 3.0  # either way; smaller and larger strips were not in the fit

LOCATED_FROM = 0.51  # more likely than not, and by so much that two places alike are not decided by rounding
PIXEL_RADIUS_PX = 5.0  # a quarter more than 95 % of right answers ask for on the worse of the two maps of the fit
CELL_RADIUS_CELLS = 0.9


@dataclass(frozen=True)
class Signs:
    """What the confidence is read from; none depends on the sensor's units.

    Attributes:
        prominence: the best place's score above the mean of the others, in their standard deviations.
        extent: logarithm to base 2 of the cells that were compared over TYPICAL_CELLS: of more of them more is to be
            expected.
        lead: root of how far the likeliest other place stands behind, pixels looked at or not, in deviations of what
            wrong places give (``geomatch.posterior.lead``): a place that is one among several alike, as every place is
            of a strip that is not on the map, has next to none.
        standing: correlation of the pixels at the best place in deviations of what is around it
            (``geomatch.refine.Refined``); None where the map's pixels were not at hand.
    """

    prominence: float
    extent: float
    lead: float
    standing: float | None = None

    def values(self) -> tuple[float, ...]:
        """1 and the signs, in the order of the models' weights."""
        extent = max(-MAX_EXTENT, min(MAX_EXTENT, self.extent))
        of_features = (1.0, min(self.prominence, MAX_PROMINENCE), extent, min(self.lead, MAX_LEAD))
        return of_features if self.standing is None else (*of_features, min(self.standing, MAX_STANDING))


def model_of(encoder: str) -> Model:
    """The model for the features of an encoder, by its name."""
    return STRUCTURAL if encoder == "structural" else LEARNED


def probability(signs: Signs, model: Model, *, sought: bool = False) -> float:
    """Probability that the place is right, in [0, 1].

    Args:
        signs: of the place.
        model: of the encoder.
        sought: whether the strip's heading or scale was found with it.
    """
    of_pixels = model.sought if sought else model.pixels
    weights = model.features if signs.standing is None else of_pixels
    logit = sum(weight * value for weight, value in zip(weights, signs.values(), strict=True))
    return 1 / (1 + math.exp(-max(-40.0, min(40.0, logit))))


def status_of(confidence: float, model: Model) -> Status:
    """The status that a confidence of a model stands for."""
    if confidence >= LOCATED_FROM:
        return "located"
    return "ambiguous" if confidence >= model.ambiguous_from else "absent"


def error_radius_px(accuracy: Accuracy, cell_px: int) -> float:
    """Radius in map pixels within which the centre of a right answer lies with 95 % probability."""
    return PIXEL_RADIUS_PX if accuracy == "pixel" else CELL_RADIUS_CELLS * cell_px
