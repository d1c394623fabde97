"""Networks of other projects with weights that a user has: LoFTR and LightGlue of kornia, VGG16.

Nothing is fetched: the weights come from a file, as torch.save or safetensors wrote them.
"""

from __future__ import annotations

import math
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geomatch.errors import InputError
from geomatch.extras import needs_extra
from geomatch.matching.descriptors import DESCRIPTORS
from geomatch.matching.keypoints import ORIENTED_SIFT
from geomatch.matching.learned import PatchDescriptor
from geomatch.matching.matches import LEAST_KEYPOINTS, Matches
from geomatch.matching.side import Side
from geomatch.nets.shapes import VggShape
from geomatch.nets.vgg import PatchVgg

SAFETENSORS = ".safetensors"
LEAST_CONFIDENCE = 0.2
SIFT_VECTOR = 128
LEAST_PX = 32
CLASSES = 6  # number of VGG16's last layer


def read_state(path: Path) -> dict[str, Tensor]:
    """The parameters in a file, whatever wraps them.

    Raises:
        InputError: it cannot be read, or holds none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == SAFETENSORS:
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, UnpicklingError, SafetensorError) as error:
        plain = isinstance(error, (UnpicklingError, KeyError))  # of what the first bytes of other files say
        reason = "no pickle of tensors alone" if plain else _first_line(error)
        hint = "give a state dict that torch.save or safetensors wrote"
        raise InputError(f"cannot be read as weights ({reason})", where=path, hint=hint) from error
    for key in ("state_dict", "model"):
        found = found.get(key, found) if isinstance(found, dict) else found
    named = isinstance(found, dict) and all(isinstance(name, str) for name in found)
    if not named or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError("holds no parameters", where=path, hint="give a state dict")
    return {name.removeprefix("matcher."): value for name, value in found.items()}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def load_state(net: nn.Module, path: Path, *, unused: str = "") -> nn.Module:
    """A network with the parameters of a file, in evaluation mode.

    Args:
        net: the network.
        path: of the file.
        unused: how names begin of parameters that the file may have and the network has not.

    Raises:
        InputError: the file cannot be read, or its parameters do not fit.
    """
    try:
        state = read_state(path)
        net.load_state_dict({name: state[name] for name in state if not (unused and name.startswith(unused))})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"weights of another network ({reason})", where=path) from error
    return net.eval()


def vgg16(path: Path) -> PatchDescriptor:
    """fc6 and fc7 of VGG16 on patches of 64 px, as Ye et al. 2018 use it; raises as ``load_state``.

    Its last layer, which tells classes, is not used; the file may lack it.
    """
    net = PatchVgg(VggShape())
    del net.classifier[CLASSES]
    load_state(net, path, unused=f"classifier.{CLASSES}.")
    return PatchDescriptor(net, net.shape.patch_px, 64, equalised=False)


class LoftrMatcher:
    """LoFTR (Sun et al. 2021), detector-free; raises as ``load_state``, and UsageError without kornia."""

    def __init__(self, path: Path) -> None:
        with needs_extra("match", "LoFTR"):
            from kornia.feature import LoFTR

        self._net = load_state(LoFTR(pretrained=None), path)

    def __call__(self, sar: Side, optical: Side) -> Matches:
        """Matches at least LEAST_CONFIDENCE sure."""
        if (unusable := Matches.unusable(sar, optical, LEAST_PX)) is not None:
            return unusable
        images = [_grey(side) for side in (sar, optical)]
        with torch.inference_mode():
            found = self._net({"image0": images[0], "image1": images[1]})
        sure = found["confidence"].numpy().astype(np.float64)
        kept = np.nonzero(sure >= LEAST_CONFIDENCE)[0]
        kept = kept[np.argsort(-sure[kept], kind="stable")]
        cells = tuple(math.prod(side // 8 for side in image.shape[2:]) for image in images)
        if not len(kept):
            return Matches.none("no places are alike", (cells[0], cells[1]))
        places = [found[name].numpy().astype(np.float64)[kept] + 0.5 for name in ("keypoints0", "keypoints1")]
        return Matches(places[0], places[1], sure[kept], (cells[0], cells[1]))


class LightGlueMatcher:
    """LightGlue (Lindenberger et al. 2023) on RootSIFT; raises as ``LoftrMatcher``.

    Args:
        path: weights of LightGlue for SIFT.
        most: keypoints of each image.
    """

    def __init__(self, path: Path, most: int = 1024) -> None:
        with needs_extra("match", "LightGlue"):
            from kornia.feature import LightGlue

        plain: dict[str, Any] = {"features": None, "weights": None}  # which would be fetched
        self._net = LightGlue(input_dim=SIFT_VECTOR, add_scale_ori=True, **plain)
        state = read_state(path)
        for layer in range(self._net.conf.n_layers):  # names of the first release
            for kind in ("self_attn", "cross_attn"):
                old, new = f"{kind}.{layer}.", f"transformers.{layer}.{kind}."
                state = {name.replace(old, new) if name.startswith(old) else name: state[name] for name in state}
        fixed = {name: value for name, value in self._net.state_dict().items() if name == "confidence_thresholds"}
        try:
            self._net.load_state_dict(fixed | state)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(f"weights of another network ({reason})", where=path) from error
        self._net.eval()
        self._most = most

    def __call__(self, sar: Side, optical: Side) -> Matches:
        """Matches by its own assignment."""
        if (unusable := Matches.unusable(sar, optical, LEAST_PX)) is not None:
            return unusable
        described = [DESCRIPTORS["rootsift"](side, ORIENTED_SIFT(side, self._most)) for side in (sar, optical)]
        found = (len(described[0]), len(described[1]))
        if min(found) < LEAST_KEYPOINTS:
            return Matches.none("fewer than three keypoints in an image", found)
        data = {}
        for number, (side, one) in enumerate(zip((sar, optical), described, strict=True)):
            keypoints = one.keypoints
            data[f"image{number}"] = {
                "image_size": torch.tensor([side.size_px]),
                "keypoints": torch.from_numpy(keypoints.xy_px - 0.5).float()[None],
                "scales": torch.from_numpy(keypoints.size_px).float()[None],
                "oris": torch.from_numpy(np.radians(keypoints.angle_deg)).float()[None],
                "descriptors": torch.from_numpy(one.vectors)[None],
            }
        with torch.inference_mode():
            made = self._net(data)
        pairs, sure = made["matches"][0].numpy(), made["scores"][0].numpy().astype(np.float64)
        if not len(pairs):
            return Matches.none("no descriptors are alike", found)
        order = np.argsort(-sure, kind="stable")
        first, second = pairs[order].T
        return Matches(described[0].keypoints.xy_px[first], described[1].keypoints.xy_px[second], sure[order], found)


def _grey(side: Side) -> Tensor:
    """[1 x 1 x H x W] in [0, 1], cut to multiples of 8."""
    height, width = (8 * (size // 8) for size in side.image.shape)
    return torch.from_numpy(side.bytes[:height, :width].astype(np.float32) / 255)[None, None]
