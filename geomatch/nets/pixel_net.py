"""Dense features at every second pixel in which SAR and optical imagery can be correlated: a stem each, one trunk.

As in deep template matching of SAR and optical images (Zhang et al. 2020, "Registration of multimodal remote sensing
image based on deep fully convolutional neural network", IEEE JSTARS 12(8); Hughes et al. 2020, ISPRS 169), small
features of fine resolution are correlated as a whole, and no keypoint has to be found twice. Dilated convolutions look
11 px around a cell; what lies farther belongs to the encoder's coarse features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geomatch.nets.encoder import ModalNorm
from geomatch.nets.shapes import MODALITIES, Modality, PixelShape


class PixelStem(nn.Sequential):
    """What one modality does alone: from the image to half of its resolution."""

    def __init__(self, shape: PixelShape) -> None:
        super().__init__(
            nn.Conv2d(1, shape.stem, 5, 1, 2, bias=False),
            nn.BatchNorm2d(shape.stem),
            nn.ReLU(),
            nn.Conv2d(shape.stem, shape.width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(shape.width),
            nn.ReLU(),
        )


class Dilated(nn.Module):
    """A dilated and a plain 3 x 3 convolution around a shortcut."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.norm1 = ModalNorm(width, shared=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = ModalNorm(width, shared=False)

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        """[N x width x h x w] -> the same."""
        y = torch.relu(self.norm1(self.conv1(x), modality))
        return torch.relu(x + self.norm2(self.conv2(y), modality))


class PixelNet(nn.Module):
    """Locally standardised images to features at half of their resolution, comparable between the modalities."""

    def __init__(self, shape: PixelShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or PixelShape()
        self.stems = nn.ModuleDict({name: PixelStem(shape) for name in MODALITIES})
        self.trunk = nn.ModuleList(Dilated(shape.width, dilation) for dilation in shape.dilations)
        self.head = nn.Conv2d(shape.width, shape.channels, 1)

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        """[N x 1 x H x W], even sides -> [N x channels x H / 2 x W / 2], each cell's vector shorter than one."""
        x = self.stems[modality](x)
        for block in self.trunk:
            x = block(x, modality)
        x = self.head(x).float()
        out: Tensor = x * torch.rsqrt(1 + x.square().sum(dim=1, keepdim=True))
        return out
