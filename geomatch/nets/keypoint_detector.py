"""A keypoint detector for both modalities: scores at three depths of one shared trunk.

Li et al. 2022 (ISPRS Archives), self-supervised: 3 x 3 convolutions of 32/64, 64/64 and 128/128 channels, then three
deformable ones of 128. A score map stands where a channel is peaky in space, softplus of a value less the mean of its
neighbours, and among channels, softplus of it less the mean of all; the product's greatest over channels counts. The
maps are brought to the image's size and summed with weights 0.1, 0.3 and 0.6.

Two things may differ from the paper: first convolutions of its own for each modality, and keypoints that are ranked by
the scores of their region (``KeypointShape``). Between SAR and optical images hardly any single pixel stands out in
both, but the districts that do are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from geomatch.nets.deform import DeformableConv
from geomatch.nets.shapes import KeypointShape, Modality


class Layer(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, deformable: bool = False) -> None:
        conv: nn.Module = DeformableConv(inputs, outputs) if deformable else nn.Conv2d(inputs, outputs, 3, padding=1)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def peakiness(features: Tensor) -> Tensor:
    """Score map of features: [B x C x h x w] -> [B x 1 x h x w]."""
    around = functional.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)
    in_space = functional.softplus(features - around)
    among_channels = functional.softplus(features - features.mean(dim=1, keepdim=True))
    return (in_space * among_channels).amax(dim=1, keepdim=True)


class KeypointNet(nn.Module):
    """Scores every pixel of an image of either modality."""

    def __init__(self, shape: KeypointShape) -> None:
        super().__init__()
        self.shape = shape
        w = shape.width
        stems: tuple[Modality, ...] = ("optical", "sar") if shape.own_stems else ("optical",)
        self.first = nn.ModuleDict({name: nn.Sequential(Layer(1, w), Layer(w, 2 * w)) for name in stems})
        self.second = nn.Sequential(nn.MaxPool2d(2), Layer(2 * w, 2 * w), Layer(2 * w, 2 * w))
        deep = [Layer(4 * w, 4 * w, deformable=shape.deformable) for _ in range(3)]
        self.third = nn.Sequential(nn.MaxPool2d(2), Layer(2 * w, 4 * w), Layer(4 * w, 4 * w), *deep)

    def forward(self, image: Tensor, modality: Modality) -> tuple[Tensor, Tensor]:
        """Where keypoints are, and which come first.

        Args:
            image: [B x 1 x H x W] of one modality, standardised.

        Returns:
            [B x 1 x H x W] whose peaks are keypoints and [B x 1 x H x W] by which they rank, all positive.
        """
        near = self._stem(image, modality)
        scores = self._scores(near)
        if not self.shape.region_px:
            return scores, scores
        return peakiness(near), _averaged(scores, self.shape.region_px)

    def both(self, optical: Tensor, sar: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of as many images of either modality, which go through the shared batch norms together."""
        if self.shape.own_stems:
            near = torch.cat([self._stem(optical, "optical"), self._stem(sar, "sar")])
        else:
            near = self._stem(torch.cat([optical, sar]), "optical")
        first, second = self._scores(near).chunk(2)
        return first, second

    def _stem(self, image: Tensor, modality: Modality) -> Tensor:
        features: Tensor = self.first[modality if self.shape.own_stems else "optical"](image)
        return features

    def _scores(self, near: Tensor) -> Tensor:
        middle = self.second(near)
        deep = self.third(middle)
        total = near.new_zeros(())
        for features, weight in zip((near, middle, deep), self.shape.weights, strict=True):
            if weight:
                total = total + weight * self._enlarged(peakiness(features), near)
        return total

    @staticmethod
    def _enlarged(score: Tensor, image: Tensor) -> Tensor:
        return functional.interpolate(score, size=image.shape[2:], mode="bilinear", align_corners=False)


def standard(image: Tensor) -> Tensor:
    """Images [B x 1 x H x W], each less its mean over its deviation."""
    mean = image.mean(dim=(2, 3), keepdim=True)
    return (image - mean) / image.std(dim=(2, 3), keepdim=True).clamp_min(1e-3)


def summits(peaks: Tensor, rank: Tensor, most: int, *, radius: int = 2, margin: int = 8) -> Tensor:
    """The foremost places that are highest within a radius.

    Those within ``margin`` pixels of the edge are left out, where half of a neighbourhood is missing: what the authors
    name as future work.

    Args:
        peaks: [H x W] that has to be highest.
        rank: [H x W] by which places come first.
        most: so many at most.
        radius, margin: pixels.

    Returns:
        [N x 2] columns and rows.
    """
    highest = functional.max_pool2d(peaks[None, None], 2 * radius + 1, stride=1, padding=radius)[0, 0]
    inside = torch.zeros_like(peaks, dtype=torch.bool)
    inside[margin:-margin, margin:-margin] = True
    rows, cols = torch.nonzero((peaks == highest) & inside, as_tuple=True)
    order = torch.argsort(rank[rows, cols], descending=True, stable=True)[:most]
    return torch.stack([cols[order], rows[order]], dim=1)


def _averaged(scores: Tensor, deviation_px: float) -> Tensor:
    """Scores after a Gaussian, mirrored beyond the edge."""
    reach = min(int(3 * deviation_px), *(side - 1 for side in scores.shape[2:]))
    at = torch.arange(-reach, reach + 1, dtype=scores.dtype, device=scores.device)
    kernel = torch.exp(-at.square() / (2 * deviation_px**2))
    kernel = kernel / kernel.sum()
    framed = functional.pad(scores, (reach, reach, reach, reach), mode="reflect")
    across = functional.conv2d(framed, kernel[None, None, None])
    return functional.conv2d(across, kernel[None, None, :, None])
