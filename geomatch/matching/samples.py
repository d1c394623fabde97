"""Pairs to measure matching on: a SAR and an optical image of one place, and the transform between them.

Of the named sets ``validation`` is the validation block of Los Angeles, ``ombria`` the validation locations of OMBRIA,
both in the folder of the real imagery; ``simulated`` are cities drawn for it, and needs nothing. A pair depends on its
set, the seed and its number alone, and not on how many others are drawn, or when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.images import log_of
from geomatch.matching.side import Side
from geomatch.matching.transforms import Matrix
from geomatch.pairs import FolderPairs, Pair, PairSource, ScenePairs
from geomatch.simulation.pairs import CityPairs, new_city
from geomatch.splits import boxes_of, locations_of

SIZE_PX, LEAST_PX = 256, 32
CITY_PX, PER_CITY = 768, 5
SIMULATED = "simulated"
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

    @cached_property
    def digest(self) -> str:
        """A sha256 of all that a method and its judge are shown, hexadecimal."""
        hashed = hashlib.sha256(np.ascontiguousarray(self.to_optical).tobytes())
        for side in (self.sar, self.optical):
            hashed.update(f"{side.modality} {side.size_px}".encode())
            for plane in (side.image, side.valid):
                hashed.update(np.ascontiguousarray(plane).tobytes())
        return hashed.hexdigest()

    @classmethod
    def of(cls, pair: Pair, to_optical: Matrix, size_px: int) -> Sample:
        """The middle of a pair, the SAR image resampled so that the transform leads back.

        Args:
            pair: at least as large.
            to_optical: as of the sample.
            size_px: of both images.
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


class Cities:
    """Simulated cities that no training has seen, PER_CITY pairs of each.

    Args:
        size_px: side of a city.
    """

    def __init__(self, size_px: int = CITY_PX) -> None:
        self._size_px = size_px
        self._last: tuple[tuple[int, int], CityPairs] | None = None

    def at(self, seed: int, number: int) -> PairSource:
        """The city of a pair."""
        which = (seed, number // PER_CITY)
        if self._last is None or self._last[0] != which:
            rng = np.random.default_rng(which)
            self._last = which, CityPairs(new_city(rng, self._size_px, unseen=True))
        return self._last[1]


def simulated_source(data: Path) -> Cities:
    """Cities that are drawn for it."""
    del data
    return Cities()


Source = PairSource | Cities
SOURCES: dict[str, Callable[[Path], Source]] = {
    "validation": validation_source,
    "ombria": ombria_source,
    SIMULATED: simulated_source,
}


def samples(source: Source, count: int, warp: Warp, *, size_px: int = SIZE_PX, seed: int = 0) -> Iterator[Sample]:
    """Random pairs of a source; the same seed and number give the same.

    Raises:
        UsageError: none, or too small to hold a keypoint, or larger than the source's.
        InputError: the source shows nothing.
    """
    if count < 1 or size_px < LEAST_PX:
        raise UsageError("no pairs, or of less than 32 px", hint="ask for one or more, of 32 px or more")
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        to_optical = warp.draw(rng, size_px)
        here = source.at(seed, number) if isinstance(source, Cities) else source
        pair = here.draw(rng, needed_px(warp, size_px))
        if (largest := pair.valid.shape[0]) < size_px:
            what = f"pairs of {size_px} px, where the images have room for {largest}"
            raise UsageError(what, where="--size", hint=f"ask for {largest} px or less")
        yield Sample.of(pair, to_optical, size_px)
