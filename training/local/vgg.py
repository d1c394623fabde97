"""``geomatch train vgg``: a VGG that tells patches apart, whose last layers then describe any patch.

Ye et al. 2018 fine-tune VGG16 so: seed patches are the classes, and what is shown of each is turned, scaled, and made
brighter or darker. Here a class is a place, seen by either modality, so that what is common to both has to be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from geomatch.config import read_config
from geomatch.console import Step
from geomatch.matching.patches import standardised
from geomatch.matching.samples import Sample, Warp, warped
from geomatch.matching.side import Side
from geomatch.nets.shapes import VggShape
from geomatch.nets.vgg import PatchVgg

from ..config import TrainerConfig
from ..limits import check_numbers, check_range
from ..optimizers import SmallOptimizerConfig
from ..small import SmallJob, SmallTask
from ..streams import Batch, Stream
from .descriptor import (
    DescriptorConfig,
    DescriptorNetConfig,
    DescriptorValidationConfig,
    found_themselves,
    held_out_patches,
)
from .sources import CropConfig, CropSource
from .streams import Example

PATCH_PX = 64


@dataclass
class VggNetConfig:
    """The network, as of ``VggShape``; patches are of 64 px."""

    width: int = 8
    hidden: int = 128
    classes: int = 256


@dataclass
class VggConfig:
    """One training run of a classifier of patches.

    Attributes:
        name: of the run.
        seed: of everything that is random.
        batch: patches of a step.
        turn_deg, scale: of what is shown of a place.
        gamma: natural logarithm of the exponent on its grey, to either side; a factor is gone once a patch is
            standardised.
        data: where places come from; its batch is not used.
    """

    name: str = "vgg"
    seed: int = 1
    batch: int = 64
    turn_deg: float = 15.0
    scale: tuple[float, float] = (0.85, 1.2)
    gamma: float = 0.3
    data: CropConfig = field(default_factory=CropConfig)
    net: VggNetConfig = field(default_factory=VggNetConfig)
    optimizer: SmallOptimizerConfig = field(default_factory=SmallOptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    validation: DescriptorValidationConfig = field(default_factory=DescriptorValidationConfig)


def load_vgg_config(file: Path, overrides: Sequence[str] = ()) -> VggConfig:
    """A run from YAML and overrides; raises as ``geomatch.config.read_config``."""
    config = read_config(file, VggConfig, overrides, examples="configs/vgg")
    least = {"batch": 1, "turn_deg": 0, "gamma": 0, "net.width": 1, "net.hidden": 1, "net.classes": 2}
    check_numbers(config, least | {"validation.crops": 1})
    check_range("scale", config.scale, "[0.85, 1.2]")
    config.data.check()
    return config


def shape_of(net: VggNetConfig) -> VggShape:
    """The network's."""
    return VggShape(PATCH_PX, net.width, planes=1, hidden=net.hidden, classes=net.classes, norm=True)


class PatchClasses(Stream):
    """Endless batches of patches of the run's places: "patches" [B x 1 x 64 x 64], "place" [B]."""

    def __init__(self, config: VggConfig, *seeds: int) -> None:
        super().__init__(*seeds)
        self._config = config

    def drawn(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Patches of places that every worker draws alike."""
        config = self._config
        places = list(_places(config))
        while True:
            numbers = rng.integers(len(places), size=config.batch)
            shown = [_shown(places[number], rng, config) for number in numbers]
            patches = standardised(np.stack(shown))[:, None]
            yield {"patches": torch.from_numpy(patches), "place": torch.from_numpy(numbers)}


def _places(config: VggConfig) -> Iterator[Sample]:
    source, rng = CropSource(config.data), np.random.default_rng([config.seed, _PLACES])
    for _ in range(config.net.classes):
        yield source.draw(rng)


def _shown(place: Sample, rng: np.random.Generator, config: VggConfig) -> NDArray[np.float32]:
    """A place in one of its modalities, turned, scaled, its grey to some power: [64 x 64]."""
    optical = bool(rng.random() < 0.5)
    side: Side = place.optical if optical else place.sar
    size = side.size_px[0]
    to_side = Warp(config.turn_deg, config.scale, 0.0).draw(rng, PATCH_PX)
    half = (size - PATCH_PX) / 2
    middle = np.array([[1, 0, half], [0, 1, half], [0, 0, 1.0]])
    to_side = middle @ to_side if optical else np.linalg.inv(place.to_optical) @ middle @ to_side
    grey = side.bytes.astype(np.float32) / np.float32(255)
    patch, _ = warped(grey, side.valid, np.asarray(to_side), (PATCH_PX, PATCH_PX))
    exponent = np.exp(rng.uniform(-config.gamma, config.gamma))
    return np.asarray(np.clip(patch, 0, 1) ** exponent, np.float32)


class VggTask(SmallTask[VggConfig]):
    """Cross-entropy of places, and how many held-out places find themselves by fc6 and fc7."""

    net: PatchVgg

    def __init__(self, config: VggConfig, total_steps: int) -> None:
        super().__init__(config, total_steps)
        self.net = PatchVgg(shape_of(config.net))
        self._held_out: list[Example] | None = None

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """One batch of patches."""
        del number
        logits = self.net.logits(batch["patches"]).float()
        loss = functional.cross_entropy(logits, batch["place"])
        self.log("loss", loss)
        self.log("accuracy", (logits.argmax(dim=1) == batch["place"]).float().mean())
        return loss

    def validated(self) -> float:
        """Share of held-out places whose nearest patch of the other modality is their own."""
        if self._held_out is None:
            net = DescriptorNetConfig("vgg", {"patch_px": PATCH_PX}, PATCH_PX, equalised=False)
            data, validation = self._config.data, self._config.validation
            self._held_out = held_out_patches(DescriptorConfig(data=data, net=net, validation=validation))
        return found_themselves(self.net, self._held_out)


def train_vgg(config: VggConfig, output: Path, progress: Step = lambda stage, done, total: None) -> Path:
    """Train as a configuration says; as ``SmallJob.train``."""
    return JOB.train(config, output, progress, {"side_px": PATCH_PX, "equalised": False})


def _batches(config: VggConfig, seeds: tuple[int, ...]) -> PatchClasses:
    return PatchClasses(config, *seeds)


_PLACES = 11  # seed of the places


JOB = SmallJob(load_vgg_config, VggTask, _batches, "vgg", half=True)
