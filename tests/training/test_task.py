"""One step, its optimiser and its validation, without a run around them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import config_of
from torch import Tensor, nn

from geomatch.errors import UsageError
from geomatch.nets.encoder import EncoderNet
from geomatch.nets.resnet import GlobalNet
from geomatch.nets.shapes import EncoderShape, Modality
from geomatch.structure import CHANNELS, Dense
from geomatch.tiles import tile_vectors
from geomatch.training.alignment import Wasserstein
from geomatch.training.checks import check_objective
from geomatch.training.config import EncoderConfig
from geomatch.training.data import Batches
from geomatch.training.losses import Windows, offset_loss
from geomatch.training.network import make_net
from geomatch.training.pooled import Head, Vectors, make_pooled_loss
from geomatch.training.task import EncoderTask
from geomatch.training.validation import dense_recall, found_share, global_recall, map_features, recalls
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
        assert parameter.requires_grad != name.startswith("averaged"), name
        if not parameter.requires_grad:
            continue
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
    assert len(decayed["params"]) + len(plain["params"]) == len([p for p in task.parameters() if p.requires_grad])
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


# --- vectors ---


def batch_of(config: EncoderConfig) -> dict[str, Tensor]:
    return next(iter(Batches(config.data, 0)))


def test_pooled_loss_and_alignment_are_added(config: EncoderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(config)
    config.loss.dense, config.loss.pooled, config.loss.pooled_weight = 0.5, "infonce", 2.0
    config.alignment.method, config.alignment.weight = "mmd", 3.0
    task, logged = task_of(config, monkeypatch)
    total = float(task.eval().training_step(batch, 0).detach())
    known = {name: float(value.detach()) for name, value in logged.items()}
    assert known["loss"] == total
    dense = known["loss_large"] + 0.7 * known["loss_small"]
    assert total == pytest.approx(0.5 * dense + 2 * known["loss_pooled"] + known["loss_alignment"], rel=1e-5)


def test_vectors_are_those_that_the_index_would_hold(config: EncoderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config.data.augment |= {"large": 2}
    config.loss.dense, config.loss.pooled = 0, "triplet"
    batch = batch_of(config)
    batch["large_at"] = batch["large_at"].round().clamp(0, 8)
    task, logged = task_of(config, monkeypatch)
    seen: list[Vectors] = []

    def kept(vectors: Vectors) -> Tensor:
        seen.append(vectors)
        return torch.zeros(())

    assert task.pooled_loss is not None
    monkeypatch.setattr(task.pooled_loss, "forward", kept)
    task.eval().training_step(batch, 0)
    (vectors,) = seen
    assert vectors.pair.tolist() == [0, 0, 1, 1]
    assert "loss_large" not in logged
    for i in range(4):
        pair, number = divmod(i, 2)
        for planes, modality, found, corner in (
            (batch["large"][pair, number], "sar", vectors.sar[i], torch.zeros(2)),
            (batch["optical"][pair], "optical", vectors.optical[i], batch["large_at"][pair, number]),
        ):
            values = task.net(planes[None], modality)[0].detach().numpy()
            col, row = (np.array([8 * int(value)], np.int32) for value in corner)
            tile = tile_vectors(Dense(values, np.ones(values.shape[1:], bool)), col, row, 200, 8)
            np.testing.assert_allclose(found.detach().numpy(), tile.vectors[0, 0], atol=1e-5)


WORDS = {
    "projection": ["loss.pooled=infonce", "loss.projection=12"],
    "critic": ["loss.dense=0", "loss.pooled=triplet", "alignment.method=critic"],
    "adversary": ["alignment.method=class-adversarial"],
    "global": ["net.form=global", "net.vector=32", "loss.dense=0", "loss.pooled=infonce"],
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_every_parameter_is_taught_whatever_is_on(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    config = config_of(scenes, "data.augment.large=2", "data.batch=4", *words)
    task, _ = task_of(config, monkeypatch)
    optimizer = task.configure_optimizers()["optimizer"]
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    task.training_step(batch_of(config), 0).backward()
    for name, parameter in task.named_parameters():
        assert parameter.requires_grad == (id(parameter) in stepped), name
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert isinstance(task.alignment, Wasserstein) == ("alignment.method=critic" in words)


def test_default_run_keeps_the_names_of_its_checkpoints(config: EncoderConfig) -> None:
    names = {name.partition(".")[0] for name in EncoderTask(config, 1).state_dict()}
    assert names == {"net", "averaged", "temperatures"}


def test_average_of_the_head_is_kept(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = task_of(config_of(scenes, "loss.pooled=infonce", "loss.projection=5"), monkeypatch)
    assert isinstance(task.head.project, nn.Linear)
    task.on_train_batch_end()
    before = task.head.project.weight.detach().clone()
    with torch.no_grad():
        task.head.project.weight.add_(1)
    task.on_train_batch_end()
    assert task.averaged_head is not None
    kept = next(task.averaged_head.module.parameters())
    assert float((kept - before).min()) > 0
    assert float((kept - before).max()) < 1


# --- inputs ---


@pytest.mark.parametrize("form", ["dense", "global"])
@pytest.mark.parametrize(("inputs", "seen"), [("structure", range(3)), ("image", range(3, 6)), ("both", range(6))])
def test_planes_left_out_do_not_matter_at_any_time(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, form: str, inputs: str, seen: range
) -> None:
    loss = ["loss.dense=0", "loss.pooled=infonce"] if form == "global" else []
    config = config_of(scenes, f"net.form={form}", "net.vector=16", f"net.inputs={inputs}", *loss)
    assert CHANNELS == 3
    task, _ = task_of(config, monkeypatch)
    optimizer = task.configure_optimizers()["optimizer"]
    task.training_step(batch_of(config), 0).backward()
    optimizer.step()
    task.on_train_batch_end()
    for net in (task.net, task.kept_net):
        net.eval()
        for modality, count in (("optical", 6), ("sar", 4)):
            planes = torch.randn(2, count, 50, 50, requires_grad=True)
            net(planes, modality)[..., 0].sum().backward()
            assert planes.grad is not None
            found = [plane for plane in range(count) if planes.grad[:, plane].any()]
            assert found == [plane for plane in range(count) if plane in seen]


def test_weights_to_begin_with_lose_the_planes_left_out(config: EncoderConfig, tmp_path: Path) -> None:
    save_weights(EncoderNet(EncoderShape(channels=8, stem=16, width=16, blocks=1)), tmp_path / "a.safetensors", {})
    config.start, config.net.inputs = str(tmp_path / "a.safetensors"), "image"
    for stem in make_net(config).stems.values():
        weight = stem.get_parameter("conv.weight")
        assert not weight[:, :3].any()
        assert weight[:, 3:].any()


# --- what contradicts itself ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss.dense=0"], r"no loss is on"),
        (["loss.dense=0", "alignment.method=critic"], r"no loss is on"),
        (["loss.pooled=margin"], r"unknown pooled 'margin'.*none, triplet, infonce"),
        (["alignment.method=gan"], r"unknown method 'gan'.*none, critic, critic-gp"),
        (["net.form=wide"], r"unknown form 'wide'.*dense, global"),
        (["net.inputs=all"], r"unknown inputs 'all'.*both, structure, image"),
        (["net.form=global"], r"no dense features.*loss\.dense=0"),
        (["net.form=global", "loss.dense=0"], r"no loss is on"),
        (["net.form=global", "loss.dense=0", "loss.pooled=triplet", "start=la2"], r"weights to begin with"),
        (["net.layers=34"], r"unknown layers 34.*18, 50"),
        (["net.pooling=mean"], r"unknown pooling 'mean'.*gem, max"),
        (["loss.pooled=triplet", "data.augment.large=0"], r"windows of 200 px"),
        (["loss.pooled=cross-batch", "loss.memory=1"], r"memory of 1 windows"),
        (["net.form=global", "loss.dense=0", "loss.pooled=triplet", "validation.scene=town"], r"sizes_px"),
    ],
)
def test_what_contradicts_itself_is_refused(scenes: Path, words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_objective(config_of(scenes, *words))
    assert "\n" not in str(caught.value)


# --- recall ---


def test_recall_in_plain_loops() -> None:
    torch.manual_seed(0)
    vectors, queries = torch.randn(300, 4), torch.randn(20, 4)
    corners = 16 * torch.stack([torch.arange(300) % 20, torch.arange(300) // 20], dim=1).float()
    truth = 300 * torch.rand(20, 2)
    parts = zip(corners.split([7, 200, 93]), vectors.split([7, 200, 93]), strict=True)  # type: ignore[no-untyped-call]
    found = recalls(iter(parts), queries, truth, 16)
    for rank in (1, 10, 100):
        hits = 0
        for query, place in zip(queries, truth, strict=True):
            order = sorted(range(300), key=lambda i: -float(vectors[i] @ query))[:rank]
            hits += any(max(abs(float(a)) for a in corners[i] - place) <= 12 for i in order)
        assert found[rank] == pytest.approx(hits / 20)


class Town:
    """A map of noise, and windows of 200 px cut from it near tiles."""

    def __init__(self, off_px: float, stride_px: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.planes = torch.randn(6, 108, 124, generator=generator)
        places = stride_px // 4 * torch.randint(0, 200 // stride_px, (9, 2), generator=generator)
        cuts = [self.planes[:4, row : row + 50, col : col + 50] for col, row in places.tolist()]
        self.windows = {200: (torch.stack(cuts), (4 * places + off_px) / 8)}


@pytest.mark.parametrize(("off_px", "found"), [(0, 1.0), (12, 1.0), (13, 0.0)])
def test_recall_of_windows_cut_from_the_map(off_px: float, found: float) -> None:
    net: Any = Seeing()
    block: Any = Town(off_px, 16)
    shares = dense_recall(net, block, map_features(net, block), Head(432, 0), 16)
    assert set(shares) == {"val_r1", "val_r10", "val_r100"}
    assert shares["val_r1"] == found
    assert not any(net.modes)


def test_recall_of_the_global_form() -> None:
    class Whole(Seeing):
        def forward(self, x: Tensor, modality: Modality) -> Tensor:
            return nn.functional.normalize(super().forward(x, modality).flatten(1), dim=1)

    net: Any = Whole()
    block: Any = Town(0, 32)
    assert global_recall(net, block, 32) == {"val_r1": 1.0, "val_r10": 1.0, "val_r100": 1.0}
    assert not any(net.modes)


def test_forms(scenes: Path) -> None:
    assert isinstance(make_net(config_of(scenes)), EncoderNet)
    assert isinstance(make_net(config_of(scenes, "net.form=global", "net.layers=50", "net.pooling=max")), GlobalNet)
    assert make_pooled_loss(config_of(scenes).loss, 3) is None
