"""Every backend gives the vectors of torch in float32."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geomatch import backends, defaults
from geomatch.backends import AUTO, BACKENDS, installed, load_runner, usual
from geomatch.errors import UsageError
from geomatch.nets.shapes import MODALITIES, Modality
from geomatch.planes import CELL_PX, planes
from geomatch.simulation.pairs import SimulatedPairs
from geomatch.structure import Dense
from geomatch.tiles import TILE_PX, starts, tile_vectors
from geomatch.weights import Weights


@pytest.mark.parametrize("backend", [*BACKENDS, AUTO])
@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("exact", [False, True])
def test_backends_agree(backend: str, modality: Modality, exact: bool, weights_file: Path) -> None:
    weights = Weights.find(str(weights_file))
    run, truth = load_runner(weights.net(), backend, exact=exact), weights.net()
    for size in ((50, 50), (26, 40)):
        planes = np.random.default_rng(0).normal(size=(weights.shape.planes(modality), *size)).astype(np.float32)
        found = run(planes, modality)
        with torch.inference_mode():
            expected = truth(torch.from_numpy(planes)[None], modality)[0].numpy()
        assert found.dtype == np.float32
        assert found.shape == expected.shape == (8, size[0] // 2, size[1] // 2)
        cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
        rounded = 0.98 if backend.endswith("int8") else 0.999  # such planes leave the ranges that images fill
        assert cosine > (0.999999 if exact else rounded)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("modality", MODALITIES)
def test_vectors_of_a_gpu_are_those_of_the_processor(modality: Modality) -> None:
    weights = Weights.find(defaults.ENCODER)
    pair = SimulatedPairs(512).draw(np.random.default_rng(5), 512)
    images = {"optical": (pair.optical, pair.valid), "sar": pair.query(slice(None))}
    seen = planes(*images[modality], modality)
    truth = weights.net()
    with torch.inference_mode():
        expected = truth(torch.from_numpy(seen)[None], modality)[0].numpy()
    for backend in ("torch", AUTO):  # which takes a GPU where there is one, and there mixed precision
        run = load_runner(weights.net(), backend)
        assert least_cosine(vectors_of(run(seen, modality)), vectors_of(expected)) >= 0.999
    exact = load_runner(weights.net(), "torch", exact=True)
    assert least_cosine(vectors_of(exact(seen, modality)), vectors_of(expected)) >= 0.99999  # convolutions in TF32


def vectors_of(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N x D] of tiles that overlap by half."""
    at = starts(features.shape[1] * CELL_PX, TILE_PX, TILE_PX // 2)
    vectors = tile_vectors(Dense(features, np.ones(features.shape[1:], np.bool_)), at, at, TILE_PX, CELL_PX).vectors
    return vectors.reshape(-1, vectors.shape[-1])


def least_cosine(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float((found * expected).sum(axis=1).min())


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("vectors_alone", [False, True])
def test_floats_stay_whole_where_short_ones_are_slow(
    weights_file: Path, monkeypatch: pytest.MonkeyPatch, backend: str, vectors_alone: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    has = {"avx512_bf16": vectors_alone, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    net = Weights.find(str(weights_file)).net()
    planes = np.random.default_rng(0).normal(size=(4, 20, 20)).astype(np.float32)
    run, exact = load_runner(net, backend), load_runner(net, backend, exact=True)
    np.testing.assert_array_equal(run(planes, "sar"), exact(planes, "sar"))


def test_unknown_backends_are_refused(weights_file: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown backend 'abacus'.*openvino"):
        load_runner(Weights.find(str(weights_file)).net(), "abacus")


def test_missing_backends_say_what_to_install(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    net = Weights.find(str(weights_file)).net()
    with pytest.raises(UsageError, match=r"pip install 'geomatch\[fast\]'"):
        load_runner(net, "openvino")
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    planes = np.zeros((net.shape.planes("sar"), 16, 16), np.float32)
    assert load_runner(net, AUTO)(planes, "sar").shape == (net.shape.channels, 8, 8)


def test_usual_backend_is_one_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"onnx", "onnxruntime", "openvino"}
    monkeypatch.setattr(backends, "find_spec", lambda name: name in there or None)
    monkeypatch.setattr(backends, "on_gpu", lambda: False)
    assert (usual(), installed()) == ("openvino", list(BACKENDS))
    there -= {"openvino"}
    assert (usual(), installed()) == ("onnxruntime", ["torch", "onnxruntime", "onnxruntime-int8"])
    there -= {"onnx"}
    assert (usual(), installed()) == ("torch", ["torch"])


def test_gpu_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "on_gpu", lambda: True)
    assert usual() == "torch"
