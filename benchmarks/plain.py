"""What published code does to search a map: a ResNet-50 over tile files by a DataLoader, and a flat FAISS index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import faiss
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

SIDE_PX = 224
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # channels, blocks and stride (He et al. 2016)
EXPANSION = 4
BATCH = 32


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions around a shortcut."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * inner
        self.body = nn.Sequential(
            *_convolution(inputs, inner, 1, 1),
            nn.ReLU(),
            *_convolution(inner, inner, 3, stride),
            nn.ReLU(),
            *_convolution(inner, outputs, 1, 1),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)


def resnet50() -> nn.Sequential:
    """Without the classifier: [B x 3 x H x W] -> [B x 2048]. Its weights are random, which costs as much as trained."""
    layers: list[nn.Module] = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for inner, count, stride in STAGES:
        for number in range(count):
            layers.append(Bottleneck(inputs, inner, stride if number == 0 else 1))
            inputs = EXPANSION * inner
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class TileFiles(Dataset[Tensor]):
    """Pictures of tiles as a network sees them: [3 x 224 x 224]."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> Tensor:
        picture: Any = cv2.imread(str(self._files[number]))
        picture = cv2.resize(picture, (SIDE_PX, SIDE_PX)).astype(np.float32) / 255
        return torch.from_numpy(picture.transpose(2, 0, 1))


class Loop:
    """Embeds files and searches them; made in the process that is measured."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._net = resnet50().eval()

    def __call__(self, folder: Path) -> int:
        """How many tiles are in the index."""
        index = faiss.IndexFlatIP(EXPANSION * STAGES[-1][0])
        with torch.inference_mode():
            for batch in DataLoader(TileFiles(sorted(folder.glob("*.png"))), batch_size=BATCH):
                vectors = nn.functional.normalize(self._net(batch), dim=1)
                index.add(vectors.numpy())
        return int(index.ntotal)
