"""R2D2: descriptors at full resolution with two maps, how repeatable a place is and how reliable its descriptor.

Revaud et al. 2019: L2-Net whose strides are dilations and whose last 8 x 8 convolution is three of 2 x 2; both maps are
1 x 1 convolutions of the squared features. In the released code no ReLU stands between these three and no batch norm
after them; weights from before that was known have both (``R2D2Shape.released``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from geomatch.nets.features import Features, local_peaks
from geomatch.nets.shapes import R2D2Shape


class Layer(nn.Sequential):
    """Convolution of an odd or even kernel that keeps the size; perhaps batch norm without parameters, and ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dilation: int = 1,
        *,
        kernel: int = 3,
        bias: bool = False,
        norm: bool = True,
        relu: bool = True,
    ) -> None:
        reach = dilation * (kernel - 1)
        before, after = reach // 2, reach - reach // 2
        layers: list[nn.Module] = [
            nn.ZeroPad2d((before, after, before, after)),
            nn.Conv2d(inputs, outputs, kernel, dilation=dilation, bias=bias),
        ]
        if norm:
            layers.append(nn.BatchNorm2d(outputs, affine=False))
        if relu:
            layers.append(nn.ReLU())
        super().__init__(*layers)


class R2D2(nn.Module):
    """Describes and scores every pixel of an image of either modality."""

    def __init__(self, shape: R2D2Shape) -> None:
        super().__init__()
        self.shape = shape
        w, between = shape.width, not shape.released
        self.trunk = nn.Sequential(
            Layer(1, w),
            Layer(w, w),
            Layer(w, 2 * w),
            Layer(2 * w, 2 * w, 2),
            Layer(2 * w, 4 * w, 2),
            Layer(4 * w, 4 * w, 4),
            Layer(4 * w, 4 * w, 4, kernel=2, relu=between),
            Layer(4 * w, 4 * w, 8, kernel=2, relu=between),
            Layer(4 * w, 4 * w, 16, kernel=2, bias=True, norm=between, relu=False),
        )
        self.repeatable = nn.Conv2d(4 * w, 1, 1)
        self.reliable = nn.Conv2d(4 * w, 2, 1)

    def forward(self, image: Tensor) -> Features:
        """image: [B x 1 x H x W], standardised."""
        raw = self.trunk(image)
        squared = raw.square()
        score = functional.softplus(self.repeatable(squared))
        reliability = torch.softmax(self.reliable(squared), dim=1)[:, 1:]
        score = score / (1 + score)
        return Features(functional.normalize(raw, dim=1), score, local_peaks(score), 1, reliability)
