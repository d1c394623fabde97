"""Augmented copies of an image, with which S2-Net supervises itself (Mei et al.)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.matching.samples import Warp, warped
from geomatch.matching.side import Side
from geomatch.matching.transforms import Matrix

from ..limits import check_numbers, check_range
from .sources import MOST_PROJECTIVE


@dataclass
class CopyConfig:
    """How an image's copy differs from it; the defaults are the paper's.

    Attributes:
        scale: least and greatest.
        turn_deg: to either side.
        projective: change of depth from the middle to a corner, at most.
        noise: variance of Gaussian noise, of grey in [0, 1].
        blurred: share of copies that are.
        inverted: share of copies whose grey is inverted above a random threshold.
    """

    scale: tuple[float, float] = (1.0, 1.2)
    turn_deg: float = 10.0
    projective: float = 0.2
    noise: float = 0.01
    blurred: float = 0.5
    inverted: float = 0.5

    def check(self) -> None:
        """Raise a UsageError for what cannot be drawn."""
        check_range("copies.scale", self.scale, "[1.0, 1.2]")
        check_numbers(self, {"turn_deg": 0, "projective": 0, "noise": 0, "blurred": 0, "inverted": 0}, within="copies.")
        for name, most in (("projective", 2 * MOST_PROJECTIVE - 0.01), ("blurred", 1.0), ("inverted", 1.0)):
            if (value := getattr(self, name)) > most:
                raise UsageError(f"{value:g} is not possible", where=f"copies.{name}", hint=f"take {most:g} or less")


def copied(side: Side, rng: np.random.Generator, config: CopyConfig) -> tuple[NDArray[np.float32], Matrix]:
    """Grey [H x W] in [0, 1] of a copy, and the [3 x 3] from its pixels to those of the image."""
    size, _ = side.size_px
    low, high = config.scale
    # A copy that shows the place larger has a transform to the image that shrinks.
    shrinks = Warp(config.turn_deg, (1 / high, 1 / low), 0.0, config.projective / 2)
    to_image = shrinks.draw(rng, size)
    grey = side.bytes.astype(np.float32) / np.float32(255)
    out, _ = warped(grey, side.valid, to_image, side.size_px)
    out = np.clip(out, 0, 1)
    if rng.random() < config.inverted:
        out = np.where(out > rng.random(), 1 - out, out).astype(np.float32)
    if rng.random() < config.blurred:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.5, 1.5))), np.float32)
    noisy = out + rng.normal(0, np.sqrt(config.noise), out.shape).astype(np.float32)
    return np.asarray(np.clip(noisy, 0, 1), np.float32), to_image
