"""Keypoints, and the detectors that OpenCV has.

Places are pixels with (0, 0) at the outer corner of the first pixel, as everywhere in geomatch; OpenCV counts from its
centre. Every detector is asked for a number of keypoints and returns its strongest, so that they compare at equal
numbers, and none within BORDER_PX of the edge or of nodata, where half of what a descriptor sees is missing. Asked for
keypoints some distance apart, it leaves out those near a stronger one, so that detectors also compare at one spread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from geomatch.matching.side import Side

BORDER_PX = 8
LEAST_PX = 2 * BORDER_PX + 1  # side below which an image has no room for a keypoint; OpenCV fails on some such


@dataclass(frozen=True)
class Keypoints:
    """Places in one image, the strongest first.

    Attributes:
        xy_px: [N x 2].
        size_px: [N] diameter of what was found there.
        angle_deg: [N] its orientation, clockwise from the right as OpenCV has it; 0 where the detector has none.
        score: [N] response, higher is better.
        octave: [N] int32, OpenCV's packed octave and layer, which its SIFT descriptor asks for; 0 elsewhere.
    """

    xy_px: NDArray[np.float64]
    size_px: NDArray[np.float64]
    angle_deg: NDArray[np.float64]
    score: NDArray[np.float64]
    octave: NDArray[np.int32]

    def __len__(self) -> int:
        """How many."""
        return len(self.xy_px)

    def __getitem__(self, which: NDArray[np.generic] | slice) -> Keypoints:
        """Some of them."""
        places, score = self.xy_px[which], self.score[which]
        return Keypoints(places, self.size_px[which], self.angle_deg[which], score, self.octave[which])

    @classmethod
    def none(cls) -> Keypoints:
        """No keypoints."""
        return cls.at(np.empty((0, 2)))

    @classmethod
    def at(
        cls,
        xy_px: NDArray[np.float64],
        score: NDArray[np.float64] | None = None,
        *,
        size_px: float = 16.0,
    ) -> Keypoints:
        """Upright keypoints of one size at places, by score where they have one."""
        count = len(xy_px)
        score = np.zeros(count) if score is None else np.asarray(score, np.float64)
        order = np.argsort(-score, kind="stable")
        flat, octave = np.zeros(count), np.zeros(count, np.int32)
        return cls(np.asarray(xy_px, np.float64).reshape(-1, 2)[order], flat + size_px, flat, score[order], octave)

    @classmethod
    def from_opencv(cls, found: Sequence[cv2.KeyPoint]) -> Keypoints:
        """Of OpenCV's, by response."""
        order = sorted(found, key=lambda one: -one.response)
        xy = np.array([one.pt for one in order], np.float64).reshape(-1, 2) + 0.5
        size, angle, score = (
            np.array([getattr(one, name) for one in order], np.float64) for name in ("size", "angle", "response")
        )
        return cls(xy, size, np.where(angle < 0, 0.0, angle), score, np.array([one.octave for one in order], np.int32))

    def distinct(self) -> Keypoints:
        """The first of those that have one place and size, and differ in orientation alone."""
        _, first = np.unique(np.column_stack([self.xy_px, self.size_px]), axis=0, return_index=True)
        return self[np.sort(first)]

    def opencv(self) -> list[cv2.KeyPoint]:
        """As OpenCV takes them; each remembers its number as its class, since descriptors may leave some out."""
        columns = zip(self.xy_px - 0.5, self.size_px, self.angle_deg, self.score, self.octave, strict=True)
        return [
            cv2.KeyPoint(float(x), float(y), float(size), float(angle), float(score), int(octave), number)
            for number, ((x, y), size, angle, score, octave) in enumerate(columns)
        ]

    def inside(self, side: Side, margin_px: float = BORDER_PX) -> NDArray[np.bool_]:
        """[N] which are at least ``margin_px`` from the edge and from nodata."""
        if not len(self):
            return np.zeros(0, bool)
        framed = np.pad(side.valid.astype(np.uint8), 1)
        distance = cv2.distanceTransform(framed, cv2.DIST_C, 3)[1:-1, 1:-1]
        width, height = side.size_px
        col = np.clip(self.xy_px[:, 0].astype(np.int64), 0, width - 1)
        row = np.clip(self.xy_px[:, 1].astype(np.int64), 0, height - 1)
        return np.asarray(distance[row, col] > margin_px)

    def on_something(self, side: Side) -> NDArray[np.bool_]:
        """[N] which have any change within BORDER_PX; a network finds others by how far the edges are alone."""
        around = np.ones((2 * BORDER_PX + 1, 2 * BORDER_PX + 1), np.uint8)
        differs = cv2.dilate(side.bytes, around) > cv2.erode(side.bytes, around)
        col, row = self.xy_px.astype(np.int64).T
        return np.asarray(differs[np.clip(row, 0, len(differs) - 1), np.clip(col, 0, differs.shape[1] - 1)])


class Detector(Protocol):
    """Finds keypoints."""

    def __call__(self, side: Side, most: int, apart_px: float = 0.0) -> Keypoints:
        """The strongest ``most`` keypoints of an image, fewer where it has fewer; no two nearer than ``apart_px``."""
        ...


def has_room(side: Side) -> bool:
    """Whether an image is large enough for a keypoint away from its edges."""
    return min(side.size_px) >= LEAST_PX


def thinned(xy_px: NDArray[np.float64], strength: NDArray[np.float64], apart_px: float) -> NDArray[np.int64]:
    """Numbers of the places [N x 2] that are left when each, the strongest first, drives out those too near to it."""
    order = np.argsort(-strength, kind="stable")
    if apart_px <= 0:
        return order
    tree = KDTree(xy_px)
    free = np.ones(len(xy_px), bool)
    kept = []
    for number in order:
        if free[number]:
            kept.append(number)
            free[tree.query_ball_point(xy_px[number], apart_px)] = False
    return np.array(kept, np.int64)


class OpenCvDetector:
    """One of OpenCV's, at a threshold so low that there are enough to choose from.

    Args:
        make: its factory.
        oriented: whether a place of several orientations is as many keypoints, for a descriptor that turns with them.
            For others, and for whoever counts places, these are copies.
    """

    def __init__(self, make: Callable[[], cv2.Feature2D], *, oriented: bool = False) -> None:
        self._make, self._oriented = make, oriented

    def __call__(self, side: Side, most: int, apart_px: float = 0.0) -> Keypoints:
        """The strongest."""
        if not has_room(side):
            return Keypoints.none()
        found = Keypoints.from_opencv(self._make().detect(side.bytes, None))
        found = found[found.inside(side)]
        found = found if self._oriented else found.distinct()
        return found[thinned(found.xy_px, found.score, apart_px)][:most]


def sift() -> cv2.Feature2D:
    """OpenCV's; without being told so its places are a quarter of a pixel too far right and down."""
    return cv2.SIFT.create(nfeatures=0, contrastThreshold=0.005, edgeThreshold=20, enable_precise_upscale=True)


ORIENTED_SIFT = OpenCvDetector(sift, oriented=True)
DETECTORS: dict[str, Detector] = {
    "sift": OpenCvDetector(sift),
    "orb": OpenCvDetector(lambda: cv2.ORB.create(nfeatures=20000, fastThreshold=2, edgeThreshold=BORDER_PX)),
    "akaze": OpenCvDetector(lambda: cv2.AKAZE.create(threshold=1e-5)),
    "kaze": OpenCvDetector(lambda: cv2.KAZE.create(threshold=1e-5)),
    "brisk": OpenCvDetector(lambda: cv2.BRISK.create(thresh=5)),
    # SURF is patented and not in OpenCV's wheels; corners by the smaller eigenvalue (Shi & Tomasi 1994) stand in.
    "gftt": OpenCvDetector(lambda: cv2.GFTTDetector.create(maxCorners=20000, qualityLevel=1e-4, minDistance=3)),
}
