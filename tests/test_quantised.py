"""A network in 8-bit integers gives the vectors of the same in float32."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from geomatch import defaults, quantised
from geomatch.backends import load_runner, to_onnx
from geomatch.errors import UsageError
from geomatch.nets.shapes import MODALITIES, Modality
from geomatch.planes import CELL_PX, planes
from geomatch.simulation.pairs import SimulatedPairs
from geomatch.structure import Dense
from geomatch.tiles import TILE_PX, starts, tile_vectors
from geomatch.weights import Weights

BACKENDS = ("onnxruntime-int8", "openvino-int8")


def of_another_city(modality: Modality) -> NDArray[np.float32]:
    pair = SimulatedPairs(400).draw(np.random.default_rng(quantised.SEED + 1), 400)
    images = {"optical": (pair.optical, pair.valid), "sar": pair.query(slice(None))}
    return planes(*images[modality], modality)


def vectors_of(features: NDArray[np.float32]) -> NDArray[np.float32]:
    at = starts(features.shape[1] * CELL_PX, TILE_PX, TILE_PX // 2)
    vectors = tile_vectors(Dense(features, np.ones(features.shape[1:], np.bool_)), at, at, TILE_PX, CELL_PX).vectors
    return vectors.reshape(-1, vectors.shape[-1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("modality", MODALITIES)
def test_vectors_lie_near_those_in_float32(backend: str, modality: Modality) -> None:
    weights, seen = Weights.find(defaults.ENCODER), of_another_city(modality)
    found, exact = (load_runner(weights, backend, exact=exact)(seen, modality) for exact in (False, True))
    cosines = (vectors_of(found) * vectors_of(exact)).sum(axis=1)
    assert 0.999 <= cosines.min() < 0.9999999  # rounded, but not much


@pytest.mark.parametrize("modality", MODALITIES)
def test_trunk_alone_is_rounded(modality: Modality) -> None:
    net = Weights.find(defaults.ENCODER)
    graph = onnx.load_from_string(quantised.quantised(to_onnx(net)[modality], modality)).graph
    weights = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    rounded = [node.name for node in convolutions if node.input[1] in weights]
    assert rounded == [node.name for node in convolutions if quantised.PART in node.name]
    assert len(rounded) == 2 * net.shape.blocks
    assert len(convolutions) == len(rounded) + 5  # of the stem, and the head


def test_same_network_is_rounded_alike_everywhere() -> None:
    model = to_onnx(Weights.find(defaults.ENCODER))["sar"]
    first = quantised.quantised(model, "sar")
    quantised.examples.cache_clear()  # as in another process
    assert quantised.quantised(model, "sar") == first


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    run = load_runner(Weights.find(defaults.ENCODER), "openvino-int8")
    with pytest.raises(UsageError, match=r"pip install 'geomatch\[fast\]'"):
        run(of_another_city("sar"), "sar")
