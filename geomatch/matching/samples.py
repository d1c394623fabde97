"""Pairs to measure matching on: a SAR and an optical image of one place, and the transform between them.

Of the named sets ``validation`` is the validation block of Los Angeles, ``ombria`` the validation locations of OMBRIA,
both in the folder of the real imagery; ``simulated`` are cities drawn for it, and needs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.images import log_of
from geomatch.matching.side import Side
from geomatch.matching.transforms import Matrix
from geomatch.pairs import FolderPairs, Pair, PairSource, ScenePairs
from geomatch.simulation.pairs import SimulatedPairs
from geomatch.splits import boxes_of, locations_of

SIZE_PX = 256
VALIDATION_SHARE = 0.3  # of OMBRIA's locations, as in training


@dataclass(frozen=True)
class Warp:
    """How far the SAR image may be from lying pixel on pixel, uniform at random.

    Attributes:
        turn_deg: to either side.
        scale: least and greatest.
        shift_px: to either side, of either coordinate.
        projective: to either side, change of depth from the middle to the edge.
    """

    turn_deg: float
    scale: tuple[float, float]
    shift_px: float
    projective: float = 0.0

    def draw(self, rng: np.random.Generator, size_px: int) -> Matrix:
        """[3 x 3] from pixels of the SAR image to those of the optical one, both of one size: about the middle."""
        scale = float(np.exp(rng.uniform(*np.log(self.scale))))
        turn = np.radians(rng.uniform(-self.turn_deg, self.turn_deg))
        shift = rng.uniform(-self.shift_px, self.shift_px, 2)
        linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        half = size_px / 2
        about = np.eye(3)
        about[:2, :2] = linear
        about[2, :2] = rng.uniform(-self.projective, self.projective, 2) / half
        before, after = np.eye(3), np.eye(3)
        before[:2, 2], after[:2, 2] = -half, half + shift
        return np.asarray(after @ about @ before)


ALIGNED = Warp(0.0, (1.0, 1.0), 0.0)
WARPED = Warp(10.0, (0.9, 1.15), 16.0)


@dataclass(frozen=True)
class Sample:
    """A pair.

    Attributes:
        sar, optical: of equal size.
        to_optical: [3 x 3] from pixels of the SAR image to those of the optical one.
    """

    sar: Side
    optical: Side
    to_optical: Matrix

    @classmethod
    def of(cls, pair: Pair, to_optical: Matrix, size_px: int) -> Sample:
        """The middle of a pair, the SAR image resampled so that the transform leads back.

        Args:
            pair: at least as large.
            to_optical: as of the sample.
            size_px: of both images; what the pair lacks of it is unknown.
        """
        first = (pair.valid.shape[0] - size_px) // 2
        middle = np.s_[first : first + size_px, first : first + size_px]
        log_amplitude = log_of(list(pair.sar), pair.valid)
        to_pair = np.array([[1, 0, first], [0, 1, first], [0, 0, 1.0]]) @ to_optical
        sar, known = warped(log_amplitude, pair.valid, to_pair, (size_px, size_px))
        optical = Side(pair.optical.mean(axis=0)[middle].astype(np.float32), pair.valid[middle], "optical")
        return cls(Side(sar, known, "sar"), optical, to_optical)


def warped(
    image: NDArray[np.float32], valid: NDArray[np.bool_], to_source: Matrix, size_px: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """An image whose pixels lie at ``to_source`` in a given one, cubically interpolated, and which of them are known.

    Args:
        image, valid: [H x W].
        to_source: [3 x 3], corner convention on both sides.
        size_px: width and height of the result.
    """
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV counts from pixel centres
    centred = np.linalg.inv(half) @ to_source @ half
    cubic, linear = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = cv2.warpPerspective(image, centred, size_px, flags=cubic, borderMode=cv2.BORDER_REFLECT_101)
    known = cv2.warpPerspective(valid.astype(np.float32), centred, size_px, flags=linear, borderValue=0)
    return np.asarray(out, np.float32), np.asarray(known > 0.99)


def needed_px(warp: Warp, size_px: int) -> int:
    """Side of a pair in which every warped image of a size lies."""
    turn = np.radians(min(warp.turn_deg, 45.0))
    scale = max(warp.scale) / (1 - 2 * warp.projective)
    return int(np.ceil(size_px * scale * (np.cos(turn) + np.sin(turn)) + 2 * warp.shift_px)) + 2


def validation_source(data: Path) -> PairSource:
    """The validation block of Los Angeles.

    Raises:
        InputError: the imagery is not there.
    """
    scene = data / "los_angeles_west"
    boxes = boxes_of(data / "split.csv", scene.name, "val")
    return ScenePairs(scene / "optical.tif", scene / "sar.tif", boxes)


def ombria_source(data: Path) -> PairSource:
    """The validation locations of OMBRIA."""
    folder = data / "ombria"
    names = locations_of(folder / "pairs.csv", VALIDATION_SHARE)[1]
    return FolderPairs.of(folder / "optical", folder / "sar", names)


def simulated_source(data: Path) -> PairSource:
    """Cities that are drawn one after the other."""
    del data
    return SimulatedPairs(size_px=1024, draws=20)


SOURCES: dict[str, Callable[[Path], PairSource]] = {
    "validation": validation_source,
    "ombria": ombria_source,
    "simulated": simulated_source,
}


def samples(source: PairSource, count: int, warp: Warp, *, size_px: int = SIZE_PX, seed: int = 0) -> Iterator[Sample]:
    """Random pairs of a source; the same seed gives the same.

    Raises:
        UsageError: none, or too small to hold a keypoint.
        InputError: the source shows nothing.
    """
    if count < 1 or size_px < 32:
        raise UsageError("no pairs, or of less than 32 px", hint="ask for one or more, of 32 px or more")
    rng = np.random.default_rng(seed)
    for _ in range(count):
        to_optical = warp.draw(rng, size_px)
        pair = source.draw(rng, needed_px(warp, size_px))
        yield Sample.of(_at_least(pair, size_px), to_optical, size_px)


def _at_least(pair: Pair, size_px: int) -> Pair:
    """A pair with unknown pixels around it where it is smaller than asked for."""
    missing = size_px - pair.valid.shape[0]
    if missing <= 0:
        return pair
    margin = (missing // 2, missing - missing // 2)
    bands = ((0, 0), margin, margin)
    return Pair(np.pad(pair.optical, bands), np.pad(pair.sar, bands), np.pad(pair.valid, (margin, margin)))
