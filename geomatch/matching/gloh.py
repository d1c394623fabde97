"""PSO-SIFT's description of keypoints: orientations of a redefined gradient in log-polar bins.

Ma et al. 2017, "Remote sensing image registration with modified SIFT and enhanced feature matching": the gradient is
that of the gradient's magnitude, both by Sobel, which differs less between sensors than the image's own; an orientation
is assigned from it, and the descriptor is a histogram of 8 orientations in each of 17 places, a disc and two rings of
eight sectors (GLOH, Mikolajczyk & Schmid 2005): 136 numbers.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.matching.descriptors import Described
from geomatch.matching.keypoints import Keypoints
from geomatch.matching.side import Side

SECTORS, ORIENTATIONS, MAIN_BINS = 8, 8, 36
PLACES = 1 + 2 * SECTORS
RINGS = (0.25, 0.73, 1.0)  # of the radius: the disc, the inner and the outer ring end there
REACH = 12.0  # radius of what is described, in scales of the keypoint
RADII, ANGLES = 12, 48  # of the polar grid that is read
CLIPPED = 0.2  # an entry at most, as SIFT has it
LEVELS_PER_OCTAVE = 3
FIRST_SIGMA = 1.2


class GlohDescriptor:
    """Describes keypoints, and gives them the orientation of the redefined gradient."""

    def __call__(self, side: Side, keypoints: Keypoints) -> Described:
        """[N x 136] float32 of length one."""
        vectors = np.zeros((len(keypoints), PLACES * ORIENTATIONS), np.float32)
        angle = np.zeros(len(keypoints))
        scale = np.maximum(keypoints.size_px / 2, FIRST_SIGMA)
        level = np.rint(LEVELS_PER_OCTAVE * np.log2(scale / FIRST_SIGMA)).astype(np.int64)
        for number in np.unique(level):
            sigma = FIRST_SIGMA * 2.0 ** (number / LEVELS_PER_OCTAVE)
            east, south = redefined_gradient(side.bytes.astype(np.float32) / np.float32(255), float(sigma))
            at = np.nonzero(level == number)[0]
            angle[at], vectors[at] = _described(east, south, keypoints.xy_px[at], scale[at])
        return Described(replace(keypoints, angle_deg=np.degrees(angle) % 360), vectors)


def redefined_gradient(image: NDArray[np.float32], sigma: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gradient of the gradient's magnitude at a scale, to the right and down: both [H x W]."""
    smooth = cv2.GaussianBlur(image, (0, 0), sigma)
    magnitude = np.hypot(*_sobel(np.asarray(smooth, np.float32))).astype(np.float32)
    return _sobel(magnitude)


def _sobel(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    right, down = (cv2.Sobel(image, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (1, 0))
    return np.asarray(right, np.float32), np.asarray(down, np.float32)


def _described(
    right: NDArray[np.float32], down: NDArray[np.float32], xy_px: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Orientations [N] in radians and descriptors [N x 136] of keypoints at one level of scale."""
    radius = (np.arange(RADII) + 0.5) / RADII
    turn = 2 * np.pi * np.arange(ANGLES) / ANGLES
    cells = np.stack([np.outer(radius, np.cos(turn)), np.outer(radius, np.sin(turn))], axis=-1)  # [R x A x 2]
    area = np.repeat(radius[:, None], ANGLES, axis=1)

    def read(frame: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Magnitude and direction on the polar grid turned by ``frame``: [N x R x A]."""
        cos, sin = np.cos(frame), np.sin(frame)
        turned = np.stack([cos, -sin, sin, cos], axis=-1).reshape(-1, 2, 2)
        at = np.einsum("nij,raj->nrai", turned, cells) * (REACH * scale)[:, None, None, None] + xy_px[:, None, None]
        flat = (at - 0.5).astype(np.float32).reshape(len(frame), -1, 2)
        gx, gy = (
            cv2.remap(plane, flat[..., 0], flat[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
            for plane in (right, down)
        )
        return np.hypot(gx, gy).reshape(at.shape[:3]), np.arctan2(gy, gx).reshape(at.shape[:3])

    magnitude, direction = read(np.zeros(len(xy_px)))
    weight = area * np.exp(-np.square(radius)[:, None] / (2 * 0.5**2))
    main = _main_orientation(magnitude * weight, direction)
    magnitude, direction = read(main)
    ring = np.searchsorted(RINGS, radius)
    place = np.where(ring[:, None] == 0, 0, 1 + (ring[:, None] - 1) * SECTORS + np.arange(ANGLES) * SECTORS // ANGLES)
    inner = (direction - main[:, None, None]) % (2 * np.pi) * ORIENTATIONS / (2 * np.pi)
    low = np.floor(inner).astype(np.int64)
    share = inner - low
    histogram = np.zeros((len(xy_px), PLACES * ORIENTATIONS))
    row = np.arange(len(xy_px))[:, None, None]
    for step, part in ((0, 1 - share), (1, share)):
        np.add.at(histogram, (row, place * ORIENTATIONS + (low + step) % ORIENTATIONS), magnitude * area * part)
    clipped = np.minimum(_unit(histogram), CLIPPED)
    return main, _unit(clipped).astype(np.float32)


def _main_orientation(weight: NDArray[np.float64], direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest peak of the smoothed histogram of directions, [N] radians, between bins by a parabola."""
    bins = np.floor(direction % (2 * np.pi) * MAIN_BINS / (2 * np.pi)).astype(np.int64) % MAIN_BINS
    histogram = np.zeros((len(weight), MAIN_BINS))
    np.add.at(histogram, (np.arange(len(weight))[:, None, None], bins), weight)
    for _ in range(2):
        histogram = (np.roll(histogram, 1, axis=1) + histogram + np.roll(histogram, -1, axis=1)) / 3
    best = histogram.argmax(axis=1)
    before, peak, after = (histogram[np.arange(len(best)), (best + step) % MAIN_BINS] for step in (-1, 0, 1))
    bend = before - 2 * peak + after
    shift = np.where(bend < 0, (before - after) / np.where(bend < 0, 2 * bend, 1), 0)
    return np.asarray((best + 0.5 + shift) * 2 * np.pi / MAIN_BINS)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))
