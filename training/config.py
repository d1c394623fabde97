"""What a training run is made of: dataclasses filled from YAML and dotted overrides, read by ``geomatch.config``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from geomatch.config import merged, read_config
from geomatch.errors import UsageError

from .augment import AugmentOptions


@dataclass
class SceneConfig:
    """Two co-registered GeoTIFFs.

    Attributes:
        optical, sar: files.
        split: CSV of boxes (scene, x_off_px, y_off_px, width_px, height_px, split), or none.
        scene: its name in that CSV, and for the validation.
        holdout: without a CSV, share of the scene's width, at its right, that is kept for validation, behind a buffer.
        weight: how often it is drawn, relative to the other sources.
    """

    optical: str = ""
    sar: str = ""
    split: str | None = None
    scene: str = ""
    holdout: float = 0.0
    weight: float = 1.0


@dataclass
class FolderConfig:
    """Folders of co-registered patches of the same names.

    Attributes:
        optical, sar: folders.
        pairs: CSV (name, location), or none for all names that both folders have.
        validation_share: of the locations, kept out of training.
        weight: as of a scene.
    """

    optical: str = ""
    sar: str = ""
    pairs: str | None = None
    validation_share: float = 0.3
    weight: float = 1.0


@dataclass
class SimulatedConfig:
    """Cities that are simulated while the run goes on.

    Attributes:
        size_px: side of a city.
        draws: crops from one city before the next is made.
        weight: as of a scene; 0 for none.
    """

    size_px: int = 1536
    draws: int = 60
    weight: float = 0.0


@dataclass
class MiningConfig:
    """Places that the network takes for each other, drawn in pairs (``training.mining``).

    Attributes:
        share: of a batch's pairs that are such places; 0 for none, and nothing is mined.
        every_epochs: how often they are looked for.
        places: of each scene, among which they are looked for.
    """

    share: float = 0.0
    every_epochs: int = 5
    places: int = 400


@dataclass
class DataConfig:
    """Where pairs come from and how they are cut.

    Attributes:
        root: folder that the paths are relative to; an environment variable is expanded.
        scenes, folders, simulated: sources.
        batch: pairs per step.
        steps_per_epoch: batches that make an epoch.
        workers: processes that make examples.
        mining: of hard negatives in the scenes.
        augment: fields of ``training.augment.AugmentOptions`` that differ from its defaults.
    """

    root: str = "."
    scenes: list[SceneConfig] = field(default_factory=list)
    folders: list[FolderConfig] = field(default_factory=list)
    simulated: SimulatedConfig = field(default_factory=SimulatedConfig)
    batch: int = 20
    steps_per_epoch: int = 100
    workers: int = 1
    mining: MiningConfig = field(default_factory=MiningConfig)
    augment: dict[str, Any] = field(default_factory=dict)


@dataclass
class NetConfig:
    """The network.

    Attributes:
        form: "dense" features (``geomatch.nets.encoder``), or one "global" vector (``geomatch.nets.resnet``), for
            comparison: of that no weights are exported.
        inputs: "both", "structure" or "image": the planes that the network sees; the others' weights stay zero.
        channels, stem, width, blocks: of the dense form, as of ``EncoderShape``.
        shared_norm: of either form.
        layers, vector, pooling: of the global form, as of ``GlobalShape``; ``width`` is that of its first stage.
    """

    form: str = "dense"
    inputs: str = "both"
    channels: int = 16
    stem: int = 32
    width: int = 64
    blocks: int = 2
    shared_norm: bool = False
    layers: int = 18
    vector: int = 512
    pooling: str = "gem"


@dataclass
class LossConfig:
    """What pairs are held together by: the dense offset cross-entropy, a loss on pooled vectors, or both.

    Attributes:
        dense: weight of the dense offset cross-entropy; 0 for none.
        small_weight: in it, of windows of 104 px, beside those of 200 px.
        temperature: that correlations, and inner products of vectors, are multiplied by at the start; learned, but for
            ``cross-batch``.
        pooled: none, triplet, infonce, multi-similarity or cross-batch (``training.pooled``), on windows of 200 px.
        pooled_weight: its weight.
        projection: components that pooled vectors are brought to by a learned linear layer; 0 for none. The layer is
            not part of exported weights: an index fits a PCA to its own map.
        memory: windows that ``cross-batch`` remembers of each modality.
        reranker: weight of a re-ranker's loss, trained with the encoder (``training.reranker.joint``); 0 for none.
    """

    dense: float = 1.0
    small_weight: float = 0.7
    temperature: float = 20.0
    pooled: str = "none"
    pooled_weight: float = 1.0
    projection: int = 0
    memory: int = 1024
    reranker: float = 0.0


@dataclass
class AlignmentConfig:
    """What draws the modalities' pooled vectors together as sets; the defaults are the critic's published setting.

    Attributes:
        method: none, critic, critic-gp, class-adversarial, sliced, sinkhorn or mmd (``training.alignment``).
        weight: of it in the loss.
        steps: of the critic per step of the encoder.
        clip: bound of the critic's parameters (``critic``).
        penalty: weight of its gradient's penalty (``critic-gp``).
        lr: of the critic's Adam.
        hardest: share of the windows that the critic sees, those whose two vectors are farthest apart.
        hidden: channels of the critic's, or the classifier's, first layer.
        projections: directions of ``sliced``.
        regularisation: of ``sinkhorn``, in squared distances of vectors of length one.
    """

    method: str = "none"
    weight: float = 0.01
    steps: int = 5
    clip: float = 0.1
    penalty: float = 10.0
    lr: float = 1e-3
    hardest: float = 0.5
    hidden: int = 256
    projections: int = 50
    regularisation: float = 0.1


@dataclass
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine to zero.

    Attributes:
        lr, weight_decay, warmup_steps: of it.
        averaging: decay of the exponential moving average of the weights, which is what is validated and kept.
    """

    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    averaging: float = 0.998


@dataclass
class TrainerConfig:
    """What lightning's Trainer is told.

    Attributes:
        max_epochs: after which it ends; the learning rate falls to zero by then.
        max_minutes: ends it before.
        accelerator, devices: as lightning takes them.
        precision: as lightning takes it, or "auto": mixed with bfloat16 on a GPU and where the processor multiplies
            matrices of it, else float32, since other processors take as long for it or longer.
    """

    max_epochs: int = 10
    max_minutes: float | None = None
    accelerator: str = "auto"
    devices: str = "auto"
    precision: str = "auto"


@dataclass
class ValidationConfig:
    """Windows of a scene's validation boxes, correlated with the whole of them, and looked up among their tiles.

    Attributes:
        scene: which of the scenes.
        windows: of each size.
        sizes_px: of the windows.
        every_epochs: how often.
        stride_px: of the map's tiles that vectors of 200 px are looked up among; none for the index's own, or twice
            that in the global form, which has to see each tile by itself.
    """

    scene: str = ""
    windows: int = 100
    sizes_px: list[int] = field(default_factory=lambda: [200, 104])
    every_epochs: int = 2
    stride_px: int | None = None


@dataclass
class EncoderConfig:
    """One training run of the encoder.

    Attributes:
        name: of the run.
        seed: of everything that is random.
        start: weights to begin with, by name or path; they decide the network, and ``net`` is ignored.
    """

    name: str = "encoder"
    seed: int = 1
    start: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    net: NetConfig = field(default_factory=NetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)


def load_config(file: Path, overrides: Sequence[str] = ()) -> EncoderConfig:
    """A run from YAML and ``key.sub=value`` overrides; raises as ``geomatch.config.read_config``."""
    config = read_config(file, EncoderConfig, overrides, examples="configs/encoder")
    merged(AugmentOptions, config.data.augment, where=file, prefix="data.augment.")
    return config


def one_of(value: str | int, known: Iterable[str | int], where: str) -> None:
    """Raise a UsageError that lists what is known and names the nearest of it, if a value is not among it."""
    names = list(known)
    if value not in names:
        listed = list(map(str, names))
        near = difflib.get_close_matches(str(value), listed, n=1, cutoff=0.0)
        hint = f"known are {', '.join(listed)}; the nearest one is {near[0]}"
        raise UsageError(f"unknown {where.rpartition('.')[2]} {value!r}", where=where, hint=hint)


def save_config(config: object, file: Path) -> None:
    """Write the resolved configuration, a dataclass."""
    file.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
