"""VGG16 (Simonyan & Zisserman 2015) of any width: the trunk of D2-Net, and a classifier of patches that describes them.

Layers stand in the order, and under the names, that the published weights have: ``features`` and ``classifier``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from geomatch.nets.shapes import VggShape

POOL: Literal["pool"] = "pool"
# Multiples of the width; the thirteen convolutions of configuration D.
LAYERS: tuple[int | Literal["pool"], ...] = (1, 1, POOL, 2, 2, POOL, 4, 4, 4, POOL, 8, 8, 8, POOL, 8, 8, 8, POOL)
SHRINKS = 32


def convolutions(
    layers: Sequence[int | Literal["pool"]], width: int, planes: int, *, norm: bool = False
) -> list[nn.Module]:
    """3 x 3 convolutions with ReLU, and 2 x 2 maxima, as a list of ``LAYERS`` says."""
    made: list[nn.Module] = []
    inputs = planes
    for layer in layers:
        if layer == POOL:
            made.append(nn.MaxPool2d(2))
            continue
        outputs = int(layer) * width
        made.append(nn.Conv2d(inputs, outputs, 3, padding=1))
        if norm:
            made.append(nn.BatchNorm2d(outputs))
        made.append(nn.ReLU())
        inputs = outputs
    return made


class PatchVgg(nn.Module):
    """Tells which of the patches it was trained on it sees; fc6 and fc7 describe any patch (Ye et al. 2018)."""

    def __init__(self, shape: VggShape) -> None:
        super().__init__()
        self.shape = shape
        flat = 8 * shape.width * (shape.patch_px // SHRINKS) ** 2
        self.features = nn.Sequential(*convolutions(LAYERS, shape.width, shape.planes, norm=shape.norm))
        self.classifier = nn.Sequential(
            nn.Linear(flat, shape.hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(shape.hidden, shape.hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(shape.hidden, shape.classes),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """patches: [B x 1 x s x s], each standardised by itself -> fc6 and fc7, each of length one [B x 2 hidden]."""
        sixth, seventh = self._layers(patches)
        both = [functional.normalize(layer, dim=1) for layer in (sixth, seventh)]
        return torch.cat(both, dim=1) / 2**0.5

    def logits(self, patches: Tensor) -> Tensor:
        """[B x 1 x s x s] -> [B x classes]."""
        _, seventh = self._layers(patches)
        logits: Tensor = self.classifier[5:](seventh)
        return logits

    def _layers(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """fc6 and fc7 after their ReLU."""
        seen = self.features(patches.expand(-1, self.shape.planes, -1, -1)).flatten(1)
        sixth = self.classifier[:2](seen)
        return sixth, self.classifier[2:5](sixth)
