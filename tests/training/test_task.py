"""One step, its optimiser and its validation, without a run around them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import config_of
from torch import Tensor, nn

from geomatch.nets.shapes import Modality
from geomatch.training.config import EncoderConfig
from geomatch.training.data import Batches
from geomatch.training.losses import Windows, offset_loss
from geomatch.training.task import EncoderTask, found_share
from geomatch.weights import save_weights


@pytest.fixture
def config(scenes: Path) -> EncoderConfig:
    return config_of(scenes)


def task_of(config: EncoderConfig, monkeypatch: pytest.MonkeyPatch) -> tuple[EncoderTask, dict[str, Tensor]]:
    """A task outside of a trainer, and what it logs."""
    torch.manual_seed(0)
    task = EncoderTask(config, 100)
    logged: dict[str, Tensor] = {}
    monkeypatch.setattr(task, "log", logged.__setitem__)
    return task, logged


def test_step_is_the_loss_of_both_sizes(config: EncoderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config.loss.small_weight = 0.3
    config.loss.temperature = 12.0
    task, logged = task_of(config, monkeypatch)
    task.eval()  # so that it can be done twice
    batch = next(iter(Batches(config.data, 0)))
    total = task.training_step(batch, 0).detach()
    fields = task.net(batch["optical"], "optical")
    expected = []
    for name in ("large", "small"):
        values = torch.cat([task.net(planes, "sar") for planes in batch[name]])
        windows = Windows(torch.tensor([0, 1]), values, batch[f"{name}_at"][:, 0])
        loss, hits = offset_loss(windows, fields, torch.tensor(math.log(12)))
        expected.append(float(loss.detach()))
        assert float(logged[f"loss_{name}"].detach()) == pytest.approx(expected[-1], rel=1e-4)
        assert float(logged[f"hits_{name}"]) == float(hits)
    assert float(total) == pytest.approx(expected[0] + 0.3 * expected[1], rel=1e-4)
    assert float(logged["loss"].detach()) == float(total)


def test_windows_of_one_pair_stay_with_it(config: EncoderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config.data.augment |= {"large": 2, "small": 3}
    seen: list[Windows] = []

    def loss(windows: Windows, *_: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(windows)
        return torch.zeros(()), torch.zeros(())

    monkeypatch.setattr("geomatch.training.task.offset_loss", loss)
    task, _ = task_of(config, monkeypatch)
    batch = next(iter(Batches(config.data, 0)))
    task.eval().training_step(batch, 0)
    for windows, (name, count) in zip(seen, (("large", 2), ("small", 3)), strict=True):
        assert windows.pair.tolist() == [0] * count + [1] * count
        for i in range(2 * count):
            pair, number = divmod(i, count)
            alone = task.net(batch[name][pair, number][None], "sar")[0]
            torch.testing.assert_close(windows.values[i], alone, atol=1e-5, rtol=1e-4)
            assert torch.equal(windows.truth[i], batch[f"{name}_at"][pair, number])


@pytest.mark.parametrize("left_out", ["large", "small"])
def test_size_without_windows_adds_nothing(
    config: EncoderConfig, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    config.data.augment[left_out] = 0
    task, logged = task_of(config, monkeypatch)
    task.training_step(next(iter(Batches(config.data, 0))), 0)
    assert f"loss_{left_out}" not in logged
    assert float(logged["loss"].detach()) > 0


def test_every_parameter_is_taught(config: EncoderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = task_of(config, monkeypatch)
    task.training_step(next(iter(Batches(config.data, 0))), 0).backward()
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_decay_is_for_matrices_and_the_rate_falls_to_zero(config: EncoderConfig) -> None:
    config.optimizer.lr, config.optimizer.weight_decay, config.optimizer.warmup_steps = 0.5, 0.1, 4
    task = EncoderTask(config, 20)
    made = task.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    decayed, plain = optimizer.param_groups
    assert {p.ndim for p in decayed["params"]} == {4}
    assert {p.ndim for p in plain["params"]} == {1}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(plain["params"]) == len(list(task.parameters()))
    rates = []
    for _ in range(21):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    cosine = [0.25 * (1 + math.cos(math.pi * step / 20)) for step in range(21)]
    assert rates == pytest.approx([min(1, (step + 1) / 4) * cosine[step] for step in range(21)])
    assert rates[20] == pytest.approx(0)


def test_weights_to_begin_with_decide_the_network(config: EncoderConfig, tmp_path: Path) -> None:
    torch.manual_seed(5)
    first = EncoderTask(config, 1)
    save_weights(first.net, tmp_path / "first.safetensors", {})
    config.net.width, config.start = 24, str(tmp_path / "first.safetensors")
    second = EncoderTask(config, 1)
    assert second.net.shape.width == 16
    assert second.net.training
    state = second.net.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.net.state_dict().items())


class Seeing(nn.Module):
    """A network that gives back every second cell of the first planes; says whether it was in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.modes: list[bool] = []

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        assert modality in ("optical", "sar")
        self.modes.append(self.norm.training)
        return x[:, :3, ::2, ::2]


class Block:
    """A map of noise, and windows of it at known cells."""

    def __init__(self, off: tuple[float, float], count: int = 23) -> None:
        generator = torch.Generator().manual_seed(0)
        self.planes = torch.randn(6, 90, 70, generator=generator)
        places = torch.randint(0, 20, (count, 2), generator=generator)
        cuts = [self.planes[:4, 2 * row : 2 * row + 26, 2 * col : 2 * col + 26] for col, row in places.tolist()]
        self.windows = {104: (torch.stack(cuts), places + torch.tensor(off)), 80: (torch.stack(cuts), places + 100.0)}


@pytest.mark.parametrize(
    ("off", "found"), [((0, 0), 1.0), ((0.8, -0.9), 1.0), ((1.2, 0.0), 1.0), ((1.2, 0.5), 0.0), ((0, -2), 0.0)]
)
def test_found_is_within_ten_pixels_of_the_truth(off: tuple[float, float], found: float) -> None:
    net: Any = Seeing().train()
    block: Any = Block(off)
    assert found_share(net, block) == {104: found, 80: 0.0}
    assert net.training
    assert not any(net.modes)
    net.eval()
    found_share(net, block)
    assert not net.training
