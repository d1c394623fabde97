"""The similarity on which the parts of a strip agree, when each says how well it fits where.

Every part has a correlation surface over offsets from where it is expected. A turn or a scale of the strip moves its
parts in proportion to their arms from the middle, so the strip as a whole is judged by the sum of the surfaces, each
read where the similarity moves that part: no part has to decide for itself, and one that shows little says little.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

FINER = 4  # entries of a surface per cell, by cubic interpolation, before it is read between them
TRIED = 4  # turns and scales to either side of none
SHIFTED_CELLS = 2  # of the strip as a whole, to either side
TOLERATED = 1e-3  # in steps, and of the mean of the surfaces


@dataclass(frozen=True)
class Similarity:
    """A small change of how a strip lies.

    Attributes:
        turn_deg: clockwise on the ground.
        log_scale: logarithm of the factor of its size.
        shift_px: [2] of its middle, map pixels.
    """

    turn_deg: float
    log_scale: float
    shift_px: NDArray[np.float64]


def agreed(
    surfaces: NDArray[np.float64],
    arms_px: NDArray[np.float64],
    *,
    cell_px: int,
    ground: NDArray[np.float64],
    free: tuple[bool, bool],
    most: float,
) -> Similarity:
    """The similarity near none at which the mean of the parts' surfaces is highest.

    Args:
        surfaces: [N x s x s] correlation of each part, its middle entry where the part is expected.
        arms_px: [N x 2] from the strip's middle to the parts', map pixels.
        cell_px: map pixels from one entry to the next.
        ground: [2 x 2] pixel of the map -> metres east and north.
        free: whether the heading, and whether the scale, may change.
        most: the largest turn, radians, and logarithm of the scale to either side.

    Returns:
        Of those on a grid within ``most`` and SHIFTED_CELLS the best, improved within a step of it.
    """
    read = _Surfaces(surfaces)
    clockwise = np.linalg.solve(ground, np.array([[0.0, 1.0], [-1.0, 0.0]]) @ ground)
    pulled = np.stack([arms_px @ clockwise.T, arms_px]) / cell_px  # cells per radian, and per unit of log scale
    reach = float(np.linalg.norm(arms_px, axis=1).max()) / cell_px
    most = min(most, (surfaces.shape[1] // 2 - SHIFTED_CELLS) / max(reach, 1e-6))
    steps = np.array([most / TRIED if loose else 0.0 for loose in free] + [1.0, 1.0])

    def mean(moves: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the surfaces after [K x 4] turns, scales and shifts, in steps."""
        turned = np.einsum("ka,anx->knx", moves[:, :2] * steps[:2], pulled)
        return np.asarray(read.at(turned + moves[:, None, 2:]).mean(axis=1), np.float64)

    either_side = [np.arange(-TRIED, TRIED + 1.0) if loose else np.zeros(1) for loose in free]
    shifts = np.arange(-SHIFTED_CELLS, SHIFTED_CELLS + 1.0)
    grid = np.stack(np.meshgrid(*either_side, shifts, shifts, indexing="ij"), axis=-1).reshape(-1, 4)
    start: NDArray[np.float64] = grid[int(mean(grid).argmax())]

    def loss(move: NDArray[np.float64]) -> float:
        return -float(mean(move[None])[0])

    bounds = [(at - 1.0, at + 1.0) for at in start.tolist()]
    found: NDArray[np.float64] = minimize(loss, start, method="Powell", bounds=bounds, tol=TOLERATED).x
    turn, log_scale, *shift = (found * steps).tolist()
    return Similarity(float(np.degrees(turn)), log_scale, np.array(shift) * cell_px)


class _Surfaces:
    """Surfaces read between their entries."""

    def __init__(self, surfaces: NDArray[np.float64]) -> None:
        self._half = surfaces.shape[1] // 2
        side = FINER * (surfaces.shape[1] - 1) + 1
        # Entries at multiples of 1 / FINER: of a resize whose first and last samples are the first and last entries.
        spread = np.array([[FINER, 0, 0], [0, FINER, 0]], np.float64)
        self._fine = np.stack(
            [cv2.warpAffine(one.astype(np.float32), spread, (side, side), flags=cv2.INTER_CUBIC) for one in surfaces]
        )

    def at(self, cells: NDArray[np.float64]) -> NDArray[np.float64]:
        """[K x N x 2] offsets, columns and rows in cells from the middle -> [K x N] correlation; clamped at edges."""
        last = self._fine.shape[1] - 1
        place = np.clip((cells + self._half) * FINER, 0, last)
        first = np.minimum(place.astype(np.int64), last - 1)
        right, down = np.moveaxis(place - first, -1, 0)
        col, row = np.moveaxis(first, -1, 0)
        part = np.arange(len(self._fine))
        above = (1 - right) * self._fine[part, row, col] + right * self._fine[part, row, col + 1]
        below = (1 - right) * self._fine[part, row + 1, col] + right * self._fine[part, row + 1, col + 1]
        return np.asarray((1 - down) * above + down * below)
