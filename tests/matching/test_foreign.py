"""Weights that a user has, of networks of other projects; random ones here, since none are shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from places import pair, similarity

from geomatch.errors import InputError, UsageError
from geomatch.matching.foreign import load_state, read_state
from geomatch.matching.methods import method
from geomatch.matching.side import Side
from geomatch.nets.shapes import VggShape
from geomatch.nets.vgg import PatchVgg

SAR, OPTICAL = pair(similarity(0, 1, (0, 0)))


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "model"])
def test_parameters_are_found_whatever_wraps_them(wrapped: str, tmp_path: Path) -> None:
    state = {"matcher.weight": torch.ones(2), "bias": torch.zeros(1)}
    torch.save(state if wrapped == "plain" else {wrapped: state}, tmp_path / "w.pth")
    assert sorted(read_state(tmp_path / "w.pth")) == ["bias", "weight"]


@pytest.mark.parametrize("content", [b"no weights", b""])
def test_file_of_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"w\.pth: cannot be read as weights"):
        read_state(file)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="weights of another network"):
        load_state(PatchVgg(VggShape(64, 2, planes=1, hidden=4, classes=2)), tmp_path / "w.pth")
    for name in ("loftr", "lightglue", "vgg16-pso-sift"):
        with pytest.raises(InputError, match="weights of another network"):
            method(f"{name}={tmp_path / 'w.pth'}")


def test_methods_that_need_weights_say_so() -> None:
    with pytest.raises(UsageError, match=r"loftr needs weights .* loftr=FILE"):
        method("loftr")
    with pytest.raises(UsageError, match=r"unknown method 'sift=a\.pth'"):
        method("sift=a.pth")


@pytest.mark.parametrize("name", ["loftr", "lightglue"])
def test_networks_of_kornia_run(name: str, tmp_path: Path) -> None:
    """Random weights match little, but what they match lies in the images and is sorted."""
    feature = pytest.importorskip("kornia.feature")
    torch.manual_seed(0)
    nets = {
        "loftr": lambda: feature.LoFTR(pretrained=None),
        "lightglue": lambda: feature.LightGlue(features=None, input_dim=128, add_scale_ori=True, weights=None),
    }
    torch.save(nets[name]().state_dict(), tmp_path / "w.pth")
    matcher = method(f"{name}={tmp_path / 'w.pth'}")
    small = [Side(side.image[:96, :96], side.valid[:96, :96], side.modality) for side in (SAR, OPTICAL)]
    found = matcher(*small)
    assert bool(found.reason) == (len(found) == 0)
    assert (np.diff(found.scores) <= 0).all()
    tiny = Side(SAR.image[:20, :20], SAR.valid[:20, :20], "sar")
    assert matcher(tiny, OPTICAL).reason
