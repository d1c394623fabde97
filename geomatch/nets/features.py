"""What detect-and-describe networks make of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
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
        first_px: as ``middle_px``; default half a cell.
        shift: [B x 2 x h x w] columns and rows, in cells, from a cell's middle to the peak, where the network says so.
    """

    vectors: Tensor
    score: Tensor
    peaks: Tensor
    cell_px: int
    reliability: Tensor | None = None
    first_px: float | None = None
    shift: Tensor | None = None

    @property
    def middle_px(self) -> float:
        """Where the middle of what the first cell sees lies, pixels from the image's edge."""
        return self.cell_px / 2 if self.first_px is None else self.first_px

    @property
    def rank(self) -> Tensor:
        """[B x 1 x h x w] by which keypoints are chosen."""
        return self.score if self.reliability is None else self.score * self.reliability

    def read(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and vectors of keypoints of the first image.

        Args:
            at: [N x 2] long, columns and rows of their cells.

        Returns:
            [N x 2] float64 pixels from the image's outer corner, and [N x C] vectors of length one, between cells where
            the peaks lie there.
        """
        cols, rows = at.unbind(dim=1)
        if self.shift is None:
            return at.double() * self.cell_px + self.middle_px, self.vectors[0, :, rows, cols].T
        peaks = at + self.shift[0, :, rows, cols].T
        reach = torch.tensor(self.vectors.shape[:1:-1], dtype=peaks.dtype) - 1
        grid = 2 * peaks / reach.clamp_min(1) - 1
        options: dict[str, Any] = {"padding_mode": "border", "align_corners": True}
        vectors = functional.grid_sample(self.vectors[:1], grid[None, None], **options)[0, :, 0].T
        return peaks.double() * self.cell_px + self.middle_px, functional.normalize(vectors, dim=1)
