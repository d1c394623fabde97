"""The network against its contract: shapes, reach, lengths, and what the modalities share."""

from __future__ import annotations

import pytest
import torch

from geomatch.nets.encoder import EncoderNet
from geomatch.nets.shapes import MODALITIES, EncoderShape, Modality

SMALL = EncoderShape(channels=5, stem=4, width=6, blocks=2)


@pytest.fixture
def net() -> EncoderNet:
    torch.manual_seed(0)
    return EncoderNet(SMALL).eval()


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(("height", "width"), [(32, 48), (26, 26), (7, 5)])
def test_features_are_at_half_the_resolution_and_shorter_than_one(
    net: EncoderNet, modality: Modality, height: int, width: int
) -> None:
    features = net(torch.randn(2, SMALL.planes(modality), height, width), modality)
    assert features.shape == (2, 5, -(-height // 2), -(-width // 2))
    assert features.square().sum(dim=1).max() < 1


@pytest.mark.parametrize("modality", MODALITIES)
def test_reach_is_what_the_shape_says(net: EncoderNet, modality: Modality) -> None:
    """The gradient of one cell is zero beyond the reach, and is not just within it."""
    planes = torch.randn(1, SMALL.planes(modality), 96, 96, requires_grad=True)
    net(planes, modality)[0, :, 24, 24].sum().backward()
    assert planes.grad is not None
    touched = planes.grad[0].abs().sum(dim=0).nonzero()
    reach_px = 4 * max(48 - int(touched.min()), int(touched.max()) - 49)
    assert SMALL.reach_px - 8 <= reach_px <= SMALL.reach_px


def test_modalities_share_the_trunk_but_not_its_norms(net: EncoderNet) -> None:
    block = net.trunk[0]
    assert set(block.norm1.norms) == set(MODALITIES)
    own = {name for name, _ in net.named_parameters() if name.startswith("stems.")}
    assert any("optical" in name for name in own)
    assert any("sar" in name for name in own)
    shared = EncoderNet(EncoderShape(channels=5, stem=4, width=6, blocks=2, shared_norm=True))
    assert set(shared.trunk[0].norm1.norms) == {"both"}


def test_the_other_branch_is_not_touched(net: EncoderNet) -> None:
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(torch.randn(2, SMALL.sar_planes, 16, 16), "sar")
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("optical" not in name for name in changed)
