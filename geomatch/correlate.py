"""Normalised cross-correlation of a window's features with a map's.

Zero-mean normalised correlation over the window's valid cells, summed over channels; each channel's mean is removed
first (Lewis 1995, "Fast normalized cross-correlation"). Two ways to the same numbers: at a few offsets around given
places, by one matrix product over all places, and over every offset within a field, by FFT.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from geomatch.structure import Dense

ENERGY_FLOOR = 0.3  # share of the field's usual energy below which a place counts as flat (water), not as a match
MIN_OVERLAP = 0.6  # share of the window's cells that must meet valid cells of the map
QUANTUM = np.float32(1 / 127)  # of a feature as the index keeps it
NO_MATCH = 0.0  # what a place off the map says: nothing, for or against

_CHUNK_VALUES = 1 << 23  # patch values gathered at a time


@dataclass(frozen=True)
class Template:
    """A window's features made ready for correlation.

    Attributes:
        values: [C x h x w] each channel's mean over the valid cells removed, of total length one, zero where invalid.
        mask: [h x w] float32, 1 on valid cells.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.float32]


def template(window: Dense) -> Template | None:
    """The window as a template, or None when it is invalid or constant throughout."""
    mask = window.valid.astype(np.float32)
    count = mask.sum()
    if count < 2:
        return None
    values = window.values - window.values.sum(axis=(1, 2), keepdims=True) / count
    values *= mask
    length = np.linalg.norm(values)
    if length < 1e-6 * np.sqrt(count):
        return None
    return Template((values / length).astype(np.float32), mask)


class Features(ABC):
    """A map's features as the index keeps them, wherever they are.

    Attributes:
        rms: root mean square of the valid features per cell, all channels together, after division by 127.
    """

    rms: float

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of cells."""

    @abstractmethod
    def cells(self, first: NDArray[np.int64], beyond: NDArray[np.int64]) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        """From one column and row [2] to before another, all on the map: [C x h x w] features times 127, any value
        where not valid; [h x w] whether valid.
        """

    def whole(self) -> Dense:
        """All features as float32."""
        return self.part(np.zeros(2, np.int64), np.array(self.shape[:0:-1]))

    def part(self, first: NDArray[np.int64], beyond: NDArray[np.int64]) -> Dense:
        """Features as float32, from one column and row [2] to before another."""
        values, valid = self.cells(first, beyond)
        return Dense(values * valid.astype(np.float32) * QUANTUM, valid)

    def patches(
        self, cols: NDArray[np.int64], rows: NDArray[np.int64], width: int, height: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Patches by their first cells, which may lie outside the map.

        Args:
            cols: [N] first cell column.
            rows: [N] first cell row.
            width, height: of a patch, cells.

        Returns:
            Features [N x C x height x width] and validity [N x height x width] as 0 or 1; both 0 off the map.
        """
        channels, tall, wide = self.shape
        features = np.zeros((len(rows), channels, height, width), np.float32)
        known = np.zeros((len(rows), height, width), np.float32)
        for number, first in enumerate(np.stack([cols, rows], axis=1)):
            low, high = np.clip([first, first + (width, height)], 0, (wide, tall))
            across, down = (slice(*ends) for ends in np.stack([low - first, high - first], axis=1).tolist())
            part = self.part(low, high)
            features[number, :, down, across], known[number, down, across] = part.values, part.valid
        return features, known


@dataclass(frozen=True)
class Field(Features):
    """Features in memory.

    Attributes:
        values: [C x h x w] int8, features times 127; any value where not valid.
        valid: [h x w].
        rms: as of ``Features``.
    """

    values: NDArray[np.int8]
    valid: NDArray[np.bool_]
    rms: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """As ``Features``."""
        channels, tall, wide = self.values.shape
        return channels, tall, wide

    def cells(self, first: NDArray[np.int64], beyond: NDArray[np.int64]) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        """As ``Features``, no copies."""
        (col0, row0), (col1, row1) = first.tolist(), beyond.tolist()
        return self.values[:, row0:row1, col0:col1], self.valid[row0:row1, col0:col1]

    def patches(
        self, cols: NDArray[np.int64], rows: NDArray[np.int64], width: int, height: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As ``Features``, all at once of those that lie inside."""
        tall, wide = self.valid.shape
        inside = (rows >= 0) & (cols >= 0) & (rows <= tall - height) & (cols <= wide - width)
        if inside.all() and inside.size:
            return self._cut(cols, rows, width, height)
        features = np.empty((len(rows), len(self.values), height, width), np.float32)
        known = np.empty((len(rows), height, width), np.float32)
        if inside.any():
            features[inside], known[inside] = self._cut(cols[inside], rows[inside], width, height)
        features[~inside], known[~inside] = super().patches(cols[~inside], rows[~inside], width, height)
        return features, known

    def _cut(
        self, cols: NDArray[np.int64], rows: NDArray[np.int64], width: int, height: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As ``patches``, of those that lie inside the map."""
        known = sliding_window_view(self.valid, (height, width))[rows, cols].astype(np.float32)
        picked = sliding_window_view(self.values, (height, width), axis=(1, 2))[:, rows, cols]
        features = picked.transpose(1, 0, 2, 3).astype(np.float32)
        features *= QUANTUM
        if not known.all():
            features *= known[:, None]
        return features, known


def around(
    window: Template, features: Features, cols: NDArray[np.int64], rows: NDArray[np.int64], radius: int
) -> NDArray[np.float32]:
    """Correlation at the offsets within ``radius`` cells of given places.

    Args:
        window: [C x h x w].
        features: of the map.
        cols: [N] cell column of the window's first cell at the centre offset.
        rows: [N] cell row.
        radius: cells to either side.

    Returns:
        [N x 2 radius + 1 x 2 radius + 1] correlation in [-1, 1]; NO_MATCH where too few cells meet valid ones.
    """
    _, height, width = window.values.shape
    side = 2 * radius + 1
    tall, wide = height + 2 * radius, width + 2 * radius
    filters = _placed(window.values, radius)
    under = _sums_under(window.mask, radius)
    cells = float(window.mask.sum())
    floor = _energy_floor(features.rms, cells)
    out = np.empty((len(cols), side * side), np.float32)
    step = max(1, _CHUNK_VALUES // (len(window.values) * tall * wide))
    for first in range(0, len(cols), step):
        part = slice(first, first + step)
        values, valid = features.patches(cols[part] - radius, rows[part] - radius, wide, tall)
        count = len(values)
        overlap, energy = under(valid), under(np.einsum("nchw,nchw->nhw", values, values))
        sums = under(values)
        cross = values.reshape(count, -1) @ filters
        out[part] = _normalise(cross, energy, sums.transpose(1, 0, 2), overlap, cells=cells, floor=floor)
    return out.reshape(-1, side, side)


def _sums_under(mask: NDArray[np.float32], radius: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A function from patches [... x h + 2r x w + 2r] to their sums under the mask at every offset [... x offsets].

    Under a whole mask the sums are over boxes: over rows, then over columns.
    """
    if not mask.all():
        masks = _placed(mask[None], radius)
        return lambda patches: patches.reshape(*patches.shape[:-2], -1) @ masks
    down, across = (_intervals(length, radius) for length in mask.shape)

    def boxes(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        made: NDArray[np.float32] = np.matmul(np.matmul(down, patches), across.T)
        return made.reshape(*made.shape[:-2], -1)

    return boxes


def _intervals(length: int, radius: int) -> NDArray[np.float32]:
    """[2r + 1 x length + 2r]: 1 on an interval of that length, from each of its first places on."""
    first, at = np.arange(2 * radius + 1)[:, None], np.arange(length + 2 * radius)
    return np.asarray((at >= first) & (at < first + length), np.float32)


def over(window: Template, dense: Dense, rms: float) -> NDArray[np.float32]:
    """Correlation at every offset of the window inside a field.

    Args:
        window: [C x h x w].
        dense: [C x H x W] features, zero where invalid.
        rms: usual root mean square of the map's features per cell, for the floor under flat places.

    Returns:
        [H - h + 1 x W - w + 1] correlation; NO_MATCH where too few cells meet valid ones.
    """

    def correlate(plane: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = cv2.matchTemplate(plane, kernel, cv2.TM_CCORR).astype(np.float32)
        return result

    def under(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        if not whole:
            return correlate(plane, window.mask)
        height, width = window.mask.shape
        sums = cv2.boxFilter(plane, cv2.CV_32F, (width, height), anchor=(0, 0), normalize=False)
        return np.asarray(sums[: plane.shape[0] - height + 1, : plane.shape[1] - width + 1], dtype=np.float32)

    whole = bool(window.mask.all())  # then the sums under the window are sums over boxes, which cost next to nothing
    planes = [np.ascontiguousarray(plane) for plane in dense.values]
    cross = np.sum([correlate(p, k) for p, k in zip(planes, window.values, strict=True)], axis=0)
    energy = under(np.square(dense.values).sum(axis=0))
    sums = np.stack([under(plane) for plane in planes])
    count = float(window.mask.sum())
    overlap = under(dense.valid.astype(np.float32))
    return _normalise(cross, energy, sums, overlap, cells=count, floor=_energy_floor(rms, count))


def _energy_floor(rms: float, cells: float) -> float:
    return max(ENERGY_FLOOR * rms * float(np.sqrt(cells)), 1e-6)


def _normalise(
    cross: NDArray[np.float32],
    energy: NDArray[np.float32],
    sums: NDArray[np.float32],
    overlap: NDArray[np.float32],
    *,
    cells: float,
    floor: float,
) -> NDArray[np.float32]:
    """Cross products [...] over the map's own length at each offset, its means (from sums [C ...]) removed."""
    variance = energy - np.square(sums).sum(axis=0) / np.maximum(overlap, 1)
    score = cross / np.maximum(np.sqrt(np.maximum(variance, 0)), floor)
    return np.where(overlap >= MIN_OVERLAP * cells, score, NO_MATCH).astype(np.float32)


def _placed(kernel: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The kernel laid into a patch at each offset: [C x h x w] -> [C (h + 2r) (w + 2r) x offsets]."""
    channels, height, width = kernel.shape
    side = 2 * radius + 1
    out = np.zeros((side, side, channels, height + 2 * radius, width + 2 * radius), np.float32)  # its runs are copied
    for row in range(side):
        for col in range(side):
            out[row, col, :, row : row + height, col : col + width] = kernel
    return out.reshape(side * side, -1).T
