"""Windows of one strip share one pose: their retrieved tiles vote for it, their correlations are averaged at it.

A pose is the translation of the strip: the map pixel of its first pixel. Heading and scale were settled when the strip
was resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.correlate import MIN_OVERLAP, NO_MATCH, Features, Template, around, over
from geomatch.gallery import Hits
from geomatch.structure import Dense

MAX_POSES = 600  # correlated per strip, shared among its windows
MIN_POSES = 100
MAX_PEAKS = 64
DISTINCT_CELLS = 4  # peaks nearer than this are one
_LOOK_CELLS = 2  # around a pose that correlates well


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


NOWHERE = Poses(np.empty((0, 2)), np.empty(0))


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
    low = bins.min(axis=0)
    wide = int(bins[:, 0].max() - low[0]) + 1
    keys, at = np.unique((bins[:, 1] - low[1]) * wide + bins[:, 0] - low[0], return_inverse=True)
    places = np.stack([keys % wide, keys // wide], axis=1) + low
    votes = np.zeros((len(places), len(poses)))
    window = np.repeat(np.arange(len(poses)), poses.shape[1] * len(around_bin))
    np.maximum.at(votes, (at, window), np.repeat(gain.ravel(), len(around_bin)))
    total = votes.sum(axis=1)
    order = np.argsort(-total, kind="stable")
    return Poses(places[order].astype(np.float64) * bin_px, total[order])


@dataclass(frozen=True)
class Window:
    """One window of a strip, ready for correlation.

    Attributes:
        cell: [2] its first column and row in the strip, cells.
        template: its features.
    """

    cell: NDArray[np.int64]
    template: Template


def verify(poses: Poses, windows: Sequence[Window], field: Features, *, bin_px: int, cell_px: int) -> Poses:
    """Poses after correlation with the map's features around them: its peaks, best first, distinct.

    Args:
        poses: candidates; the first MAX_POSES / windows of them are looked at, but at least MIN_POSES.
        windows: of the strip.
        field: features of the map.
        bin_px: how coarse the candidates are.
        cell_px: side of a cell.

    Returns:
        Poses to a fraction of a cell with the mean normalised correlation of the windows, above 0.
    """
    tried = poses.best(max(MIN_POSES, MAX_POSES // len(windows)))
    cells = np.unique(np.rint(tried.corners_px / cell_px).astype(np.int64), axis=0)
    near = -(-bin_px // (2 * cell_px))
    surfaces = _mean_surfaces(windows, field, cells, near)
    # The best offset of each, then a wider look around the best of those: the first look was narrow to be cheap.
    flat = surfaces.reshape(len(cells), -1)
    rows, cols = np.unravel_index(flat.argmax(axis=1), surfaces.shape[1:])
    order = np.argsort(-flat.max(axis=1), kind="stable")[:MAX_PEAKS]
    cells = np.unique((cells - near + np.stack([cols, rows], axis=1))[order], axis=0)
    surfaces = _mean_surfaces(windows, field, cells, _LOOK_CELLS)
    flat = surfaces.reshape(len(cells), -1)
    rows, cols = np.unravel_index(flat.argmax(axis=1), surfaces.shape[1:])
    # Where several look at one peak, the one that has it in its middle tells the fraction of a cell.
    aside = np.maximum(np.abs(rows - _LOOK_CELLS), np.abs(cols - _LOOK_CELLS))
    order = np.lexsort((aside, -flat.max(axis=1).round(5)))
    summits = [Summit(surfaces[i], int(rows[i]), int(cols[i]), cells[i] - _LOOK_CELLS) for i in order]
    return distinct(summits, cell_px)


def _mean_surfaces(
    windows: Sequence[Window], field: Features, cells: NDArray[np.int64], radius: int
) -> NDArray[np.float64]:
    """Mean correlation of the windows around poses: [N x 2] cells -> [N x 2 radius + 1 x 2 radius + 1]."""
    total = np.zeros((len(cells), 2 * radius + 1, 2 * radius + 1))
    for window in windows:
        cols, rows = (cells + window.cell).T
        total += around(window.template, field, cols, rows, radius)
    return total / len(windows)


def scan(windows: Sequence[Window], field: Dense, rms: float, *, cell_px: int) -> Poses:
    """Poses by correlation with the whole map, for strips that the tiles' vectors cannot find.

    Args:
        windows: of the strip.
        field: [C x H x W] features of the whole map.
        rms: as ``correlate.over`` takes it.
        cell_px: side of a cell.

    Returns:
        As ``verify``; none where the strip is larger than the map.
    """
    reach = np.max([window.cell + window.template.mask.shape[::-1] for window in windows], axis=0)
    over_edge = (reach * (1 - MIN_OVERLAP)).astype(np.int64)  # how far a strip may hang over the map
    margin = ((over_edge[1], over_edge[1]), (over_edge[0], over_edge[0]))
    field = Dense(np.pad(field.values, ((0, 0), *margin)), np.pad(field.valid, margin))
    height, width = np.array(field.valid.shape) - reach[::-1] + 1
    if height < 1 or width < 1:
        return NOWHERE
    total = np.zeros((height, width))
    for window in windows:
        col, row = window.cell
        total += over(window.template, field, rms)[row : row + height, col : col + width]
    total /= len(windows)
    summit = total == cv2.dilate(total, np.ones((3, 3), np.uint8))
    rows, cols = np.nonzero(summit)
    order = np.argsort(-total[rows, cols], kind="stable")[: MAX_PEAKS * DISTINCT_CELLS**2]
    return distinct([Summit(total, int(rows[i]), int(cols[i]), -over_edge) for i in order], cell_px)


@dataclass(frozen=True)
class Summit:
    """The highest entry of a correlation surface.

    Attributes:
        surface: [h x w].
        row, col: of the entry.
        first_cell: [2] the pose, column and row in cells, that the surface's first entry stands for.
    """

    surface: NDArray[np.float64]
    row: int
    col: int
    first_cell: NDArray[np.int64]


def distinct(summits: Sequence[Summit], cell_px: int) -> Poses:
    """Summits, given best first, that are not within DISTINCT_CELLS of a better one, to a fraction of a cell."""
    kept: list[Summit] = []
    cells = np.empty((0, 2))
    for summit in summits:
        cell = summit.first_cell + (summit.col, summit.row)
        if summit.surface[summit.row, summit.col] <= NO_MATCH or len(kept) == MAX_PEAKS:
            break
        if (np.abs(cells - cell).max(axis=1) >= DISTINCT_CELLS).all():
            kept.append(summit)
            cells = np.vstack([cells, cell])
    fraction = np.array([subpixel(summit.surface, summit.row, summit.col) for summit in kept]).reshape(-1, 2)
    scores = np.array([summit.surface[summit.row, summit.col] for summit in kept])
    return Poses((cells + fraction) * cell_px, scores)


def vertex(before: float, peak: float, after: float) -> float:
    """Where a parabola through three values, a step apart, is highest: steps from the middle one, at most a half."""
    bend = before - 2 * peak + after
    return 0.0 if bend >= 0 else float(np.clip((before - after) / (2 * bend), -0.5, 0.5))


def subpixel(surface: NDArray[np.float64], row: int, col: int) -> tuple[float, float]:
    """Offset of a peak from its entry, column and row, by parabolas through it and its neighbours; 0 at an edge."""
    height, width = surface.shape
    across = 0.0 if not 0 < col < width - 1 else vertex(*surface[row, col - 1 : col + 2])
    down = 0.0 if not 0 < row < height - 1 else vertex(*surface[row - 1 : row + 2, col])
    return across, down
