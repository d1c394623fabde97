"""The loss recomputed in plain loops, and its gradient followed to a shift that was planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomatch.correlate import ENERGY_FLOOR, over, template
from geomatch.structure import Dense
from geomatch.training.losses import SOFT_CELLS, Windows, correlation, offset_loss, offset_target

ZERO = torch.zeros(())


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def plain_correlation(windows: NDArray[np.float64], fields: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each channel's mean removed, then the cosine of the two, with a floor under the field's length."""
    count, _, size, _ = windows.shape
    batch, _, height, width = fields.shape
    floor = ENERGY_FLOOR * math.sqrt(size * size * np.mean(np.square(fields).sum(axis=1)))
    out = np.zeros((count, batch, height - size + 1, width - size + 1))
    for at in np.ndindex(*out.shape):
        t, b, row, col = at
        window, part = windows[t], fields[b, :, row : row + size, col : col + size]
        window = window - window.mean(axis=(1, 2), keepdims=True)
        part = part - part.mean(axis=(1, 2), keepdims=True)
        out[at] = (window * part).sum() / np.linalg.norm(window) / max(np.linalg.norm(part), floor)
    return out


@pytest.mark.parametrize("size", [3, 6, 9])
def test_correlation_in_plain_loops(size: int) -> None:
    windows, fields = features(3, 2, size, size, seed=1), features(2, 2, 9, 11) + 0.5
    fields[1, :, 2:, 2:] = 0.1  # flat: the floor holds there
    expected = plain_correlation(windows.double().numpy(), fields.double().numpy())
    np.testing.assert_allclose(correlation(windows, fields).numpy(), expected, atol=2e-5)


def test_correlation_is_that_of_queries() -> None:
    windows, fields = features(2, 5, 7, 7, seed=3) + 1, features(1, 5, 40, 31, seed=4) - 0.3
    fields[0, :, 10:25, 8:22] = 0
    dense = Dense(fields[0].numpy(), np.ones((40, 31), bool))
    rms = math.sqrt(np.square(dense.values).sum(axis=0).mean())
    found = correlation(windows, fields)
    assert found.shape == (2, 1, 34, 25)
    for window, surface in zip(windows.numpy(), found[:, 0].numpy(), strict=True):
        ready = template(Dense(window, np.ones((7, 7), bool)))
        assert ready is not None
        np.testing.assert_allclose(surface, over(ready, dense, rms), atol=1e-4)


def test_correlation_of_nothing_is_zero_and_has_a_gradient() -> None:
    windows, fields = torch.ones(1, 2, 3, 3, requires_grad=True), torch.zeros(1, 2, 8, 8, requires_grad=True)
    surface = correlation(windows, fields)
    surface.sum().backward()  # type: ignore[no-untyped-call]
    assert not surface.any()
    for tensor in (windows, fields):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("truth", [(4.0, 2.0), (4.3, 1.6), (0.0, 6.0)])
def test_target_is_a_bell_around_the_truth_in_its_own_crop(truth: tuple[float, float]) -> None:
    shape = torch.Size((2, 3, 7, 9))
    pair = torch.tensor([2, 0])
    target = offset_target(torch.tensor([truth, (5.0, 5.0)]), pair, shape)
    assert target.shape == (2, 3 * 7 * 9)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(2))
    first = target.reshape(2, 3, 7, 9)[0]
    assert not first[:2].any()
    rows, cols = np.mgrid[:7, :9]
    bell = np.exp(-((cols - truth[0]) ** 2 + (rows - truth[1]) ** 2) / (2 * SOFT_CELLS**2))
    np.testing.assert_allclose(first[2], bell / bell.sum(), atol=1e-6)
    peak = np.unravel_index(int(first[2].argmax()), (7, 9))
    assert peak == (round(truth[1]), round(truth[0]))


def test_loss_in_plain_loops() -> None:
    windows, fields = features(2, 3, 4, 4, seed=5), features(2, 3, 7, 8, seed=6)
    truth, pair, temperature = torch.tensor([[1.2, 2.0], [4.0, 0.5]]), torch.tensor([1, 0]), 7.0
    loss, _ = offset_loss(Windows(pair, windows, truth), fields, torch.tensor(math.log(temperature)))
    surfaces = plain_correlation(windows.double().numpy(), fields.double().numpy())
    total = 0.0
    for t in range(2):
        partition = sum(math.exp(temperature * value) for value in surfaces[t].flat)
        near = {
            (row, col): math.exp(-((row - truth[t, 1]) ** 2 + (col - truth[t, 0]) ** 2) / (2 * SOFT_CELLS**2))
            for row in range(4)
            for col in range(5)
        }
        for (row, col), share in near.items():
            logarithm = temperature * surfaces[t, pair[t], row, col] - math.log(partition)
            total -= share / sum(near.values()) * logarithm / 2
    assert float(loss) == pytest.approx(total, rel=1e-4)


def test_loss_with_the_error_of_the_truth_marginalised_in_plain_loops() -> None:
    windows, fields = features(2, 3, 4, 4, seed=5), features(2, 3, 7, 8, seed=6)
    truth, pair, temperature, off = torch.tensor([[1.2, 2.0], [4.0, 0.5]]), torch.tensor([1, 0]), 7.0, 1.5
    loss, _ = offset_loss(Windows(pair, windows, truth), fields, torch.tensor(math.log(temperature)), off)
    surfaces = plain_correlation(windows.double().numpy(), fields.double().numpy())
    total = 0.0
    for t in range(2):
        partition = sum(math.exp(temperature * value) for value in surfaces[t].flat)
        near = {
            (row, col): math.exp(-((row - truth[t, 1]) ** 2 + (col - truth[t, 0]) ** 2) / (2 * off**2))
            for row in range(4)
            for col in range(5)
        }
        likely = sum(
            share / sum(near.values()) * math.exp(temperature * surfaces[t, pair[t], row, col]) / partition
            for (row, col), share in near.items()
        )
        total -= math.log(likely) / 2
    assert float(loss) == pytest.approx(total, rel=1e-4)


def test_a_sharp_peak_two_cells_off_costs_little_where_pairs_are_misregistered() -> None:
    """A truth told two cells off: the cross-entropy asks for another peak, the marginal loss hardly minds."""
    fields = features(2, 4, 20, 20, seed=7)
    exact = planted(fields, [(0, 2, 9), (1, 7, 7)], 8)
    told = Windows(exact.pair, exact.values, exact.truth + torch.tensor([2.0, 0.0]))

    def rise(off_cells: float | None) -> float:
        right, wrong = (float(offset_loss(one, fields, ZERO + 4, off_cells)[0]) for one in (exact, told))
        return wrong - right

    assert rise(2.0) == pytest.approx(0.5, abs=0.2)  # half of the square of one deviation
    assert rise(None) > 20
    assert float(offset_loss(told, fields, ZERO, 1.0)[1]) == 1
    assert float(offset_loss(told, fields, ZERO)[1]) == 0


def test_loss_with_the_error_marginalised_has_finite_gradients() -> None:
    fields = features(2, 4, 60, 60, seed=7).requires_grad_()
    windows = planted(fields.detach(), [(0, 0, 52), (1, 52, 0)], 8)  # so far that the prior is zero at many offsets
    offset_loss(windows, fields, ZERO + 2, 0.7)[0].backward()  # type: ignore[no-untyped-call]
    assert fields.grad is not None
    assert torch.isfinite(fields.grad).all()
    assert fields.grad.any()


def planted(fields: Tensor, places: list[tuple[int, int, int]], size: int) -> Windows:
    """Windows that are parts of the fields: crop, column, row of each."""
    values = torch.stack([fields[b, :, row : row + size, col : col + size] for b, col, row in places])
    pair = torch.tensor([b for b, _, _ in places])
    return Windows(pair, values, torch.tensor([(float(col), float(row)) for _, col, row in places]))


def test_hits_are_windows_whose_best_offset_is_within_a_cell_in_its_own_crop() -> None:
    fields = features(2, 4, 14, 17)
    windows = planted(fields, [(0, 3, 5), (1, 10, 0), (1, 0, 8), (0, 6, 6)], 6)
    assert float(offset_loss(windows, fields, ZERO)[1]) == 1
    near = Windows(windows.pair, windows.values, windows.truth + torch.tensor([0.9, -0.9]))
    assert float(offset_loss(near, fields, ZERO)[1]) == 1
    far = Windows(windows.pair, windows.values, windows.truth + torch.tensor([[1.1, 0]] * 2 + [[0, 0]] * 2))
    assert float(offset_loss(far, fields, ZERO)[1]) == 0.5
    others = Windows(1 - windows.pair, windows.values, windows.truth)
    assert float(offset_loss(others, fields, ZERO)[1]) == 0


def test_loss_is_least_at_the_truth() -> None:
    fields = features(2, 4, 14, 17)
    windows = planted(fields, [(0, 3, 5), (1, 7, 2)], 6)
    at = [
        float(offset_loss(Windows(windows.pair, windows.values, windows.truth + shift), fields, ZERO + 3)[0])
        for shift in (torch.zeros(2), torch.tensor([1.0, 0]), torch.tensor([0, -1.0]), torch.tensor([2.0, 2.0]))
    ]
    assert min(at) == at[0]


def test_gradient_descent_finds_a_planted_shift() -> None:
    """SAR channels are a mixture of the optical ones; that the windows belong there teaches to unmix them."""
    mixture = torch.linalg.qr(features(4, 4, seed=8))[0]
    fields = features(2, 4, 20, 20, seed=7)
    windows = planted(fields, [(0, 2, 9), (0, 11, 4), (1, 7, 7), (1, 0, 1), (1, 12, 12)], 8)
    seen = torch.einsum("ij,tjyx->tiyx", mixture, windows.values)
    unmix = torch.nn.Parameter(0.1 * features(4, 4, seed=9))
    optimizer = torch.optim.Adam([unmix], lr=0.05)
    history = []
    for _ in range(60):
        values = torch.einsum("ij,tjyx->tiyx", unmix, seen)
        loss, hits = offset_loss(Windows(windows.pair, values, windows.truth), fields, torch.tensor(2.5))
        history.append((float(loss.detach()), float(hits)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert history[0][1] < 0.5
    assert history[-1][1] == 1
    assert history[-1][0] < 1.05 * float(offset_loss(windows, fields, torch.tensor(2.5))[0])
