"""Runs on disk: what they leave, how they go on after they were killed, and what a full disk or a bad file does."""

from __future__ import annotations

import csv
import errno
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from disk import small_disk
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from programs import listing
from safetensors.torch import load_file
from small_runs import config_of
from torch.serialization import load as load_checkpoint

from geomatch.errors import InputError, OutputError, UsageError
from geomatch.nets.shapes import EncoderShape
from geomatch.training import data as training_data
from geomatch.training import jobs
from geomatch.training.config import EncoderConfig, TrainerConfig, load_config
from geomatch.training.jobs import LAST, MINED, WholeCheckpoints
from geomatch.training.run import export_weights, train_encoder
from geomatch.training.task import EncoderTask
from geomatch.weights import Weights


class KilledError(Exception):
    """In the place of a SIGKILL."""


class Steps:
    """A progress function that counts, and can end a run after a step."""

    def __init__(self, kill_after: int | None = None, how: type[BaseException] = KilledError) -> None:
        self.seen: list[tuple[int, int]] = []
        self._kill_after, self._how = kill_after, how

    def __call__(self, stage: str, done: int, total: int) -> None:
        assert stage == "training"
        self.seen.append((done, total))
        if done == self._kill_after:
            raise self._how


def validated(scenes: Path, *overrides: str) -> EncoderConfig:
    return config_of(scenes, "validation.scene=town", *overrides)


def step_of(checkpoint: Path) -> int:
    return int(load_checkpoint(checkpoint, weights_only=True)["global_step"])


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was validated; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    steps = Steps()
    assert train_encoder(validated(scenes), folder, steps) == folder / "encoder.safetensors"
    assert steps.seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return folder


def test_run_leaves_its_configuration_logs_checkpoints_and_weights(finished: Path, scenes: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.yaml", "last.ckpt", "best.ckpt", "metrics.csv", "encoder.safetensors"} <= names
    assert not [name for name in names if name.endswith((".part", ".tmp")) or name.startswith(".")]
    assert load_config(finished / "config.yaml") == validated(scenes)
    assert step_of(finished / LAST) == 4


def test_weights_are_those_of_the_best_checkpoint(finished: Path) -> None:
    weights = Weights.find(str(finished / "encoder.safetensors"))
    assert weights.shape == EncoderShape(channels=8, stem=16, width=16, blocks=1)
    net = weights.net()
    kept = load_checkpoint(finished / "best.ckpt", weights_only=True)["state_dict"]
    for name, value in net.state_dict().items():
        assert torch.equal(value, kept[f"averaged.module.{name}"])
    assert net(torch.zeros(1, 6, 50, 60), "optical").shape == (1, 8, 25, 30)
    assert net(torch.zeros(1, 4, 50, 60), "sar").shape == (1, 8, 25, 30)


def test_validation_is_logged_and_chooses(finished: Path) -> None:
    rows = metrics(finished)
    shares = [
        (float(row["val_104"]), float(row["val_score"]), int(row["step"])) for row in rows if row.get("val_score")
    ]
    assert len(shares) == 2
    assert all(share == score and 0 <= share <= 1 for share, score, _ in shares)
    best = load_checkpoint(finished / "best.ckpt", weights_only=True)
    (state,) = [
        value
        for name, value in best["callbacks"].items()
        if name.startswith("ModelCheckpoint") and value["monitor"] == "val_score"
    ]
    assert float(state["best_model_score"]) == pytest.approx(max(score for _, score, _ in shares))


@pytest.mark.parametrize(("every", "steps"), [(2, [3, 5]), (5, [5]), (1, [1, 3, 5])])
def test_last_epoch_is_validated_whatever_the_rhythm(
    scenes: Path, tmp_path: Path, every: int, steps: list[int]
) -> None:
    config = validated(scenes, "trainer.max_epochs=3", f"validation.every_epochs={every}")
    train_encoder(config, tmp_path / "run")
    assert [int(row["step"]) for row in metrics(tmp_path / "run") if row.get("val_score")] == steps


def test_losses_are_logged(scenes: Path, tmp_path: Path) -> None:
    train_encoder(config_of(scenes, "data.steps_per_epoch=10", "trainer.max_epochs=1"), tmp_path / "run")
    rows = [row for row in metrics(tmp_path / "run") if row.get("loss")]
    assert {"loss_large", "loss_small", "hits_large", "hits_small"} <= set(rows[0])
    assert float(rows[0]["loss"]) > 0
    assert not (tmp_path / "run" / "best.ckpt").exists()  # nothing chose


def test_run_teaches(scenes: Path, tmp_path: Path) -> None:
    words = ["data.steps_per_epoch=30", "trainer.max_epochs=1", "optimizer.lr=0.01", "data.augment.disturbed=0"]
    losses: list[float] = []

    class Kept(EncoderTask):
        def training_step(self, batch: Any, number: int) -> Any:
            loss = super().training_step(batch, number)
            losses.append(float(loss.detach()))
            return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geomatch.training.run.EncoderTask", Kept)
        train_encoder(config_of(scenes, *words), tmp_path / "run")
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_run_that_is_there_is_not_run_again(finished: Path, scenes: Path) -> None:
    before, steps = listing(finished), Steps()
    weights = load_file(finished / "encoder.safetensors")
    train_encoder(validated(scenes), finished, steps)
    assert steps.seen == []
    after = listing(finished)
    for name in ("best.ckpt", "config.yaml"):
        assert after[name] == before[name]
    again = load_file(finished / "encoder.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in weights.items())


@pytest.mark.parametrize("override", ["trainer.max_epochs=3", "seed=2", "optimizer.lr=0.5"])
def test_another_configuration_is_refused(finished: Path, scenes: Path, override: str) -> None:
    before = listing(finished)
    with pytest.raises(UsageError, match=r"run: holds a run of another configuration.*another folder"):
        train_encoder(validated(scenes, override), finished)
    assert listing(finished) == before


def test_killed_run_goes_on_from_its_last_checkpoint(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[tuple[int, ...]] = []
    original = training_data.Batches.__init__

    def kept(self: Any, config: Any, *numbers: int, **named: Any) -> None:
        seeds.append(numbers)
        original(self, config, *numbers, **named)

    monkeypatch.setattr(training_data.Batches, "__init__", kept)
    config, folder = config_of(scenes, "trainer.max_epochs=3"), tmp_path / "run"
    with pytest.raises(KilledError):
        train_encoder(config, folder, Steps(kill_after=5))
    assert step_of(folder / LAST) == 4
    assert not (folder / "encoder.safetensors").exists()
    steps = Steps()
    train_encoder(config, folder, steps)
    assert steps.seen == [(5, 6), (6, 6)]
    assert step_of(folder / LAST) == 6
    assert seeds == [(1, 0, 0), (1, 4, 0)]  # other batches than it began with
    assert Weights.find(str(folder / "encoder.safetensors")).net()


def test_resumed_run_keeps_its_optimiser_and_its_logs(scenes: Path, tmp_path: Path) -> None:
    config, folder = validated(scenes, "trainer.max_epochs=3"), tmp_path / "run"
    with pytest.raises(KilledError):
        train_encoder(config, folder, Steps(kill_after=5))
    train_encoder(config, folder)
    scored = [int(row["step"]) for row in metrics(folder) if row.get("val_score")]
    assert len(scored) == 3
    last = load_checkpoint(folder / LAST, weights_only=True)
    assert last["lr_schedulers"][0]["last_epoch"] == 6
    assert {int(state["step"]) for state in last["optimizer_states"][0]["state"].values()} == {6}


def test_run_killed_before_its_first_checkpoint_begins_anew(scenes: Path, tmp_path: Path) -> None:
    config, folder = config_of(scenes), tmp_path / "run"
    with pytest.raises(KilledError):
        train_encoder(config, folder, Steps(kill_after=1))
    assert not (folder / LAST).exists()
    steps = Steps()
    train_encoder(config, folder, steps)
    assert steps.seen[0] == (1, 4)


def test_interrupt_stays_an_interrupt(scenes: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_encoder(config_of(scenes), tmp_path / "run", Steps(kill_after=3, how=KeyboardInterrupt))
    assert signal.getsignal(signal.SIGINT) is before
    assert step_of(tmp_path / "run" / LAST) == 2


def test_minutes_end_a_run_with_weights(scenes: Path, tmp_path: Path) -> None:
    config = config_of(scenes, "trainer.max_epochs=1000", "trainer.max_minutes=0.02")
    steps = Steps()
    assert train_encoder(config, tmp_path / "run", steps).is_file()
    assert 0 < len(steps.seen) < 2000


def test_minutes_that_end_before_the_first_epoch_leave_weights_too(scenes: Path, tmp_path: Path) -> None:
    config = config_of(scenes, "data.steps_per_epoch=1000", "trainer.max_minutes=0.005")
    assert train_encoder(config, tmp_path / "run").is_file()


DAMAGE = {
    "half": lambda whole: whole[: len(whole) // 2],
    "end": lambda whole: whole[:-50],
    "few": lambda whole: whole[:100],
    "empty": lambda whole: b"",
    "text": lambda whole: b"no checkpoint at all\n" * 100,
    "zeros": lambda whole: bytes(len(whole)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint_is_named(finished: Path, scenes: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_bytes((finished / "config.yaml").read_bytes())
    (folder / LAST).write_bytes(DAMAGE[damage]((finished / LAST).read_bytes()))
    with pytest.raises(InputError, match=r"last\.ckpt: is no whole checkpoint.*[Rr]emove it") as caught:
        train_encoder(validated(scenes), folder)
    assert "\n" not in str(caught.value)


def test_checkpoint_of_another_network_is_named(finished: Path, scenes: Path, tmp_path: Path) -> None:
    config = validated(scenes, "net.width=24")
    with pytest.raises(InputError, match=r"last\.ckpt: is no checkpoint of this run") as caught:
        export_weights(config, finished / LAST, tmp_path)
    assert "\n" not in str(caught.value)
    torch.save({"other": 1}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"other\.ckpt: is no checkpoint of this run"):
        export_weights(config, tmp_path / "other.ckpt", tmp_path)
    assert not (tmp_path / "encoder.safetensors").exists()


# --- other losses and forms ---


PUBLISHED = ["loss.pooled=triplet", "alignment.method=critic"]
GLOBAL = [*PUBLISHED, "net.form=global", "net.vector=16", "loss.dense=0", "validation.sizes_px=[200]"]


@pytest.mark.parametrize("method", ["critic", "critic-gp"])
def test_resumed_run_keeps_its_critic(scenes: Path, tmp_path: Path, method: str) -> None:
    words = ["loss.pooled=triplet", f"alignment.method={method}", "trainer.precision=bf16-mixed"]
    config = config_of(scenes, *words, "trainer.max_epochs=3")
    folder = tmp_path / "run"
    with pytest.raises(KilledError):
        train_encoder(config, folder, Steps(kill_after=5))
    before = load_checkpoint(folder / LAST, weights_only=True)["state_dict"]["alignment._extra_state"]
    assert {int(state["step"]) for state in before["state"].values()} == {4 * 5}
    train_encoder(config, folder)
    after = load_checkpoint(folder / LAST, weights_only=True)["state_dict"]["alignment._extra_state"]
    assert {int(state["step"]) for state in after["state"].values()} == {6 * 5}
    assert Weights.find(str(folder / "encoder.safetensors")).net()


@pytest.mark.parametrize("pooled", ["infonce", "cross-batch"])
def test_run_with_memory_or_temperature_is_resumed(scenes: Path, tmp_path: Path, pooled: str) -> None:
    config = config_of(scenes, f"loss.pooled={pooled}", "loss.memory=16", "loss.projection=8", "trainer.max_epochs=3")
    with pytest.raises(KilledError):
        train_encoder(config, tmp_path / "run", Steps(kill_after=3))
    assert train_encoder(config, tmp_path / "run").is_file()


def test_recall_of_vectors_is_logged_beside_the_score(scenes: Path, tmp_path: Path) -> None:
    train_encoder(validated(scenes, "validation.sizes_px=[200,104]", "trainer.max_epochs=1"), tmp_path / "run")
    (row,) = [row for row in metrics(tmp_path / "run") if row.get("val_score")]
    assert 0 <= float(row["val_r1"]) <= float(row["val_r10"]) <= float(row["val_r100"]) <= 1
    shares = [float(row["val_200"]), float(row["val_104"])]
    assert float(row["val_score"]) == pytest.approx(sum(shares) / 2)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_global_form_leaves_its_best_checkpoint(scenes: Path, tmp_path: Path, precision: str) -> None:
    config = validated(scenes, *GLOBAL, f"trainer.precision={precision}")
    assert train_encoder(config, tmp_path / "run") == tmp_path / "run" / "best.ckpt"
    assert not (tmp_path / "run" / "encoder.safetensors").exists()
    rows = [row for row in metrics(tmp_path / "run") if row.get("val_score")]
    assert [row["val_score"] for row in rows] == [row["val_r1"] for row in rows]
    assert train_encoder(config, tmp_path / "run").name == "best.ckpt"  # again, from what is there


@pytest.mark.parametrize(
    ("gpu", "short_floats", "accelerator", "expected"),
    [
        (False, False, "auto", "32-true"),
        (False, True, "auto", "bf16-mixed"),
        (True, False, "auto", "bf16-mixed"),
        (True, False, "cpu", "32-true"),
    ],
)
def test_precision_is_what_the_machine_multiplies(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, short_floats: bool, accelerator: str, expected: str
) -> None:
    monkeypatch.setattr(jobs, "on_gpu", lambda: gpu)
    monkeypatch.setattr(jobs, "multiplies_bfloat16", lambda: short_floats)
    assert jobs.precision_of(TrainerConfig(accelerator=accelerator)) == expected
    assert jobs.precision_of(TrainerConfig(accelerator=accelerator, precision="64-true")) == "64-true"


@pytest.mark.parametrize("inputs", ["structure", "image"])
def test_weights_do_not_see_the_planes_left_out(scenes: Path, tmp_path: Path, inputs: str) -> None:
    config = config_of(scenes, f"net.inputs={inputs}", "trainer.max_epochs=1")
    net = Weights.find(str(train_encoder(config, tmp_path / "run"))).net()
    unseen = slice(3, None) if inputs == "structure" else slice(0, 3)
    planes = torch.randn(1, 6, 50, 50)
    before = net(planes, "optical")
    planes[:, unseen] = torch.randn_like(planes[:, unseen])
    assert torch.equal(net(planes, "optical"), before)


SMALL = [
    "net.width=16",
    "net.stem=16",
    "net.blocks=1",
    "net.vector=16",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
]
SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "encoder").glob("*.yaml"))


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configuration_runs_a_step(shipped: Path, scenes: Path, tmp_path: Path) -> None:
    config, small = load_config(shipped, SMALL), config_of(scenes, steps_per_epoch=1)
    mining = replace(config.data.mining, every_epochs=1, places=6)
    config.data, config.start = replace(small.data, mining=mining, batch=4), None
    if config.validation.scene:
        config.validation.scene, config.validation.windows = "town", 2
        config.validation.sizes_px = [size for size in config.validation.sizes_px if size <= 200]
    steps = Steps()
    assert train_encoder(config, tmp_path / "run", steps).is_file()
    assert steps.seen == [(1, 1)]
    assert (tmp_path / "run" / MINED).is_file() == bool(mining.share)


# --- a full disk ---


def test_full_disk_leaves_the_checkpoint_before(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = TorchCheckpointIO.save_checkpoint, []

    def full(self: Any, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if checkpoint["global_step"] == 4:
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        real(self, checkpoint, path, storage_options)

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", full)
    folder = tmp_path / "run"
    with pytest.raises(OutputError, match=r"\.ckpt: the disk is full.*[Ff]ree some space"):
        train_encoder(config_of(scenes), folder)
    assert written
    assert step_of(folder / LAST) == 2
    assert not list(folder.glob("*.part"))
    monkeypatch.undo()
    steps = Steps()
    train_encoder(config_of(scenes), folder, steps)
    assert steps.seen == [(3, 4), (4, 4)]


def test_checkpoint_that_does_not_fit_is_not_there(tmp_path: Path) -> None:
    target, plugin = tmp_path / "last.ckpt", WholeCheckpoints()
    plugin.save_checkpoint({"global_step": 1}, target)
    before = target.read_bytes()
    with small_disk(50_000), pytest.raises(OutputError, match=r"last\.ckpt: "):
        plugin.save_checkpoint({"global_step": 2, "state": torch.zeros(100_000)}, target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]
    plugin.save_checkpoint({"global_step": 3}, target)
    assert step_of(target) == 3


# --- refused before anything is trained ---


def test_nothing_to_train_on_is_a_usage_error(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither scenes nor folders.*data\.scenes, data\.folders or data\.simulated"):
        train_encoder(config_of(scenes, scenes=[]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "override",
    [
        "validation.scene=elsewhere",
        "trainer.accelerator=abacus",
        "trainer.precision=7",
        "trainer.max_epochs=0",
        "data.augment.sar_px=150",
        "data.augment.optical_px=180",
        "start=nowhere",
        "loss.dense=0",
        "alignment.method=gan",
        "net.form=global",
    ],
)
def test_options_that_cannot_be_are_usage_errors(scenes: Path, tmp_path: Path, override: str) -> None:
    with pytest.raises(UsageError) as caught:
        train_encoder(validated(scenes, override), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_scene_to_validate_on_has_to_have_boxes_before_anything_is_trained(scenes: Path, tmp_path: Path) -> None:
    scene = {"optical": "optical.tif", "sar": "sar.tif", "scene": "town"}
    steps = Steps()
    with pytest.raises(UsageError, match=r"town.*neither a split nor a holdout"):
        train_encoder(config_of(scenes, "validation.scene=town", scenes=[scene]), tmp_path / "run", steps)
    assert steps.seen == []


@pytest.mark.parametrize("workers", [0, 1])
def test_scene_that_is_missing_is_named(scenes: Path, tmp_path: Path, workers: int) -> None:
    config = config_of(scenes, scenes=[{"optical": "none.tif", "sar": "sar.tif"}], workers=workers)
    with pytest.raises(InputError, match=r"none\.tif") as caught:
        train_encoder(config, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_folder_is_made_in_one_that_is_there(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        train_encoder(config_of(scenes), tmp_path / "no" / "run")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="this is a file"):
        train_encoder(config_of(scenes), tmp_path / "file")


def test_run_says_nothing(scenes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = config_of(scenes, "trainer.max_epochs=1")
    with pytest.raises(KilledError):
        train_encoder(config, tmp_path / "run", Steps(kill_after=1))
    train_encoder(config, tmp_path / "run")
    assert capfd.readouterr() == ("", "")
