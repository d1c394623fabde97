"""Strips that do not lie straight: how far their rows are from where a similarity puts them.

A platform whose speed or direction strays from what a strip was processed for shifts its rows slowly along and across
the track. Parts of the strip say where they fit the map's pixels; the likeliest path through all that they say, under
the knowledge that it bends slowly, is found by dynamic programming (Viterbi 1967) and smoothed (Whittaker 1923; Eilers
2003, "A perfect smoother"). So no part decides for itself, and stretches that show little are bridged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geomatch.fusion import subpixel
from geomatch.geo import apply_affine
from geomatch.map_pixels import MapPixels
from geomatch.pixel_features import CELL_PX, STRUCTURAL
from geomatch.refine import Refiner
from geomatch.seeking import PART_PX
from geomatch.strips import Strip
from geomatch.structure import cells_known
from geomatch.windows import cut_windows

STEP_PX = 64  # of the map along the track, from one node of the path to the next
MIN_NODES = 10  # a shorter strip has no room to sway in
SLOPE = 0.02  # standard deviation of how far the path moves per pixel of track
PER_MOVE = 2 * (SLOPE * STEP_PX) ** 2  # squared pixels by which the log-likelihood of a step falls by one
STIFF = 10.0  # weight of third differences, which slow waves hardly have, against the nodes' own offsets
CORRELATED_CELLS = 6.0  # fine cells that count as one, speckle, shadow and layover being what they are
MIN_GAIN = 20.0  # of log-likelihood over a straight strip
ROUNDS = 2  # the second looks about the path of the first


@dataclass(frozen=True)
class Sway:
    """How far a strip lies from a similarity.

    Attributes:
        axis: of the file that runs along the track: 0 for columns, 1 for rows.
        nodes: [K] places along it, pixels of the file.
        offsets_px: [K x 2] how far what lies there is moved, map pixels.
        gain: of log-likelihood over a straight strip.
    """

    axis: int
    nodes: NDArray[np.float64]
    offsets_px: NDArray[np.float64]
    gain: float

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """[N x 2] columns and rows of the file -> [N x 2] map pixels by which they are moved."""
        along = points[:, self.axis]
        return np.stack([np.interp(along, self.nodes, offset) for offset in self.offsets_px.T], axis=1)


def find_sway(strip: Strip, corner_px: NDArray[np.float64], pixels: MapPixels, cell_px: int) -> Sway | None:
    """How a found strip sways, or None where it is short or lies as straight as can be told.

    Args:
        strip: on the map's pixel grid.
        corner_px: [2] map pixel of its first pixel.
        pixels: of the map.
        cell_px: side of a cell of the index.
    """
    axis = int(strip.file_size[1] >= strip.file_size[0])
    scale = float(np.linalg.norm(np.subtract(strip.from_file @ (axis == 0, axis == 1), strip.from_file @ (0, 0))))
    count = round(strip.file_size[axis] * scale / STEP_PX)
    if count < MIN_NODES:
        return None
    places = cut_windows(cells_known(strip.valid, cell_px), PART_PX // cell_px) * cell_px
    plain = replace(pixels, features=STRUCTURAL)  # many small parts, whose sway is smooth
    parts = Refiner(strip, places, PART_PX, plain, most=len(places))
    if not parts.cells:
        return None
    nodes = (np.arange(count) + 0.5) * strip.file_size[axis] / count
    along = apply_affine(~strip.from_file, parts.middles_px)[:, axis]
    node = np.clip((along / strip.file_size[axis] * count).astype(np.int64), 0, count - 1)
    offsets, straight = np.zeros((count, 2)), 0.0
    for number in range(ROUNDS):
        start = np.rint(corner_px + offsets).astype(np.int64)
        evidence = _evidence(parts, parts.surfaces(start[node]), node, count)
        if number == 0:
            straight = float(evidence.sum(axis=0).max())
        path, weights = _likeliest(evidence, start - corner_px)
        offsets = _smoothed(path, weights)
    gain = _read(evidence, offsets - (start - corner_px)) - straight
    return Sway(axis, nodes, offsets, gain) if gain >= MIN_GAIN else None


def _evidence(
    parts: Refiner, surfaces: NDArray[np.float64], node: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """[count x s x s] log-likelihood of each node's parts over chance, by offset.

    Of n independent cells, correlation r has n r^2 / 2, nearly.
    """
    likely = np.square(np.maximum(surfaces, 0)) * (parts.cells_each / CORRELATED_CELLS / 2)[:, None, None]
    total = np.zeros((count, *surfaces.shape[1:]))
    np.add.at(total, node, likely)
    return total


def _likeliest(
    evidence: NDArray[np.float64], middles_px: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The likeliest offsets of the nodes, [K x 2] map pixels, and [K] how sharply their evidence speaks for them.

    Args:
        evidence: [K x s x s].
        middles_px: [K x 2] offsets that the middle entries stand for.
    """
    count, side, _ = evidence.shape
    reach = side // 2
    apart = np.subtract.outer(np.arange(side), np.arange(side)) * CELL_PX
    best, came = evidence[0], np.zeros((count, side, side), np.int64)
    for k in range(1, count):  # the cost of a move is one of columns and one of rows: each is minimised by itself
        across, down = np.square(apart + (middles_px[k] - middles_px[k - 1])[:, None, None]) / PER_MOVE
        from_col = best[:, None] - across  # [s from row, s column, s from column]
        from_row = from_col.max(axis=2).T[None] - down[:, None]  # [s row, s column, s from row]
        rows = from_row.argmax(axis=2)
        came[k] = rows * side + from_col.argmax(axis=2)[rows, np.arange(side)]
        best = from_row.max(axis=2) + evidence[k]
    at = [int(best.argmax())]
    for k in range(count - 1, 0, -1):
        at.append(int(came[k].flat[at[-1]]))
    rows, cols = np.unravel_index(at[::-1], (side, side))
    finer = np.array([subpixel(one, int(r), int(c)) for one, r, c in zip(evidence, rows, cols, strict=True)])
    path = (np.stack([cols, rows], axis=1) - reach + finer) * CELL_PX + middles_px
    return path, evidence[np.arange(count), rows, cols]


def _smoothed(path: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The path [K x 2] with its third differences held down, against weights [K] of its own nodes."""
    bend = np.diff(np.eye(len(path)), 3, axis=0)
    own = np.diag(weights / max(float(weights.mean()), 1e-9) + 1e-3)
    return np.asarray(np.linalg.solve(own + STIFF * bend.T @ bend, own @ path))


def _read(evidence: NDArray[np.float64], offsets_px: NDArray[np.float64]) -> float:
    """Sum over the nodes of their evidence at offsets [K x 2], map pixels from its middle; 0 beyond it."""
    reach = evidence.shape[1] // 2
    at = offsets_px / CELL_PX + reach
    first = np.floor(at).astype(np.int64)
    right, down = (at - first).T
    total = 0.0
    for k, (col, row) in enumerate(first.tolist()):
        if 0 <= col < 2 * reach and 0 <= row < 2 * reach:
            square = evidence[k, row : row + 2, col : col + 2]
            total += float(np.array([1 - down[k], down[k]]) @ square @ np.array([1 - right[k], right[k]]))
    return total
