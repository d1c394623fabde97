"""Every backend gives the vectors of torch in float32."""

from __future__ import annotations

import subprocess
import sys
from ctypes import CDLL
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geomatch import backends, defaults
from geomatch.backends import AUTO, BACKENDS, installed, load_runner, multiplies_bfloat16, on_gpu, usual
from geomatch.errors import UsageError
from geomatch.nets.encoder import EncoderNet
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
    run, truth = load_runner(weights, backend, exact=exact), weights.net()
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
        run = load_runner(weights, backend)
        assert least_cosine(vectors_of(run(seen, modality)), vectors_of(expected)) >= 0.999
    exact = load_runner(weights, "torch", exact=True)
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
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, vectors_alone: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    processor = tmp_path / "cpuinfo"
    processor.write_text(f"flags : avx512f {'avx512_bf16 ' * vectors_alone}avx512bw\n")
    monkeypatch.setattr(backends, "_PROCESSOR", processor)
    weights = Weights.find(str(weights_file))
    planes = np.random.default_rng(0).normal(size=(4, 20, 20)).astype(np.float32)
    run, exact = load_runner(weights, backend), load_runner(weights, backend, exact=True)
    np.testing.assert_array_equal(run(planes, "sar"), exact(planes, "sar"))


def test_system_tells_what_the_processor_multiplies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr(backends, "_PROCESSOR", told)
    for has in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"amx_bf16": has}, raising=False)
        assert multiplies_bfloat16() == has  # torch does, where the system does not
    told.write_text("flags : avx512f avx512_bf16 amx_bf16 amx_tile\n")
    assert multiplies_bfloat16()
    told.write_text("flags : avx512f avx512_bf16 amx_tile\n")
    assert not multiplies_bfloat16()


def test_without_a_driver_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert on_gpu()  # torch says so, which is there
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(backends, "_AMD_DRIVER", tmp_path / "none")
    monkeypatch.setattr(backends, "CDLL", lambda name: CDLL(f"no such {name}"))
    assert not on_gpu()
    assert "torch" not in sys.modules
    for driver, found in (("CDLL", str), ("_AMD_DRIVER", tmp_path)):
        with monkeypatch.context() as there:
            there.setattr(backends, driver, found)
            assert backends._has_driver()


def test_torch_takes_one_thread(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, taken = Weights.find(str(weights_file)), []
    forward = EncoderNet.forward

    def seen(net: EncoderNet, planes: torch.Tensor, modality: Modality) -> torch.Tensor:
        taken.append(torch.get_num_threads())
        return forward(net, planes, modality)

    monkeypatch.setattr(EncoderNet, "forward", seen)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        load_runner(weights, "torch")(np.zeros((weights.shape.planes("sar"), 16, 16), np.float32), "sar")
    finally:
        torch.set_num_threads(before)
    assert taken == [1]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_others_do_without_torch(backend: str) -> None:
    """Importing it takes longer than they take for a strip."""
    script = f"""
import sys
import numpy as np
from geomatch import backends
from geomatch.learned import LearnedEncoder
backends._CUDA_DRIVER = "no such library"
assert backends.usual() == "openvino"
encoder = LearnedEncoder.of({defaults.ENCODER!r}, {backend!r})
assert encoder.dense(np.ones((1, 64, 64), np.float32), np.ones((64, 64), bool), "sar").valid.any()
assert encoder.pixels[1](np.ones((64, 64), np.float32), np.ones((64, 64), bool), "sar").valid.any()
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=120, check=False).returncode == 0


def test_unknown_backends_are_refused(weights_file: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown backend 'abacus'.*openvino"):
        load_runner(Weights.find(str(weights_file)), "abacus")


def test_missing_backends_say_what_to_install(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    weights = Weights.find(str(weights_file))
    with pytest.raises(UsageError, match=r"pip install 'geomatch\[fast\]'"):
        load_runner(weights, "openvino")
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    planes = np.zeros((weights.shape.planes("sar"), 16, 16), np.float32)
    assert load_runner(weights, AUTO)(planes, "sar").shape == (weights.shape.channels, 8, 8)


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
