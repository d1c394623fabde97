"""Trained networks as descriptors, by the weights that they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geomatch.matching.descriptors import Described
from geomatch.matching.keypoints import Keypoints
from geomatch.matching.patches import patches, standardised
from geomatch.matching.side import Side
from geomatch.nets.shapes import HardNetShape, LTFormerShape
from geomatch.weights import Weights

BATCH = 256


class PatchDescriptor:
    """A network that describes a patch around every keypoint.

    Args:
        net: patches [B x 1 x s x s], each standardised by itself -> [B x D] of length one.
        patch_px: s.
        side_px: of what a patch shows.
        equalised: whether patches are cut after CLAHE.
    """

    def __init__(self, net: Callable[[Tensor], Tensor], patch_px: int, side_px: float, *, equalised: bool) -> None:
        self._net, self._patch_px, self._side_px, self._equalised = net, patch_px, side_px, equalised

    @classmethod
    def load(cls, name: str, kind: type[LTFormerShape] | type[HardNetShape]) -> PatchDescriptor:
        """With shipped weights, or those of a file; raises as ``Weights.find``."""
        weights: Weights[Any] = Weights.find(name, kind)
        net = weights.load_into(_NETS[kind](weights.shape))
        about = weights.about()
        side_px, equalised = float(about["side_px"]), bool(about["equalised"])
        return cls(cast(Callable[[Tensor], Tensor], net), weights.shape.patch_px, side_px, equalised=equalised)

    def __call__(self, side: Side, keypoints: Keypoints) -> Described:
        """Descriptors of all of them."""
        image = side.equalised if self._equalised else side.bytes
        made: list[NDArray[np.float32]] = [np.zeros((0, 1), np.float32)] if not len(keypoints) else []
        with torch.inference_mode():
            for first in range(0, len(keypoints), BATCH):
                part = keypoints[first : first + BATCH]
                cut = standardised(patches(image, part, self._side_px, self._patch_px))
                made.append(self._net(torch.from_numpy(cut)[:, None]).float().numpy())
        return Described(keypoints, np.concatenate(made))


def _ltformer(shape: LTFormerShape) -> nn.Module:
    from geomatch.nets.ltformer import LTFormer

    return LTFormer(shape)


def _hardnet(shape: HardNetShape) -> nn.Module:
    from geomatch.nets.hardnet import HardNet

    return HardNet(shape)


_NETS: dict[type[Any], Callable[[Any], nn.Module]] = {LTFormerShape: _ltformer, HardNetShape: _hardnet}
