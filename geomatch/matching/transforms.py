"""Plane transforms: how many points each needs, which one given points ask for, and how its parameters move a point.

All four kinds are linear in their parameters once multiplied out, and remain of their kind when both sides are moved
and divided by one scale; that is how they are solved for.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Model = Literal["translation", "similarity", "affine", "homography"]
MODELS: tuple[Model, ...] = get_args(Model)
MINIMAL: dict[Model, int] = {"translation": 1, "similarity": 2, "affine": 3, "homography": 4}
PARAMETERS: dict[Model, int] = {model: 2 * needed for model, needed in MINIMAL.items()}

Points = NDArray[np.float64]  # [... x N x 2]
Matrix = NDArray[np.float64]  # [... x 3 x 3]


def apply(matrix: Matrix, points: Points) -> Points:
    """Points [N x 2] under transforms [... x 3 x 3]: [... x N x 2]; NaN where a homography sends one to infinity."""
    moved = np.einsum("...ij,nj->...ni", matrix[..., :2], points) + matrix[..., None, :, 2]
    depth = np.where(moved[..., 2:] > 0, moved[..., 2:], np.nan)
    return np.asarray(moved[..., :2] / depth, np.float64)


def moves(model: Model, points: Points) -> NDArray[np.float64]:
    """How points move with the parameters of a transform that is linear in them: [... x N x 2] -> [... x N x 2 x P].

    The parameters are the shift; then a scale and a turn of similarities, or four entries of all others.
    """
    x, y = points[..., 0], points[..., 1]
    zero, one = np.zeros_like(x), np.ones_like(x)
    columns = [(one, zero), (zero, one)]
    if model == "similarity":
        columns += [(x, y), (-y, x)]
    elif model != "translation":
        columns += [(x, zero), (y, zero), (zero, x), (zero, y)]
    return np.stack([np.stack(column, axis=-1) for column in columns], axis=-1)


def jacobian(model: Model, matrix: Matrix, points: Points) -> NDArray[np.float64]:
    """How points move with the parameters around a transform, [N x 2 x P]; of a homography the lower row comes last."""
    linear = moves(model, points)
    if model != "homography":
        return linear
    depth = points @ matrix[2, :2] + matrix[2, 2]
    lower = -apply(matrix, points)[:, :, None] * points[:, None]
    return np.asarray(np.concatenate([linear, lower], axis=-1) / depth[:, None, None])


def assemble(model: Model, parameters: NDArray[np.float64]) -> Matrix:
    """[... x P] parameters as [... x 3 x 3]; those of a translation are added to none, all others are whole."""
    p = np.moveaxis(parameters, -1, 0)
    out = np.zeros((*parameters.shape[:-1], 3, 3))
    out[..., 2, 2] = 1
    out[..., 0, 2], out[..., 1, 2] = p[0], p[1]
    if model == "translation":
        out[..., 0, 0] = out[..., 1, 1] = 1
    elif model == "similarity":
        out[..., 0, 0] = out[..., 1, 1] = p[2]
        out[..., 1, 0], out[..., 0, 1] = p[3], -p[3]
    else:
        out[..., 0, 0], out[..., 0, 1], out[..., 1, 0], out[..., 1, 1] = p[2:6]
    if model == "homography":
        out[..., 2, 0], out[..., 2, 1] = p[6], p[7]
    return out


def through(model: Model, source: Points, target: Points) -> Matrix:
    """The transforms through minimal sets of points.

    Args:
        model: kind.
        source, target: [K x m x 2], m points each.

    Returns:
        [K x 3 x 3], NaN where the points do not determine one.
    """
    rows, values = _equations(model, source, target)
    solvable = np.abs(np.linalg.det(rows)) > _SINGULAR
    rows[~solvable] = np.eye(rows.shape[-1])
    found = np.linalg.solve(rows, values[..., None])[..., 0].astype(np.float64)
    found[~solvable] = np.nan
    return assemble(model, found)


def nearest(model: Model, source: Points, target: Points) -> Matrix:
    """The transform of least squares from source to target points [N x 2], algebraic ones for a homography."""
    middle, there = source.mean(axis=0), target.mean(axis=0)
    scale = max(float(np.abs(source - middle).max()), _SINGULAR)
    rows, values = _equations(model, (source - middle) / scale, (target - there) / scale)
    found = assemble(model, np.asarray(np.linalg.lstsq(rows, values, rcond=None)[0], np.float64))
    before = np.array([[1 / scale, 0, -middle[0] / scale], [0, 1 / scale, -middle[1] / scale], [0, 0, 1]])
    after = np.array([[scale, 0, there[0]], [0, scale, there[1]], [0, 0, 1]])
    whole = after @ found @ before
    return np.asarray(whole / whole[2, 2])


def moved_by(model: Model, matrix: Matrix, step: NDArray[np.float64]) -> Matrix:
    """A transform after a small change [P] of its parameters."""
    change = assemble(model, step)
    change[2, 2] = 0
    if model == "translation":
        change[0, 0] = change[1, 1] = 0
    return matrix + change


def _equations(model: Model, source: Points, target: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[... x 2N x P] and [... x 2N] whose solution are the parameters."""
    rows, values = moves(model, source), target.copy()
    if model == "translation":
        values = values - source
    elif model == "homography":
        rows = np.concatenate([rows, -target[..., :, None] * source[..., None, :]], axis=-1)
    *many, count, _, parameters = rows.shape
    return rows.reshape(*many, 2 * count, parameters), values.reshape(*many, 2 * count)


_SINGULAR = 1e-9
