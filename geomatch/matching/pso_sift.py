"""PSO-SIFT's matching: fast sample consensus, then again by distance, position, scale and orientation together.

Ma et al. 2017. Matches by the ratio of distances feed FSC (Wu et al. 2015, "A novel point-matching algorithm based on
fast sample consensus for image registration"): transforms are drawn through the surest matches and judged by all of
them. Under the transform every keypoint is matched again by (1 + e_p)(1 + e_s)(1 + e_o) times the distance of the
descriptors, and what is far from the modes of position, scale and orientation is left out (MS-SIFT, Kupfer et al.
2015). A second descriptor, of patches, may be mixed in (Ye et al. 2018, "Remote sensing image registration using CNN
features").

As published, the transform on which most matches agree is taken however few they are, and all that comes back agrees
with it. ``Matches.doubt`` tells whoever fits whether the first matches agreed on it more than by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomatch.matching.chance import surprising
from geomatch.matching.descriptors import Described, Descriptor
from geomatch.matching.keypoints import LEAST_PX, Detector, Keypoints
from geomatch.matching.matches import LEAST_KEYPOINTS, Matches
from geomatch.matching.side import Side
from geomatch.matching.transforms import MINIMAL, Matrix, apply, nearest, through

INITIAL_RATIO, SURE_RATIO = 0.9, 0.8
CONSENSUS_PX, TRIED = 3.0, 800
MIXED = 0.3  # share of the second descriptor's distance
MODE_PX, MODE_LOG_SCALE, MODE_DEG = 12.0, 0.4, 20.0  # from a mode, at most
MODE_BINS = 40
GRAIN_PX = 8.0  # matches nearer than that err together
CHANCE = "its matches agree on no similarity more than by chance"


@dataclass(frozen=True)
class FoundKeypoints:
    """Keypoints of one image, and their distances' ingredients.

    Attributes:
        own: described as the method does.
        other: as the second descriptor does, or None.
    """

    own: Described
    other: Described | None


class PsoSift:
    """PSO-SIFT, or parts of it.

    Args:
        detector: of keypoints.
        descriptor: of them; it says their orientation.
        second: of patches, mixed in with MIXED.
        joint: whether matches are sought again under the transform, and the modes' outliers left out.
        most: keypoints of each image.
        least_px: side of an image that has room for what describes a keypoint.
        seed: of the sample consensus.
    """

    def __init__(
        self,
        detector: Detector,
        descriptor: Descriptor,
        *,
        second: Descriptor | None = None,
        joint: bool = True,
        most: int = 1024,
        least_px: int = LEAST_PX,
        seed: int = 0,
    ) -> None:
        self._detector, self._descriptor, self._second = detector, descriptor, second
        self._joint, self._most, self._least_px, self._seed = joint, most, least_px, seed

    def __call__(self, sar: Side, optical: Side) -> Matches:
        """Matches that agree on a similarity, or why there are none."""
        if (unusable := Matches.unusable(sar, optical, self._least_px)) is not None:
            return unusable
        ours, theirs = self._found(sar), self._found(optical)
        found = (len(ours.own), len(theirs.own))
        if min(found) < LEAST_KEYPOINTS:
            return Matches.none("fewer than three keypoints in an image", found)
        distance = mixed_distance(ours, theirs)
        first, second, ratio = _by_ratio(distance, INITIAL_RATIO)
        source, target = ours.own.keypoints, theirs.own.keypoints
        matrix = consensus(source.xy_px[first], target.xy_px[second], ratio <= SURE_RATIO, self._seed)
        if matrix is None:
            return Matches.none("no two matches to draw a similarity through", found)
        initial = Matches(source.xy_px[first], target.xy_px[second], ratio, found, grain_px=GRAIN_PX)
        doubt = "" if surprising(initial, matrix, "similarity", CONSENSUS_PX) else CHANCE
        if self._joint:
            first, second, ratio = _by_ratio(joint_distance(distance, source, target, matrix), INITIAL_RATIO)
            kept = near_modes(source[first], target[second], matrix)
        else:
            off = np.linalg.norm(apply(matrix, source.xy_px[first]) - target.xy_px[second], axis=1)
            kept = off <= CONSENSUS_PX
        if not kept.any():
            return Matches.none("no matches agree on a similarity", found)
        order = np.nonzero(kept)[0][np.argsort(distance[first[kept], second[kept]], kind="stable")]
        places = source.xy_px[first[order]], target.xy_px[second[order]]
        scores = -distance[first[order], second[order]]
        return Matches(*places, scores, found, grain_px=GRAIN_PX, doubt=doubt)

    def _found(self, side: Side) -> FoundKeypoints:
        own = self._descriptor(side, self._detector(side, self._most))
        return FoundKeypoints(own, None if self._second is None else self._second(side, own.keypoints))


def mixed_distance(ours: FoundKeypoints, theirs: FoundKeypoints) -> NDArray[np.float64]:
    """[N x M] Euclidean distances, with a second descriptor those of both, each over its mean."""
    own = _euclidean(ours.own, theirs.own)
    if ours.other is None or theirs.other is None:
        return own
    other = _euclidean(ours.other, theirs.other)
    return np.asarray((1 - MIXED) * own / own.mean() + MIXED * other / max(float(other.mean()), 1e-9))


def _euclidean(first: Described, second: Described) -> NDArray[np.float64]:
    a, b = first.vectors.astype(np.float64), second.vectors.astype(np.float64)
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def _by_ratio(
    distance: NDArray[np.float64], most: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows, their nearest columns and the ratio to the second nearest, where that is at most so much."""
    two = np.argpartition(distance, 1, axis=1)[:, :2]
    rows = np.arange(len(distance))
    near = np.take_along_axis(distance, two, axis=1)
    order = np.argsort(near, axis=1)
    best, ratio = two[rows, order[:, 0]], near[rows, order[:, 0]] / np.maximum(near[rows, order[:, 1]], 1e-9)
    kept = ratio <= most
    return rows[kept], best[kept], ratio[kept]


def consensus(
    source: NDArray[np.float64], target: NDArray[np.float64], sure: NDArray[np.bool_], seed: int
) -> Matrix | None:
    """FSC: through two sure matches, the similarity that most of all matches agree with, fitted to those.

    Args:
        source, target: [N x 2] matches.
        sure: [N] those that transforms are drawn through; where they are fewer than two, all are.
        seed: of the draws.

    Returns:
        [3 x 3], or None where no two matches lie apart.
    """
    pool = np.nonzero(sure)[0]
    pool = pool if len(pool) >= MINIMAL["similarity"] else np.arange(len(source))
    if len(pool) < MINIMAL["similarity"]:
        return None
    rng = np.random.default_rng(seed)
    sets = pool[np.argpartition(rng.random((TRIED, len(pool))), 1, axis=1)[:, :2]]
    tried = through("similarity", source[sets], target[sets])
    off = np.linalg.norm(apply(tried, source) - target, axis=2)
    agreeing = (off <= CONSENSUS_PX).sum(axis=1)
    best = int(agreeing.argmax())
    inliers = off[best] <= CONSENSUS_PX
    if inliers.sum() < MINIMAL["similarity"]:
        return None
    return nearest("similarity", source[inliers], target[inliers])


def joint_distance(
    distance: NDArray[np.float64], ours: Keypoints, theirs: Keypoints, matrix: Matrix
) -> NDArray[np.float64]:
    """Distances after what disagrees with the transform: (1 + e_p)(1 + e_s)(1 + e_o) times them."""
    scale, turn = float(np.hypot(*matrix[:2, 0])), float(np.arctan2(matrix[1, 0], matrix[0, 0]))
    position = np.linalg.norm(apply(matrix, ours.xy_px)[:, None] - theirs.xy_px[None], axis=2)
    sizes = np.abs(1 - scale * ours.size_px[:, None] / theirs.size_px[None])
    turned = np.radians(theirs.angle_deg[None] - ours.angle_deg[:, None]) - turn
    angle = np.abs((turned + np.pi) % (2 * np.pi) - np.pi)
    return np.asarray((1 + position) * (1 + sizes) * (1 + angle) * distance)


def near_modes(ours: Keypoints, theirs: Keypoints, matrix: Matrix) -> NDArray[np.bool_]:
    """Which matches are near the most frequent offset, scale and turn that are left under the transform."""
    left = theirs.xy_px - apply(matrix, ours.xy_px)
    scale = np.log(theirs.size_px / ours.size_px)
    # Less the transform's own turn and wrapped, so that what agrees with it lies about zero and not across the seam.
    whole_deg = float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    turn = (theirs.angle_deg - ours.angle_deg - whole_deg + 180) % 360 - 180
    kept = np.ones(len(ours), bool)
    for values, reach in ((left[:, 0], MODE_PX), (left[:, 1], MODE_PX), (scale, MODE_LOG_SCALE), (turn, MODE_DEG)):
        kept &= np.abs(values - _mode(values, reach)) <= reach
    return kept


def _mode(values: NDArray[np.float64], reach: float) -> float:
    """Middle of the most frequent of values: of overlapping intervals of twice the reach, the fullest one's mean."""
    if not len(values):
        return 0.0
    middles = np.linspace(float(values.min()), float(values.max()), MODE_BINS)
    near = np.abs(values[None] - middles[:, None]) <= reach
    return float(values[near[int(near.sum(axis=1).argmax())]].mean())
