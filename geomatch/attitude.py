"""Heading and scale of a strip against what was told of them, and how far either may be off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from geomatch.errors import UsageError

ANY_TURN_DEG = 180.0
MAX_TOLERANCE = 2.0  # of a scale: more either way is no estimate of it


@dataclass(frozen=True)
class Steps:
    """How far apart the attitudes may lie that are tried, so that what an encoder finds at one it finds half way too.

    Attributes:
        turn_deg: from one heading to the next.
        scale: from one scale to the next, as a factor.
    """

    turn_deg: float
    scale: float


@dataclass(frozen=True)
class Attitude:
    """How a strip lies, against what was told.

    Attributes:
        turn_deg: clockwise on the ground.
        scale: of its pixels, as a factor of what was told.
        mirrored: whether its columns run the other way than told.
    """

    turn_deg: float = 0.0
    scale: float = 1.0
    mirrored: bool = False


@dataclass(frozen=True)
class Tolerance:
    """How far a strip's heading and scale may be from what was told.

    Attributes:
        turn_deg: to either side; ANY_TURN_DEG where the heading is unknown.
        scale: the true one lies between so many times and one so-many-th of the told one; 1 where it is known.
        mirror: whether it may be the mirror image: a radar that looks left writes its columns the other way.
    """

    turn_deg: float = 0.0
    scale: float = 1.0
    mirror: bool = False

    @classmethod
    def told(
        cls,
        heading_deg: float | None = None,
        gsd_percent: float | None = None,
        *,
        any_turn: bool = False,
        mirror: bool = False,
    ) -> Tolerance:
        """As a user tells it: degrees and percent to either side, None for what is known.

        Raises:
            UsageError: nothing or less, more than half a circle or a factor of MAX_TOLERANCE, or one of an unknown
                heading.
        """
        for value, most, unit, option in (
            (heading_deg, ANY_TURN_DEG, "degrees", "--heading-tolerance"),
            (gsd_percent, 100 * (MAX_TOLERANCE - 1), "percent", "--gsd-tolerance"),
        ):
            if value is not None and not 0 < value <= most:
                hint = f"give {unit} above 0, up to {most:g}, or leave it out"
                raise UsageError(f"a tolerance of {value:g} is not possible", where=option, hint=hint)
        if any_turn and heading_deg is not None:
            raise UsageError("an unknown heading has no tolerance", where="--heading-tolerance", hint="leave it out")
        return cls(ANY_TURN_DEG if any_turn else heading_deg or 0.0, 1 + (gsd_percent or 0.0) / 100, mirror)

    @property
    def known(self) -> bool:
        """Whether there is nothing to find."""
        return self.turn_deg == 0 and self.scale == 1 and not self.mirror

    @property
    def any_turn(self) -> bool:
        """Whether the heading is unknown."""
        return self.turn_deg >= ANY_TURN_DEG

    def spacing(self, steps: Steps) -> tuple[float, float]:
        """Degrees from one tried heading to the next, and the logarithm of the ratio of scales; 0 where known."""
        turns, scales = self._counts(steps)
        return 2 * self.turn_deg / turns, 2 * float(np.log(self.scale)) / scales

    def attitudes(self, steps: Steps) -> Iterator[Attitude]:
        """Those to be tried, evenly over the tolerance, so that any other is within half a step of one."""
        turn_step, scale_step = self.spacing(steps)
        turns, scales = self._counts(steps)
        each = np.exp(_middles(scales) * scale_step).tolist(), (_middles(turns) * turn_step).tolist()
        for mirrored, scale, turn_deg in product((False, True) if self.mirror else (False,), *each):
            yield Attitude(turn_deg, scale, mirrored)

    def moved(self, attitude: Attitude, turn_deg: float, log_scale: float) -> Attitude:
        """An attitude turned and scaled further, but not out of the tolerance."""
        turned = attitude.turn_deg + turn_deg
        turned = (turned + 180) % 360 - 180 if self.any_turn else float(np.clip(turned, -self.turn_deg, self.turn_deg))
        scale = float(np.clip(attitude.scale * np.exp(log_scale), 1 / self.scale, self.scale))
        return replace(attitude, turn_deg=turned, scale=scale)

    def _counts(self, steps: Steps) -> tuple[int, int]:
        scales = 2 * np.log(self.scale) / np.log(steps.scale)
        return max(1, int(np.ceil(2 * self.turn_deg / steps.turn_deg - 1e-9))), max(1, int(np.ceil(scales - 1e-9)))


def _middles(count: int) -> NDArray[np.float64]:
    """Middles of ``count`` steps about 0, in steps."""
    return np.linspace(-(count - 1) / 2, (count - 1) / 2, count)


TOLD, KNOWN = Attitude(), Tolerance()
