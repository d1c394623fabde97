"""Which transforms there can be between two images of one place, brought to one scale and heading before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomatch.matching.transforms import Matrix, Points, apply


@dataclass(frozen=True)
class Limits:
    """How far the SAR image may be turned, scaled and stretched against the optical one.

    Attributes:
        turn_deg: to either side.
        scale: either way, 1 for none.
        stretch: of the longer over the shorter axis of what a circle becomes.
        mirrored: whether it may be a mirror image, turned in any way.
    """

    turn_deg: float = 30.0
    scale: float = 1.5
    stretch: float = 1.25
    mirrored: bool = False

    def allow(self, matrix: Matrix, points: Points) -> NDArray[np.bool_]:
        """[...] whether transforms [... x 3 x 3] are within the limits at all of some points [N x 2]."""
        (a, b), (c, d) = np.moveaxis(_linear(matrix, points), (-2, -1), (0, 1))
        # Of a matrix, the part that turns and scales, and the one that mirrors: their sum and difference are its
        # singular values.
        same, other = np.hypot(a + d, c - b) / 2, np.hypot(a - d, b + c) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.abs(np.log(np.sqrt(np.abs(same**2 - other**2)))) <= np.log(self.scale)
            stretch = same + other <= self.stretch * np.abs(same - other)
            turn = np.abs(np.degrees(np.arctan2(c - b, a + d))) <= self.turn_deg
            right = turn & (same > other) | (same < other) & self.mirrored
        return np.asarray((right & scale & stretch).all(axis=-1))


def _linear(matrix: Matrix, points: Points) -> NDArray[np.float64]:
    """[... x N x 2 x 2] how transforms move the neighbourhood of points; NaN where they send one to infinity."""
    depth = points @ matrix[..., 2, :2, None] + matrix[..., 2, 2, None, None]
    moved = apply(matrix, points)
    lower = moved[..., :, None] * matrix[..., None, None, 2, :2]
    return np.asarray((matrix[..., None, :2, :2] - lower) / depth[..., None])
