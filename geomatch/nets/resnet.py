"""The global form: a two-branch ResNet that gives an image one vector.

He et al. 2016, "Deep residual learning for image recognition", CVPR. The planes come at 1/4 resolution, which is where
the original's own stem ends, so each modality's stem is one convolution. The last stage keeps its resolution and a
batch norm stands before the vector (Luo et al. 2019, "Bag of tricks and a strong baseline for deep person
re-identification", CVPR workshops). As in ``geomatch.nets.encoder``, convolutions are shared and norms are not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from geomatch.nets.encoder import ModalNorm, Residual
from geomatch.nets.shapes import MODALITIES, GlobalShape, Modality

_TINY = 1e-6


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions around a shortcut, the middle one of a quarter of the channels."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, shared_norm: bool = False) -> None:
        super().__init__()
        inner = outputs // 4
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm1 = ModalNorm(inner, shared=shared_norm)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.norm2 = ModalNorm(inner, shared=shared_norm)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.norm3 = ModalNorm(outputs, shared=shared_norm)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        """[N x inputs x h x w] -> [N x outputs x ceil(h / stride) x ceil(w / stride)]."""
        y = torch.relu(self.norm1(self.conv1(x), modality))
        y = torch.relu(self.norm2(self.conv2(y), modality))
        y = self.norm3(self.conv3(y), modality)
        return torch.relu(y + self.shortcut(x))


# Layers -> block, blocks of each stage, channels of the first stage per unit of width.
KINDS: dict[int, tuple[type[Residual] | type[Bottleneck], tuple[int, ...], int]] = {
    18: (Residual, (2, 2, 2, 2), 1),
    50: (Bottleneck, (3, 4, 6, 3), 4),
}
STRIDES = (1, 2, 2, 1)


class GlobalStem(nn.Module):
    """What one modality does alone."""

    def __init__(self, planes: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(planes, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[N x planes x h x w] -> [N x width x h x w]."""
        return torch.relu(self.norm(self.conv(x)))


class GeM(nn.Module):
    """Generalised mean (Radenović et al. 2019, "Fine-tuning CNN image retrieval with no human annotation", TPAMI)."""

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor([power]))

    def forward(self, x: Tensor) -> Tensor:
        """[N x C x h x w], not negative -> [N x C]."""
        powers = x.float().clamp_min(_TINY).pow(self.power)
        return powers.mean(dim=(2, 3)).pow(1 / self.power)


class Highest(nn.Module):
    """The highest value of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """[N x C x h x w] -> [N x C]."""
        return x.float().amax(dim=(2, 3))


POOLINGS: dict[str, type[GeM] | type[Highest]] = {"gem": GeM, "max": Highest}


class GlobalNet(nn.Module):
    """Planes at 1/4 resolution to one vector, comparable between the modalities."""

    def __init__(self, shape: GlobalShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or GlobalShape()
        block, counts, expansion = KINDS[shape.layers]
        planes = {"optical": shape.optical_planes, "sar": shape.sar_planes}
        self.stems = nn.ModuleDict({name: GlobalStem(planes[name], shape.width) for name in MODALITIES})
        stages: list[nn.Module] = []
        channels = shape.width
        for stage, (count, stride) in enumerate(zip(counts, STRIDES, strict=True)):
            outputs = shape.width * expansion * 2**stage
            for i in range(count):
                first = {"stride": stride} if i == 0 else {}
                stages.append(block(channels, outputs, shared_norm=shape.shared_norm, **first))
                channels = outputs
        self.trunk = nn.ModuleList(stages)
        self.pooling = POOLINGS[shape.pooling]()
        self.head = nn.Linear(channels, shape.vector, bias=False) if channels != shape.vector else nn.Identity()
        self.necks = nn.ModuleDict({name: nn.BatchNorm1d(shape.vector) for name in MODALITIES})

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        """[N x planes x h x w] -> [N x vector], each of length one; N above 1 in training."""
        x = self.stems[modality](x)
        for block in self.trunk:
            x = block(x, modality)
        x = self.necks[modality](self.head(self.pooling(x)))
        return functional.normalize(x.float(), dim=1)
