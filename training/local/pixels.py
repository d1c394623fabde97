"""``geomatch train pixels``: features at 2 px by whose correlation a SAR window finds its place in an optical crop.

A step sees ``data.batch`` crops. Of each a SAR window is correlated with the optical crops of all at every offset, and
the cross-entropy asks for the true place among all of them (``losses.offset_loss``, which the encoder learns by too):
so a peak at another place is as wrong as one a few pixels off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from geomatch.config import read_config
from geomatch.console import Step
from geomatch.errors import UsageError
from geomatch.matching.samples import Sample
from geomatch.matching.side import Side
from geomatch.matching.transforms import apply
from geomatch.nets.pixel_net import PixelNet
from geomatch.nets.shapes import PixelShape
from geomatch.pixel_features import CELL_PX, standardised
from geomatch.weights import Weights

from ..config import TrainerConfig
from ..limits import check_numbers
from ..losses import Windows, offset_loss
from ..optimizers import SmallOptimizerConfig
from ..scenes import scene_named
from ..small import SmallJob, SmallTask
from ..streams import Batch
from .sources import CropConfig, held_out
from .streams import CropBatches, Example

VALIDATION_SEED = 7
MIN_VALID = 0.98  # share of a crop that has to be known
EDGE_CELLS = 2  # along the edge, which hardly see anything but the padding on one side, are not learned from
SHARPNESS = 3.0  # logarithm of what correlations are multiplied by at first


@dataclass
class PixelNetConfig:
    """The network, as of ``PixelShape``."""

    channels: int = 8
    stem: int = 16
    width: int = 32
    dilations: tuple[int, ...] = (1, 2, 3)


@dataclass
class PixelValidationConfig:
    """Crops of a scene's validation boxes, whose windows are looked for in all of them.

    Attributes:
        scene: which of the scenes.
        crops: how many.
        every_epochs: how often.
    """

    scene: str = ""
    crops: int = 48
    every_epochs: int = 2


@dataclass
class PixelConfig:
    """One training run of features of pixels.

    Attributes:
        name: of the run.
        seed: of everything that is random.
        window_px: side of the SAR windows; what is left of a crop's side is how far they may lie off.
        registration_px: deviation of what pairs of the data may be misregistered by, which is then not learned
            (``losses.offset_loss``); none where they lie exactly on each other.
        start: weights to begin with, by name or path, of the network that ``net`` says.
    """

    name: str = "pixels"
    seed: int = 1
    window_px: int = 104
    registration_px: float | None = None
    start: str | None = None
    data: CropConfig = field(
        default_factory=lambda: CropConfig(side_px=136, scale=(0.97, 1.03), turn_deg=2.0, shift_px=1.0)
    )
    net: PixelNetConfig = field(default_factory=PixelNetConfig)
    optimizer: SmallOptimizerConfig = field(default_factory=SmallOptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    validation: PixelValidationConfig = field(default_factory=PixelValidationConfig)


def load_pixel_config(file: Path, overrides: Sequence[str] = ()) -> PixelConfig:
    """A run from YAML and overrides; raises as ``geomatch.config.read_config``, and on sides that do not fit."""
    config = read_config(file, PixelConfig, overrides, examples="configs/pixels")
    check_numbers(config, {"net.channels": 1, "net.stem": 1, "net.width": 1, "validation.crops": 1})
    config.data.check()
    window, crop = config.window_px, config.data.side_px
    least = CELL_PX * (2 * EDGE_CELLS + 2)
    if window % CELL_PX or crop % CELL_PX or not least <= window <= crop:
        what = f"windows of {window} px in crops of {crop} px"
        hint = f"take even sides, {least} px or more, and crops no smaller than windows"
        raise UsageError(what, where="window_px", hint=hint)
    if config.registration_px is not None and config.registration_px <= 0:
        what = f"pairs that are misregistered by {config.registration_px:g} px"
        raise UsageError(what, where="registration_px", hint="take more than zero, or null for pairs that are not")
    return config


def window_of(crops: Sample, config: PixelConfig, rng: np.random.Generator) -> Example | None:
    """What a step compares of a pair of crops, or None where too little of them is known.

    Returns:
        "optical" [1 x H x W] and "sar" [1 x h x w] as the network sees them, and "at" [2], column and row in cells of
        the optical crop where the window's first pixel lies, by its middle.
    """
    side, window = config.data.side_px, config.window_px
    sides = crops.optical, crops.sar
    if any(one.size_px != (side, side) or one.valid.mean() < MIN_VALID for one in sides):
        return None
    left, top = (int(at) for at in rng.integers(0, side - window + 1, 2))
    part = np.s_[top : top + window, left : left + window]
    sar = Side(crops.sar.image[part], crops.sar.valid[part], "sar")
    middle = np.array([[left + window / 2, top + window / 2]])
    at = (apply(crops.to_optical, middle)[0] - window / 2) / CELL_PX
    seen = {one.modality: standardised(one.image, one.valid)[None] for one in (crops.optical, sar)}
    return seen | {"at": at.astype(np.float32)}


class PixelTask(SmallTask[PixelConfig]):
    """The loss of a batch, and the share of held-out windows that find their place."""

    net: PixelNet

    def __init__(self, config: PixelConfig, total_steps: int) -> None:
        super().__init__(config, total_steps)
        n = config.net
        self.net = PixelNet(PixelShape(n.channels, n.stem, n.width, tuple(n.dilations)))
        if config.start is not None:
            Weights.find(config.start, PixelShape).load_into(self.net).train()
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        self._held_out: list[Example] | None = None

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """One batch of windows."""
        del number
        loss, hits = self._compared(batch)
        self.log("loss", loss)
        self.log("hits", hits)
        return loss

    def validated(self) -> float:
        """Share of windows of held-out crops whose highest peak among all of these is where they belong."""
        if self._held_out is None:
            v, rng = self._config.validation, np.random.default_rng(VALIDATION_SEED)
            crops = held_out(
                self._config.data, scene_named(self._config.data.scenes, v.scene), v.crops, VALIDATION_SEED
            )
            made = (window_of(one, self._config, rng) for one in crops)
            self._held_out = [one for one in made if one is not None]
        if not self._held_out:
            what = f"no crop of {self._config.data.side_px} px of its validation boxes is whole and known"
            hint = "take smaller data.side_px and window_px, or validation.scene= for none"
            raise UsageError(what, where=self._config.validation.scene, hint=hint)
        names = self._held_out[0]
        whole = {name: torch.from_numpy(np.stack([one[name] for one in self._held_out])) for name in names}
        self.net.eval()
        with torch.inference_mode():
            _, hits = self._compared({name: values.to(self.device) for name, values in whole.items()})
        self.net.train()
        return float(hits)

    def _compared(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As ``offset_loss``."""
        inner = (..., slice(EDGE_CELLS, -EDGE_CELLS), slice(EDGE_CELLS, -EDGE_CELLS))
        optical, sar = self.net(batch["optical"], "optical")[inner], self.net(batch["sar"], "sar")[inner]
        windows = Windows(torch.arange(len(sar), device=sar.device), sar, batch["at"])
        off_px = self._config.registration_px
        return offset_loss(windows, optical, self.sharpness, None if off_px is None else off_px / CELL_PX)


def train_pixels(config: PixelConfig, output: Path, progress: Step = lambda stage, done, total: None) -> Path:
    """Train as a configuration says; as ``SmallJob.train``."""
    return JOB.train(config, output, progress)


def _batches(config: PixelConfig, seeds: tuple[int, ...]) -> CropBatches:
    def example(crops: Sample, rng: np.random.Generator) -> Example | None:
        return window_of(crops, config, rng)

    return CropBatches(config.data, example, *seeds)


JOB = SmallJob(load_pixel_config, PixelTask, _batches, "pixels", half=True)
