"""Fine-tuning: the shipped encoder goes on learning on a city of the user's own."""

from __future__ import annotations

import math
from pathlib import Path

from geomatch import defaults
from geomatch.console import Step
from geomatch.errors import UsageError

from .config import (
    DataConfig,
    EncoderConfig,
    OptimizerConfig,
    SceneConfig,
    TrainerConfig,
    ValidationConfig,
)
from .run import train_encoder

STEPS_PER_MINUTE = 50  # planned; the learning rate falls to zero by the end of so many
EPOCH_STEPS = 20
LEARNING_RATE = 5e-4  # a quarter of a training's from nothing
BATCH = 20


def finetune_encoder(
    optical: Path,
    sar: Path,
    output: Path,
    *,
    start: str | None = None,
    minutes: float = 10.0,
    holdout: float = 0.25,
    progress: Step = lambda stage, done, total: None,
) -> Path:
    """Train on two co-registered scenes, beginning with weights that are there.

    Args:
        optical: orthomosaic.
        sar: SAR scene on its grid.
        output: folder of the run.
        start: weights to begin with, default the shipped ones.
        minutes: how long at most.
        holdout: share of the scene's width, at its right, on which the best epoch is chosen.
        progress: told the steps.

    Returns:
        The weights' file.

    Raises:
        UsageError: minutes or holdout out of range.
        InputError, OutputError: as ``train_encoder``.
    """
    if not 0 < minutes < math.inf:
        raise UsageError(f"{minutes:g} minutes are not possible", where="--minutes", hint="give some above 0")
    if not 0 <= holdout <= 0.5:
        raise UsageError(f"a holdout of {holdout:g} is not possible", where="--holdout", hint="give 0 to 0.5")
    scene = SceneConfig(str(optical.resolve()), str(sar.resolve()), scene="own", holdout=holdout)
    epochs = max(1, round(minutes * STEPS_PER_MINUTE / EPOCH_STEPS))
    config = EncoderConfig(
        name="finetune",
        start=start or defaults.ENCODER,
        data=DataConfig(scenes=[scene], batch=BATCH, steps_per_epoch=EPOCH_STEPS),
        optimizer=OptimizerConfig(lr=LEARNING_RATE, warmup_steps=10),
        trainer=TrainerConfig(max_epochs=epochs, max_minutes=minutes),
        validation=ValidationConfig(scene="own" if holdout else "", windows=60, every_epochs=max(1, epochs // 4)),
    )
    return train_encoder(config, output, progress)
