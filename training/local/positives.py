"""How the positive patch of a triplet differs from where its place truly is.

Zhang et al. 2023: it is scaled by 0.9 to 1.15, turned by 5, 10 or 15 degrees, or moved by 8 px. A query's keypoints lie
some pixels off in the other image and its patches are cut upright, so that a descriptor has to bear all three.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomatch.errors import UsageError

from ..limits import check_range


@dataclass
class PositiveConfig:
    """What is done to the positive patch, beside the turn and the scale of the whole crop.

    Attributes:
        scale: least and greatest of what the patch shows, over that of its anchor.
        turns_deg: one of these, to either side; none for no turn.
        shift_px: how far the patch is cut off the true place, in any direction.
        exactly: whether all are moved as far as that, or up to it.
        one_of: whether each patch is scaled, turned or moved, as published, or all of it.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    turns_deg: list[float] = field(default_factory=list)
    shift_px: float = 0.0
    exactly: bool = False
    one_of: bool = False

    def check(self) -> None:
        """Raise a UsageError for what cannot be drawn."""
        check_range("positives.scale", self.scale, "[0.9, 1.15]")
        if self.shift_px < 0:
            raise UsageError("is below zero", where="positives.shift_px", hint="give pixels, or 0 for none")


@dataclass(frozen=True)
class Moves:
    """Of N patches.

    Attributes:
        shift_px: [N x 2] from the true place to the middle of the patch.
        frames: [N x 2 x 2] from directions in the patch to those in the image.
    """

    shift_px: NDArray[np.float64]
    frames: NDArray[np.float64]

    def of(self, numbers: Any) -> Moves:
        """Of some of the patches."""
        return Moves(self.shift_px[numbers], self.frames[numbers])


def drawn_moves(config: PositiveConfig, count: int, rng: np.random.Generator) -> Moves:
    """Random moves of ``count`` patches."""
    done = _chosen(config, count, rng)
    low, high = np.log(config.scale)
    scale = np.exp(rng.uniform(low, high, count))
    sign = rng.choice([-1.0, 1.0], size=count)
    turn = np.radians(sign * rng.choice(config.turns_deg or [0.0], size=count))
    reach = np.ones(count) if config.exactly else np.sqrt(rng.random(count))  # even over the disc
    towards = rng.uniform(0, 2 * np.pi, count)
    scale, turn, reach = np.where(done[0], scale, 1.0), np.where(done[1], turn, 0.0), np.where(done[2], reach, 0.0)
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    shift = config.shift_px * reach[:, None] * np.stack([np.cos(towards), np.sin(towards)], axis=1)
    return Moves(shift, np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1))


def _chosen(config: PositiveConfig, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """[3 x N] whether each patch is scaled, turned, moved."""
    if not config.one_of:
        return np.ones((3, count), bool)
    able = [tuple(config.scale) != (1.0, 1.0), bool(config.turns_deg), config.shift_px > 0]
    if not any(able):
        return np.zeros((3, count), bool)
    choice = rng.choice(np.flatnonzero(able), size=count)
    return np.asarray(choice == np.arange(3)[:, None])
