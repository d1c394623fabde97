"""Deformable convolution in plain torch (Dai et al. 2017): every tap of a 3 x 3 kernel reads at a learned offset."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class DeformableConv(nn.Module):
    """A 3 x 3 convolution whose taps are moved by offsets that a second convolution says; zero beyond the edge."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.offset = nn.Conv2d(inputs, 18, 3, padding=1)
        nn.init.kaiming_normal_(self.weight)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: Tensor) -> Tensor:
        """[B x C x H x W] -> [B x O x H x W]."""
        # Mixed precision would round places of a hundred pixels to half a pixel.
        kind = torch.promote_types(image.dtype, torch.float32)
        with torch.autocast(image.device.type, enabled=False):
            exact = image.to(kind)
            weight, bias = (parameter.to(kind) for parameter in self.offset.parameters())
            moves = functional.conv2d(exact, weight, bias, padding=1)
            return deformed(exact, moves, self.weight.to(kind)) + self.bias[:, None, None].to(kind)


def deformed(image: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """The convolution with given offsets.

    Args:
        image: [B x C x H x W].
        offsets: [B x 18 x H x W]: of the nine taps, row by row, how far each is moved to the right and down, pixels.
        weight: [O x C x 3 x 3].

    Returns:
        [B x O x H x W].
    """
    batch, _, height, width = image.shape
    rows = torch.arange(height, device=image.device, dtype=image.dtype)
    cols = torch.arange(width, device=image.device, dtype=image.dtype)
    moves = offsets.reshape(batch, 9, 2, height, width)
    total = image.new_zeros(batch, weight.shape[0], height, width)
    for tap in range(9):
        down, right = tap // 3 - 1, tap % 3 - 1
        x = cols[None, None, :] + right + moves[:, tap, 0]
        y = rows[None, :, None] + down + moves[:, tap, 1]
        # Of grid_sample, -1 and 1 are the outer edges of the first and last pixel.
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        seen = functional.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        total = total + functional.conv2d(seen, weight[:, :, down + 1, right + 1, None, None])
    return total
