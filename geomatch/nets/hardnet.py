"""HardNet: seven convolutions that describe a patch of 32 px (Mishchuk et al. 2017, the trunk of L2-Net)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from geomatch.nets.shapes import HardNetShape


class Layer(nn.Sequential):
    """Convolution, batch norm without parameters, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, shape: tuple[int, int] = (3, 1)) -> None:
        kernel, padding = shape
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
            nn.ReLU(),
        )


class HardNet(nn.Module):
    """Describes patches; both modalities go through the same weights."""

    def __init__(self, shape: HardNetShape) -> None:
        super().__init__()
        self.shape = shape
        w = shape.width
        self.trunk = nn.Sequential(
            Layer(1, w),
            Layer(w, w),
            Layer(w, 2 * w, 2),
            Layer(2 * w, 2 * w),
            Layer(2 * w, 4 * w, 2),
            Layer(4 * w, 4 * w),
            nn.Dropout(shape.dropout),
            nn.Conv2d(4 * w, shape.vector, shape.patch_px // 4, bias=False),
            nn.BatchNorm2d(shape.vector, affine=False),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """patches: [B x 1 x s x s], each standardised by itself -> [B x D] vectors of length one."""
        return functional.normalize(self.trunk(patches).flatten(1), dim=1)
