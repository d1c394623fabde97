"""``geomatch train detect-describe``: D2-Net or R2D2 on pairs of both modalities, with S2-Net's self-supervision.

Mei et al.: L = L_SL + lambda (L_SSL(optical) + L_SSL(SAR)). L_SL is the network's own loss between the two modalities,
L_SSL the same loss between an image and an augmented copy of it, whose transform is known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from geomatch.config import read_config
from geomatch.console import Step
from geomatch.errors import UsageError
from geomatch.matching.learned import DetectDescribe
from geomatch.matching.matches import Keypointed, Rule
from geomatch.matching.samples import Sample
from geomatch.matching.scores import correct
from geomatch.nets.d2net import D2Net
from geomatch.nets.features import Features
from geomatch.nets.keypoint_detector import standard
from geomatch.nets.r2d2 import R2D2
from geomatch.nets.shapes import D2Shape, R2D2Shape

from ..config import TrainerConfig, one_of
from ..limits import check_numbers
from ..optimizers import SmallOptimizerConfig
from ..scenes import scene_named
from ..small import SmallJob, SmallTask, at_rest
from ..streams import Batch
from .dense import DECLINED, Views, d2_loss, r2d2_loss
from .sources import CropConfig, held_out
from .streams import CropBatches, Example
from .views import CopyConfig, copied

VALIDATION_SEED = 7
FORMS = ("d2", "r2d2")


@dataclass
class DenseNetConfig:
    """The network.

    Attributes:
        form: "d2" or "r2d2".
        width: channels of its first layer.
        norm: of "d2", as of ``D2Shape``.
        released: of "r2d2", as of ``R2D2Shape``.
        declined: of "r2d2", "batch" or "published": what it costs to decline a place (``local.dense``).
    """

    form: str = "d2"
    width: int = 16
    norm: bool = True
    released: bool = False
    declined: str = "batch"

    def make(self) -> nn.Module:
        """The network, not trained."""
        if self.form == "d2":
            return D2Net(D2Shape(self.width, self.norm))
        return R2D2(R2D2Shape(self.width, self.released))


@dataclass
class DenseValidationConfig:
    """Crops of a scene's validation boxes that are matched.

    Attributes:
        scene: which of the scenes.
        crops: how many.
        keypoints: of each image.
        every_epochs: how often.
    """

    scene: str = ""
    crops: int = 30
    keypoints: int = 512
    every_epochs: int = 2


@dataclass
class DetectDescribeConfig:
    """One training run of a detect-and-describe network.

    Attributes:
        name: of the run.
        seed: of everything that is random.
        self_supervision: lambda; 0 leaves it out.
        copies: how an image's copy differs from it.
    """

    name: str = "detect-describe"
    seed: int = 1
    self_supervision: float = 0.8
    copies: CopyConfig = field(default_factory=CopyConfig)
    data: CropConfig = field(default_factory=CropConfig)
    net: DenseNetConfig = field(default_factory=DenseNetConfig)
    optimizer: SmallOptimizerConfig = field(default_factory=SmallOptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    validation: DenseValidationConfig = field(default_factory=DenseValidationConfig)


def load_detect_describe_config(file: Path, overrides: Sequence[str] = ()) -> DetectDescribeConfig:
    """A run from YAML and overrides; raises as ``geomatch.config.read_config``, and on names that are not known."""
    config = read_config(file, DetectDescribeConfig, overrides, examples="configs/detect-describe")
    one_of(config.net.form, FORMS, "net.form")
    one_of(config.net.declined, DECLINED, "net.declined")
    check_numbers(config, {"self_supervision": 0, "net.width": 1, "validation.crops": 1})
    config.data.check()
    config.copies.check()
    default = DenseNetConfig()
    for name in ("released", "declined"):
        if config.net.form != "r2d2" and getattr(config.net, name) != getattr(default, name):
            raise UsageError("is of r2d2 alone", where=f"net.{name}", hint="set net.form=r2d2, or leave it out")
    if not config.net.norm and config.net.form != "d2":
        raise UsageError("is of d2 alone", where="net.norm", hint="set net.form=d2, or leave it out")
    return config


def with_copies(sample: Sample, rng: np.random.Generator, *, copies: CopyConfig | None) -> Example:
    """Both images, the transform between them, and where there is self-supervision a copy of each with its own.

    "optical", "sar", "optical_copy", "sar_copy": [1 x H x W] grey in [0, 1]; "optical_known", "sar_known" [H x W];
    "to_optical", "to_optical_own", "to_sar_own" [3 x 3].
    """
    example: Example = {"to_optical": sample.to_optical.astype(np.float32)}
    for side in (sample.optical, sample.sar):
        name = side.modality
        example[name] = side.bytes[None].astype(np.float32) / np.float32(255)
        example[f"{name}_known"] = side.valid
        if copies is not None:
            copy, to_image = copied(side, rng, copies)
            example[f"{name}_copy"] = copy[None]
            example[f"to_{name}_own"] = to_image.astype(np.float32)
    return example


class DetectDescribeTask(SmallTask[DetectDescribeConfig]):
    """The loss of a batch, and the right matches on held-out crops."""

    def __init__(self, config: DetectDescribeConfig, total_steps: int) -> None:
        super().__init__(config, total_steps)
        self.net: nn.Module = config.net.make()
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's own hints
        self._loss = partial(r2d2_loss, declined=config.net.declined) if config.net.form == "r2d2" else d2_loss
        self._held_out: list[Sample] | None = None

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """One batch: the modalities against each other, and each against its copy."""
        del number
        images = {name: standard(batch[name]) for name in ("optical", "sar")}
        copies = {name: standard(batch[f"{name}_copy"]) for name in images if f"{name}_copy" in batch}
        seen = self._features([*images.values(), *copies.values()])
        features = dict(zip((*images, *(f"{name}_copy" for name in copies)), seen, strict=True))
        views = Views(images["optical"], images["sar"], batch["to_optical"], batch["optical_known"])
        total = self._loss(features["optical"], features["sar"], views)
        self.log("loss_between", total.detach())
        for name, copy in copies.items():
            own = Views(images[name], copy, batch[f"to_{name}_own"], batch[f"{name}_known"])
            alone = self._loss(features[name], features[f"{name}_copy"], own)
            self.log(f"loss_{name}", alone.detach())
            total = total + self._config.self_supervision * alone
        return total

    def _features(self, images: Sequence[Tensor]) -> list[Features]:
        """Of batches of images, which go through the batch norms together."""
        seen: Features = self.net(torch.cat(list(images)))
        count = len(images)
        vectors, score, peaks = (values.chunk(count) for values in (seen.vectors, seen.score, seen.peaks))
        reliable = [None] * count if seen.reliability is None else seen.reliability.chunk(count)
        parts = zip(vectors, score, peaks, reliable, strict=True)
        return [Features(*part[:3], seen.cell_px, part[3], seen.first_px) for part in parts]

    def validated(self) -> float:
        """Right matches per pair, within 5 px."""
        v = self._config.validation
        if self._held_out is None:
            scene = scene_named(self._config.data.scenes, v.scene)
            self._held_out = held_out(self._config.data, scene, v.crops, VALIDATION_SEED)
        matcher = Keypointed(DetectDescribe(at_rest(self.net)), Rule(), most=v.keypoints)
        right = [int(correct(matcher(one.sar, one.optical), one.to_optical).sum()) for one in self._held_out]
        return float(np.mean(right))


def train_detect_describe(
    config: DetectDescribeConfig, output: Path, progress: Step = lambda stage, done, total: None
) -> Path:
    """Train as a configuration says; as ``SmallJob.train``."""
    return JOB.train(config, output, progress)


def _batches(config: DetectDescribeConfig, seeds: tuple[int, ...]) -> CropBatches:
    copies = config.copies if config.self_supervision else None
    return CropBatches(config.data, partial(with_copies, copies=copies), *seeds)


JOB = SmallJob(load_detect_describe_config, DetectDescribeTask, _batches, "detect-describe", half=True)
