"""What is written as ONNX gives what the modules of torch give, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from geomatch.backends import load_runner, to_onnx
from geomatch.errors import InputError
from geomatch.nets.encoder import EncoderNet
from geomatch.nets.onnx_graph import MisfitError, onnx_of
from geomatch.nets.pixel_net import PixelNet
from geomatch.nets.shapes import MODALITIES, EncoderShape, Modality, PixelShape
from geomatch.weights import Weights, save_weights

NETS: dict[str, tuple[type[EncoderNet | PixelNet], EncoderShape | PixelShape]] = {
    "encoder": (EncoderNet, EncoderShape(8, 6, 10, 2)),
    "one norm for both": (EncoderNet, EncoderShape(8, 6, 10, 3, shared_norm=True)),
    "as wide as its stem": (EncoderNet, EncoderShape(4, 8, 8, 1, optical_planes=3, sar_planes=5)),
    "pixels": (PixelNet, PixelShape(5, 6, 9, (1, 3))),
}


def drawn(name: str, seed: int = 0) -> EncoderNet | PixelNet:
    """A network whose batch norms have seen something."""
    kind, shape = NETS[name]
    torch.manual_seed(seed)
    net = kind(shape)  # type: ignore[arg-type]  # of its own shape
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values, low in ((part.weight, -0.5), (part.bias, -0.5), (part.running_mean, -1), (part.running_var, 0)):
                assert values is not None
                nn.init.uniform_(values, low, 1.5)
    return net.eval()


def parameters(net: nn.Module) -> dict[str, NDArray[np.generic]]:
    return {name: value.numpy() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("modality", MODALITIES)
def test_features_are_those_of_torch(name: str, modality: Modality) -> None:
    net = drawn(name)
    model = onnx_of(net.shape, parameters(net))[modality]
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for count, height, width in ((1, 40, 26), (3, 18, 32)):
        planes = torch.randn(count, net.shape.planes(modality), height, width)
        with torch.inference_mode():
            expected = net(planes, modality).numpy()
        (found,) = session.run(["features"], {"planes": planes.numpy()})
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_weights_in_half_precision_are_written_as_single(tmp_path: Path) -> None:
    net = drawn("encoder")
    save_weights(net, tmp_path / "half.safetensors", {}, half=True)
    weights = Weights.find(str(tmp_path / "half.safetensors"))
    models = to_onnx(weights)
    for model in models.values():
        assert {kept.data_type for kept in onnx.load_from_string(model).graph.initializer} == {onnx.TensorProto.FLOAT}
    assert models == onnx_of(weights.shape, parameters(weights.net()))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"head.weight": None}, "no head.weight of 8 x 10 x 1 x 1"),
        ({"trunk.1.norm2.norms.sar.running_var": None}, "no trunk.1.norm2.norms.sar.running_var of 10"),
        ({"head.weight": (8, 10, 3, 3)}, "8 x 10 x 3 x 3 instead of head.weight of 8 x 10 x 1 x 1"),
        ({"head.bias": None}, "no head.bias of 8"),
        ({"stems.optical.down.shortcut.bias": (10,)}, "no layer for stems.optical.down.shortcut.bias"),
        ({"trunk.2.conv1.weight": (10, 10, 3, 3)}, "no layer for trunk.2.conv1.weight"),
    ],
)
def test_parameters_of_another_network_are_refused(change: dict[str, tuple[int, ...] | None], told: str) -> None:
    net = drawn("encoder")
    given = parameters(net)
    for name, size in change.items():
        if size is None:
            del given[name]
        else:
            given[name] = np.zeros(size, np.float32)
    with pytest.raises(MisfitError, match=f"^{told}$"):
        onnx_of(net.shape, given)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
def test_file_of_another_network_is_named(backend: str, tmp_path: Path) -> None:
    deep, file = drawn("encoder"), tmp_path / "deep.safetensors"
    deep.shape = EncoderShape(8, 6, 10, 1)  # not what its parameters are of
    save_weights(deep, file, {})
    weights = Weights.find(str(file))
    with pytest.raises(InputError, match=r"deep\.safetensors: weights of another network \(.*trunk\.1"):
        load_runner(weights, backend)
    file.unlink()
    with pytest.raises(InputError, match=r"deep\.safetensors: cannot be read as weights"):
        load_runner(weights, backend)
