"""A training job on disk: started, resumed where it was killed, its best checkpoint kept; whatever is trained."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Generic, Protocol, TypeVar

import lightning.pytorch as pl
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from geomatch.backends import multiplies_bfloat16, on_gpu
from geomatch.console import Step
from geomatch.errors import InputError, OutputError, UsageError
from geomatch.files import check_target, published, writing

from .config import TrainerConfig, save_config
from .limits import LEAST, check_numbers

CONFIG, LAST, SCORE = "config.yaml", "last.ckpt", "val_score"
MINED = "confusable.json"  # in the folder of a run that mines
_ADVICE = (  # beginnings of warnings of lightning's, and about it, that a run cannot avoid
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "Experiment logs directory .* exists",
    "Checkpoint directory .* exists",
    "The '?train_dataloader'? does not have many workers",
    "The number of training batches .* is smaller than the logging interval",
    "GPU available but not used",
    f"`ModelCheckpoint.monitor='{SCORE}'.` could not find the monitored key",  # in epochs that are not validated
)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all: when the disk is full the last good one stays."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside, then rename."""
        target = Path(path)
        beside = target.with_suffix(".part")
        try:
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                super().save_checkpoint(checkpoint, beside, storage_options)
                beside.replace(target)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OutputError("the checkpoint cannot be written", where=target, hint="free some space") from error
        finally:
            beside.unlink(missing_ok=True)


class Told(Callback):
    """Tells a progress function how far the run is."""

    def __init__(self, step: Step, total: int) -> None:
        self._step, self._total = step, total

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """After each step."""
        self._step("training", trainer.global_step, self._total)


class RunConfig(Protocol):
    """What the configurations of all kinds of runs have."""

    name: str
    seed: int
    trainer: TrainerConfig


C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class Job(Generic[C]):
    """What is run.

    Attributes:
        config: of the run.
        load: reads such a configuration again.
        task, data: made once everything that is random has been seeded.
        steps_per_epoch: batches that make an epoch.
        validated: whether epochs are scored, by SCORE; if so the best one's checkpoint is kept.
    """

    config: C
    load: Callable[[Path], C]
    task: Callable[[], pl.LightningModule]
    data: Callable[[], pl.LightningDataModule]
    steps_per_epoch: int
    validated: bool


def run_job(job: Job[C], output: Path, progress: Step = lambda stage, done, total: None) -> Path:
    """Run a job; one that is in ``output`` already goes on from its last checkpoint.

    Returns:
        The checkpoint of the epoch that did best on validation, or of the last one where there is none.

    Raises:
        UsageError: ``output`` holds a run of another configuration, or this one's numbers cannot be.
        InputError: the data or a checkpoint cannot be used.
        OutputError: the folder cannot be written.
    """
    check_numbers(job.config, LEAST)
    check_target(output, directory=True)
    with writing(output):
        output.mkdir(exist_ok=True)
    _remember(job, output)
    pl.seed_everything(job.config.seed, verbose=False)
    last = ModelCheckpoint(output, filename=Path(LAST).stem, enable_version_counter=False)
    best = ModelCheckpoint(output, filename="best", monitor=SCORE, mode="max", enable_version_counter=False)
    checkpoints: list[Callback] = [last, best] if job.validated else [last]
    with _lightning():
        told = Told(progress, job.steps_per_epoch * job.config.trainer.max_epochs)
        trainer = _trainer(job, output, [*checkpoints, told])
        trainer.fit(job.task(), job.data(), ckpt_path=_last(output))
    return Path(best.best_model_path or output / LAST)


def _trainer(job: Job[C], output: Path, callbacks: list[Callback]) -> pl.Trainer:
    t = job.config.trainer
    try:
        return pl.Trainer(
            max_epochs=t.max_epochs,
            max_time=None if t.max_minutes is None else timedelta(minutes=t.max_minutes),
            limit_train_batches=job.steps_per_epoch,
            accelerator=t.accelerator,
            devices=int(t.devices) if t.devices.isdigit() else t.devices,
            precision=precision_of(t),  # type: ignore[arg-type]  # lightning checks it
            logger=[_metrics(output), TensorBoardLogger(str(output), name="", version="")],
            log_every_n_steps=10,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[WholeCheckpoints()],
            callbacks=callbacks,
            default_root_dir=output,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UsageError(f"lightning refuses the trainer ({reason})", where="trainer", hint="correct it") from error


def precision_of(trainer: TrainerConfig) -> str:
    """What "auto" stands for on this machine, else what is configured."""
    if trainer.precision != "auto":
        return trainer.precision
    short = (trainer.accelerator != "cpu" and on_gpu()) or multiplies_bfloat16()
    return "bf16-mixed" if short else "32-true"


def _metrics(output: Path) -> CSVLogger:
    """Logs to ``metrics.csv``, behind what a run that is resumed wrote there: lightning begins by deleting it."""
    file = output / "metrics.csv"
    before = file.read_text() if file.is_file() else ""
    logger = CSVLogger(output, name="", version="")
    writer = logger.experiment
    if before:
        file.write_text(before)
        writer.metrics_keys = before.splitlines()[0].split(",")
    return logger


@contextmanager
def _lightning() -> Iterator[None]:
    """Lightning without its messages and its advice; an interrupt of it stays one, and may come again."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels, handler = [logger.level for logger in loggers], signal.getsignal(signal.SIGINT)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _ADVICE:
                warnings.filterwarnings("ignore", message)
            yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, handler)


def _remember(job: Job[C], output: Path) -> None:
    """Write the resolved configuration; raise if there is something to resume that has another."""
    file = output / CONFIG
    if file.is_file() and (output / LAST).is_file():
        if job.load(file) != job.config:
            hint = "name another folder, or repeat the run's own configuration to resume it"
            raise UsageError("holds a run of another configuration", where=output, hint=hint)
        return
    with writing(output):
        (output / MINED).unlink(missing_ok=True)  # of a run that left no checkpoint
    with published(file) as part:
        save_config(job.config, part)


def _last(output: Path) -> str | None:
    """The checkpoint to go on from."""
    file = output / LAST
    if not file.is_file():
        return None
    load_checkpoint(file)
    return str(file)


def load_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds.

    Raises:
        InputError: it is damaged.
    """
    import torch

    try:
        found: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "remove it, and the run begins anew from the checkpoint before it or from nothing"
        raise InputError(f"is no whole checkpoint ({reason})", where=checkpoint, hint=hint) from error
    return found
