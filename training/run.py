"""A training run on disk: started, resumed where it was killed, and left as weights."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import lightning.pytorch as pl
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from geomatch.console import Step
from geomatch.errors import InputError, OutputError, UsageError
from geomatch.files import check_target, published, writing
from geomatch.nets.encoder import EncoderNet
from geomatch.weights import SUFFIX, save_weights

from .augment import LARGE_PX, SMALL_PX, AugmentOptions
from .checks import check_objective
from .config import EncoderConfig, load_config, save_config
from .data import PairData, scene_boxes, scene_named
from .mining import MINED
from .task import SCORE, EncoderTask

CONFIG, LAST = "config.yaml", "last.ckpt"
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


def train_encoder(config: EncoderConfig, output: Path, progress: Step = lambda stage, done, total: None) -> Path:
    """Train an encoder; a run that is in ``output`` already goes on from its last checkpoint.

    Args:
        config: of the run.
        output: folder for the configuration, logs, checkpoints and at the end ``encoder.safetensors``,
            which the global form has none of.
        progress: told the steps.

    Returns:
        The weights' file: of the epoch that did best on validation, or of the last one where there is none. Of the
        global form, which is no ``Encoder``, the checkpoint of that epoch.

    Raises:
        UsageError: ``output`` holds a run of another configuration, or nothing to train on is named.
        InputError: a scene, a folder or a checkpoint cannot be used.
        OutputError: the folder cannot be written.
    """
    _check(config)
    check_target(output, directory=True)
    with writing(output):
        output.mkdir(exist_ok=True)
    _remember(config, output)
    pl.seed_everything(config.seed, verbose=False)
    total = config.data.steps_per_epoch * config.trainer.max_epochs
    last = ModelCheckpoint(output, filename=Path(LAST).stem, enable_version_counter=False)
    best = ModelCheckpoint(output, filename="best", monitor=SCORE, mode="max", enable_version_counter=False)
    checkpoints: list[Callback] = [last, best] if config.validation.scene else [last]
    with _lightning():
        trainer = _trainer(config, output, [*checkpoints, Told(progress, total)])
        task = EncoderTask(config, total)
        trainer.fit(task, PairData(config.data, config.seed), ckpt_path=_last(output))
    chosen = Path(best.best_model_path or output / LAST)
    if config.net.form == "global":
        return chosen
    return export_weights(config, chosen, output / f"encoder{SUFFIX}")


def _check(config: EncoderConfig) -> None:
    """Raise on what would be found out only after the first steps, or the first epochs."""
    if not (config.data.scenes or config.data.folders or config.data.simulated.weight):
        hint = "set data.scenes, data.folders or data.simulated.weight"
        raise UsageError("neither scenes nor folders of pairs are named", hint=hint)
    options, v = AugmentOptions(**config.data.augment), config.validation
    needed = LARGE_PX if options.large else SMALL_PX
    if not needed <= options.sar_px <= options.optical_px:
        what = f"windows of {needed} px cannot be cut from a SAR image of {options.sar_px} px"
        what += f" in an optical crop of {options.optical_px} px"
        raise UsageError(what, where="data.augment", hint="set a larger sar_px, and optical_px above it")
    if min(config.trainer.max_epochs, config.data.steps_per_epoch, config.data.batch, v.every_epochs) < 1:
        raise UsageError("no epochs, steps or pairs", hint="set them to 1 or more")
    check_objective(config)
    if v.scene:
        scene = scene_named(config.data, v.scene)
        scene_boxes(Path(config.data.root), scene, "val")


def _trainer(config: EncoderConfig, output: Path, callbacks: list[Callback]) -> pl.Trainer:
    t = config.trainer
    try:
        return pl.Trainer(
            max_epochs=t.max_epochs,
            max_time=None if t.max_minutes is None else timedelta(minutes=t.max_minutes),
            limit_train_batches=config.data.steps_per_epoch,
            accelerator=t.accelerator,
            devices=int(t.devices) if t.devices.isdigit() else t.devices,
            precision=t.precision,  # type: ignore[arg-type]  # lightning checks it
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


def export_weights(config: EncoderConfig, checkpoint: Path, output: Path) -> Path:
    """Write the network of a checkpoint, of the dense form, as weights.

    Raises:
        InputError: the checkpoint is damaged or of another run.
        OutputError: the file cannot be written.
    """
    task = EncoderTask(config, 1)
    try:
        task.load_state_dict(_loaded(checkpoint)["state_dict"])
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"is no checkpoint of this run ({reason})", where=checkpoint) from error
    with published(output) as file:
        save_weights(cast(EncoderNet, task.kept_net), file, {"run": config.name, "seed": str(config.seed)})
    return output


def _remember(config: EncoderConfig, output: Path) -> None:
    """Write the resolved configuration; raise if there is something to resume that has another."""
    file = output / CONFIG
    if file.is_file() and (output / LAST).is_file():
        if load_config(file) != config:
            hint = "name another folder, or repeat the run's own configuration to resume it"
            raise UsageError("holds a run of another configuration", where=output, hint=hint)
        return
    with writing(output):
        (output / MINED).unlink(missing_ok=True)  # of a run that left no checkpoint
    with published(file) as part:
        save_config(config, part)


def _last(output: Path) -> str | None:
    """The checkpoint to go on from."""
    file = output / LAST
    if not file.is_file():
        return None
    _loaded(file)
    return str(file)


def _loaded(checkpoint: Path) -> dict[str, Any]:
    import torch

    try:
        found: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "remove it, and the run begins anew from the checkpoint before it or from nothing"
        raise InputError(f"is no whole checkpoint ({reason})", where=checkpoint, hint=hint) from error
    return found
