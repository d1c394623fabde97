"""Detect-and-describe networks and VGG against plain loops and published sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from geomatch.nets.d2net import CELL_PX, D2Net, hard_detection, soft_detection
from geomatch.nets.features import local_peaks
from geomatch.nets.r2d2 import R2D2
from geomatch.nets.shapes import D2Shape, R2D2Shape, VggShape
from geomatch.nets.vgg import PatchVgg


def features(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.relu(torch.randn(1, 5, 7, 8))


def test_soft_detection_is_the_papers_formula() -> None:
    """alpha, softmax over 3 x 3 neighbours, times beta, ratio to the greatest channel; the greatest product counts."""
    raw = features()
    values = raw[0].numpy()
    exponential = np.exp(values / values.max())
    framed = np.pad(exponential, ((0, 0), (1, 1), (1, 1)), constant_values=1.0)  # a channel that is 0 beyond the edge
    expected = np.zeros(values.shape[1:])
    for row, col in np.ndindex(*expected.shape):
        products = []
        for channel in range(5):
            alpha = exponential[channel, row, col] / framed[channel, row : row + 3, col : col + 3].sum()
            beta = values[channel, row, col] / max(values[:, row, col].max(), 1e-6)
            products.append(alpha * beta)
        expected[row, col] = max(products)
    np.testing.assert_allclose(soft_detection(raw)[0, 0].numpy(), expected / expected.mean(), rtol=1e-4)


def test_hard_detection_is_a_peak_of_the_strongest_channel() -> None:
    raw = features(1)
    values = raw[0].numpy()
    framed = np.pad(values, ((0, 0), (1, 1), (1, 1)), constant_values=-1.0)
    expected = np.zeros(values.shape[1:], bool)
    for row, col in np.ndindex(*expected.shape):
        channel = int(values[:, row, col].argmax())
        around = framed[channel, row : row + 3, col : col + 3]
        expected[row, col] = 0 < values[channel, row, col] == around.max()
    assert (hard_detection(raw)[0, 0].numpy() == expected).all()


def test_local_peaks_are_the_highest_around() -> None:
    values = torch.zeros(1, 1, 9, 9) - torch.arange(9.0)
    values[0, 0, 4, 6] = 5.0
    assert bool(local_peaks(values, 2)[0, 0, 4, 6])
    assert not bool(local_peaks(values, 2)[0, 0, 4, 5])


@pytest.mark.parametrize(
    ("net", "cell_px", "channels"), [(D2Net(D2Shape(4)), CELL_PX, 32), (R2D2(R2D2Shape(4)), 1, 16)]
)
def test_dense_nets_describe_a_grid(net: nn.Module, cell_px: int, channels: int) -> None:
    with torch.inference_mode():
        seen = net.eval()(torch.randn(2, 1, 32, 48))
    assert seen.cell_px == cell_px
    assert seen.vectors.shape == (2, channels, 32 // cell_px, 48 // cell_px)
    assert seen.score.shape == seen.peaks.shape == seen.rank.shape == (2, 1, 32 // cell_px, 48 // cell_px)
    np.testing.assert_allclose(torch.linalg.norm(seen.vectors, dim=1), 1, atol=1e-4)


def test_r2d2_moves_with_its_image() -> None:
    """Every layer keeps places: where the image is moved, away from the edges, the descriptors are."""
    torch.manual_seed(0)
    net = R2D2(R2D2Shape(4)).eval()
    image = torch.randn(1, 1, 96, 96)
    with torch.inference_mode():
        there, moved = net(image).vectors, net(image.roll((5, -7), dims=(2, 3))).vectors
    torch.testing.assert_close(moved[..., 40:60, 40:60], there[..., 35:55, 47:67], atol=1e-5, rtol=1e-4)


def test_full_vgg_has_the_names_and_the_size_of_vgg16() -> None:
    with torch.device("meta"):
        net = PatchVgg(VggShape())
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert sum(parameter.numel() for parameter in net.parameters()) == 138_357_544
    assert shapes["features.0.weight"] == (64, 3, 3, 3)
    assert shapes["features.28.weight"] == (512, 512, 3, 3)
    assert shapes["classifier.0.weight"] == (4096, 512 * 7 * 7)
    assert shapes["classifier.3.weight"] == (4096, 4096)
    assert shapes["classifier.6.weight"] == (1000, 4096)


def test_vgg_describes_by_both_hidden_layers() -> None:
    torch.manual_seed(0)
    net = PatchVgg(VggShape(64, 2, planes=1, hidden=6, classes=3, norm=True)).eval()
    patches = torch.randn(4, 1, 64, 64)
    with torch.inference_mode():
        vectors, logits = net(patches), net.logits(patches)
        sixth = torch.relu(net.classifier[0](net.features(patches).flatten(1)))
    assert logits.shape == (4, 3)
    np.testing.assert_allclose(torch.linalg.norm(vectors, dim=1), 1, atol=1e-5)
    np.testing.assert_allclose(
        vectors[:, :6] * 2**0.5, sixth / torch.linalg.norm(sixth, dim=1, keepdim=True), atol=1e-5
    )
