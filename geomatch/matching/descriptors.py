"""Descriptors of keypoints, those that OpenCV has, and how two are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.matching.keypoints import BORDER_PX, Detector, Keypoints, has_room, sift
from geomatch.matching.side import Side

Metric = Literal["euclidean", "hamming"]
LOW = 1e-5  # threshold of KAZE and AKAZE, at which there are enough to choose from


@dataclass(frozen=True)
class Described:
    """Keypoints with their descriptors.

    Attributes:
        keypoints: N of them.
        vectors: [N x D] float32, or [N x bytes] uint8 of bits.
        metric: by which they are compared.
    """

    keypoints: Keypoints
    vectors: NDArray[Any]
    metric: Metric = "euclidean"

    def __len__(self) -> int:
        """How many."""
        return len(self.keypoints)


class Descriptor(Protocol):
    """Describes what is around keypoints."""

    def __call__(self, side: Side, keypoints: Keypoints) -> Described:
        """Descriptors of those keypoints that it can describe."""
        ...


class Extractor(Protocol):
    """Finds keypoints and describes them."""

    def __call__(self, side: Side, most: int) -> Described:
        """The strongest ``most`` keypoints of an image and their descriptors."""
        ...


class OpenCvDescriptor:
    """One of OpenCV's.

    Args:
        make: its factory.
        metric: of its vectors.
        root: whether they are square-rooted after division by their sum (RootSIFT, Arandjelović & Zisserman 2012).
    """

    def __init__(self, make: Callable[[], cv2.Feature2D], metric: Metric = "euclidean", *, root: bool = False) -> None:
        self._make = make
        self._metric: Metric = metric
        self._root = root

    def __call__(self, side: Side, keypoints: Keypoints) -> Described:
        """Descriptors; a keypoint too near the edge for one is left out."""
        tool = self._make()
        kept, vectors = tool.compute(side.bytes, keypoints.opencv()) if len(keypoints) else ((), None)
        kind = np.uint8 if self._metric == "hamming" else np.float32
        if vectors is None or not len(kept):
            return Described(keypoints[:0], np.zeros((0, tool.descriptorSize()), kind), self._metric)
        found = np.asarray(vectors)
        if self._root:
            found = np.sqrt(found / np.maximum(found.sum(axis=1, keepdims=True), 1e-6))
        return Described(keypoints[np.array([one.class_id for one in kept])], found.astype(kind), self._metric)


class KazeDescriptor:
    """KAZE's or AKAZE's, which OpenCV computes for their own keypoints alone: those are found and described in one.

    Args:
        make: its factory.
        metric: of its vectors.
    """

    def __init__(self, make: Callable[[], cv2.Feature2D], metric: Metric) -> None:
        self._make = make
        self._metric: Metric = metric

    def __call__(self, side: Side, most: int) -> Described:
        """The strongest, with descriptors."""
        tool = self._make()
        found, vectors = tool.detectAndCompute(side.bytes, None) if has_room(side) else ((), None)
        kind = np.uint8 if self._metric == "hamming" else np.float32
        if not len(found):
            return Described(Keypoints.none(), np.zeros((0, tool.descriptorSize()), kind), self._metric)
        order = np.argsort([-one.response for one in found], kind="stable")
        keypoints = Keypoints.from_opencv([found[i] for i in order])
        kept = np.nonzero(keypoints.inside(side))[0][:most]
        return Described(keypoints[kept], np.asarray(vectors)[order][kept].astype(kind), self._metric)


@dataclass(frozen=True)
class DetectThenDescribe:
    """An extractor made of a detector and a descriptor."""

    detector: Detector
    descriptor: Descriptor

    def __call__(self, side: Side, most: int) -> Described:
        """The detector's strongest, described."""
        return self.descriptor(side, self.detector(side, most))


DESCRIPTORS: dict[str, Descriptor] = {
    "sift": OpenCvDescriptor(sift),
    "rootsift": OpenCvDescriptor(sift, root=True),
    "orb": OpenCvDescriptor(lambda: cv2.ORB.create(edgeThreshold=BORDER_PX), "hamming"),
    "brisk": OpenCvDescriptor(cv2.BRISK.create, "hamming"),
}
WHOLE: dict[str, Extractor] = {
    "akaze": KazeDescriptor(lambda: cv2.AKAZE.create(threshold=LOW), "hamming"),
    "kaze": KazeDescriptor(lambda: cv2.KAZE.create(threshold=LOW), "euclidean"),
}
