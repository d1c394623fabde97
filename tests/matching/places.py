"""Drawn images to match: blobs and roads, seen under a transform made by hand."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.matching.samples import warped
from geomatch.matching.side import Side

SIZE = 256


def scene(seed: int = 0, size: int = 420) -> NDArray[np.float32]:
    """Grey in [0, 1]: rectangles and lines of many tones, a little blurred."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size), 0.5, np.float32)
    for _ in range(260):
        x, y = (int(at) for at in rng.integers(0, size, 2))
        wide, tall = (int(side) for side in rng.integers(6, 40, 2))
        cv2.rectangle(image, (x, y), (x + wide, y + tall), float(rng.random()), -1)
    for _ in range(25):
        ends = rng.integers(0, size, (2, 2)).tolist()
        cv2.line(image, ends[0], ends[1], float(rng.random()), 3)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.float32)


def similarity(turn_deg: float, scale: float, shift: tuple[float, float]) -> NDArray[np.float64]:
    """[3 x 3] about the middle of an image of SIZE."""
    turn = np.radians(turn_deg)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    out = np.eye(3)
    out[:2, :2] = linear
    out[:2, 2] = SIZE / 2 + np.array(shift) - linear @ (SIZE / 2, SIZE / 2)
    return out


def pair(to_optical: NDArray[np.float64], seed: int = 0, image: NDArray[np.float32] | None = None) -> tuple[Side, Side]:
    """The same image twice: as the SAR image, from where ``to_optical`` leads back, and as the optical one."""
    image = scene(seed) if image is None else image
    first = (image.shape[0] - SIZE) / 2
    to_scene = np.array([[1, 0, first], [0, 1, first], [0, 0, 1.0]])
    every = np.ones(image.shape, bool)
    sar, sar_known = warped(image, every, to_scene @ to_optical, (SIZE, SIZE))
    optical, known = warped(image, every, to_scene, (SIZE, SIZE))
    return Side(sar, sar_known, "sar"), Side(optical, known, "optical")


def flat(modality: str = "sar") -> Side:
    """An image of nothing."""
    every = np.ones((SIZE, SIZE), bool)
    return Side(np.full((SIZE, SIZE), 0.3, np.float32), every, "sar" if modality == "sar" else "optical")
