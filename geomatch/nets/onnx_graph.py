"""The networks that an index is built and asked with as ONNX, written from their weights alone.

torch could export them, but importing it takes longer than running them on a strip. So what the modules of
``geomatch.nets.encoder`` and ``geomatch.nets.pixel_net`` do stands here a second time, and tests hold the two together.
Batch norms are folded into the convolutions before them (Jacob et al. 2018, "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", CVPR, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geomatch.nets.shapes import MODALITIES, EncoderShape, Modality, PixelShape

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

Parameters = Mapping[str, NDArray[Any]]

OPSET = 17
IR_VERSION = 8  # of that opset; runtimes refuse files of a later one than they know
PLANES, FEATURES = "planes", "features"
_NORM_EPSILON, _COUNTER = 1e-5, ".num_batches_tracked"  # torch's


class MisfitError(ValueError):
    """Parameters are not those of a network."""


def onnx_of(shape: EncoderShape | PixelShape, parameters: Parameters) -> dict[Modality, bytes]:
    """The branches of a network as ONNX: input "planes" [N x P x h x w] of any size, output "features".

    Args:
        shape: of the network.
        parameters: as its module names them.

    Raises:
        MisfitError: they are not those of such a network.
    """
    models: dict[Modality, bytes] = {}
    left = set(parameters)
    for modality in MODALITIES:
        graph = _Graph(parameters)
        made = (
            _encoder(graph, shape, modality) if isinstance(shape, EncoderShape) else _pixel_net(graph, shape, modality)
        )
        models[modality] = graph.model(made, shape.planes(modality), shape.channels)
        left -= graph.taken
    if unknown := sorted(name for name in left if not name.endswith(_COUNTER)):
        raise MisfitError(f"no layer for {unknown[0]}")
    return models


def _encoder(graph: _Graph, shape: EncoderShape, modality: Modality) -> str:
    stem, outputs, norm = f"stems.{modality}", shape.width, "both" if shape.shared_norm else modality

    def residual(x: str, at: str, inputs: int, norm: str, *, stride: int = 1) -> str:
        y = graph.relu(graph.conv(x, f"{at}.conv1", (outputs, inputs, 3), f"{at}.norm1.norms.{norm}", stride=stride))
        y = graph.conv(y, f"{at}.conv2", (outputs, outputs, 3), f"{at}.norm2.norms.{norm}")
        same = stride == 1 and inputs == outputs
        shortcut = x if same else graph.conv(x, f"{at}.shortcut", (outputs, inputs, 1), stride=stride)
        return graph.relu(graph.add("Add", y, shortcut))

    x = graph.relu(graph.conv(PLANES, f"{stem}.conv", (shape.stem, shape.planes(modality), 3), f"{stem}.norm"))
    x = residual(x, f"{stem}.down", shape.stem, "both", stride=2)
    for block in range(shape.blocks):
        x = residual(x, f"trunk.{block}", shape.width, norm)
    return graph.shortened(graph.conv(x, "head", (shape.channels, shape.width, 1), bias=True))


def _pixel_net(graph: _Graph, shape: PixelShape, modality: Modality) -> str:
    stem, width = f"stems.{modality}", shape.width
    x = graph.relu(graph.conv(PLANES, f"{stem}.0", (shape.stem, 1, 5), f"{stem}.1"))
    x = graph.relu(graph.conv(x, f"{stem}.3", (width, shape.stem, 4), f"{stem}.4", stride=2))
    for number, dilation in enumerate(shape.dilations):
        at = f"trunk.{number}"
        y = graph.conv(x, f"{at}.conv1", (width, width, 3), f"{at}.norm1.norms.{modality}", dilation=dilation)
        y = graph.conv(graph.relu(y), f"{at}.conv2", (width, width, 3), f"{at}.norm2.norms.{modality}")
        x = graph.relu(graph.add("Add", x, y))
    return graph.shortened(graph.conv(x, "head", (shape.channels, width, 1), bias=True))


class _Graph:
    """An ONNX graph to which operations are added one by one; each gives the name of its result.

    Args:
        parameters: of the network.

    Attributes:
        taken: names of those that operations have.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self.taken: set[str] = set()

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """An operation of ONNX."""
        from onnx import helper

        name = name or f"{kind}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self,
        x: str,
        at: str,
        size: tuple[int, int, int],
        norm: str | None = None,
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
    ) -> str:
        """A convolution with the batch norm after it.

        Args:
            x: its input, [N x inputs x h x w].
            at: name of its module.
            size: outputs, inputs and side of the kernel; padded so that an odd one keeps the size of the image.
            norm: name of the batch norm's module.
            stride, dilation: as torch's.
            bias: whether it has one, without a batch norm.
        """
        outputs, inputs, side = size
        weight = self._of(f"{at}.weight", (outputs, inputs, side, side))
        added = self._of(f"{at}.bias", (outputs,)) if bias else None
        if norm is not None:
            scale, shift, mean, variance = (
                self._of(f"{norm}.{name}", (outputs,)) for name in ("weight", "bias", "running_mean", "running_var")
            )
            scale = scale / np.sqrt(variance + _NORM_EPSILON)
            weight, added = weight * scale[:, None, None, None], shift - mean * scale
        names = [self._constant(f"{at}.weight", weight)]
        if added is not None:
            names.append(self._constant(f"{at}.bias", added))
        pad = dilation * ((side - 1) // 2)
        how = {"kernel_shape": [side] * 2, "strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [pad] * 4}
        return self.add("Conv", x, *names, name=at, **how)

    def relu(self, x: str) -> str:
        """The same where it is positive, else zero."""
        return self.add("Relu", x)

    def shortened(self, x: str) -> str:
        """Each cell's vector v over the root of 1 + v², so that it is shorter than one."""
        one = self._constant("one", np.ones(1))
        squares = self.add("ReduceSumSquare", x, axes=[1], keepdims=1)
        return self.add("Div", x, self.add("Sqrt", self.add("Add", squares, one)), name=FEATURES)

    def model(self, result: str, planes: int, channels: int) -> bytes:
        """The model whose output is ``result``."""
        from onnx import TensorProto, helper

        sides = (PLANES, planes), (result, channels)
        given, made = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size, f"{name} h", f"{name} w"])
            for name, size in sides
        )
        graph = helper.make_graph(self._nodes, "branch", [given], [made], self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION).SerializeToString()
        return model

    def _of(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """A parameter."""
        found = self._parameters.get(name)
        if found is None or found.shape != shape:
            what = "no" if found is None else f"{' x '.join(map(str, found.shape))} instead of"
            raise MisfitError(f"{what} {name} of {' x '.join(map(str, shape))}")
        self.taken.add(name)
        return found.astype(np.float64)

    def _constant(self, name: str, values: NDArray[np.float64]) -> str:
        from onnx import numpy_helper

        self._constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name
