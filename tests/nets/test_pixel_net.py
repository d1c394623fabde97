"""The network of the last look against its contract: shapes, lengths, what the modalities share, what it cannot see."""

from __future__ import annotations

import pytest
import torch

from geomatch.nets.pixel_net import PixelNet
from geomatch.nets.shapes import MODALITIES, Modality, PixelShape

SMALL = PixelShape(channels=5, stem=3, width=4, dilations=(1, 2))


@pytest.fixture
def net() -> PixelNet:
    torch.manual_seed(0)
    return PixelNet(SMALL).eval()


@pytest.mark.parametrize("modality", MODALITIES)
def test_features_are_at_half_the_resolution_and_shorter_than_one(net: PixelNet, modality: Modality) -> None:
    features = net(torch.randn(2, 1, 32, 46), modality)
    assert features.shape == (2, 5, 16, 23)
    assert features.square().sum(dim=1).max() < 1


def test_a_cell_sees_no_farther_than_its_convolutions(net: PixelNet) -> None:
    """Of 2 + 1 px of the stem, and of dilations 1 and 2 and two plain convolutions, five cells of 2 px."""
    image = torch.randn(1, 1, 96, 96, requires_grad=True)
    net(image, "sar")[0, :, 24, 24].sum().backward()
    assert image.grad is not None
    touched = image.grad[0, 0].nonzero()
    assert int(touched.min()) == 48 - (2 + 1 + 2 * 5)
    assert int(touched.max()) == 49 + (2 + 1 + 2 * 5)


def test_stems_and_norms_are_each_modalitys_own(net: PixelNet) -> None:
    image = torch.randn(1, 1, 32, 32)
    before = net(image, "sar")
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "optical" in name:
                parameter.add_(1)
    assert torch.equal(net(image, "sar"), before)
