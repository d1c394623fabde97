"""Detect-and-describe networks and VGG against plain loops and published sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from geomatch.matching.learned import DetectDescribe
from geomatch.matching.methods import D2_SEES_PX, R2D2_SEES_PX
from geomatch.matching.side import Side
from geomatch.nets.d2net import CELL_PX, D2Net, hard_detection, peak_shift, soft_detection
from geomatch.nets.features import Features, local_peaks
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


def test_d2_cells_see_what_lies_around_their_places() -> None:
    """The field of view by gradients: its middle is where the cell is said to lie."""
    torch.manual_seed(0)
    net = D2Net(D2Shape(2)).eval()
    image = torch.randn(1, 1, 160, 160, requires_grad=True)
    seen = net(image)
    seen.vectors[0, :, 20, 17].sum().backward()
    assert image.grad is not None
    rows, cols = (torch.nonzero(image.grad[0, 0].abs().sum(dim=dim))[:, 0] for dim in (1, 0))
    middle = [(int(at[0]) + int(at[-1]) + 1) / 2 for at in (cols, rows)]
    place, _ = seen.read(torch.tensor([[17, 20]]))
    shift = seen.shift[0, :, 20, 17].double() * CELL_PX
    np.testing.assert_allclose(middle, (place[0] - shift).detach())


@pytest.mark.parametrize(
    ("made", "shape", "sees_px"), [(D2Net, D2Shape(2), D2_SEES_PX), (R2D2, R2D2Shape(2), R2D2_SEES_PX)]
)
def test_feature_depends_on_what_its_matches_are_said_to(made: type[nn.Module], shape: object, sees_px: float) -> None:
    """Of a keypoint between cells the place is read from all cells around."""
    torch.manual_seed(0)
    net = made(shape)
    image = torch.randn(1, 1, 160, 160, requires_grad=True)
    seen = net.eval()(image)
    row, col, around = seen.vectors.shape[2] // 2, seen.vectors.shape[3] // 2, int(seen.shift is not None)
    seen.vectors[0, :, row - around : row + around + 1, col - around : col + around + 1].sum().backward()
    assert image.grad is not None
    rows = torch.nonzero(image.grad[0, 0].abs().sum(dim=1))[:, 0]
    assert int(rows[-1] - rows[0]) + 1 == sees_px


def test_peak_between_cells_is_that_of_a_paraboloid() -> None:
    """Drawn by hand at a turned and stretched one, where a parabola through its neighbours is exact."""
    rows, cols = torch.meshgrid(torch.arange(7.0), torch.arange(9.0), indexing="ij")
    x, y = cols - 4.3, rows - 2.8
    raw = torch.zeros(1, 3, 7, 9)
    raw[0, 1] = 50 - 1.5 * x**2 - 0.8 * y**2 + 0.7 * x * y
    assert peak_shift(raw)[0, :, 3, 4].tolist() == pytest.approx([0.3, -0.2], abs=1e-4)
    assert torch.isinf(peak_shift(-raw)[0, :, 3, 4]).all()


def test_vectors_are_read_between_cells() -> None:
    vectors = torch.zeros(1, 2, 4, 5)
    vectors[0, 0], vectors[0, 1] = 1.0, torch.arange(5.0)
    shift = torch.zeros(1, 2, 4, 5)
    shift[0, :, 1, 2] = torch.tensor([0.25, -0.5])
    none = torch.ones(1, 1, 4, 5)
    places, found = Features(vectors, none, none > 0, 4, first_px=4.0, shift=shift).read(torch.tensor([[2, 1], [0, 3]]))
    assert places.tolist() == [[13.0, 6.0], [4.0, 16.0]]
    np.testing.assert_allclose(found, [np.array([1, 2.25]) / np.hypot(1, 2.25), [1, 0]], atol=1e-6)


def test_d2_follows_a_shift_of_less_than_a_cell() -> None:
    """Blobs moved by hand: the shipped network's places move as far, and not by whole cells."""
    extractor = DetectDescribe.load("d2net1", D2Shape)
    rng = np.random.default_rng(0)
    blobs = rng.uniform(20, 172, (60, 2))
    tones = rng.uniform(-1, 1, 60)
    x, y = np.meshgrid(np.arange(192) + 0.5, np.arange(192) + 0.5)

    def drawn(right: float, down: float) -> Side:
        image = np.zeros((192, 192))
        for (col, row), tone in zip(blobs, tones, strict=True):
            image += tone * np.exp(-((x - col - right) ** 2 + (y - row - down) ** 2) / (2 * 3.0**2))
        return Side(image.astype(np.float32), np.ones((192, 192), bool), "optical")

    here = extractor(drawn(0, 0), 400)
    for move in ((1.0, 0.0), (0.0, 2.0), (1.5, -1.0)):
        there = extractor(drawn(*move), 400)
        off = there.keypoints.xy_px[:, None] - here.keypoints.xy_px[None] - move
        nearest = off[np.arange(len(there)), np.linalg.norm(off, axis=2).argmin(axis=1)]
        near = nearest[np.linalg.norm(nearest, axis=1) < 2]
        assert len(near) > 0.5 * len(there)
        assert np.abs(np.median(near, axis=0)).max() < 0.35, move
