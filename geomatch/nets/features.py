"""What detect-and-describe networks make of an image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


def local_peaks(values: Tensor, radius: int = 1) -> Tensor:
    """Which entries of maps [B x C x h x w] are the highest of their channel within a radius."""
    return values == functional.max_pool2d(values, 2 * radius + 1, stride=1, padding=radius)


@dataclass(frozen=True)
class Features:
    """Descriptors and scores on a grid.

    Attributes:
        vectors: [B x C x h x w] of length one.
        score: [B x 1 x h x w], higher where a keypoint is more welcome.
        peaks: [B x 1 x h x w] bool, where there is one.
        cell_px: of the grid, in pixels of the image.
        reliability: [B x 1 x h x w] in [0, 1] how well the descriptor tells its place from others, where the network
            says so; the keypoints' rank is the product of both.
    """

    vectors: Tensor
    score: Tensor
    peaks: Tensor
    cell_px: int
    reliability: Tensor | None = None

    @property
    def rank(self) -> Tensor:
        """[B x 1 x h x w] by which keypoints are chosen."""
        return self.score if self.reliability is None else self.score * self.reliability
