"""A model card: what weights are, what they learned from, how they were measured, and where they end (Mitchell et al.

2019, "Model cards for model reporting", FAT*).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geomatch.errors import InputError
from geomatch.files import published
from geomatch.nets.shapes import EncoderShape
from geomatch.weights import Weights

from .config import EncoderConfig

LICENCES = """\
Contains modified Copernicus Sentinel data. The scenes keep the terms of their sources; the weights are under geomatch's
licence."""
LIMITS = """\
- Learned from the scenes named above alone; other sensors, resolutions and land are served by the structural
  features that stand beside the learned ones, as far as those go.
- Windows north up at the map's scale, give or take the turn and the scale that training showed.
- Open sea and bare surfaces have no place; rely on the status of an answer, not on its position."""


def write_card(config: EncoderConfig, weights: Weights[EncoderShape], figures: Sequence[Path], output: Path) -> None:
    """Write a card in Markdown.

    Args:
        config: of the run.
        weights: that it left.
        figures: JSON files that ``benchmarks/encoders.py -o`` wrote.
        output: the card; its name without the ending is its title.

    Raises:
        InputError: a file of figures cannot be read.
        OutputError: the card cannot be written.
    """
    parameters = sum(values.numel() for values in weights.net().parameters())
    parts = [
        f"# {output.stem}",
        f"sha256 `{weights.sha256}`, {parameters:,} parameters, {weights.shape}",
        "## Learned from\n" + "\n".join(_sources(config)),
        LICENCES,
        "## Trained\n" + _trained(config),
        *(_figures(file) for file in figures),
        "## Limits\n" + LIMITS,
    ]
    with published(output) as file:
        file.write_text("\n\n".join(parts) + "\n")


def _sources(config: EncoderConfig) -> list[str]:
    scenes = [
        f"- {scene.scene or Path(scene.optical).parent.name or scene.optical}: "
        + (f"fragments that {scene.split} gives to training" if scene.split else f"all but {scene.holdout:.0%}")
        + f", weight {scene.weight:g}"
        for scene in config.data.scenes
    ]
    folders = [
        f"- {folder.optical} and {folder.sar}: locations other than the {folder.validation_share:.0%} kept for "
        f"validation, weight {folder.weight:g}"
        for folder in config.data.folders
    ]
    cities = [f"- cities simulated while training went on, weight {config.data.simulated.weight:g}"]
    return scenes + folders + (cities if config.data.simulated.weight else [])


def _trained(config: EncoderConfig) -> str:
    steps = config.trainer.max_epochs * config.data.steps_per_epoch
    start = f", beginning with {Path(config.start).name}" if config.start else ""
    precision = config.trainer.precision
    short = "bfloat16 where the machine multiplies it" if precision == "auto" else precision
    return (
        f"{steps:,} steps of {config.data.batch} pairs{start}, AdamW {config.optimizer.lr:g}, "
        f"{short}, seed {config.seed}; the epoch that did best on the validation block was kept."
    )


def _figures(file: Path) -> str:
    """The textured windows placed within 10 px, by case and encoder."""
    try:
        results: list[dict[str, Any]] = json.loads(file.read_text())["results"]
        rows = [
            f"| {found['case']} | {found['encoder']} | {found['textured']} | {found['success_px_textured']['10']:.3f} "
            f"[{found['success_px_textured_ci']['10'][0]:.3f}, {found['success_px_textured_ci']['10'][1]:.3f}] "
            f"| {found['recall_textured']['1']:.3f} | {found['recall_textured']['100']:.3f} |"
            for found in results
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        hint = "give a file that benchmarks/encoders.py -o wrote"
        raise InputError(f"holds no figures ({error!r})", where=file, hint=hint) from error
    head = "| case | encoder | textured windows | within 10 px | R@1 | R@100 |\n|---|---|---|---|---|---|"
    return "\n".join(["## Measured on the validation block, `python benchmarks/encoders.py`\n", head, *rows])
