"""D2-Net: one map of features that is descriptor and detector at once (Dusmanu et al. 2019).

VGG16 to its tenth convolution, the last pooling an average of stride 1 and what follows dilated, so that features stand
at a quarter of the resolution. A feature is detected where it is the strongest of its channel around and its channel is
the strongest there: softly for training, by exponentials over 3 x 3 neighbours times the share of the greatest channel.
Between cells the peak is that of a parabola through them, and one that lies beyond its cell is dropped, as in the
authors' code. What a cell sees is not centred on it: two poolings of 2 x 2 and an average of 2 x 2 at stride 1 look to
the right and down only, by half a pixel, one, and two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from geomatch.nets.features import Features, local_peaks
from geomatch.nets.shapes import D2Shape
from geomatch.nets.vgg import LAYERS, convolutions

CELL_PX = 4
FIRST_PX = 4.0  # middle of the first cell's field of view: 0.5 of its pixel, and 0.5 + 1 + 2
EDGE = 6**2 / 5  # of squared trace over determinant: bends in the ratio of 5, as in the authors' code
WITHIN = 0.5  # of a cell, that a peak may lie from its middle
TRUNK, DEEP = LAYERS[:9], (8, 8, 8)  # before the third pooling, and after it


class D2Net(nn.Module):
    """Describes and scores cells of an image of either modality."""

    def __init__(self, shape: D2Shape) -> None:
        super().__init__()
        self.shape = shape
        self.trunk = nn.Sequential(*convolutions(TRUNK, shape.width, 1, norm=shape.norm))
        deep = convolutions(DEEP, shape.width, 4 * shape.width, norm=shape.norm)
        for layer in deep:
            if isinstance(layer, nn.Conv2d):
                layer.dilation, layer.padding = (2, 2), (2, 2)
        self.deep = nn.Sequential(*deep)

    def forward(self, image: Tensor) -> Features:
        """image: [B x 1 x H x W], standardised, sides multiples of 4."""
        middle = self.trunk(image)
        smooth = functional.avg_pool2d(functional.pad(middle, (0, 1, 0, 1), mode="replicate"), 2, stride=1)
        raw = self.deep(smooth)
        shift = peak_shift(raw.detach())
        peaks = hard_detection(raw) & (shift.abs() < WITHIN).all(dim=1, keepdim=True)
        score = soft_detection(raw)
        return Features(functional.normalize(raw, dim=1), score, peaks, CELL_PX, first_px=FIRST_PX, shift=shift)


def soft_detection(raw: Tensor) -> Tensor:
    """Score of every cell, of mean 1 in each image: [B x C x h x w], not negative -> [B x 1 x h x w]."""
    scaled = raw / raw.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    exponential = torch.exp(scaled)
    around = 9 * functional.avg_pool2d(functional.pad(exponential, (1, 1, 1, 1), value=1.0), 3, stride=1)
    local = exponential / around
    among = raw / raw.amax(dim=1, keepdim=True).clamp_min(1e-6)
    score = (local * among).amax(dim=1, keepdim=True)
    return score / score.mean(dim=(2, 3), keepdim=True).clamp_min(1e-9)


def hard_detection(raw: Tensor) -> Tensor:
    """Cells whose strongest channel is stronger there than around: [B x C x h x w] -> [B x 1 x h x w] bool."""
    strongest = raw == raw.amax(dim=1, keepdim=True)
    return (strongest & local_peaks(raw) & (raw > 0)).any(dim=1, keepdim=True)


def peak_shift(raw: Tensor) -> Tensor:
    """Where a parabola through 3 x 3 neighbours of the strongest channel peaks: [B x C x h x w] -> [B x 2 x h x w].

    Columns and rows, in cells from the middle; infinite where it has no peak.
    """
    strongest = raw.argmax(dim=1, keepdim=True)
    framed = functional.pad(raw, (1, 1, 1, 1), mode="replicate")
    height, width = raw.shape[2:]

    def beside(right: int, down: int) -> Tensor:
        moved = framed[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        return moved.gather(1, strongest)

    middle, west, east, north, south = (beside(*step) for step in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)))
    dx, dy = (east - west) / 2, (south - north) / 2
    dxx, dyy = east + west - 2 * middle, north + south - 2 * middle
    dxy = (beside(1, 1) + beside(-1, -1) - beside(1, -1) - beside(-1, 1)) / 4
    bend = dxx * dyy - dxy.square()
    peaked = (bend > 0) & (dxx < 0) & ((dxx + dyy).square() < EDGE * bend)
    safe = torch.where(peaked, bend, torch.ones_like(bend))
    shift = torch.cat([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=1) / safe
    return torch.where(peaked, shift, torch.full_like(shift, torch.inf))
