"""``geomatch train descriptor``: a network that describes patches of either modality, fitted on corresponding patches.

A step sees ``data.batch`` crops with ``points`` places each. A place is a keypoint of either image, found where the
detector of a query would find one, and its patch is cut from both: from one image where it is, from the other where the
known transform of the crop leads, so that turn, scale and shift are those between the crops. Negatives are the patches
of other places of the batch, in a random order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geomatch.config import read_config
from geomatch.console import Step
from geomatch.matching.keypoints import DETECTORS, Keypoints
from geomatch.matching.patches import patches, standardised
from geomatch.matching.samples import Sample
from geomatch.matching.side import Side
from geomatch.matching.transforms import apply
from geomatch.nets.shapes import HardNetShape, LTFormerShape, VggShape

from ..config import TrainerConfig, one_of
from ..data import scene_named
from ..optimizers import SmallOptimizerConfig
from ..small import SmallJob, SmallTask
from ..streams import Batch
from .sources import CropConfig, held_out
from .streams import CropBatches, Example
from .triplets import LOSSES, TEMPERATURE, infonce

VALIDATION_SEED = 7
SHIFTED = 1 / 3  # of the places, where they are shifted at all
APART_PX = 12  # places of one crop nearer than this are not told apart
_NETS: dict[str, Any] = {"ltformer": LTFormerShape, "hardnet": HardNetShape, "vgg": VggShape}


@dataclass
class DescriptorNetConfig:
    """The network.

    Attributes:
        form: "ltformer", "hardnet" or "vgg".
        shape: fields of its shape (``geomatch.nets.shapes``) that differ from the defaults.
        side_px: of what a patch shows of the image.
        equalised: whether patches are cut after CLAHE, as the paper does.
    """

    form: str = "ltformer"
    shape: dict[str, Any] = field(default_factory=dict)
    side_px: int = 128
    equalised: bool = True


@dataclass
class DescriptorValidationConfig:
    """Crops of a scene's validation boxes, in each of which places are matched among each other.

    Attributes:
        scene: which of the scenes.
        crops: how many.
        every_epochs: how often.
    """

    scene: str = ""
    crops: int = 40
    every_epochs: int = 2


@dataclass
class DescriptorConfig:
    """One training run of a descriptor.

    Attributes:
        name: of the run.
        seed: of everything that is random.
        points: places of each crop.
        detector: that finds them.
        shifted_px: how far, in any direction, the SAR patch of a third of the places is cut beside the true place: the
            paper's positives are scaled, turned or shifted by 8 px.
        temperature: that inner products are divided by, of infonce.
        loss: lt, fixed-margin, adaptive-margin, hardest or infonce (``local.triplets``).
    """

    name: str = "descriptor"
    seed: int = 1
    points: int = 16
    detector: str = "gftt"
    shifted_px: float = 0.0
    loss: str = "infonce"
    temperature: float = TEMPERATURE
    data: CropConfig = field(default_factory=CropConfig)
    net: DescriptorNetConfig = field(default_factory=DescriptorNetConfig)
    optimizer: SmallOptimizerConfig = field(default_factory=SmallOptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    validation: DescriptorValidationConfig = field(default_factory=DescriptorValidationConfig)


def load_descriptor_config(file: Path, overrides: Sequence[str] = ()) -> DescriptorConfig:
    """A run from YAML and overrides; raises as ``geomatch.config.read_config``, and on names that are not known."""
    config = read_config(file, DescriptorConfig, overrides, examples="configs/descriptor")
    one_of(config.net.form, _NETS, "net.form")
    one_of(config.loss, LOSSES, "loss")
    one_of(config.detector, DETECTORS, "detector")
    return config


def make_descriptor_net(config: DescriptorNetConfig) -> Any:
    """The network of a configuration."""
    from geomatch.nets.hardnet import HardNet
    from geomatch.nets.ltformer import LTFormer
    from geomatch.nets.vgg import PatchVgg

    given: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in config.shape.items()}
    makers: dict[str, Any] = {"ltformer": LTFormer, "hardnet": HardNet, "vgg": PatchVgg}
    return makers[config.form](_NETS[config.form](**given))


def paired_patches(crops: Sample, config: DescriptorConfig, rng: np.random.Generator) -> Example | None:
    """Patches of places in both images: "optical" and "sar", [K x 1 x s x s] each; None where there are too few places.

    Half of the places are keypoints of the optical image and half of the SAR image.
    """
    there = np.asarray(np.linalg.inv(crops.to_optical), np.float64)
    found = [_keypoints(side, config, rng) for side in (crops.optical, crops.sar)]
    optical_px = np.concatenate([found[0], apply(crops.to_optical, found[1])])
    sar_px = np.concatenate([apply(there, found[0]), found[1]])
    inside = np.ones(len(optical_px), bool)
    for points, side in ((optical_px, crops.optical), (sar_px, crops.sar)):
        inside &= (points >= 0).all(axis=1) & (points < side.size_px).all(axis=1)
    numbers = _apart(optical_px, rng.permutation(np.nonzero(inside)[0]), config.points)
    if len(numbers) < config.points:
        return None
    sar_px = sar_px + _shifts(len(sar_px), config.shifted_px, rng)
    cut = {
        side.modality: patches_of(side, points[numbers], config.net)
        for points, side in ((optical_px, crops.optical), (sar_px, crops.sar))
    }
    return {name: values[:, None] for name, values in cut.items()}


def patches_of(side: Side, points: NDArray[np.float64], net: DescriptorNetConfig) -> NDArray[np.float32]:
    """Standardised patches around points [K x 2], as the network of a configuration sees them: [K x s x s]."""
    image = side.equalised if net.equalised else side.bytes
    output_px = int(net.shape.get("patch_px", _NETS[net.form]().patch_px))
    return standardised(patches(image, Keypoints.at(points), net.side_px, output_px))


def _keypoints(side: Side, config: DescriptorConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    """Some of the keypoints of an image, [K x 2]."""
    found = DETECTORS[config.detector](side, _DETECTED).xy_px
    return found[rng.permutation(len(found))[: 2 * config.points]]


def _shifts(count: int, length_px: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Of a third of so many places by so much in any direction, of the rest none: [count x 2]."""
    turn = rng.uniform(0, 2 * np.pi, count)
    moved = length_px * (rng.random(count) < SHIFTED)
    shifts: NDArray[np.float64] = np.stack([np.cos(turn), np.sin(turn)], axis=1) * moved[:, None]
    return shifts


def _apart(points: NDArray[np.float64], order: NDArray[np.int64], most: int) -> list[int]:
    """Numbers of points, taken in an order, that are APART_PX from those taken before."""
    kept: list[int] = []
    for number in order.tolist():
        if len(kept) == most:
            break
        if not kept or np.linalg.norm(points[kept] - points[number], axis=1).min() >= APART_PX:
            kept.append(number)
    return kept


class DescriptorTask(SmallTask[DescriptorConfig]):
    """The loss of a batch, and the share of places that find themselves."""

    def __init__(self, config: DescriptorConfig, total_steps: int) -> None:
        super().__init__(config, total_steps)
        self.net = make_descriptor_net(config.net)
        self._loss = LOSSES[config.loss]
        if self._loss is infonce:
            self._loss = partial(infonce, temperature=config.temperature)
        self._held_out: list[Example] | None = None

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """One batch of crops."""
        del number
        optical, sar = (batch[name].flatten(0, 1) for name in ("optical", "sar"))
        mixed = torch.randperm(len(optical), device=optical.device)
        with torch.no_grad():
            swapped = torch.rand(len(mixed), device=optical.device) < 0.5
        first, second = self.net(optical[mixed]).float(), self.net(sar[mixed]).float()
        anchors = torch.where(swapped[:, None], second, first)
        positives = torch.where(swapped[:, None], first, second)
        loss = self._loss(anchors, positives)
        self.log("loss", loss)
        return loss

    def validated(self) -> float:
        """Share of places of held-out crops whose nearest patch among those of the other image is their own."""
        if self._held_out is None:
            self._held_out = held_out_patches(self._config)
        return found_themselves(self.net, self._held_out)


def found_themselves(net: nn.Module, examples: Sequence[Example]) -> float:
    """Share of places of crops whose nearest patch among those of the other image is their own."""
    right = total = 0
    device = next(net.parameters()).device
    net.eval()
    with torch.inference_mode():
        for example in examples:
            optical, sar = (net(torch.from_numpy(example[name]).to(device)) for name in ("optical", "sar"))
            nearest = (sar.float() @ optical.float().T).argmax(dim=1).cpu()
            right += int((nearest == torch.arange(len(nearest))).sum())
            total += len(nearest)
    net.train()
    return right / max(total, 1)


def held_out_patches(config: DescriptorConfig) -> list[Example]:
    """Patches of the crops that a run is validated on, twice as many of each as in training."""
    scene = scene_named(config.data.scenes, config.validation.scene)
    denser = replace(config, points=2 * config.points)
    crops = held_out(config.data, scene, config.validation.crops, VALIDATION_SEED)
    rng = np.random.default_rng(VALIDATION_SEED)
    made = (paired_patches(one, denser, rng) for one in crops)
    return [one for one in made if one is not None]


def train_descriptor(config: DescriptorConfig, output: Path, progress: Step = lambda stage, done, total: None) -> Path:
    """Train as a configuration says; as ``SmallJob.train``."""
    return JOB.train(config, output, progress, {"side_px": config.net.side_px, "equalised": config.net.equalised})


def _batches(config: DescriptorConfig, seeds: tuple[int, ...]) -> CropBatches:
    def example(crops: Sample, rng: np.random.Generator) -> Example | None:
        return paired_patches(crops, config, rng)

    return CropBatches(config.data, example, *seeds)


_DETECTED = 400


JOB = SmallJob(load_descriptor_config, DescriptorTask, _batches, "descriptor")
