"""The global form against its contract: shapes, lengths, pooling, and what the modalities share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geomatch.nets.resnet import Bottleneck, GeM, GlobalNet, Highest
from geomatch.nets.shapes import MODALITIES, GlobalShape, Modality

PLANES: dict[Modality, int] = {"optical": 6, "sar": 4}


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(("layers", "pooling"), [(18, "gem"), (18, "max"), (50, "gem")])
@pytest.mark.parametrize("side", [50, 26])
def test_one_vector_of_length_one(modality: Modality, layers: int, pooling: str, side: int) -> None:
    net = GlobalNet(GlobalShape(width=16, layers=layers, vector=24, pooling=pooling))
    vectors = net(torch.randn(3, PLANES[modality], side, side), modality)
    assert vectors.shape == (3, 24)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_published_size() -> None:
    """Convolutions of the stages of ResNet-18 and ResNet-50, as their paper's table counts them."""
    for layers, expected in ((18, 16), (50, 48)):
        net = GlobalNet(GlobalShape(layers=layers))
        inside = [m for name, m in net.trunk.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]
        assert len(inside) == expected
        outputs = inside[-1].out_channels
        assert outputs == (512 if layers == 18 else 2048)
        assert net(torch.randn(2, 4, 16, 16), "sar").shape == (2, 512)
        assert isinstance(net.head, nn.Identity) == (layers == 18)


def test_last_stage_keeps_its_resolution() -> None:
    net, seen = GlobalNet(GlobalShape(width=16)), []
    for block in net.trunk:
        block.register_forward_hook(lambda *args: seen.append(tuple(args[2].shape[1:])))
    net(torch.randn(2, 6, 50, 50), "optical")
    assert seen[1::2] == [(16, 50, 50), (32, 25, 25), (64, 13, 13), (128, 13, 13)]


def test_gem_lies_between_mean_and_maximum() -> None:
    x = torch.rand(2, 5, 4, 7) + 0.1
    torch.testing.assert_close(GeM(1.0)(x), x.mean(dim=(2, 3)))
    torch.testing.assert_close(GeM(60.0)(x), Highest()(x), rtol=0.06, atol=0)
    torch.testing.assert_close(Highest()(x)[1, 2], max(x[1, 2].flatten()))
    by_hand = (sum(float(v) ** 3 for v in x[0, 0].flatten()) / 28) ** (1 / 3)
    assert float(GeM()(x)[0, 0].detach()) == pytest.approx(by_hand, rel=1e-5)


def test_gradient_of_what_is_zero_is_finite() -> None:
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    GeM()(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_bottleneck_keeps_its_contract() -> None:
    block = Bottleneck(8, 16, stride=2)
    assert block(torch.randn(2, 8, 7, 10), "sar").shape == (2, 16, 4, 5)


def test_modalities_share_convolutions_and_nothing_of_the_other_is_touched() -> None:
    net = GlobalNet(GlobalShape(width=16)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(torch.randn(2, 4, 16, 16), "sar").sum().backward()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("optical" not in name for name in changed)
    taught = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert not [name for name in taught if "optical" in name]
    assert "trunk.0.conv1.weight" in taught
    shared = GlobalNet(GlobalShape(width=16, shared_norm=True))
    assert all("optical" not in name for name, _ in shared.trunk.named_parameters())
