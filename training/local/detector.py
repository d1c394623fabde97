"""``geomatch train detector``: a keypoint detector whose scores of one modality predict those of the other.

Li et al. 2022: a Huber loss between the score map of one image and the other's, warped back. That loss alone is zero
for any constant map. So each map is compared after its own mean and deviation have been taken out, by which a flat one
has nothing to gain, and ``peaky`` asks that within cells of 16 px the highest score stands out, as R2D2's repeatability
does (Revaud et al. 2019). What is left is a map that does not depend on the image, such as its frame: the margin is not
compared, and ``contrast``, the other agreement, is the correlation of both maps less that with the maps of other places
of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geomatch.config import read_config
from geomatch.console import Step
from geomatch.errors import UsageError
from geomatch.matching.keypoints import BORDER_PX
from geomatch.matching.learned import KeypointDetector
from geomatch.matching.samples import Sample
from geomatch.matching.scores import repeatability
from geomatch.nets.keypoint_detector import KeypointNet, standard
from geomatch.nets.shapes import KeypointShape

from ..config import TrainerConfig, one_of
from ..limits import check_numbers
from ..optimizers import SmallOptimizerConfig
from ..scenes import scene_named
from ..small import SmallJob, SmallTask, at_rest
from ..streams import Batch
from .sources import CropConfig, held_out
from .streams import CropBatches, Example

VALIDATION_SEED = 7
CELL_PX = 16  # within which one score has to stand out
FLAT = 1e-3


@dataclass
class DetectorNetConfig:
    """The network, as of ``KeypointShape``."""

    width: int = 32
    weights: tuple[float, float, float] = (0.1, 0.3, 0.6)
    deformable: bool = True
    own_stems: bool = False
    region_px: float = 0.0


@dataclass
class DetectorValidationConfig:
    """Crops of a scene's validation boxes whose keypoints are looked for in the other image.

    Attributes:
        scene: which of the scenes.
        crops: how many.
        keypoints: of each image.
        every_epochs: how often.
    """

    scene: str = ""
    crops: int = 30
    keypoints: int = 120
    every_epochs: int = 2


@dataclass
class DetectorConfig:
    """One training run of a detector.

    Attributes:
        name: of the run.
        seed: of everything that is random.
        agreement: "huber" of standardised maps, "huber-raw" of the maps as they are, as published and 0 for
            any constant map, or "contrast" with other places.
        peaky: weight of the term that asks for peaks.
    """

    name: str = "detector"
    seed: int = 1
    agreement: str = "huber"
    peaky: float = 0.5
    data: CropConfig = field(default_factory=lambda: CropConfig(side_px=240, projective=0.1))
    net: DetectorNetConfig = field(default_factory=DetectorNetConfig)
    optimizer: SmallOptimizerConfig = field(default_factory=lambda: SmallOptimizerConfig("adam", 1e-3, 0.0))
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    validation: DetectorValidationConfig = field(default_factory=DetectorValidationConfig)


def load_detector_config(file: Path, overrides: Sequence[str] = ()) -> DetectorConfig:
    """A run from YAML and overrides; raises as ``geomatch.config.read_config``, and on names that are not known."""
    config = read_config(file, DetectorConfig, overrides, examples="configs/detector")
    one_of(config.agreement, AGREEMENTS, "agreement")
    check_numbers(config, {"peaky": 0, "net.width": 1, "net.region_px": 0, "validation.crops": 1})
    config.data.check()
    if min(config.net.weights) < 0 or not any(config.net.weights):
        what = f"{', '.join(map('{:g}'.format, config.net.weights))} of three depths"
        raise UsageError(what, where="net.weights", hint="take none below 0, and one above it")
    return config


def images_of(sample: Sample, rng: np.random.Generator) -> Example:
    """Both images and the transform of a pair: "optical" and "sar" [1 x H x W], "to_optical" [3 x 3], "known" [H x W].

    ``known`` are pixels of the optical image that both know.
    """
    del rng
    images = {side.modality: side.bytes[None].astype(np.float32) / 255 for side in (sample.optical, sample.sar)}
    return images | {"to_optical": sample.to_optical.astype(np.float32), "known": sample.optical.valid}


def warped_back(score: Tensor, to_optical: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the SAR image where they lie in the optical one, and which pixels of that have one.

    Args:
        score: [B x 1 x H x W].
        to_optical: [B x 3 x 3], corner convention.

    Returns:
        [B x 1 x H x W] scores and [B x 1 x H x W] bool.
    """
    _, _, height, width = score.shape
    x, y = torch.meshgrid(
        torch.arange(width, device=score.device) + 0.5, torch.arange(height, device=score.device) + 0.5, indexing="xy"
    )
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    # A sum, no matrix product: mixed precision would round pixels to bfloat16, half a pixel of a hundred.
    moved = (torch.linalg.inv(to_optical.float())[:, None, None] * points[..., None, :]).sum(dim=-1)
    at = moved[..., :2] / moved[..., 2:]
    grid = torch.stack([2 * at[..., 0] / width - 1, 2 * at[..., 1] / height - 1], dim=-1)
    inside = (grid.abs() < 1).all(dim=-1)[:, None]
    return functional.grid_sample(score.float(), grid, padding_mode="border", align_corners=False), inside


def contrast_loss(first: Tensor, second: Tensor, known: Tensor) -> Tensor:
    """1 - correlation of two score maps of a place, plus that with maps of other places of the batch; as ``huber``."""
    share = known.float()
    ours, theirs = (_standardised(score, share) * share for score in (first, second))
    every = ours.flatten(1) @ theirs.flatten(1).T / share.sum(dim=(1, 2, 3)).mean().clamp_min(1)
    others = ~torch.eye(len(every), dtype=torch.bool, device=every.device)
    chance = functional.relu(every[others]).mean() if len(every) > 1 else every.new_zeros(())
    return 1 - every.diagonal().mean() + chance


def huber_loss(first: Tensor, second: Tensor, known: Tensor) -> Tensor:
    """Huber loss between two score maps [B x 1 x H x W], each standardised over what is known of it [B x 1 x H x W]."""
    share = known.float()
    return functional.huber_loss(_standardised(first, share) * share, _standardised(second, share) * share)


def raw_huber_loss(first: Tensor, second: Tensor, known: Tensor) -> Tensor:
    """Huber loss between two score maps as they are, over what is known; arguments as of ``huber_loss``."""
    share = known.float()
    return functional.huber_loss(first * share, second * share)


def within(known: Tensor) -> Tensor:
    """[B x 1 x H x W] what is known, but for a margin of BORDER_PX, where no keypoints are."""
    inside = torch.zeros_like(known)
    inside[..., BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = True
    return known & inside


def peak_loss(score: Tensor) -> Tensor:
    """How little the highest score of every cell of CELL_PX stands above its mean, in deviations of the map; >= 0."""
    whole = torch.ones_like(score)
    even = _standardised(score, whole)
    apart = functional.max_pool2d(even, CELL_PX) - functional.avg_pool2d(even, CELL_PX)
    return functional.softplus(3.0 - apart).mean()


def _standardised(score: Tensor, share: Tensor) -> Tensor:
    count = share.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    mean = (score * share).sum(dim=(2, 3), keepdim=True) / count
    variance = ((score - mean).square() * share).sum(dim=(2, 3), keepdim=True) / count
    return (score - mean) / (variance + FLAT**2).sqrt()


class DetectorTask(SmallTask[DetectorConfig]):
    """The loss of a batch, and the repeatability on held-out crops."""

    net: KeypointNet

    def __init__(self, config: DetectorConfig, total_steps: int) -> None:
        super().__init__(config, total_steps)
        near, middle, deep = config.net.weights
        n = config.net
        self.net = KeypointNet(KeypointShape(n.width, (near, middle, deep), n.deformable, n.own_stems, n.region_px))
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's own hints
        self._held_out: list[Sample] | None = None

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """One batch of pairs."""
        del number
        optical, sar = self.net.both(standard(batch["optical"]), standard(batch["sar"]))
        back, inside = warped_back(sar, batch["to_optical"])
        known = within(inside & batch["known"][:, None])
        agreement = AGREEMENTS[self._config.agreement](optical, back, known)
        peaks = (peak_loss(optical) + peak_loss(sar)) / 2
        self.log("loss_agreement", agreement)
        self.log("loss_peaks", peaks)
        return agreement + self._config.peaky * peaks

    def validated(self) -> float:
        """Mean repeatability at 2 px."""
        v = self._config.validation
        if self._held_out is None:
            scene = scene_named(self._config.data.scenes, v.scene)
            self._held_out = held_out(self._config.data, scene, v.crops, VALIDATION_SEED)
        detect = KeypointDetector(at_rest(self.net))
        shares = []
        for one in self._held_out:
            ours, theirs = detect(one.sar, v.keypoints), detect(one.optical, v.keypoints)
            shares.append(repeatability(ours.xy_px, theirs.xy_px, one.to_optical, one.sar.size_px))
        return float(np.mean(shares))


def train_detector(config: DetectorConfig, output: Path, progress: Step = lambda stage, done, total: None) -> Path:
    """Train as a configuration says; as ``SmallJob.train``."""
    return JOB.train(config, output, progress)


def _batches(config: DetectorConfig, seeds: tuple[int, ...]) -> CropBatches:
    return CropBatches(config.data, images_of, *seeds)


AGREEMENTS = {"huber": huber_loss, "huber-raw": raw_huber_loss, "contrast": contrast_loss}


JOB = SmallJob(load_detector_config, DetectorTask, _batches, "detector")
