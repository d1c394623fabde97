"""``geomatch train descriptor``: a network that describes patches of either modality, fitted on corresponding patches.

A step sees ``data.batch`` crops with ``points`` places each. A place is a keypoint of either image, found where the
detector of a query would find one, and its patch is cut from both: from one image where it is, from the other where the
known transform of the crop leads, so that turn and scale are those between the crops. From there the SAR patch may be
moved, turned and scaled further (``local.positives``). Negatives are the patches of other places of the batch, in a
random order.
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

from geomatch.config import merged, read_config
from geomatch.console import Step
from geomatch.errors import UsageError
from geomatch.matching.keypoints import DETECTORS, Keypoints
from geomatch.matching.patches import patches, standardised
from geomatch.matching.samples import Sample
from geomatch.matching.side import Side
from geomatch.matching.transforms import apply
from geomatch.nets.shapes import HardNetShape, LTFormerShape, VggShape
from geomatch.weights import Weights

from ..config import TrainerConfig, one_of
from ..limits import check_numbers
from ..optimizers import SmallOptimizerConfig
from ..scenes import scene_named
from ..small import SmallJob, SmallTask
from ..streams import Batch
from .positives import PositiveConfig, drawn_moves
from .sources import CropConfig, held_out
from .streams import CropBatches, Example
from .triplets import LOSSES, TEMPERATURE, infonce

VALIDATION_SEED = 7
STAGES = 4  # of LTFormer
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
        temperature: that inner products are divided by, of infonce.
        loss: lt, fixed-margin, adaptive-margin, hardest or infonce (``local.triplets``).
        start: weights to begin with, by name or path, of the network that ``net`` says.
        positives: how far SAR patches are off the true places.
    """

    name: str = "descriptor"
    seed: int = 1
    points: int = 16
    detector: str = "gftt"
    loss: str = "infonce"
    temperature: float = TEMPERATURE
    start: str | None = None
    positives: PositiveConfig = field(default_factory=PositiveConfig)
    data: CropConfig = field(default_factory=CropConfig)
    net: DescriptorNetConfig = field(default_factory=DescriptorNetConfig)
    optimizer: SmallOptimizerConfig = field(default_factory=SmallOptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    validation: DescriptorValidationConfig = field(default_factory=DescriptorValidationConfig)


def load_descriptor_config(file: Path, overrides: Sequence[str] = ()) -> DescriptorConfig:
    """A run from YAML and overrides; raises as ``geomatch.config.read_config``, and on names that are not known."""
    config = read_config(file, DescriptorConfig, overrides, examples="configs/descriptor")
    one_of(config.net.form, _NETS, "net.form")
    merged(_NETS[config.net.form], config.net.shape, where=file, prefix="net.shape.")
    one_of(config.loss, LOSSES, "loss")
    one_of(config.detector, DETECTORS, "detector")
    check_numbers(config, {"points": 2, "validation.crops": 1}, ("temperature", "net.side_px"))
    config.data.check()
    config.positives.check()
    _check_shape(shape_of(config.net))
    return config


def shape_of(net: DescriptorNetConfig) -> Any:
    """The network's."""
    given: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in net.shape.items()}
    return _NETS[net.form](**given)


def _check_shape(shape: LTFormerShape | HardNetShape | VggShape) -> None:
    """Raise a UsageError for a network that cannot be made."""
    patch_px = 16 if isinstance(shape, HardNetShape) else 32
    least = {"vector": 1, "width": 1, "depth": 1, "hidden": 1, "classes": 2, "patch_px": patch_px, "dropout": 0}
    check_numbers(shape, least, within="net.shape.")
    what, hint = "", ""
    if isinstance(shape, HardNetShape) and (shape.patch_px % 4 or shape.dropout >= 1):
        what = f"patches of {shape.patch_px} px with a dropout of {shape.dropout:g}"
        hint = "take a multiple of 4, and a dropout below 1"
    elif isinstance(shape, LTFormerShape):
        stages = zip(shape.widths, shape.heads, shape.reductions, shape.expansions, strict=False)
        lengths = set(map(len, (shape.widths, shape.heads, shape.reductions, shape.expansions)))
        fits = all(min(stage) >= 1 and stage[0] % stage[1] == 0 for stage in stages)
        if lengths != {STAGES} or not fits:
            what = "widths, heads, reductions and expansions that fit no network"
            hint = f"give {STAGES} of each, above 0, widths being multiples of their heads"
        elif any(reduced > shape.patch_px >> (2 + stage) for stage, reduced in enumerate(shape.reductions)):
            what = (
                f"reductions of more than the {shape.patch_px >> 2} px that are left of a patch, half as many a stage"
            )
            hint = "take smaller ones, or larger patches"
    if what:
        raise UsageError(what, where="net.shape", hint=hint)


def make_descriptor_net(config: DescriptorNetConfig) -> Any:
    """The network of a configuration."""
    from geomatch.nets.hardnet import HardNet
    from geomatch.nets.ltformer import LTFormer
    from geomatch.nets.vgg import PatchVgg

    makers: dict[str, Any] = {"ltformer": LTFormer, "hardnet": HardNet, "vgg": PatchVgg}
    return makers[config.form](shape_of(config))


def paired_patches(crops: Sample, config: DescriptorConfig, rng: np.random.Generator) -> Example | None:
    """Patches of places in both images: "optical" and "sar", [K x 1 x s x s] each; None where there are too few places.

    Half of the places are keypoints of the optical image and half of the SAR image. The SAR patch is moved off the
    place as ``config.positives`` says.
    """
    there = np.asarray(np.linalg.inv(crops.to_optical), np.float64)
    found = [_keypoints(side, config, rng) for side in (crops.optical, crops.sar)]
    optical_px = np.concatenate([found[0], apply(crops.to_optical, found[1])])
    sar_px = np.concatenate([apply(there, found[0]), found[1]])
    moves = drawn_moves(config.positives, len(sar_px), rng)
    sar_px = sar_px + moves.shift_px
    inside = np.ones(len(optical_px), bool)
    for points, side in ((optical_px, crops.optical), (sar_px, crops.sar)):
        inside &= (points >= 0).all(axis=1) & (points < side.size_px).all(axis=1)
    # A patch that is moved has to stay nearer to its own place than to any other.
    apart_px = APART_PX + config.positives.shift_px
    numbers = _apart(optical_px, rng.permutation(np.nonzero(inside)[0]), config.points, apart_px)
    if len(numbers) < config.points:
        return None
    optical = patches_of(crops.optical, optical_px[numbers], config.net)
    sar = patches_of(crops.sar, sar_px[numbers], config.net, moves.of(numbers).frames)
    return {"optical": optical[:, None], "sar": sar[:, None]}


def patches_of(
    side: Side, points: NDArray[np.float64], net: DescriptorNetConfig, frames: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Standardised patches around points [K x 2], as the network of a configuration sees them: [K x s x s].

    ``frames``: as of ``geomatch.matching.patches.patches``.
    """
    image = side.equalised if net.equalised else side.bytes
    output_px = int(net.shape.get("patch_px", _NETS[net.form]().patch_px))
    return standardised(patches(image, Keypoints.at(points), net.side_px, output_px, frames))


def _keypoints(side: Side, config: DescriptorConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    """Some of the keypoints of an image, [K x 2]."""
    found = DETECTORS[config.detector](side, _DETECTED).xy_px
    return found[rng.permutation(len(found))[: 2 * config.points]]


def _apart(points: NDArray[np.float64], order: NDArray[np.int64], most: int, apart_px: float) -> list[int]:
    """Numbers of points, taken in an order, that are so far from those taken before."""
    kept: list[int] = []
    for number in order.tolist():
        if len(kept) == most:
            break
        if not kept or np.linalg.norm(points[kept] - points[number], axis=1).min() >= apart_px:
            kept.append(number)
    return kept


class DescriptorTask(SmallTask[DescriptorConfig]):
    """The loss of a batch, and the share of places that find themselves."""

    def __init__(self, config: DescriptorConfig, total_steps: int) -> None:
        super().__init__(config, total_steps)
        self.net = make_descriptor_net(config.net)
        if config.start is not None:
            Weights.find(config.start, _NETS[config.net.form]).load_into(self.net).train()
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
    """Patches of the crops that a run is validated on, at the true places, twice as many of each as in training."""
    scene = scene_named(config.data.scenes, config.validation.scene)
    denser = replace(config, points=2 * config.points, positives=PositiveConfig())
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


JOB = SmallJob(load_descriptor_config, DescriptorTask, _batches, "descriptor", half=True)
