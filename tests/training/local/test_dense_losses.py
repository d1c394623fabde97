"""Losses of detect-and-describe networks against plain loops, and the copies that supervise them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from geomatch.matching.side import Side
from geomatch.matching.transforms import apply
from geomatch.nets.features import Features
from geomatch.training.local.dense import (
    BINS,
    COSIM_PX,
    GRID_PX,
    KAPPA,
    MARGIN,
    NEAR_CELLS,
    Views,
    average_precision,
    d2_loss,
    lattice,
    r2d2_loss,
    read,
)
from geomatch.training.local.views import CopyConfig, copied

CELL, SIDE = 4, 48
SHIFT = (8.0, -4.0)  # whole cells, so that a loop needs no interpolation


def grid(seed: int, channels: int = 6, *, cell: int = CELL) -> Features:
    torch.manual_seed(seed)
    cells = SIDE // cell
    vectors = functional.normalize(torch.randn(2, channels, cells, cells), dim=1)
    score = torch.rand(2, 1, cells, cells) + 0.1
    return Features(vectors, score, score > 0.5, cell, torch.rand(2, 1, cells, cells))


def views(shift: tuple[float, float] = SHIFT) -> Views:
    move = torch.eye(3).repeat(2, 1, 1)
    move[:, 0, 2], move[:, 1, 2] = shift
    known = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    known[0, :, :12] = False
    blank = torch.zeros(2, 1, SIDE, SIDE)
    return Views(blank, blank, move, known)


def test_points_lie_where_the_transform_says() -> None:
    points = torch.tensor([[10.0, 20.0], [30.0, 5.0]])
    seen = views()
    expected = apply(np.linalg.inv(seen.to_first[0].numpy().astype(float)), points.numpy().astype(float))
    np.testing.assert_allclose(seen.in_second(points)[0].numpy(), expected, atol=1e-4)
    assert seen.seen(points, seen.in_second(points)).tolist() == [[False, True], [True, True]]


def test_mixed_precision_does_not_round_places() -> None:
    points = torch.tensor([[1000.25, 727.75]])
    half = views((0.125, 0.5))
    read_at = torch.tensor([[[600.25, 3.5]]]).expand(2, -1, -1)
    ramp = (torch.arange(1024) + 0.5).expand(2, 1, 8, -1)
    with torch.autocast("cpu", torch.bfloat16):
        there = half.in_second(points)
        found = read(ramp.bfloat16(), read_at, Features(ramp, ramp[:, :1], ramp > 0, 1))
    torch.testing.assert_close(there, torch.tensor([[[1000.125, 727.25]]]).expand(2, -1, -1), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.flatten(), torch.full((2,), 600.25), atol=2.0, rtol=0)  # as bfloat16 steps


def test_points_on_the_edge_are_not_seen() -> None:
    points = torch.tensor([[SIDE - 0.5, 10.0], [SIDE, 10.0], [10.0, SIDE]])
    seen = views((0.0, 0.0))
    known = replace(seen, known=torch.ones_like(seen.known))
    assert known.seen(points, known.in_second(points)).tolist() == 2 * [[True, False, False]]


@pytest.mark.parametrize("first_px", [None, 4.0])
def test_values_are_read_at_the_middles_of_cells(first_px: float | None) -> None:
    features = replace(grid(0), first_px=first_px)
    at = lattice(features)
    cells = torch.arange(len(at))
    there = torch.stack([cells % (SIDE // CELL), cells // (SIDE // CELL)], dim=1)
    torch.testing.assert_close(at.double(), features.read(there)[0])
    values = read(features.vectors, at[None].expand(2, -1, -1), features)
    torch.testing.assert_close(values, features.vectors.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_d2_loss_is_that_of_a_plain_loop() -> None:
    first, second, seen = grid(1), grid(2), views()
    points = lattice(first).numpy()
    weighted = total = 0.0
    cells = SIDE // CELL
    for image in range(2):
        ours = first.vectors[image].flatten(1).T.numpy()
        theirs = second.vectors[image].flatten(1).T.numpy()
        scores = [one.score[image].flatten().numpy() for one in (first, second)]
        for number, point in enumerate(points):
            there = point - SHIFT
            if not ((there > 0) & (there < SIDE)).all() or not seen.known[image, int(point[1]), int(point[0])]:
                continue
            partner = int(there[1] // CELL) * cells + int(there[0] // CELL)
            positive = np.square(ours[number] - theirs[partner]).sum()
            far_there = np.linalg.norm(points - there, axis=1) > NEAR_CELLS * CELL
            far_here = np.linalg.norm(points - point, axis=1) > NEAR_CELLS * CELL
            negative = min(
                np.square(ours[number] - theirs[far_there]).sum(axis=1).min(),
                np.square(theirs[partner] - ours[far_here]).sum(axis=1).min(),
            )
            weight = scores[0][number] * scores[1][partner]
            weighted += weight * max(0.0, MARGIN + positive - negative)
            total += weight
    assert float(d2_loss(first, second, seen)) == pytest.approx(weighted / total, rel=1e-3)


@pytest.mark.parametrize(("right", "expected"), [(0.9, 1.0), (1 - 12 / 19, 0.5), (-0.9, 0.25)])
def test_average_precision_of_one_right_answer_is_one_over_its_rank(right: float, expected: float) -> None:
    wrong = torch.tensor([[0.6, 0.1, -0.4]])
    found = float(average_precision(torch.tensor([[right]]), wrong))
    assert found == pytest.approx(expected, abs=0.02)


def precision_by_loop(right: float, wrong: list[float]) -> float:
    """Average precision of one right answer by soft bins: each score belongs to the two bins that it lies between."""
    share = [
        [max(0.0, 1 - abs(score - (1 - 2 * k / (BINS - 1))) * (BINS - 1) / 2) for k in range(BINS)] for score in wrong
    ]
    own = [max(0.0, 1 - abs(right - (1 - 2 * k / (BINS - 1))) * (BINS - 1) / 2) for k in range(BINS)]
    total = above = above_own = 0.0
    for k in range(BINS):
        above_own += own[k]
        above += own[k] + sum(one[k] for one in share)
        if own[k]:
            total += own[k] * above_own / above
    return total / sum(own)


def test_average_precision_is_that_of_a_plain_loop() -> None:
    torch.manual_seed(5)
    right, wrong = 2 * torch.rand(6, 1) - 1, 2 * torch.rand(6, 9) - 1
    found = average_precision(right, wrong)
    expected = [precision_by_loop(float(one), row.tolist()) for one, row in zip(right, wrong, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def r2d2_by_loop(first: Features, second: Features, seen: Views, *, published: bool = False) -> float:
    """All three parts; the shift is of whole pixels, and a cell is one."""
    assert first.reliability is not None

    def there(image: int, row: int, col: int) -> tuple[int, int] | None:
        at = row - int(SHIFT[1]), col - int(SHIFT[0])
        inside = min(at) >= 0 and max(at) < SIDE and bool(seen.known[image, row, col])
        return at if inside else None

    cosines, apart = [], []
    for image in range(2):
        ours, theirs = first.score[image, 0].numpy(), second.score[image, 0].numpy()
        known, back = np.zeros_like(ours), np.zeros_like(ours)
        for row in range(SIDE):
            for col in range(SIDE):
                if (at := there(image, row, col)) is not None:
                    known[row, col], back[row, col] = 1, theirs[at]
        for row in range(0, SIDE - COSIM_PX + 1, COSIM_PX // 2):
            for col in range(0, SIDE - COSIM_PX + 1, COSIM_PX // 2):
                part = np.s_[row : row + COSIM_PX, col : col + COSIM_PX]
                one, other = (ours * known)[part], back[part]
                lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
                cosines.append(float((one * other).sum()) / lengths if lengths else 0.0)
                apart += [float(score[part].max() - score[part].mean()) for score in (ours, theirs)]
    lattice_px = [
        (row, col) for row in range(GRID_PX // 2, SIDE, GRID_PX) for col in range(GRID_PX // 2, SIDE, GRID_PX)
    ]
    made: list[tuple[float, float]] = []
    for image in range(2):
        ours, theirs = first.vectors[image].numpy(), second.vectors[image].numpy()
        for row, col in lattice_px:
            if (at := there(image, row, col)) is None:
                continue
            wrong = []
            for other in lattice_px:
                near = np.hypot(other[0] - at[0], other[1] - at[1]) < NEAR_CELLS * GRID_PX / 4
                wrong.append(-1.0 if near else float(ours[:, row, col] @ theirs[:, other[0], other[1]]))
            precision = precision_by_loop(float(ours[:, row, col] @ theirs[:, at[0], at[1]]), wrong)
            made.append((precision, float(first.reliability[image, 0, row, col])))
    declined = KAPPA if published else min(KAPPA, float(np.mean([precision for precision, _ in made])))
    costs = [1 - precision * reliable - (1 - reliable) * declined for precision, reliable in made]
    return (1 - float(np.mean(cosines))) + (1 - float(np.mean(apart))) + float(np.mean(costs))


def test_r2d2_loss_is_that_of_a_plain_loop() -> None:
    first, second = grid(1, cell=1), grid(2, cell=1)
    expected = r2d2_by_loop(first, second, views())
    assert float(r2d2_loss(first, second, views())) == pytest.approx(expected, rel=1e-3)
    published = r2d2_by_loop(first, second, views(), published=True)
    assert float(r2d2_loss(first, second, views(), declined="published")) == pytest.approx(published, rel=1e-3)
    assert published < expected - 1e-3  # declining costs less


def test_r2d2_loss_of_views_that_do_not_meet_is_finite() -> None:
    first, second = grid(1, cell=1), grid(2, cell=1)
    assert np.isfinite(float(r2d2_loss(first, second, views((200.0, 0.0)))))


def test_r2d2_loss_prefers_the_same_features_seen_again() -> None:
    first = grid(3, 32, cell=1)
    moved = {name: getattr(first, name).roll((4, -8), dims=(2, 3)) for name in ("vectors", "score", "reliability")}
    same = Features(moved["vectors"], moved["score"], first.peaks, 1, moved["reliability"])
    other = grid(4, 32, cell=1)
    assert float(r2d2_loss(first, same, views())) < float(r2d2_loss(first, other, views())) - 0.2


def test_copy_leads_back_to_its_image() -> None:
    """A bright spot of the copy lies where the transform says in the image."""
    rng = np.random.default_rng(4)
    image = np.zeros((96, 96), np.float32)
    image[40:43, 60:63] = 1.0
    side = Side(image, np.ones((96, 96), bool), "sar")
    plain = CopyConfig(noise=0.0, blurred=0.0, inverted=0.0)
    for _ in range(4):
        copy, to_image = copied(side, rng, plain)
        rows, cols = np.nonzero(copy > 0.5)
        weight = copy[rows, cols]
        middle = np.array([[np.average(cols, weights=weight), np.average(rows, weights=weight)]]) + 0.5
        np.testing.assert_allclose(apply(to_image, middle)[0], (61.5, 41.5), atol=0.6)
        corners = apply(to_image, np.array([[47.5, 48.0], [48.5, 48.0], [48.0, 47.5], [48.0, 48.5]]))
        area = np.linalg.det(np.stack([corners[1] - corners[0], corners[3] - corners[2]]))
        assert 1 / 1.2**2 - 0.01 < area < 1.01  # as large as the image, or larger
