"""Windows of a strip: the parts of it, with known offsets, that are searched and correlated by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geomatch.tiles import starts

MIN_WINDOW_VALID = 0.6
MIN_HOLED_VALID, NEARLY = 0.25, 0.9  # where no window is that full, those nearly as full as the fullest will do
MAX_WINDOWS = 48


def cut_windows(valid: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """Windows of a strip: side by side where that fills it, overlapping where its edge is aslant or holed.

    Args:
        valid: [h x w] cells of the strip.
        size: side of a window, cells.

    Returns:
        [N x 2] first column and row of each window, cells; at most MAX_WINDOWS, spread over the strip; none when
        nothing as large has enough valid cells.
    """
    height, width = valid.shape
    if min(height, width) < size:
        return np.empty((0, 2), np.int64)
    total = np.pad(valid.astype(np.int64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)

    def lattice(step: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        rows, cols = starts(height, size, step), starts(width, size, step)
        place = np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2).astype(np.int64)
        col, row = place.T
        count = total[row + size, col + size] - total[row, col + size] - total[row + size, col] + total[row, col]
        return place, count / size**2

    place, share = lattice(size)
    if share.min() < MIN_WINDOW_VALID:
        place, share = lattice(max(1, size // 3))
        full = share >= max(MIN_HOLED_VALID, min(MIN_WINDOW_VALID, float(share.max()) * NEARLY))
        place, share = _spread(place[full], share[full], size // 2)
    if len(place) > MAX_WINDOWS:
        place = place[np.linspace(0, len(place) - 1, MAX_WINDOWS).astype(int)]
    return place


def _spread(
    place: NDArray[np.int64], share: NDArray[np.float64], apart: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The fullest windows first, each at least ``apart`` from those before along one axis; in reading order."""
    kept: list[int] = []
    for candidate in np.argsort(-share, kind="stable"):
        distance = np.abs(place[kept] - place[candidate]).max(axis=1) if kept else np.array([apart])
        if distance.min() >= apart:
            kept.append(int(candidate))
    order = sorted(kept)
    return place[order], share[order]


def covered(first: NDArray[np.int64], masks: Sequence[NDArray[np.float32]]) -> int:
    """How many cells windows have between them; those of overlapping ones count once.

    Args:
        first: [N x 2] first column and row of each, cells.
        masks: [h x w] of each, 1 where it has a cell.
    """
    if not masks:
        return 0
    first = first - first.min(axis=0)
    width, height = np.max([at + mask.shape[::-1] for at, mask in zip(first, masks, strict=True)], axis=0)
    seen = np.zeros((height, width), np.bool_)
    for (col, row), mask in zip(first, masks, strict=True):
        seen[row : row + mask.shape[0], col : col + mask.shape[1]] |= mask > 0
    return int(seen.sum())
