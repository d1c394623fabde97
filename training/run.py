"""The encoder's training run: what it asks of its configuration, and what it leaves as weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

from geomatch.console import Step
from geomatch.errors import InputError, UsageError
from geomatch.files import published
from geomatch.nets.encoder import EncoderNet
from geomatch.weights import SUFFIX, save_weights

from .augment import LARGE_PX, SMALL_PX, AugmentOptions
from .checks import check_objective
from .config import DataConfig, EncoderConfig, load_config
from .data import Batches
from .jobs import MINED, Job, load_checkpoint, run_job
from .scenes import scene_boxes, scene_named
from .streams import StreamData
from .task import EncoderTask


def train_encoder(config: EncoderConfig, output: Path, progress: Step = lambda stage, done, total: None) -> Path:
    """Train an encoder; a run that is in ``output`` already goes on from its last checkpoint.

    Args:
        config: of the run.
        output: folder for the configuration, logs, checkpoints and at the end ``encoder.safetensors``,
            which the global form has none of; ``reranker.safetensors`` beside it where one was trained too.
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
    total = config.data.steps_per_epoch * config.trainer.max_epochs
    job = Job(
        config,
        load_config,
        lambda: EncoderTask(config, total),
        lambda: StreamData(partial(_batches, config.data), config.data.workers, config.seed),
        config.data.steps_per_epoch,
        validated=bool(config.validation.scene),
    )
    chosen = run_job(job, output, progress)
    if config.net.form == "global":
        return chosen
    return export_weights(config, chosen, output)


def _batches(data: DataConfig, seeds: tuple[int, ...], folder: Path) -> Batches:
    return Batches(data, *seeds, mined=folder / MINED)


def _check(config: EncoderConfig) -> None:
    """Raise on what would be found out only after the first steps, or the first epochs."""
    if not (config.data.scenes or config.data.folders or config.data.simulated.weight):
        hint = "set data.scenes, data.folders or data.simulated.weight"
        raise UsageError("neither scenes nor folders of pairs are named", hint=hint)
    options = AugmentOptions(**config.data.augment)
    needed = LARGE_PX if options.large else SMALL_PX
    if not needed <= options.sar_px <= options.optical_px:
        what = f"windows of {needed} px cannot be cut from a SAR image of {options.sar_px} px"
        what += f" in an optical crop of {options.optical_px} px"
        raise UsageError(what, where="data.augment", hint="set a larger sar_px, and optical_px above it")
    check_objective(config)
    if config.validation.scene:
        scene = scene_named(config.data.scenes, config.validation.scene)
        scene_boxes(Path(config.data.root), scene, "val")


def export_weights(config: EncoderConfig, checkpoint: Path, folder: Path) -> Path:
    """Write the network of a checkpoint, of the dense form, as weights; its re-ranker beside it where it has one.

    Raises:
        InputError: the checkpoint is damaged or of another run.
        OutputError: the file cannot be written.
    """
    task = EncoderTask(config, 1)
    try:
        task.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"is no checkpoint of this run ({reason})", where=checkpoint) from error
    about = {"run": config.name, "seed": str(config.seed)}
    output = folder / f"encoder{SUFFIX}"
    with published(output) as file:
        save_weights(cast(EncoderNet, task.kept_net), file, about)
    if task.graph is not None:
        with published(folder / f"reranker{SUFFIX}") as file:
            save_weights(task.graph.net, file, about)
    return output
