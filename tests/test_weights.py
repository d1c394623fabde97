"""Weights are found by name or path, and refused when they are not what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from geomatch.errors import InputError, UsageError
from geomatch.files import sha256_of
from geomatch.matching.learned import DetectDescribe, KeypointDetector, PatchDescriptor
from geomatch.nets.encoder import EncoderNet
from geomatch.nets.pixel_net import PixelNet
from geomatch.nets.shapes import (
    D2Shape,
    EncoderShape,
    HardNetShape,
    KeypointShape,
    LTFormerShape,
    PixelShape,
    R2D2Shape,
    RerankerShape,
    VggShape,
)
from geomatch.reranking.graph import graph_reranker
from geomatch.weights import ARCHITECTURES, METADATA, NAMED, Weights, save_weights

SHAPE = EncoderShape(8, 16, 16, 1)


def about(**known: object) -> dict[str, str]:
    return {METADATA: json.dumps({"architecture": ARCHITECTURES[EncoderShape]} | known)}


def test_weights_come_back_as_they_were_saved(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = EncoderNet(SHAPE).eval()
    save_weights(net, tmp_path / "a.safetensors", {"run": "test"})
    found = Weights.find(str(tmp_path / "a.safetensors"))
    assert found.shape == SHAPE
    assert found.sha256 == sha256_of(tmp_path / "a.safetensors")
    planes = torch.randn(1, 6, 16, 16)
    torch.testing.assert_close(found.net()(planes, "optical"), net(planes, "optical"))
    save_weights(net, tmp_path / "b.safetensors", {"run": "test"})
    assert sha256_of(tmp_path / "b.safetensors") == found.sha256


@pytest.mark.parametrize("name", NAMED)
def test_shipped_weights_are_whole_and_small(name: str) -> None:
    kinds: dict[str, Any] = {
        "encoder": EncoderShape,
        "pixels": PixelShape,
        "hardnet": HardNetShape,
        "ltformer": LTFormerShape,
        "keypoints": KeypointShape,
        "vgg": VggShape,
        "d2": D2Shape,
        "r2d2": R2D2Shape,
        "reranker": RerankerShape,
    }
    kind = kinds.pop(NAMED[name].network)
    found = Weights.find(name, kind)
    assert found.sha256 == NAMED[name].sha256
    assert found.path.stat().st_size <= 4e6
    if kind is EncoderShape:
        found.net()
    elif kind is PixelShape:
        found.load_into(PixelNet(found.shape))
    elif kind is RerankerShape:
        assert graph_reranker(name, name)
    elif kind is KeypointShape:
        assert KeypointDetector.load(name)
    elif kind in (D2Shape, R2D2Shape):
        assert DetectDescribe.load(name, kind)
    else:
        assert PatchDescriptor.load(name, kind)
    for other in kinds.values():
        with pytest.raises(InputError, match="weights of another network"):
            Weights.find(name, other)


def test_half_precision_is_read_as_single(tmp_path: Path) -> None:
    net = EncoderNet(SHAPE)
    save_weights(net, tmp_path / "half.safetensors", {}, half=True)
    stored = load_file(tmp_path / "half.safetensors")
    found = Weights.find(str(tmp_path / "half.safetensors")).net().state_dict()
    for name, value in net.state_dict().items():
        assert found[name].dtype == value.dtype
        if value.is_floating_point():
            assert stored[name].dtype == torch.float16
            torch.testing.assert_close(found[name], value, atol=1e-3, rtol=1e-3)


def test_all_shipped_weights_together_are_small() -> None:
    folder = Path(Weights.find("la3").path).parent
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10e6


def test_what_is_no_weights_is_refused(tmp_path: Path, weights_file: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights_file.read_bytes()[:1000])
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    for file in (cut, text, tmp_path / "gone.safetensors", tmp_path):
        with pytest.raises((InputError, UsageError), match=file.name):
            Weights.find(str(file))


def test_weights_of_another_network_are_refused(tmp_path: Path, weights_file: Path) -> None:
    tensors = load_file(weights_file)
    other = tmp_path / "other.safetensors"
    save_file(tensors, other, about(architecture="somebody.elses.Net"))
    with pytest.raises(InputError, match=r"other\.safetensors: weights of another network"):
        Weights.find(str(other))
    save_file(tensors, other, about(shape={"channels": 8, "stem": 16, "width": 32, "blocks": 1}))
    with pytest.raises(InputError, match="another network"):
        Weights.find(str(other)).net()
    save_file(tensors, other, about(shape={"depth": 3}))
    with pytest.raises(InputError, match="cannot be read as weights"):
        Weights.find(str(other))
