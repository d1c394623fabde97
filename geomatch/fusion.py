"""Windows of one strip share one pose: their retrieved tiles vote for it, their correlations are averaged at it.

A pose is the translation of the strip: the map pixel of its first pixel. Heading and scale were settled when the strip
was resampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomatch.correlate import NO_MATCH, Field, Template, around
from geomatch.tile_index import Hits

MAX_POSES = 1000  # correlated per strip, shared among its windows
MIN_POSES = 100
DISTINCT_CELLS = 4  # peaks nearer than this are one
_MARGIN_CELLS = 1  # beyond half a stride: the retrieved tile is the nearest one, or its neighbour


@dataclass(frozen=True)
class Poses:
    """Possible poses, best first.

    Attributes:
        corners_px: [N x 2] float, map pixel (column, row) of the strip's first pixel.
        scores: [N].
    """

    corners_px: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        """How many."""
        return len(self.scores)

    def best(self, count: int) -> Poses:
        """The first ``count``."""
        return Poses(self.corners_px[:count], self.scores[:count])


def vote(hits: Hits, offsets_px: NDArray[np.int64], bin_px: int) -> Poses:
    """Poses that the retrieved tiles of a strip's windows speak for.

    Each window gives each pose the score of its best tile there, above the worst it retrieved; a tile speaks for the
    bins next to its own too, since two windows fall differently between tiles. The scores are summed over windows.

    Args:
        hits: [Q x k] of the Q windows.
        offsets_px: [Q x 2] first column and row of each window in the strip.
        bin_px: poses nearer than this are taken together; the stride of the tiles.
    """
    poses = (hits.corners_px - offsets_px[:, None]).astype(np.float64)
    found = np.isfinite(hits.scores)
    if len(poses) == 1:
        return Poses(poses[0][found[0]], hits.scores[0][found[0]].astype(np.float64))
    worst = np.where(found, hits.scores, np.inf).min(axis=1, keepdims=True)
    gain = np.where(found, hits.scores - worst, 0.0)
    around_bin = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2)
    bins = (np.rint(poses / bin_px).astype(np.int64)[:, :, None] + around_bin).reshape(-1, 2)
    places, at = np.unique(bins, axis=0, return_inverse=True)
    votes = np.zeros((len(places), len(poses)))
    window = np.repeat(np.arange(len(poses)), poses.shape[1] * len(around_bin))
    np.maximum.at(votes, (at, window), np.repeat(gain.ravel(), len(around_bin)))
    total = votes.sum(axis=1)
    order = np.argsort(-total, kind="stable")
    return Poses(places[order].astype(np.float64) * bin_px, total[order])


def verify(
    poses: Poses, windows: list[Template], offsets: NDArray[np.int64], field: Field, bin_px: int, cell_px: int
) -> Poses:
    """Poses after correlation with the map's features: the peaks near the given poses, best first, distinct.

    Args:
        poses: candidates; the first MAX_POSES / windows of them are looked at, but at least MIN_POSES.
        windows: templates of the strip's windows.
        offsets: [Q x 2] first cell of each window in the strip.
        field: features of the map.
        bin_px: how coarse the candidates are.
        cell_px: side of a cell.

    Returns:
        Poses with the mean normalised correlation of the windows, in [-1, 1], to a fraction of a cell.
    """
    tried = poses.best(max(MIN_POSES, MAX_POSES // len(windows)))
    cells = np.unique(np.rint(tried.corners_px / cell_px).astype(np.int64), axis=0)
    radius = -(-bin_px // (2 * cell_px)) + _MARGIN_CELLS
    total = np.zeros((len(cells), 2 * radius + 1, 2 * radius + 1))
    for window, offset in zip(windows, offsets, strict=True):
        cols, rows = (cells + offset).T
        total += around(window, field, cols, rows, radius)
    return peaks(total / len(windows), (cells - radius) * float(cell_px), float(cell_px))


def peaks(surfaces: NDArray[np.float64], origins_px: NDArray[np.float64], step_px: float, count: int = 64) -> Poses:
    """The highest points of some correlation surfaces, none within DISTINCT_CELLS steps of a higher one.

    Args:
        surfaces: [N x h x w].
        origins_px: [N x 2] pose at each surface's first entry.
        step_px: from one entry to the next.
        count: how many at most.
    """
    flat = surfaces.reshape(len(surfaces), -1)
    best = flat.argmax(axis=1)
    rows, cols = np.unravel_index(best, surfaces.shape[1:])
    scores = flat[np.arange(len(flat)), best]
    corners = origins_px + step_px * np.stack([cols, rows], axis=1)
    kept: list[int] = []
    for candidate in np.argsort(-scores, kind="stable"):
        if scores[candidate] <= NO_MATCH or len(kept) == count:
            break
        if not kept or np.abs(corners[kept] - corners[candidate]).max(axis=1).min() >= DISTINCT_CELLS * step_px:
            kept.append(int(candidate))
    subcell = [subpixel(surfaces[i], int(rows[i]), int(cols[i])) for i in kept]
    return Poses(corners[kept] + step_px * np.array(subcell).reshape(-1, 2), scores[kept])


def subpixel(surface: NDArray[np.float64], row: int, col: int) -> tuple[float, float]:
    """Offset of a peak from its entry, column and row, by a parabola through it and its neighbours; 0 at an edge."""

    def vertex(before: float, peak: float, after: float) -> float:
        bend = before - 2 * peak + after
        return 0.0 if bend >= 0 else float(np.clip((before - after) / (2 * bend), -0.5, 0.5))

    height, width = surface.shape
    across = 0.0 if not 0 < col < width - 1 else vertex(*surface[row, col - 1 : col + 2])
    down = 0.0 if not 0 < row < height - 1 else vertex(*surface[row - 1 : row + 2, col])
    return across, down
