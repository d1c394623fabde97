"""What decides the parameters of a network, apart from the network, so that reading it needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Modality = Literal["optical", "sar"]
Positions = Literal["offsets", "edges", "embedding", "none"]
MODALITIES: tuple[Modality, Modality] = ("optical", "sar")


@dataclass(frozen=True)
class EncoderShape:
    """Of ``geomatch.nets.encoder.EncoderNet``.

    Attributes:
        channels: features per cell.
        stem: channels at 1/4 resolution.
        width: channels at 1/8 resolution.
        blocks: residual blocks of the shared trunk.
        optical_planes, sar_planes: input planes of each branch.
        shared_norm: one batch norm for both modalities rather than one for each.
    """

    channels: int = 16
    stem: int = 32
    width: int = 64
    blocks: int = 2
    optical_planes: int = 6
    sar_planes: int = 4
    shared_norm: bool = False

    def planes(self, modality: Modality) -> int:
        """Input planes of a branch."""
        return self.optical_planes if modality == "optical" else self.sar_planes

    @property
    def reach_px(self) -> int:
        """How many pixels of the image beyond a cell its features depend on, apart from the reach of the planes."""
        quarter, eighth = 2, 1 + 2 * self.blocks  # 3 x 3 convolutions at each resolution
        return 4 * quarter + 8 * eighth


@dataclass(frozen=True)
class GlobalShape:
    """Of ``geomatch.nets.resnet.GlobalNet``.

    Attributes:
        width: channels after the stem; the last stage of 18 layers has eight times as many.
        layers: 18 or 50.
        vector: components of the vector.
        pooling: "gem" or "max".
        optical_planes, sar_planes: input planes of each branch.
        shared_norm: one batch norm for both modalities in each block rather than one for each.
    """

    width: int = 64
    layers: int = 18
    vector: int = 512
    pooling: str = "gem"
    optical_planes: int = 6
    sar_planes: int = 4
    shared_norm: bool = False


@dataclass(frozen=True)
class LTFormerShape:
    """Of ``geomatch.nets.ltformer.LTFormer``; the defaults are the authors' code, the paper prints 8, 8, 4, 8.

    Attributes:
        patch_px: side of a patch that it is given.
        vector: components of the vector.
        widths: channels of the stages.
        heads, reductions, expansions: of each stage's attention and MLP.
        depth: blocks of each stage.
    """

    patch_px: int = 128
    vector: int = 128
    widths: tuple[int, ...] = (16, 32, 64, 128)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    expansions: tuple[int, ...] = (8, 8, 4, 4)
    depth: int = 2


@dataclass(frozen=True)
class HardNetShape:
    """Of ``geomatch.nets.hardnet.HardNet``.

    Attributes:
        patch_px: side of a patch that it is given, a multiple of 4.
        vector: components of the vector.
        width: channels of the first layer.
        dropout: before the last layer.
    """

    patch_px: int = 32
    vector: int = 128
    width: int = 32
    dropout: float = 0.1


@dataclass(frozen=True)
class KeypointShape:
    """Of ``geomatch.nets.keypoint_detector.KeypointNet``.

    Attributes:
        width: channels of the first layer; 32 as published.
        weights: of the score maps at full, half and quarter resolution; 0 leaves one out.
        deformable: whether the last three convolutions are.
        own_stems: whether each modality has first convolutions of its own; as published they share all.
        region_px: deviation of the Gaussian over which scores are averaged before they rank keypoints, which then are
            the peaks of the map at full resolution; 0 for peaks of all maps together, by their own score, as published.
    """

    width: int = 32
    weights: tuple[float, float, float] = (0.1, 0.3, 0.6)
    deformable: bool = True
    own_stems: bool = False
    region_px: float = 0.0


@dataclass(frozen=True)
class VggShape:
    """Of ``geomatch.nets.vgg.PatchVgg``; the defaults but for ``classes`` are VGG16's, whose own weights then fit.

    Attributes:
        patch_px: side of a patch that it is given.
        width: channels of the first layer; the last have eight times as many.
        planes: of its input, the same grey in each.
        hidden: components of fc6 and of fc7.
        classes: that it is trained to tell.
        norm: whether convolutions are followed by batch norm.
    """

    patch_px: int = 224
    width: int = 64
    planes: int = 3
    hidden: int = 4096
    classes: int = 1000
    norm: bool = False


@dataclass(frozen=True)
class D2Shape:
    """Of ``geomatch.nets.d2net.D2Net``.

    Attributes:
        width: channels of the first layer; 64 as published, and eight times as many are the descriptor's.
        norm: whether convolutions are followed by batch norm; as published they are not, and begin as VGG16's own.
    """

    width: int = 64
    norm: bool = True


@dataclass(frozen=True)
class R2D2Shape:
    """Of ``geomatch.nets.r2d2.R2D2``.

    Attributes:
        width: channels of the first layer; 32 as published, and four times as many are the descriptor's.
        released: whether the last three convolutions are as the authors released them, without ReLU after the first two
            and without batch norm after the last; else ReLU follows both and batch norm all three.
    """

    width: int = 32
    released: bool = False


@dataclass(frozen=True)
class PixelShape:
    """Of ``geomatch.nets.pixel_net.PixelNet``.

    Attributes:
        channels: features per cell of 2 px.
        stem: channels at full resolution.
        width: channels at half resolution.
        dilations: of the residual blocks that both modalities share.
    """

    channels: int = 8
    stem: int = 16
    width: int = 32
    dilations: tuple[int, ...] = (1, 2, 3)

    def planes(self, modality: Modality) -> int:
        """Input planes of a branch."""
        del modality
        return 1


@dataclass(frozen=True)
class RerankerShape:
    """Of ``geomatch.nets.reranker.RerankerNet``.

    Attributes:
        width: components of a node.
        layers: of message passing.
        heads: of attention.
        near, alike: neighbours of a node in position, and in its vector; 0 for no such edges.
        positions: "offsets" for offsets between nodes at the edges; "edges" for edges between near ones alone;
            "embedding" for the offset from the candidates' centroid at the nodes; "none".
        agreement: whether nodes know which parts of the tile agree with the query.
        peaks: whether nodes know the correlation of features.
    """

    width: int = 48
    layers: int = 4
    heads: int = 4
    near: int = 10
    alike: int = 5
    positions: Positions = "offsets"
    agreement: bool = True
    peaks: bool = False


Shape = (
    EncoderShape
    | PixelShape
    | LTFormerShape
    | HardNetShape
    | KeypointShape
    | VggShape
    | D2Shape
    | R2D2Shape
    | RerankerShape
)
