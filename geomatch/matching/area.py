"""Area-based matching: windows of the SAR image correlated with the optical one, each giving a tie point.

The way of a located strip, on a pair: attitudes within a tolerance are tried on dense features, the best are settled by
the similarity on which the parts agree (``geomatch.seeking``), and then every window of a grid says where it fits best
near there, and how much better than anywhere else: structure channels on pixels (``geomatch.refine``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomatch import defaults
from geomatch.attitude import Tolerance
from geomatch.correlate import over, template
from geomatch.encoder import Encoder, load_encoder
from geomatch.fusion import subpixel
from geomatch.matching.matches import Matches
from geomatch.matching.side import Side
from geomatch.matching.ties import grid_windows, tie_points
from geomatch.refine import Refiner
from geomatch.seeking import Lie, settled
from geomatch.strips import NORTH_UP, RawStrip, Strip
from geomatch.structure import Dense

TOLERANCE = Tolerance(12.0, 1.2)
TRIED = 4  # attitudes and places that the pixels settle
LOOKS = (0.09, 0.044, 0.022)  # radians, and logarithms of the scale, that they may turn to either side, one by one
PART_PX = 64  # side of the parts that agree on a similarity
OVERHANG = 0.35  # share of the SAR image that may lie beyond the optical one, along each side


@dataclass(frozen=True)
class SidePixels:
    """An optical image in memory, as ``geomatch.refine.Pixels``."""

    side: Side

    def grey(self, left: int, top: int, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A window, unknown beyond the edge."""
        wide, tall = self.side.size_px
        out, known = np.zeros((height, width), np.float32), np.zeros((height, width), bool)
        rows, cols = (slice(max(0, at), max(0, at + size)) for at, size in ((top, height), (left, width)))
        part = self.side.image[rows, cols]
        first = max(0, -top), max(0, -left)
        there = np.s_[first[0] : first[0] + part.shape[0], first[1] : first[1] + part.shape[1]]
        if left < wide and top < tall:
            out[there], known[there] = part, self.side.valid[rows, cols]
        return out, known


@dataclass(frozen=True)
class _Place:
    """A pose at which the image was tried.

    Attributes:
        lie: how it lies.
        score: correlation of features, or of pixels once they were looked at.
    """

    lie: Lie
    score: float


class AreaMatcher:
    """Tie points by correlation.

    Args:
        encoder: whose dense features are tried first; its steps decide how many attitudes.
        tolerance: how far the SAR image may be turned and scaled against the optical one.
    """

    def __init__(self, encoder: Encoder | None = None, tolerance: Tolerance = TOLERANCE) -> None:
        self._encoder = encoder or load_encoder(defaults.ENCODER)
        self._tolerance = tolerance

    def __call__(self, sar: Side, optical: Side) -> Matches:
        """One match per window that is sure of its place, or why there are none."""
        for side in (sar, optical):
            if side.blank:
                return Matches.none(f"the {side.modality} image shows nothing")
        raw = RawStrip(sar.image, sar.valid, np.eye(2), NORTH_UP, self._tolerance)
        pixels = SidePixels(optical)
        tried = sorted(self._tried(raw, optical), key=lambda one: -one.score)[:TRIED]
        if not tried:
            return Matches.none("the SAR image shows no structure")
        best = max((_looked(one, raw, pixels) for one in tried), key=lambda one: one.score)
        strip = raw.at(best.lie.attitude)
        return tie_points(strip, best.lie.at_px - strip.middle_px, pixels)

    def _tried(self, raw: RawStrip, optical: Side) -> Iterator[_Place]:
        """The best place at every attitude, by features."""
        field = self._encoder.dense(optical.image[None], optical.valid, "optical")
        rms = float(np.sqrt(np.square(field.values).sum() / max(1, field.valid.sum())))
        cell_px = self._encoder.cell_px
        for attitude in self._tolerance.attitudes(self._encoder.steps):
            strip = raw.at(attitude)
            window = template(self._encoder.dense(strip.image[None], strip.valid, "sar"))
            if window is None:
                continue
            height, width = window.mask.shape
            tall, wide = field.valid.shape
            down, right = (_margin(*sides) for sides in ((height, tall), (width, wide)))
            margin = ((down, down), (right, right))
            padded = Dense(np.pad(field.values, ((0, 0), *margin)), np.pad(field.valid, margin))
            surface = over(window, padded, rms)
            row, col = (int(i) for i in np.unravel_index(surface.argmax(), surface.shape))
            shift = subpixel(surface.astype(np.float64), row, col)
            corner = (np.array([col - right, row - down]) + shift) * cell_px
            yield _Place(Lie(attitude, raw.middle, corner + strip.middle_px), float(surface[row, col]))


def _margin(window: int, field: int) -> int:
    """Cells beyond the field, to either side, at which a window is tried."""
    return max(round(OVERHANG * window), -(-(window - field) // 2))


def _looked(one: _Place, raw: RawStrip, pixels: SidePixels) -> _Place:
    """A place at the attitude on which its parts agree, and what its pixels say there."""

    def parts(strip: Strip) -> Refiner:
        return Refiner(strip, grid_windows(strip, PART_PX, PART_PX // 2), PART_PX, pixels)

    lie = one.lie
    for most in LOOKS:
        strip = raw.at(lie.attitude)
        lie = settled(lie, raw, strip, parts(strip), most)
    strip = raw.at(lie.attitude)
    look = parts(strip).at(lie.at_px - strip.middle_px)
    return _Place(Lie(lie.attitude, lie.point, look.corner_px + strip.middle_px), look.peak)
