"""Which point of one image is which of the other, by nearest neighbours among descriptors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from geomatch.matching.descriptors import Described, Extractor
from geomatch.matching.keypoints import LEAST_PX
from geomatch.matching.side import NAMES, Side

SAME_PX = 2.0  # of two distances from an edge that are one
LEAST_KEYPOINTS = 3  # two carry a similarity and leave nothing to judge it by


@dataclass(frozen=True)
class Matches:
    """Corresponding points, the surest first; none where there is nothing to match, and then ``reason`` says why.

    Attributes:
        sar_px, optical_px: [N x 2] places in the two images.
        scores: [N] higher is better; comparable within one method.
        found: keypoints in the SAR and in the optical image, matched or not.
        reason: why there are none.
        grain_px: side of the square in the SAR image that a match sees; those whose squares overlap err together.
        step_px: of the places that a match can be told.
        placed: whether the place of the whole was judged before; then that matches agree need not surprise.
        doubt: why that matches agree means nothing, as where they were chosen by their agreement; "" where it may.
    """

    sar_px: NDArray[np.float64]
    optical_px: NDArray[np.float64]
    scores: NDArray[np.float64]
    found: tuple[int, int]
    reason: str = ""
    grain_px: float = 1.0
    step_px: float = 1.0
    placed: bool = False
    doubt: str = ""

    def __len__(self) -> int:
        """How many."""
        return len(self.scores)

    @classmethod
    def none(cls, reason: str, found: tuple[int, int] = (0, 0)) -> Matches:
        """No matches, and why."""
        return cls(np.empty((0, 2)), np.empty((0, 2)), np.empty(0), found, reason)

    @classmethod
    def unusable(cls, sar: Side, optical: Side, least_px: int) -> Matches | None:
        """No matches, and why, where an image is smaller than a side or shows nothing; else None."""
        for side in (sar, optical):
            if min(side.size_px) < least_px:
                return cls.none(f"the {NAMES[side.modality]} image is smaller than {least_px} px")
            if side.blank:
                return cls.none(f"the {NAMES[side.modality]} image shows nothing")
        return None

    def some(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Matches:
        """Some of them."""
        return replace(self, sar_px=self.sar_px[which], optical_px=self.optical_px[which], scores=self.scores[which])


class Matcher(Protocol):
    """Matches a SAR image with an optical one."""

    def __call__(self, sar: Side, optical: Side) -> Matches:
        """Their corresponding points."""
        ...


@dataclass(frozen=True)
class Rule:
    """Which nearest neighbours are taken for matches.

    Attributes:
        ratio: greatest distance of the nearest over that of the second nearest (Lowe 2004), 1 for any.
        distance: greatest distance, none for any.
        mutual: whether each has to be the other's nearest.
    """

    ratio: float = 1.0
    distance: float | None = None
    mutual: bool = True


@dataclass(frozen=True)
class Pairing:
    """Neighbours by number.

    Attributes:
        first, second: [N] numbers of the descriptors on either side.
        distance: [N] between them.
        ratio: [N] of it to the second nearest's distance.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distance: NDArray[np.float64]
    ratio: NDArray[np.float64]


def neighbours(first: Described, second: Described, rule: Rule) -> Pairing:
    """Nearest neighbours of the first's descriptors among the second's that the rule takes, the nearest first."""
    if len(first) == 0 or len(second) == 0:
        none = np.empty(0, np.int64)
        return Pairing(none, none, np.empty(0), np.empty(0))
    distance, nearest = _two_nearest(first, second)
    ratio = distance[:, 0] / np.maximum(distance[:, 1], 1e-9)
    kept = ratio <= rule.ratio
    if rule.distance is not None:
        kept &= distance[:, 0] <= rule.distance
    if rule.mutual:
        back = _two_nearest(second, first)[1][:, 0]
        kept &= back[nearest[:, 0]] == np.arange(len(first))
    numbers = np.nonzero(kept)[0]
    numbers = numbers[np.argsort(distance[numbers, 0], kind="stable")]
    return Pairing(numbers, nearest[numbers, 0], distance[numbers, 0], ratio[numbers])


def _two_nearest(queries: Described, gallery: Described) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """[N x 2] distances and numbers; where the gallery has one alone, the second is infinitely far."""
    count = min(2, len(gallery))
    if queries.metric == "hamming":
        bits = faiss.IndexBinaryFlat(8 * queries.vectors.shape[1])
        bits.add(np.ascontiguousarray(gallery.vectors))
        found, numbers = bits.search(np.ascontiguousarray(queries.vectors), count)
        distance = found.astype(np.float64)
    else:
        flat = faiss.IndexFlatL2(queries.vectors.shape[1])
        flat.add(np.ascontiguousarray(gallery.vectors, np.float32))
        squared, numbers = flat.search(np.ascontiguousarray(queries.vectors, np.float32), count)
        distance = np.sqrt(np.maximum(squared.astype(np.float64), 0))
    missing = ((0, 0), (0, 2 - count))
    return np.pad(distance, missing, constant_values=np.inf), np.pad(numbers.astype(np.int64), missing)


@dataclass(frozen=True)
class Keypointed:
    """A matcher by keypoints: the same extractor on both images, then nearest neighbours.

    Attributes:
        extractor: of keypoints with descriptors.
        rule: which neighbours are matches.
        most: keypoints of each image.
        least_px: side of an image that has room for what describes a keypoint.
        grain_px, step_px: as of ``Matches``.
        edge_px: how far from the edge of an image descriptors show that edge, whatever the image.
    """

    extractor: Extractor
    rule: Rule
    most: int = 1024
    least_px: int = LEAST_PX
    grain_px: float = 8.0
    step_px: float = 1.0
    edge_px: float = 0.0

    def __call__(self, sar: Side, optical: Side) -> Matches:
        """Matches, or why there are none."""
        if (unusable := Matches.unusable(sar, optical, self.least_px)) is not None:
            return unusable
        ours, theirs = self.extractor(sar, self.most), self.extractor(optical, self.most)
        found = (len(ours), len(theirs))
        if min(found) < LEAST_KEYPOINTS:
            fewest = "SAR" if found[0] < LEAST_KEYPOINTS else "optical"
            return Matches.none(f"fewer than three keypoints in the {fewest} image", found)
        pairs = neighbours(ours, theirs, self.rule)
        if not len(pairs.first):
            return Matches.none("no descriptors are alike", found)
        places = ours.keypoints.xy_px[pairs.first], theirs.keypoints.xy_px[pairs.second]
        made = Matches(*places, -pairs.distance, found, grain_px=self.grain_px, step_px=self.step_px)
        kept = ~of_the_edge(made, sar.size_px, optical.size_px, self.edge_px)
        if not kept.any():
            return Matches.none("descriptors are alike at the images' edges alone", found)
        return made.some(kept)


def of_the_edge(
    matches: Matches, sar_size_px: tuple[int, int], optical_size_px: tuple[int, int], edge_px: float
) -> NDArray[np.bool_]:
    """[N] which matches lie at the same distance from the same edge, near enough to be alike by that alone.

    Networks that fill the outside with zeros tell the distance from it, and so any two images agree on "no shift".
    """
    ours, theirs = (
        np.concatenate([places, np.array(size, float) - places], axis=1)
        for places, size in ((matches.sar_px, sar_size_px), (matches.optical_px, optical_size_px))
    )
    return np.asarray(((np.maximum(ours, theirs) < edge_px) & (np.abs(ours - theirs) <= SAME_PX)).any(axis=1))
