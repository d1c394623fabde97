"""Area-based matching: windows of the SAR image correlated with the optical one, each giving a tie point.

The way of a located strip, on a pair: attitudes within a tolerance are tried on dense features, the best are settled by
the similarity on which the parts agree (``geomatch.seeking``), and then every window of a grid says where it fits best
near there, and how much better than anywhere else: structure channels on pixels (``geomatch.refine``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geomatch import defaults
from geomatch.attitude import Attitude, Tolerance
from geomatch.correlate import MIN_OVERLAP, over, template
from geomatch.encoder import Encoder, StructuralEncoder, load_encoder
from geomatch.fusion import subpixel
from geomatch.matching.matches import Matches
from geomatch.matching.side import Side
from geomatch.matching.ties import grid_windows, tie_points
from geomatch.pixel_features import PixelFeatures
from geomatch.refine import FINE_WEIGHT, Refiner
from geomatch.seeking import Lie, settled
from geomatch.strips import NORTH_UP, RawStrip, Strip
from geomatch.structure import Dense

TOLERANCE = Tolerance(12.0, 1.2)
TRIED = 4  # attitudes and places that the pixels settle
LOOKS = (0.09, 0.044, 0.022)  # radians, and logarithms of the scale, that they may turn to either side, one by one
PART_PX = 64  # side of the parts that agree on a similarity
FINER = (0.5, 0.25)  # of the step from one attitude to the next, where the best are sought again
# What pairs of different places stay below: so much, and so much over the root of the cells (benchmarks/chance.py).
CHANCE, STRUCTURAL_CHANCE, CHANCE_OF_CELLS = 0.16, 0.18, 4.0
MIRRORED = "the SAR image resembles the optical one more when mirrored, as radars that look left may write it"
OVERHANG = 0.35  # share of the SAR image that may lie beyond the optical one, along each side


@dataclass(frozen=True)
class SidePixels:
    """An optical image in memory, as ``geomatch.map_pixels.Pixels``."""

    side: Side
    features: Sequence[PixelFeatures]

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
class Place:
    """A pose at which the image was tried.

    Attributes:
        lie: how it lies.
        features, pixels: correlation there times the scale: the root of the likelihood, since as many more cells agree.
        cells: of the features that were compared.
    """

    lie: Lie
    features: float
    cells: int
    pixels: float = 0.0

    @property
    def together(self) -> float:
        """What both say of it."""
        return self.features + FINE_WEIGHT * self.pixels

    @property
    def above_cells(self) -> float:
        """The same, less what goes with the root of the cells where images show different places."""
        return self.together - CHANCE_OF_CELLS / float(np.sqrt(self.cells))


class AreaMatcher:
    """Tie points by correlation.

    Args:
        encoder: whose dense features are tried first; its steps decide how many attitudes.
        tolerance: how far the SAR image may be turned and scaled against the optical one.
        chance: how well images of different places agree, beside what goes with the root of the cells.
    """

    def __init__(
        self, encoder: Encoder | None = None, tolerance: Tolerance = TOLERANCE, *, chance: float = CHANCE
    ) -> None:
        self._encoder = encoder or load_encoder(defaults.ENCODER)
        self._features = tuple(self._encoder.pixels)
        self._tolerance, self._chance = tolerance, chance

    @classmethod
    def structural(cls) -> AreaMatcher:
        """Without anything learned; its features agree more between different places that are both built up."""
        return cls(StructuralEncoder(), chance=STRUCTURAL_CHANCE)

    def __call__(self, sar: Side, optical: Side) -> Matches:
        """One match per window that is sure of its place, or why there are none."""
        if (unusable := Matches.unusable(sar, optical, self._encoder.cell_px)) is not None:
            return unusable
        if self._tolerance.scale**2 * optical.valid.sum() < MIN_OVERLAP * sar.valid.sum():
            return Matches.none(f"the optical image covers less than {MIN_OVERLAP:.0%} of the SAR image")
        best = self.best_place(sar, optical)
        if best is None:
            return Matches.none("the SAR image shows no structure")
        if best.above_cells < self._chance:
            return Matches.none("no place of the optical image resembles the SAR image")
        if self._fits_mirrored(sar, optical, best):
            return Matches.none(MIRRORED)
        strip = self._raw(sar).at(best.lie.attitude)
        return tie_points(strip, best.lie.at_px - strip.middle_px, SidePixels(optical, self._features))

    def best_place(self, sar: Side, optical: Side) -> Place | None:
        """Where the whole SAR image fits best, believed or not; None where it shows no structure."""
        raw, pixels = self._raw(sar), SidePixels(optical, self._features)
        likely = [_looked(one, raw, pixels) for one in self._likely(raw, optical, TRIED)]
        return max(likely, key=lambda one: one.together, default=None)

    def _likely(self, raw: RawStrip, optical: Side, count: int) -> list[Place]:
        """So many places where an image fits best by features, at different attitudes."""
        search, steps = _FeatureSearch(self._encoder, raw, optical), self._encoder.steps
        tried = filter(None, map(search.at, self._tolerance.attitudes(steps)))
        best = sorted(tried, key=lambda one: -one.features)[:count]
        return [search.refined(one, self._tolerance.spacing(steps)) for one in best]

    def _fits_mirrored(self, sar: Side, optical: Side, best: Place) -> bool:
        """Whether a mirror image fits better: streets along the axes look like streets in those, too."""
        pixels = SidePixels(optical, self._features)
        for flip in (np.s_[::-1], np.s_[:, ::-1]):
            raw = self._raw(replace(sar, image=sar.image[flip].copy(), valid=sar.valid[flip].copy()))
            for place in self._likely(raw, optical, 1):
                if place.features > best.features and _looked(place, raw, pixels).together > best.together:
                    return True
        return False

    def _raw(self, sar: Side) -> RawStrip:
        return RawStrip(sar.image, sar.valid, np.eye(2), NORTH_UP, self._tolerance)


class _FeatureSearch:
    """Where an image fits best at an attitude, by features."""

    def __init__(self, encoder: Encoder, raw: RawStrip, optical: Side) -> None:
        self._encoder, self._raw = encoder, raw
        self._field = encoder.dense(optical.image[None], optical.valid, "optical")
        self._rms = float(np.sqrt(np.square(self._field.values).sum() / max(1, self._field.valid.sum())))

    def at(self, attitude: Attitude) -> Place | None:
        """The best place; None where the image shows no structure."""
        strip = self._raw.at(attitude)
        window = template(self._encoder.dense(strip.image[None], strip.valid, "sar"))
        if window is None:
            return None
        height, width = window.mask.shape
        tall, wide = self._field.valid.shape
        down, right = (_margin(*sides) for sides in ((height, tall), (width, wide)))
        margin = ((down, down), (right, right))
        padded = Dense(np.pad(self._field.values, ((0, 0), *margin)), np.pad(self._field.valid, margin))
        surface = over(window, padded, self._rms)
        row, col = (int(i) for i in np.unravel_index(surface.argmax(), surface.shape))
        shift = subpixel(surface.astype(np.float64), row, col)
        corner = (np.array([col - right, row - down]) + shift) * self._encoder.cell_px
        lie = Lie(attitude, self._raw.middle, corner + strip.middle_px)
        return Place(lie, attitude.scale * float(surface[row, col]), int(window.mask.sum()))

    def refined(self, one: Place, spacing: tuple[float, float]) -> Place:
        """The best place among attitudes around one, ever nearer ones."""
        for share in FINER:
            turn, scale = (share * step for step in spacing)
            moves = [(sign * turn, 0.0) for sign in (-1, 1)] + [(0.0, sign * scale) for sign in (-1, 1)]
            around = (self.at(self._raw.tolerance.moved(one.lie.attitude, *move)) for move in moves)
            one = max([one, *filter(None, around)], key=lambda place: place.features)
        return one


def _margin(window: int, field: int) -> int:
    """Cells beyond the field, to either side, at which a window is tried."""
    return max(round(OVERHANG * window), -(-(window - field) // 2))


def _looked(one: Place, raw: RawStrip, pixels: SidePixels) -> Place:
    """A place as it is, or at the attitude on which its parts agree, where its pixels say more of that."""

    def look(lie: Lie) -> Place:
        strip = raw.at(lie.attitude)
        seen = _parts(strip, pixels).at(lie.at_px - strip.middle_px)
        there = Lie(lie.attitude, lie.point, seen.corner_px + strip.middle_px)
        return replace(one, lie=there, pixels=lie.attitude.scale * seen.peak)

    lie = one.lie
    for most in LOOKS:
        strip = raw.at(lie.attitude)
        lie = settled(lie, raw, strip, _parts(strip, pixels), most)
    return max(look(one.lie), look(lie), key=lambda place: place.pixels)


def _parts(strip: Strip, pixels: SidePixels) -> Refiner:
    return Refiner(strip, grid_windows(strip, PART_PX, PART_PX // 2), PART_PX, pixels)
