"""Normalised cross-correlation of a window's features with a map's.

Zero-mean normalised correlation over the window's valid cells, summed over channels; each channel's mean is removed
first (Lewis 1995, "Fast normalized cross-correlation"). Two ways to the same numbers: at a few offsets around given
places, by one matrix product over all places, and over every offset within a field, by FFT.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.structure import Dense

ENERGY_FLOOR = 0.3  # share of the field's usual energy below which a place counts as flat (water), not as a match
MIN_OVERLAP = 0.6  # share of the window's cells that must meet valid cells of the map
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


@dataclass(frozen=True)
class Field:
    """A map's features as the index keeps them.

    Attributes:
        values: [C x h x w] int8, features times 127; any value where not valid.
        valid: [h x w].
        rms: root mean square of the valid features per cell, all channels together, after division by 127.
    """

    values: NDArray[np.int8]
    valid: NDArray[np.bool_]
    rms: float

    def crop(self, col0: int, row0: int, width: int, height: int) -> Dense:
        """The features from cell (col0, row0) on as float32; cells outside the map are invalid."""
        cols, rows = np.arange(col0, col0 + width), np.arange(row0, row0 + height)
        values, valid = _gather(self, cols[None], rows[None])
        return Dense(values[0], valid[0] > 0)


QUANTUM = np.float32(1 / 127)


def around(
    window: Template, field: Field, cols: NDArray[np.int64], rows: NDArray[np.int64], radius: int
) -> NDArray[np.float32]:
    """Correlation at the offsets within ``radius`` cells of given places.

    Args:
        window: [C x h x w].
        field: the map.
        cols: [N] cell column of the window's first cell at the centre offset.
        rows: [N] cell row.
        radius: cells to either side.

    Returns:
        [N x 2 radius + 1 x 2 radius + 1] correlation in [-1, 1]; NO_MATCH where too few cells meet valid ones.
    """
    _, height, width = window.values.shape
    side = 2 * radius + 1
    tall, wide = height + 2 * radius, width + 2 * radius
    filters = _placed(window.values, radius).reshape(-1, side * side)
    masks = _placed(window.mask[None], radius).reshape(-1, side * side)
    cells = float(window.mask.sum())
    floor = _energy_floor(field.rms, cells)
    out = np.empty((len(cols), side * side), np.float32)
    step = max(1, _CHUNK_VALUES // (len(window.values) * tall * wide))
    for first in range(0, len(cols), step):
        part = slice(first, first + step)
        patch_cols = cols[part, None] - radius + np.arange(wide)
        patch_rows = rows[part, None] - radius + np.arange(tall)
        values, valid = _gather(field, patch_cols, patch_rows)
        count = len(values)
        overlap = valid.reshape(count, -1) @ masks
        sums = values.reshape(count, len(window.values), -1) @ masks
        energy = np.square(values).sum(axis=1).reshape(count, -1) @ masks
        cross = values.reshape(count, -1) @ filters
        out[part] = _normalise(cross, energy, sums.transpose(1, 0, 2), overlap, cells=cells, floor=floor)
    return out.reshape(-1, side, side)


def over(window: Template, field: Dense, rms: float) -> NDArray[np.float32]:
    """Correlation at every offset of the window inside a field.

    Args:
        window: [C x h x w].
        field: [C x H x W] features, zero where invalid.
        rms: usual root mean square of the field's features per cell, for the floor under flat places.

    Returns:
        [H - h + 1 x W - w + 1] correlation; NO_MATCH where too few cells meet valid ones.
    """

    def correlate(plane: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = cv2.matchTemplate(plane, kernel, cv2.TM_CCORR).astype(np.float32)
        return result

    planes = [np.ascontiguousarray(plane) for plane in field.values]
    cross = np.sum([correlate(p, k) for p, k in zip(planes, window.values, strict=True)], axis=0)
    energy = correlate(np.square(field.values).sum(axis=0), window.mask)
    sums = np.stack([correlate(plane, window.mask) for plane in planes])
    count = float(window.mask.sum())
    overlap = correlate(field.valid.astype(np.float32), window.mask)
    return _normalise(cross, energy, sums, overlap, cells=count, floor=_energy_floor(rms, count))


def _energy_floor(rms: float, cells: float) -> float:
    return ENERGY_FLOOR * rms * float(np.sqrt(cells))


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


def _gather(
    field: Field, cols: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Patches of the field: cols [N x w], rows [N x h] -> values [N x C x h x w] and validity [N x h x w]."""
    height, width = field.valid.shape
    known = ((rows >= 0) & (rows < height))[:, :, None] & ((cols >= 0) & (cols < width))[:, None, :]
    at_rows, at_cols = np.clip(rows, 0, height - 1)[:, :, None], np.clip(cols, 0, width - 1)[:, None, :]
    valid = (field.valid[at_rows, at_cols] & known).astype(np.float32)
    values = np.empty((len(cols), len(field.values), *valid.shape[1:]), np.float32)
    for channel, plane in enumerate(field.values):
        np.multiply(plane[at_rows, at_cols], valid, out=values[:, channel])
    values *= QUANTUM
    return values, valid


def _placed(kernel: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The kernel laid into a patch at each offset: [C x h x w] -> [C x h + 2r x w + 2r x side x side]."""
    channels, height, width = kernel.shape
    side = 2 * radius + 1
    out = np.zeros((channels, height + 2 * radius, width + 2 * radius, side, side), np.float32)
    for row in range(side):
        for col in range(side):
            out[:, row : row + height, col : col + width, row, col] = kernel
    return out
