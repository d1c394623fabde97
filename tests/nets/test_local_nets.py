"""Networks of local features: shapes, sizes that the papers print, and a deformable convolution against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, interpolate, softplus

from geomatch.nets.deform import DeformableConv, deformed
from geomatch.nets.hardnet import HardNet
from geomatch.nets.keypoint_detector import KeypointNet, Layer, peakiness, standard, summits
from geomatch.nets.ltformer import LTFormer, ReducedAttention
from geomatch.nets.r2d2 import R2D2
from geomatch.nets.shapes import HardNetShape, KeypointShape, LTFormerShape, R2D2Shape


@pytest.mark.parametrize(("vector", "patch_px"), [(128, 128), (64, 64), (256, 64)])
def test_ltformer_gives_vectors_of_length_one(vector: int, patch_px: int) -> None:
    net = LTFormer(LTFormerShape(vector=vector)).eval()
    with torch.inference_mode():
        made = net(torch.randn(3, 1, patch_px, patch_px))
    assert made.shape == (3, vector)
    torch.testing.assert_close(made.norm(dim=1), torch.ones(3))


def test_ltformer_has_the_parameters_that_the_paper_counts() -> None:
    count = sum(values.numel() for values in LTFormer(LTFormerShape()).parameters())
    assert round(count / 1e6, 2) == 0.77
    printed = LTFormer(LTFormerShape(expansions=(8, 8, 4, 8)))
    assert sum(values.numel() for values in printed.parameters()) > count


def test_ltformer_is_built_as_the_paper_prints_it() -> None:
    net = LTFormer(LTFormerShape(expansions=(8, 8, 4, 8))).eval()
    seen: list[tuple[int, ...]] = []
    for stage in net.stages:
        stage.register_forward_hook(lambda stage, given, made: seen.append(tuple(made.shape[1:])))
    with torch.inference_mode():
        net(torch.randn(1, 1, 128, 128))
    assert seen == [(16, 32, 32), (32, 16, 16), (64, 8, 8), (128, 4, 4)]
    printed = zip((7, 3, 3, 3), (4, 2, 2, 2), (1, 2, 4, 8), (8, 4, 2, 1), (8, 8, 4, 8), strict=True)
    for stage, (kernel, stride, heads, reduction, expansion) in zip(net.stages, printed, strict=True):
        project = stage.embed.project  # type: ignore[union-attr]
        assert (project.kernel_size, project.stride) == ((kernel, kernel), (stride, stride))  # type: ignore[union-attr]
        assert len(stage.blocks) == 2  # type: ignore[arg-type]
        for block in stage.blocks:  # type: ignore[union-attr]
            assert block.attention.heads == heads
            assert (
                block.attention.reduce is None if reduction == 1 else block.attention.reduce.stride == (reduction,) * 2
            )
            depthwise = block.mlp.depthwise
            assert depthwise.kernel_size == (3, 3)
            assert depthwise.in_channels == depthwise.groups == expansion * project.out_channels  # type: ignore[union-attr,operator]


def test_attention_is_that_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    layer = ReducedAttention(6, heads=2, reduction=2).eval()
    tokens = torch.randn(1, 12, 6)  # of an image of 3 rows and 4 columns, of whose rows the last is left out
    with torch.inference_mode():
        found = layer(tokens, 4)[0]
        planes = tokens[0].T.reshape(6, 3, 4)
        assert layer.reduce is not None
        assert layer.norm is not None
        fewer = [
            layer.norm(
                layer.reduce.bias + torch.einsum("oiyx,iyx->o", layer.reduce.weight, planes[:, :2, col : col + 2])
            )
            for col in (0, 2)
        ]
        for number, token in enumerate(tokens[0]):
            query, mixed = layer.query(token), []
            for head in range(2):
                part = slice(3 * head, 3 * head + 3)
                both = [layer.key_value(seen)[6 * head : 6 * head + 6].chunk(2) for seen in fewer]
                weights = torch.stack([query[part] @ key / 3**0.5 for key, _ in both]).softmax(dim=0)
                mixed.append(sum(weight * value for weight, (_, value) in zip(weights, both, strict=True)))
            torch.testing.assert_close(found[number], layer.merge(torch.cat(mixed)))  # type: ignore[arg-type]


def test_hardnet_is_the_published_size() -> None:
    net = HardNet(HardNetShape()).eval()
    assert sum(values.numel() for values in net.parameters()) == 1_334_560
    assert net(torch.randn(2, 1, 32, 32)).shape == (2, 128)
    assert HardNet(HardNetShape(patch_px=64, width=8)).eval()(torch.randn(2, 1, 64, 64)).shape == (2, 128)


def at(image: np.ndarray, channel: int, y: float, x: float) -> float:  # type: ignore[type-arg]
    """Bilinear, zero beyond the edge."""
    total = 0.0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for col in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < image.shape[1] and 0 <= col < image.shape[2]:
                total += image[channel, row, col] * (1 - abs(y - row)) * (1 - abs(x - col))
    return total


def test_deformed_convolution_is_that_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    image, weight = torch.randn(1, 2, 5, 6), torch.randn(3, 2, 3, 3)
    offsets = 1.5 * torch.randn(1, 18, 5, 6)
    found = deformed(image, offsets, weight)[0].numpy()
    pixels, moves = image[0].numpy(), offsets[0].numpy()
    for out in range(3):
        for row in range(5):
            for col in range(6):
                total = 0.0
                for tap in range(9):
                    y = row + tap // 3 - 1 + moves[2 * tap + 1, row, col]
                    x = col + tap % 3 - 1 + moves[2 * tap, row, col]
                    taps = weight[out, :, tap // 3, tap % 3]
                    total += sum(float(taps[c]) * at(pixels, c, y, x) for c in range(2))
                assert found[out, row, col] == pytest.approx(total, abs=1e-4)


def test_deformable_layer_begins_as_a_plain_convolution() -> None:
    layer, image = DeformableConv(2, 4), torch.randn(2, 2, 8, 9)
    torch.testing.assert_close(layer(image), conv2d(image, layer.weight, padding=1), atol=1e-5, rtol=1e-4)


def test_deformable_layer_reads_where_it_says_in_mixed_precision() -> None:
    layer, image = DeformableConv(2, 4), torch.randn(1, 2, 60, 60)
    with torch.no_grad():
        layer.offset.bias.fill_(0.1)
        expected = layer(image)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(layer(image), expected)
    half = layer.to(torch.bfloat16)(image.to(torch.bfloat16))
    torch.testing.assert_close(half, expected, atol=0.1, rtol=0.05)


def test_peakiness_is_the_product_of_both_softplus_at_its_greatest() -> None:
    features = torch.zeros(1, 2, 5, 5)
    features[0, 1, 2, 2] = 3.0
    score = peakiness(features)[0, 0]
    zero = float(softplus(torch.tensor(0.0)))
    expected = float(softplus(torch.tensor(3.0 - 3.0 / 9)) * softplus(torch.tensor(1.5)))
    assert float(score[2, 2]) == pytest.approx(expected)
    assert float(score[0, 0]) == pytest.approx(zero * zero)


def test_detector_is_built_as_the_paper_prints_it() -> None:
    net = KeypointNet(KeypointShape()).eval()
    layers = [part[0] for part in net.modules() if isinstance(part, Layer)]
    assert [layer.weight.shape[0] for layer in layers] == [32, 64, 64, 64, 128, 128, 128, 128, 128]  # type: ignore[union-attr]
    assert [isinstance(layer, DeformableConv) for layer in layers] == [False] * 6 + [True] * 3
    image = standard(torch.randn(1, 1, 24, 32))
    with torch.inference_mode():
        score, _ = net(image, "sar")
        near = net.first["optical"](image)
        middle = net.second(near)
        maps = [peakiness(features) for features in (near, middle, net.third(middle))]
    assert [tuple(one.shape[2:]) for one in maps] == [(24, 32), (12, 16), (6, 8)]
    enlarged = [interpolate(one, (24, 32), mode="bilinear") for one in maps]
    torch.testing.assert_close(score, 0.1 * enlarged[0] + 0.3 * enlarged[1] + 0.6 * enlarged[2])


@pytest.mark.parametrize("shape", [KeypointShape(4), KeypointShape(4, (1.0, 0.0, 0.0), deformable=False)])
def test_detector_scores_every_pixel(shape: KeypointShape) -> None:
    peaks, rank = KeypointNet(shape).eval()(standard(torch.randn(2, 1, 40, 52)), "sar")
    assert torch.equal(peaks, rank)
    assert peaks.shape == (2, 1, 40, 52)
    assert (peaks > 0).all()


def test_detector_ranks_by_region() -> None:
    """Against a plain mean: a Gaussian of some pixels says of a flat score what the score is, and smooths any other."""
    torch.manual_seed(0)
    image = standard(torch.randn(1, 1, 48, 48))
    net = KeypointNet(KeypointShape(4, own_stems=True)).eval()
    plain, _ = net(image, "optical")
    other, _ = net(image, "sar")
    assert not torch.allclose(plain, other)  # stems of their own
    regional = KeypointNet(KeypointShape(4, own_stems=True, region_px=4.0)).eval()
    regional.load_state_dict(net.state_dict())
    peaks, rank = regional(image, "optical")
    assert not torch.allclose(peaks, rank)
    at = np.exp(-np.square(np.arange(-12, 13)) / 32)
    kernel = np.outer(at, at) / at.sum() ** 2
    middle = float((plain[0, 0, 12:37, 12:37].detach().numpy() * kernel).sum())
    assert float(rank[0, 0, 24, 24].detach()) == pytest.approx(middle, rel=1e-4)


def test_summits_are_local_maxima_away_from_the_edge_the_highest_first() -> None:
    score = torch.zeros(40, 50)
    score[20, 30], score[22, 31], score[10, 12], score[2, 25] = 3.0, 2.0, 5.0, 9.0
    assert summits(score, score, 2).tolist() == [[12, 10], [30, 20]]
    rank = score.clone()
    rank[20, 30] = 6.0
    assert summits(score, rank, 1).tolist() == [[30, 20]]
    assert summits(score, score, 1).tolist() == [[12, 10]]


@pytest.mark.parametrize(
    ("released", "expected"), [(True, ["CBR"] * 6 + ["CB", "CB", "C"]), (False, ["CBR"] * 8 + ["CB"])]
)
def test_r2d2_has_the_layers_of_the_released_trunk_where_asked_for(released: bool, expected: list[str]) -> None:
    """C convolution, B batch norm, R ReLU; the authors' default has neither ReLU after 2 x 2 nor a last batch norm."""
    letters = {"Conv2d": "C", "BatchNorm2d": "B", "ReLU": "R", "ZeroPad2d": ""}
    net = R2D2(R2D2Shape(4, released)).eval()
    assert ["".join(letters[type(part).__name__] for part in layer) for layer in net.trunk] == expected
    convolutions = [layer[1] for layer in net.trunk]
    assert [one.dilation[0] for one in convolutions] == [1, 1, 1, 2, 2, 4, 4, 8, 16]
    assert [one.kernel_size[0] for one in convolutions] == [3] * 6 + [2] * 3
    found = net(torch.randn(1, 1, 24, 30))
    assert found.vectors.shape == (1, 16, 24, 30)
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(1, 24, 30))
    assert R2D2Shape() == R2D2Shape(32, released=False)  # as the shipped weights have it
