"""A network in 8-bit integers, for processors that multiply bytes faster than floats.

Rounded after training, weights per channel, activations by ranges that are fixed beforehand (Jacob et al. 2018,
"Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR). The ranges are
those that a simulated city fills, which every machine draws alike, so that weights of one's own need no images beside
them. Only the trunk is rounded, most of the work: the stem, whose planes differ in extent, and the head, whose rounding
nothing averages, stay in floats. ``benchmarks/backends.py`` prints what these choices are worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomatch.nets.shapes import Modality
from geomatch.planes import planes

CITY_PX = 512
SEED = 0  # of the city
PART = "trunk."  # in the names of what is rounded
_OPERATION = "Conv"


def quantised(model: bytes, modality: Modality) -> bytes:
    """The same ONNX model with the trunk's convolutions in 8 bits; raises ImportError without onnx and onnxruntime."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as name:
        given, ready, made = (Path(name) / f"{stage}.onnx" for stage in ("given", "ready", "made"))
        given.write_bytes(model)
        quant_pre_process(given, ready, skip_symbolic_shape=True)
        nodes = onnx.load(ready).graph.node
        quantize_static(
            ready,
            made,
            _reader(examples()[modality]),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[_OPERATION],
            per_channel=True,
            activation_type=QuantType.QUInt8,  # ONNX Runtime has no fast path for signed ones, OpenVINO none at all
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[node.name for node in nodes if node.op_type == _OPERATION and PART in node.name],
        )
        return made.read_bytes()


@cache
def examples() -> dict[Modality, list[NDArray[np.float32]]]:
    """Planes [P x h x w] by which the ranges of activations are fixed, of both modalities."""
    from geomatch.simulation.pairs import SimulatedPairs

    pair = SimulatedPairs(CITY_PX).draw(np.random.default_rng(SEED), CITY_PX)
    return {
        "optical": [planes(pair.optical, pair.valid, "optical")],
        "sar": [planes(*pair.query(slice(None)), "sar")],
    }


def _reader(shown: list[NDArray[np.float32]]) -> Any:
    """Hands examples to ONNX Runtime, one by one."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no hints
        def __init__(self) -> None:
            self._left: Iterator[NDArray[np.float32]] = iter(shown)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            following = next(self._left, None)
            return None if following is None else {"planes": following[None]}

    return Reader()
