"""Weights that a user has, of networks of other projects; random ones here, since none are shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from places import pair, similarity

from geomatch.errors import InputError
from geomatch.matching.foreign import CLASSES, LightGlueMatcher, load_state, read_state
from geomatch.matching.keypoints import Keypoints
from geomatch.matching.learned import PatchDescriptor
from geomatch.matching.methods import method
from geomatch.matching.side import Side
from geomatch.nets.shapes import HardNetShape, VggShape
from geomatch.nets.vgg import PatchVgg

SAR, OPTICAL = pair(similarity(0, 1, (0, 0)))


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "model"])
def test_parameters_are_found_whatever_wraps_them(wrapped: str, tmp_path: Path) -> None:
    state = {"matcher.weight": torch.ones(2), "bias": torch.zeros(1)}
    torch.save(state if wrapped == "plain" else {wrapped: state}, tmp_path / "w.pth")
    assert sorted(read_state(tmp_path / "w.pth")) == ["bias", "weight"]


@pytest.mark.parametrize("content", [b"no weights", b"", b"{}"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file_of_something_else_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"w{suffix}: cannot be read as weights") as caught:
        read_state(file)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("held", [{1: torch.ones(2)}, [torch.ones(2)], {"weight": 1.0}])
def test_pickle_of_something_else_is_refused(held: object, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: holds no parameters"):
        read_state(tmp_path / "w.pth")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="weights of another network"):
        load_state(PatchVgg(VggShape(64, 2, planes=1, hidden=4, classes=2)), tmp_path / "w.pth")
    for name in ("loftr", "lightglue", "vgg16-pso-sift"):
        with pytest.raises(InputError, match="weights of another network"):
            method(f"{name}={tmp_path / 'w.pth'}")


def test_last_layer_of_vgg16_may_be_missing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = PatchVgg(VggShape(64, 2, planes=3, hidden=6, classes=2)).eval()
    patches = torch.randn(3, 1, 64, 64)
    with torch.inference_mode():
        expected = net(patches)
    state = net.state_dict()
    for number, kept in enumerate((state, {name: state[name] for name in state if "classifier.6" not in name})):
        torch.save(kept, tmp_path / f"{number}.pth")
        other = PatchVgg(net.shape)
        del other.classifier[CLASSES]
        load_state(other, tmp_path / f"{number}.pth", unused=f"classifier.{CLASSES}.")
        with torch.inference_mode():
            torch.testing.assert_close(other(patches), expected)


def test_long_descriptions_are_told_of_and_do_not_depend_on_the_batch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    descriptor = PatchDescriptor.load("hardnet1", HardNetShape)
    keypoints = Keypoints.at(np.random.default_rng(0).uniform(40, 200, (9, 2)))
    whole = descriptor(OPTICAL, keypoints).vectors
    monkeypatch.setattr("geomatch.matching.learned.BATCH_PX", 4 * 32 * 32)
    monkeypatch.setattr("geomatch.matching.learned.TOLD_S", -1.0)
    monkeypatch.setattr("geomatch.matching.learned.log.propagate", True)
    with caplog.at_level("WARNING", logger="geomatch"):
        parts = descriptor(OPTICAL, keypoints).vectors
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert "optical image: 8 of 9 patches described" in caplog.messages


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


def test_lightglue_is_told_which_way_keypoints_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an image turned by a quarter it is told the same places, turned, and so are the ways they point."""
    feature = pytest.importorskip("kornia.feature")
    torch.save(
        feature.LightGlue(features=None, input_dim=128, add_scale_ori=True, weights=None).state_dict(), tmp_path / "w"
    )
    matcher = LightGlueMatcher(tmp_path / "w")
    seen: dict[str, dict[str, torch.Tensor]] = {}

    def net(told: dict[str, dict[str, torch.Tensor]]) -> dict[str, list[torch.Tensor]]:
        seen.update(told)
        return {"matches": [torch.zeros(0, 2)], "scores": [torch.zeros(0)]}

    monkeypatch.setattr(matcher, "_net", net)
    turned = Side(np.rot90(OPTICAL.image).copy(), np.rot90(OPTICAL.valid).copy(), "optical")
    matcher(turned, OPTICAL)
    (there, toward), (here, away) = ((one["keypoints"][0].numpy(), one["oris"][0].numpy()) for one in seen.values())
    wide = OPTICAL.image.shape[1] - 1
    expected = np.stack([here[:, 1], wide - here[:, 0]], axis=1)
    same = np.linalg.norm(there[:, None] - expected, axis=2) < 1.5  # OpenCV sets them off by a part of a pixel
    off = np.abs(np.angle(np.exp(1j * (toward[:, None] - away + np.pi / 2))))
    found = (same & (off < np.radians(8))).any(axis=1)
    assert len(there) > 100
    assert found.mean() > 0.8
