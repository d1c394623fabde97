"""Every backend gives the vectors of torch in float32."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geomatch import backends
from geomatch.backends import AUTO, BACKENDS, load_runner
from geomatch.errors import UsageError
from geomatch.nets.shapes import MODALITIES, Modality
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
        assert cosine > (0.999999 if exact else 0.999)


def test_torch_keeps_to_float32_where_bfloat16_is_slow(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    net = Weights.find(str(weights_file)).net()
    planes = np.random.default_rng(0).normal(size=(4, 20, 20)).astype(np.float32)
    run, exact = load_runner(net, "torch"), load_runner(net, "torch", exact=True)
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
    planes = np.zeros(
        (weights_shape := Weights.find(str(weights_file)).shape).planes("sar") and (4, 16, 16), np.float32
    )
    assert load_runner(net, AUTO)(planes, "sar").shape == (weights_shape.channels, 8, 8)
