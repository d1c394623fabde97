"""Losses of the detector against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomatch.training.local.detector import CELL_PX, FLAT, contrast_loss, huber_loss, peak_loss, raw_huber_loss

SIDE = 2 * CELL_PX
Map = NDArray[np.float64]


@pytest.fixture
def maps() -> tuple[Tensor, Tensor, Tensor]:
    """Scores of three places in two modalities, alike to a degree, and what is known of them; of the last nothing."""
    torch.manual_seed(0)
    first = torch.rand(3, 1, SIDE, SIDE)
    known = torch.rand(3, 1, SIDE, SIDE) < 0.8
    known[2] = False
    return first, first + 0.5 * torch.rand(3, 1, SIDE, SIDE), known


def standardised(score: Map, known: Map) -> list[float | None]:
    """Row after row; None where nothing is known."""
    values = [float(v) for v, k in zip(score.ravel(), known.ravel(), strict=True) if k]
    count = max(len(values), 1)
    mean = sum(values) / count
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / count + FLAT**2)
    return [(float(v) - mean) / deviation if k else None for v, k in zip(score.ravel(), known.ravel(), strict=True)]


def each(maps: tuple[Tensor, Tensor, Tensor]) -> list[tuple[list[float | None], list[float | None]]]:
    rows = zip(*(one[:, 0].double().numpy() for one in maps), strict=True)
    return [(standardised(first, known), standardised(second, known)) for first, second, known in rows]


def test_huber_loss_is_that_of_a_plain_loop(maps: tuple[Tensor, Tensor, Tensor]) -> None:
    total = 0.0
    for first, second in each(maps):
        for one, other in zip(first, second, strict=True):
            gap = 0.0 if one is None or other is None else abs(one - other)
            total += gap**2 / 2 if gap < 1 else gap - 0.5
    assert float(huber_loss(*maps)) == pytest.approx(total / (3 * SIDE * SIDE), rel=1e-3)


def test_raw_huber_loss_is_that_of_a_plain_loop_and_nothing_for_maps_that_are_flat(
    maps: tuple[Tensor, Tensor, Tensor],
) -> None:
    total = 0.0
    first, second, known = maps
    for one, other, there in zip(3 * first.ravel(), 3 * second.ravel(), known.ravel(), strict=True):
        gap = abs(float(one) - float(other)) if there else 0.0
        total += gap**2 / 2 if gap < 1 else gap - 0.5
    assert float(raw_huber_loss(3 * first, 3 * second, known)) == pytest.approx(total / (3 * SIDE * SIDE), rel=1e-3)
    flat = torch.full_like(first, 0.3)
    assert float(raw_huber_loss(flat, flat, known)) == 0
    assert float(peak_loss(flat)) > 1  # what guards against it


def test_contrast_loss_is_that_of_a_plain_loop(maps: tuple[Tensor, Tensor, Tensor]) -> None:
    made = each(maps)
    area = float(maps[2].sum()) / 3  # known pixels of a place, on average

    def correlation(first: list[float | None], second: list[float | None]) -> float:
        return sum((one or 0) * (other or 0) for one, other in zip(first, second, strict=True)) / area

    own = [correlation(*one) for one in made]
    others = [max(0.0, correlation(made[i][0], made[j][1])) for i in range(3) for j in range(3) if i != j]
    expected = 1 - sum(own) / 3 + sum(others) / len(others)
    assert float(contrast_loss(*maps)) == pytest.approx(expected, rel=1e-3)


def test_contrast_of_a_single_place_has_no_others(maps: tuple[Tensor, Tensor, Tensor]) -> None:
    first, second, known = (one[:1] for one in maps)
    ((ours, theirs),) = each((first, second, known))
    own = sum((a or 0) * (b or 0) for a, b in zip(ours, theirs, strict=True)) / float(known.sum())
    assert float(contrast_loss(first, second, known)) == pytest.approx(1 - own, rel=1e-3)


def test_peak_loss_is_that_of_a_plain_loop(maps: tuple[Tensor, Tensor, Tensor]) -> None:
    terms = []
    for score in maps[0][:, 0].double().numpy():
        even = np.array(standardised(score, np.ones_like(score)), float).reshape(SIDE, SIDE)
        for row in range(0, SIDE, CELL_PX):
            for col in range(0, SIDE, CELL_PX):
                cell = [even[y, x] for y in range(row, row + CELL_PX) for x in range(col, col + CELL_PX)]
                terms.append(math.log1p(math.exp(3.0 - (max(cell) - sum(cell) / len(cell)))))
    assert float(peak_loss(maps[0])) == pytest.approx(sum(terms) / len(terms), rel=1e-3)


@pytest.mark.parametrize("loss", [huber_loss, contrast_loss])
def test_nothing_known_has_a_finite_gradient(loss: object) -> None:
    score = torch.rand(2, 1, SIDE, SIDE, requires_grad=True)
    value = loss(score, score.detach(), torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool))  # type: ignore[operator]
    value.backward()
    assert torch.isfinite(value)
    assert score.grad is not None
    assert torch.isfinite(score.grad).all()
