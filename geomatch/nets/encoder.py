"""The two-branch encoder: a stem per modality, a shared trunk, dense features at 1/8 resolution.

Inputs are at 1/4 resolution: orientation channels and the locally standardised image (``geomatch.planes``).
The trunk's convolutions are shared between the modalities, its batch norms are not (Chang et al. 2019,
"Domain-specific batch normalization for unsupervised domain adaptation", CVPR): optical and SAR activations have
different statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geomatch.nets.shapes import MODALITIES, EncoderShape, Modality


class ModalNorm(nn.Module):
    """Batch norm with statistics and affine parameters per modality, or one for both."""

    def __init__(self, channels: int, *, shared: bool) -> None:
        super().__init__()
        self._shared = shared
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(channels) for name in (("both",) if shared else MODALITIES)})

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        """[N x C x h x w] -> the same."""
        out: Tensor = self.norms["both" if self._shared else modality](x)
        return out


class Residual(nn.Module):
    """Two 3 x 3 convolutions around a shortcut (He et al. 2016, "Deep residual learning", CVPR)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, shared_norm: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = ModalNorm(outputs, shared=shared_norm)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = ModalNorm(outputs, shared=shared_norm)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        """[N x inputs x h x w] -> [N x outputs x ceil(h / stride) x ceil(w / stride)]."""
        y = torch.relu(self.norm1(self.conv1(x), modality))
        y = self.norm2(self.conv2(y), modality)
        return torch.relu(y + self.shortcut(x))


class Stem(nn.Module):
    """What one modality does alone: from planes at 1/4 to features at 1/8 resolution."""

    def __init__(self, planes: int, shape: EncoderShape) -> None:
        super().__init__()
        self.conv = nn.Conv2d(planes, shape.stem, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(shape.stem)
        self.down = Residual(shape.stem, shape.width, stride=2, shared_norm=True)

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        """[N x planes x h x w] -> [N x width x ceil(h / 2) x ceil(w / 2)]."""
        out: Tensor = self.down(torch.relu(self.norm(self.conv(x))), modality)
        return out


class EncoderNet(nn.Module):
    """Planes at 1/4 resolution to features at 1/8, comparable between the modalities."""

    def __init__(self, shape: EncoderShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or EncoderShape()
        planes = {"optical": shape.optical_planes, "sar": shape.sar_planes}
        self.stems = nn.ModuleDict({name: Stem(planes[name], shape) for name in MODALITIES})
        self.trunk = nn.ModuleList(
            Residual(shape.width, shape.width, shared_norm=shape.shared_norm) for _ in range(shape.blocks)
        )
        self.head = nn.Conv2d(shape.width, shape.channels, 1)

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        """[N x planes x h x w] -> [N x channels x ceil(h / 2) x ceil(w / 2)], each cell's vector shorter than one."""
        x = self.stems[modality](x, modality)
        for block in self.trunk:
            x = block(x, modality)
        x = self.head(x).float()
        out: Tensor = x * torch.rsqrt(1 + x.square().sum(dim=1, keepdim=True))
        return out
