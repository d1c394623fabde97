"""A SAR strip made ready for the map: resampled to its pixels and orientation, cut into windows with known offsets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geomatch.attitude import KNOWN, TOLD, Attitude, Tolerance
from geomatch.geo import (
    apply_affine,
)
from geomatch.images import SarRadiometry
from geomatch.raster import Patch
from geomatch.tiles import starts

DETAIL_PX = 8  # averaged before it is measured how much a part of a strip shows
MIRROR = np.diag([-1.0, 1.0])  # columns the other way
NORTH_UP = np.diag([1.0, -1.0])  # metres east and north per pixel, but for their size


@dataclass(frozen=True)
class Strip:
    """A strip on the map's pixel grid, but for its unknown place.

    Attributes:
        image: [H x W] SAR log amplitude.
        valid: [H x W].
        from_file: file pixel -> pixel of ``image``, corner convention.
        file_size: columns and rows of the file.
        notes: how the file was understood, sentences for the user.
        heading_deg: where the file's up points on the map, clockwise from true north; None where nobody asked.
        mirrored: whether the file shows the ground's mirror image.
        tolerance: how far heading and scale might have been from what was told; then they are ones that were tried.
    """

    image: NDArray[np.float32]
    valid: NDArray[np.bool_]
    from_file: Affine
    file_size: tuple[int, int]
    notes: tuple[str, ...] = ()
    heading_deg: float | None = None
    mirrored: bool = False
    tolerance: Tolerance = KNOWN

    @property
    def area_px(self) -> float:
        """Pixels of ``image`` that the file covers; the others are the corners of its bounding box."""
        return abs(self.from_file.determinant) * self.file_size[0] * self.file_size[1]

    @property
    def middle_px(self) -> NDArray[np.float64]:
        """[2] the centre of the file in ``image``, about which it turns."""
        return apply_affine(self.from_file, np.array(self.file_size) / 2)


@dataclass(frozen=True)
class RawStrip:
    """A strip in its file's own pixels, to be turned and scaled for the map.

    Attributes:
        image: [H x W] SAR log amplitude.
        valid: [H x W].
        linear: [2 x 2] pixel of the file -> pixel of the map.
        ground: [2 x 2] pixel of the map -> metres east and north, since turns are turns on the ground.
        tolerance: how far the true heading and scale may be from what ``linear`` says.
        notes: how the file was understood, sentences for the user.
        part: columns and rows of the file that ``image`` leaves out before its first pixel, and the file's size; None
            where it is all of the file.
    """

    image: NDArray[np.float32]
    valid: NDArray[np.bool_]
    linear: NDArray[np.float64]
    ground: NDArray[np.float64]
    tolerance: Tolerance = KNOWN
    notes: tuple[str, ...] = ()
    part: tuple[int, int, int, int] | None = None

    @classmethod
    def of(
        cls,
        patch: Patch,
        linear: NDArray[np.float64],
        radiometry: SarRadiometry,
        *,
        ground: NDArray[np.float64] = NORTH_UP,
        tolerance: Tolerance = KNOWN,
        notes: tuple[str, ...] = (),
    ) -> RawStrip:
        """SAR pixels as in the file, and what they are."""
        image, valid = radiometry.log_amplitude(patch), radiometry.lit(patch)
        return cls(image, valid, linear, ground, tolerance, notes)

    @property
    def reach_px(self) -> float:
        """From the centre to the corners, pixels of the map."""
        height, width = self.image.shape
        return float(np.linalg.norm(self.linear @ [[width, width], [height, -height]], axis=0).max() / 2)

    @property
    def middle(self) -> NDArray[np.float64]:
        """[2] the centre of ``image``, columns and rows of the file."""
        height, width = self.image.shape
        left, top = (self.part or (0, 0))[:2]
        return np.array([left + width / 2, top + height / 2])

    def arm_px(self, attitude: Attitude, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """[2] from the file's centre to a point of the file, map pixels, at an attitude."""
        height, width = self.image.shape
        size = self.part[2:] if self.part else (width, height)
        return np.asarray(self._linear(attitude) @ (point - np.array(size) / 2))

    def near(self, point: NDArray[np.float64], reach_px: float) -> RawStrip:
        """What of it lies within so many pixels of the map of a point of the file, along its sides."""
        sides = np.linalg.norm(self.linear, axis=0)  # of a pixel of the file
        low, high = (np.rint(point + sign * reach_px / sides).astype(int) for sign in (-1, 1))
        return self._cut(*np.maximum(low, 0).tolist(), *high.tolist())

    def at(self, attitude: Attitude = TOLD) -> Strip:
        """The strip on the map's pixel grid, turned and scaled by so much more than ``linear`` says."""
        image, valid, from_file = resample(self.image, self.valid, self._linear(attitude))
        height, width = self.image.shape
        left, top, *size = self.part or (0, 0, width, height)
        from_file = from_file @ Affine.translation(-left, -top)
        return Strip(
            image,
            valid,
            from_file,
            (size[0], size[1]),
            self.notes,
            heading_deg=self.heading_deg(attitude),
            mirrored=float(np.linalg.det(self.ground @ self._linear(attitude))) > 0,  # rows run south
            tolerance=self.tolerance,
        )

    def middle_at(self, attitude: Attitude, size_px: int) -> Strip:
        """As ``at``, but no more than the square of ``size_px`` about its middle; unknown where it is smaller."""
        strip = self.at(attitude)
        col, row = (int(at) for at in np.rint(apply_affine(strip.from_file, self.middle) - size_px / 2))
        image, valid = np.zeros((size_px, size_px), np.float32), np.zeros((size_px, size_px), bool)
        known = np.s_[max(0, row) : row + size_px, max(0, col) : col + size_px]
        part = strip.image[known]
        there = np.s_[max(0, -row) : max(0, -row) + part.shape[0], max(0, -col) : max(0, -col) + part.shape[1]]
        image[there], valid[there] = part, strip.valid[known]
        return replace(strip, image=image, valid=valid, from_file=Affine.translation(-col, -row) @ strip.from_file)

    def heading_deg(self, attitude: Attitude = TOLD) -> float:
        """Where its up points at that attitude, degrees clockwise from true north, in [0, 360)."""
        east, north = -(self.ground @ self._linear(attitude))[:, 1]
        return float(np.degrees(np.arctan2(east, north)) % 360)

    def richest_parts(self, max_px: int, most: int) -> list[RawStrip]:
        """Parts of at most ``max_px`` pixels of the map, as square as the strip allows, apart from each other.

        The one that shows the most comes first; at most ``most``.
        """
        limit = max_px / abs(float(np.linalg.det(self.linear)))
        if self.image.size <= limit:
            return [self]
        tall, wide = self.image.shape
        short = int(min(tall, wide, np.sqrt(limit)))
        height, width = (short if side == min(tall, wide) else min(side, int(limit / short)) for side in (tall, wide))
        # Differences of averages: speckle counts little there, nodata nothing.
        small, known = _shrunk(self.image, self.valid, DETAIL_PX)
        edges = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        total = cv2.integral(edges * cv2.erode(known.astype(np.float32), np.ones((3, 3), np.uint8)))
        rows, cols = starts(tall, height, max(1, height // 4)), starts(wide, width, max(1, width // 4))
        col, row = np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2).T
        left, top, right, bottom = (at // DETAIL_PX for at in (col, row, col + width, row + height))
        shown = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
        first: list[tuple[int, int]] = []
        for best in np.argsort(-shown, kind="stable"):
            at = int(col[best]), int(row[best])
            if len(first) < most and all(abs(at[0] - c) >= width or abs(at[1] - r) >= height for c, r in first):
                first.append(at)
        return [self._cut(left, top, left + width, top + height) for left, top in first]

    def _cut(self, left: int, top: int, right: int, bottom: int) -> RawStrip:
        """Some of its columns and rows, of all of a file."""
        height, width = self.image.shape
        inside = np.s_[top:bottom, left:right]
        return replace(self, image=self.image[inside], valid=self.valid[inside], part=(left, top, width, height))

    def _linear(self, attitude: Attitude) -> NDArray[np.float64]:
        if attitude == TOLD:
            return self.linear
        linear = self.linear @ MIRROR if attitude.mirrored else self.linear
        sine, cosine = np.sin(np.radians(attitude.turn_deg)), np.cos(np.radians(attitude.turn_deg))
        clockwise = attitude.scale * np.array([[cosine, sine], [-sine, cosine]])  # of east and north
        return np.asarray(np.linalg.solve(self.ground, clockwise @ self.ground @ linear))


def strip_of(patch: Patch, linear: NDArray[np.float64], radiometry: SarRadiometry) -> Strip:
    """SAR pixels as a strip on the map's pixel grid, as it is told; arguments as ``RawStrip.of``."""
    return RawStrip.of(patch, linear, radiometry).at()


def resample(
    image: NDArray[np.float32], valid: NDArray[np.bool_], linear: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Affine]:
    """Turn and scale an image about nothing in particular: the result is its bounding box.

    Bilinear; where the result has fewer pixels, the image is averaged first, in the logarithm, by the whole factor.

    Args:
        image: [H x W].
        valid: [H x W].
        linear: [2 x 2] pixel of the image -> pixel of the result.

    Returns:
        The resampled image, its validity, and the affine transform from image pixel to result pixel.
    """
    if np.allclose(linear, np.eye(2), atol=1e-9):
        return image, valid, Affine.identity()
    factor = max(1, int(1 / np.sqrt(abs(np.linalg.det(linear))) + 1e-6))
    small, small_valid = _shrunk(image, valid, factor)
    height, width = image.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ linear.T
    low, high = np.floor(corners.min(axis=0) + 1e-6), np.ceil(corners.max(axis=0) - 1e-6)
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    from_file = Affine(linear[0, 0], linear[0, 1], -low[0], linear[1, 0], linear[1, 1], -low[1])
    # OpenCV puts (0, 0) at the centre of the first pixel, the corner convention half a pixel before it.
    half = Affine.translation(-0.5, -0.5)
    matrix = np.array(half @ from_file @ Affine.scale(factor) @ ~half).reshape(3, 3)[:2]
    warped = cv2.warpAffine(small, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    known = cv2.warpAffine(small_valid.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR, borderValue=0)
    return np.asarray(warped, dtype=np.float32), np.asarray(known > 0.99), from_file


def _shrunk(
    image: NDArray[np.float32], valid: NDArray[np.bool_], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Averages of the valid pixels of ``factor`` × ``factor`` squares; a remainder at the edge is extended."""
    if factor == 1:
        return image, valid
    below, right = -image.shape[0] % factor, -image.shape[1] % factor

    def average(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        whole = cv2.copyMakeBorder(plane, 0, below, 0, right, cv2.BORDER_REPLICATE)
        size = (whole.shape[1] // factor, whole.shape[0] // factor)
        return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), dtype=np.float32)

    share = average(valid.astype(np.float32))
    mean = average(np.where(valid, image, np.float32(0))) / np.maximum(share, 1e-6)
    return mean.astype(np.float32), share > 0.5
