"""Trained networks as detectors and descriptors, by the weights that they are told."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geomatch.console import log
from geomatch.matching.descriptors import Described
from geomatch.matching.keypoints import BORDER_PX, Keypoints, has_room, thinned
from geomatch.matching.patches import patches, standardised
from geomatch.matching.side import NAMES, Side
from geomatch.nets.features import Features
from geomatch.nets.keypoint_detector import KeypointNet, standard, summits
from geomatch.nets.shapes import D2Shape, HardNetShape, KeypointShape, LTFormerShape, R2D2Shape, VggShape
from geomatch.weights import Weights

BATCH_PX = 1 << 17  # of the patches that are described at once: more do not stay in the processor's cache
TOLD_S = 10.0  # between words about how far a long description is


class PatchDescriptor:
    """A network that describes a patch around every keypoint.

    Args:
        net: patches [B x 1 x s x s], each standardised by itself -> [B x D] of length one.
        patch_px: s.
        side_px: of what a patch shows.
        equalised: whether patches are cut after CLAHE.
    """

    def __init__(self, net: Callable[[Tensor], Tensor], patch_px: int, side_px: float, *, equalised: bool) -> None:
        self.side_px = side_px
        self._net, self._patch_px, self._equalised = net, patch_px, equalised

    @classmethod
    def load(cls, name: str, kind: type[LTFormerShape] | type[HardNetShape] | type[VggShape]) -> PatchDescriptor:
        """With shipped weights, or those of a file; raises as ``Weights.find``."""
        weights: Weights[Any] = Weights.find(name, kind)
        net = weights.load_into(_NETS[kind](weights.shape))
        # Pools and convolves in half of the time; the hints of torch do not know the argument.
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        about = weights.about()
        side_px, equalised = float(about["side_px"]), bool(about["equalised"])
        return cls(cast(Callable[[Tensor], Tensor], net), weights.shape.patch_px, side_px, equalised=equalised)

    def __call__(self, side: Side, keypoints: Keypoints) -> Described:
        """Descriptors of all of them."""
        if not len(keypoints):
            return Described(keypoints, np.zeros((0, 1), np.float32))
        image = side.equalised if self._equalised else side.bytes
        made: list[NDArray[np.float32]] = []
        batch = max(1, BATCH_PX // self._patch_px**2)
        told = time.monotonic()
        with torch.inference_mode():
            for first in range(0, len(keypoints), batch):
                if time.monotonic() - told > TOLD_S:
                    told = time.monotonic()
                    log.warning("%s image: %d of %d patches described", NAMES[side.modality], first, len(keypoints))
                cut = standardised(patches(image, keypoints[first : first + batch], self.side_px, self._patch_px))
                made.append(self._net(torch.from_numpy(cut)[:, None]).float().numpy())
        return Described(keypoints, np.concatenate(made))


class KeypointDetector:
    """A network that scores every pixel, as a detector.

    Args:
        net: the network.
    """

    def __init__(self, net: KeypointNet) -> None:
        self._net = net
        self._radius = 1 if net.shape.region_px else 2  # peaks of the sum are as broad as its coarsest map's pixels

    @classmethod
    def load(cls, name: str) -> Self:
        """With shipped weights, or those of a file; raises as ``Weights.find``."""
        weights = Weights.find(name, KeypointShape)
        return cls(cast(KeypointNet, weights.load_into(KeypointNet(weights.shape))))

    def __call__(self, side: Side, most: int, apart_px: float = 0.0) -> Keypoints:
        """The strongest; none within 8 px of the edge or of nodata, or where nothing is to be seen.

        Of near ones the higher peak stays.
        """
        if not has_room(side):
            return Keypoints.none()
        with torch.inference_mode():
            peaks, rank = self._maps(side)
            places = summits(peaks, rank, side.image.size, radius=self._radius, margin=BORDER_PX)
            first, height = (values[places[:, 1], places[:, 0]].double().numpy() for values in (rank, peaks))
        found = Keypoints.at(places.numpy() + 0.5, first)  # which come by rank already, and so stay in order
        kept = np.nonzero(found.inside(side) & found.on_something(side))[0]
        return found[kept[np.sort(thinned(found.xy_px[kept], height[kept], apart_px))]][:most]

    def _maps(self, side: Side) -> tuple[Tensor, Tensor]:
        """[H x W] whose peaks are keypoints, and [H x W] by which they rank."""
        image = torch.from_numpy(side.bytes.astype(np.float32) / 255)[None, None]
        peaks, rank = (values[0, 0].float() for values in self._net(standard(image), side.modality))
        return peaks, rank


class NoiseDetector(KeypointDetector):
    """The control of a detector that ranks by region: peaks of noise, ranked by the same regions.

    They crowd where its keypoints do, and know nothing of the image beside. What it repeats no better than they do, it
    owes to the crowd.
    """

    def _maps(self, side: Side) -> tuple[Tensor, Tensor]:
        peaks, rank = super()._maps(side)
        rng = np.random.default_rng(zlib.crc32(side.bytes.tobytes()))
        return torch.from_numpy(rng.random(peaks.shape, dtype=np.float32)), rank


class DetectDescribe:
    """A network that detects and describes at once, as an extractor.

    Args:
        net: standardised images [1 x 1 x H x W] -> ``Features``.
    """

    def __init__(self, net: Callable[[Tensor], Features]) -> None:
        self._net = net

    @classmethod
    def load(cls, name: str, kind: type[D2Shape] | type[R2D2Shape]) -> DetectDescribe:
        """With shipped weights, or those of a file; raises as ``Weights.find``."""
        weights: Weights[Any] = Weights.find(name, kind)
        return cls(cast(Callable[[Tensor], Features], weights.load_into(_NETS[kind](weights.shape))))

    def __call__(self, side: Side, most: int) -> Described:
        """The strongest, with descriptors; none near the edge or nodata, or where nothing is to be seen."""
        if not has_room(side):
            return Described(Keypoints.none(), np.zeros((0, 1), np.float32))
        image = torch.from_numpy(side.bytes.astype(np.float32) / 255)[None, None]
        with torch.inference_mode():
            seen = self._net(standard(image))
            rows, cols = torch.nonzero(seen.peaks[0, 0], as_tuple=True)
            strength = seen.rank[0, 0, rows, cols].double().numpy()
            places, vectors = (values.numpy() for values in seen.read(torch.stack([cols, rows], dim=1)))
        order = np.argsort(-strength, kind="stable")
        found = Keypoints.at(places, strength)
        kept = np.nonzero(found.inside(side) & found.on_something(side))[0][:most]
        return Described(found[kept], np.ascontiguousarray(vectors[order[kept]], np.float32))


def _ltformer(shape: LTFormerShape) -> nn.Module:
    from geomatch.nets.ltformer import LTFormer

    return LTFormer(shape)


def _hardnet(shape: HardNetShape) -> nn.Module:
    from geomatch.nets.hardnet import HardNet

    return HardNet(shape)


def _d2(shape: D2Shape) -> nn.Module:
    from geomatch.nets.d2net import D2Net

    return D2Net(shape)


def _r2d2(shape: R2D2Shape) -> nn.Module:
    from geomatch.nets.r2d2 import R2D2

    return R2D2(shape)


def _vgg(shape: VggShape) -> nn.Module:
    from geomatch.nets.vgg import PatchVgg

    return PatchVgg(shape)


_NETS: dict[type[Any], Callable[[Any], nn.Module]] = {
    LTFormerShape: _ltformer,
    HardNetShape: _hardnet,
    VggShape: _vgg,
    D2Shape: _d2,
    R2D2Shape: _r2d2,
}
