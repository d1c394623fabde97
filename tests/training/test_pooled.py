"""The vector against the index's own, and the losses on it recomputed in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from geomatch.errors import UsageError
from geomatch.structure import Dense
from geomatch.tiles import tile_vectors
from geomatch.training.config import LossConfig
from geomatch.training.pooled import (
    METHODS,
    CrossBatch,
    Head,
    Vectors,
    batch_hard,
    cut_planes,
    make_pooled_loss,
    pooled,
)

SIZE = 200


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vectors(pair: list[int], at: list[tuple[float, float]], seed: int = 0, dimensions: int = 6) -> Vectors:
    optical, sar = (
        functional.normalize(noise(len(pair), dimensions, seed=s), dim=1).requires_grad_() for s in (seed, seed + 1)
    )
    return Vectors(optical, sar, torch.tensor(pair), torch.tensor(at), SIZE)


APART = vectors([0, 1, 2, 3], [(0.0, 0.0)] * 4)
MIXED = vectors([0, 0, 1, 1, 2], [(0, 0), (50, 20), (10, 10), (210, 10), (3, 4)])


def loss_of(name: str, dimensions: int = 6, **options: float) -> nn.Module:
    made = make_pooled_loss(LossConfig(pooled=name, **options), dimensions)  # type: ignore[arg-type]
    assert made is not None
    return made


def gradients(name: str, given: Vectors) -> tuple[Tensor, Tensor]:
    given.optical.grad = given.sar.grad = None
    loss_of(name)(given).backward()
    assert given.optical.grad is not None
    assert given.sar.grad is not None
    return given.optical.grad, given.sar.grad


# --- the vector ---


@pytest.mark.parametrize("size", [200, 104, 64])
def test_vector_is_that_of_the_index(size: int) -> None:
    features = noise(3, 5, 40, 37)
    at = torch.tensor([[0.0, 0.0], [17.0, 55.0], [96.0, 120.0]])
    found = pooled(features, at, size)
    for one, (col, row), values in zip(found, at.int().tolist(), features.numpy(), strict=True):
        dense = Dense(values, np.ones((40, 37), bool))
        tile = tile_vectors(dense, np.array([col], np.int32), np.array([row], np.int32), size, 8)
        np.testing.assert_allclose(one.numpy(), tile.vectors[0, 0], atol=1e-6)


def test_tile_between_pixels_lies_between_their_vectors() -> None:
    features = noise(1, 2, 30, 30).expand(3, -1, -1, -1)
    left, middle, right = pooled(features, torch.tensor([[4.0, 8.0], [4.5, 8.0], [5.0, 8.0]]), SIZE)
    assert float(left @ middle) > float(left @ right)
    assert float(right @ middle) > float(left @ right)


def test_tile_is_moved_into_the_features() -> None:
    features = noise(2, 2, 26, 30)
    found = pooled(features, torch.tensor([[-9.0, 30.0], [90.0, -1.0]]), SIZE)
    torch.testing.assert_close(found, pooled(features, torch.tensor([[0.0, 8.0], [40.0, 0.0]]), SIZE))


def test_gradient_is_that_of_differences() -> None:
    features, at = noise(1, 1, 9, 9).double().float().requires_grad_(), torch.tensor([[3.0, 5.0]])
    direction = noise(16, seed=3)
    (pooled(features, at, 64) @ direction).sum().backward()
    assert features.grad is not None
    step = torch.zeros_like(features)
    step[0, 0, 4, 4] = 1e-2
    with torch.no_grad():
        change = (pooled(features + step, at, 64) - pooled(features - step, at, 64)) @ direction / 2e-2
    assert float(features.grad[0, 0, 4, 4]) == pytest.approx(float(change), rel=1e-2)


def test_flat_features_have_no_vector_and_no_infinite_gradient() -> None:
    features = torch.ones(1, 2, 26, 26, requires_grad=True)
    found = pooled(features, torch.zeros(1, 2), SIZE)
    found.sum().backward()
    assert float(found.detach().norm()) < 1e-3
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_head_projects_and_keeps_length_one() -> None:
    x = functional.normalize(noise(4, 10), dim=1)
    assert Head(10, 0).outputs == 10
    torch.testing.assert_close(Head(10, 0)(x), x)
    head = Head(10, 3)
    assert head.outputs == 3
    assert isinstance(head.project, nn.Linear)
    torch.testing.assert_close(head(x), functional.normalize(x @ head.project.weight.T, dim=1))


def test_planes_are_cut_where_windows_lie() -> None:
    planes = noise(2, 3, 60, 58)
    at = torch.tensor([[8.0, 4.0], [9.9, 6.1], [-3.0, 400.0]])
    found = cut_planes(planes, torch.tensor([0, 1, 1]), at, SIZE)
    expected = [planes[0, :, 1:51, 2:52], planes[1, :, 2:52, 2:52], planes[1, :, 10:60, 0:50]]
    assert torch.equal(found, torch.stack(expected))


def test_overlap_in_plain_loops() -> None:
    found = MIXED.overlap
    for i in range(5):
        for j in range(5):
            dx, dy = (abs(float(a - b)) for a, b in zip(MIXED.at_px[i], MIXED.at_px[j], strict=True))
            area = max(0, SIZE - dx) * max(0, SIZE - dy) / SIZE**2
            assert float(found[i, j]) == pytest.approx(area if MIXED.pair[i] == MIXED.pair[j] else 0, abs=1e-6)


# --- losses in plain loops ---


@pytest.mark.parametrize("given", [APART, MIXED], ids=["apart", "mixed"])
def test_triplet_in_plain_loops(given: Vectors) -> None:
    terms = []
    for side, anchors, others in ((0, given.sar, given.optical), (1, given.optical, given.sar)):
        for i in range(len(anchors)):
            far = [
                float((anchors[i] - others[j]).norm().detach())
                for j in range(len(others))
                if float(given.overlap[i, j]) == 0
            ]
            terms.append((side, max(0.0, float((anchors[i] - others[i]).norm().detach()) - min(far) + 0.5)))
    expected = sum(value for _, value in terms) / len(terms)
    assert float(loss_of("triplet")(given).detach()) == pytest.approx(expected, rel=1e-4)


def test_hardest_negative_is_the_nearest_that_is_allowed() -> None:
    distances = torch.tensor([[0.1, 0.5, 0.9], [0.3, 0.0, 0.2], [1.0, 2.0, 3.0]])
    allowed = torch.tensor([[False, False, True], [True, False, True], [False] * 3])
    anchors, nearest = batch_hard(distances, allowed)
    assert anchors.tolist() == [0, 1]
    assert nearest.tolist() == [2, 2]


@pytest.mark.parametrize("given", [APART, MIXED], ids=["apart", "mixed"])
def test_infonce_in_plain_loops(given: Vectors) -> None:
    products = (given.sar @ given.optical.T).detach().tolist()
    total, count = 0.0, len(products)
    for i in range(count):
        for line in (products[i], [row[i] for row in products]):
            terms = [
                (1.0 if i == j else 1 - float(given.overlap[i, j])) * math.exp(7 * value)
                for j, value in enumerate(line)
            ]
            total -= math.log(math.exp(7 * products[i][i]) / sum(terms)) / (2 * count)
    assert float(loss_of("infonce", temperature=7.0)(given).detach()) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("given", [APART, MIXED], ids=["apart", "mixed"])
def test_multi_similarity_in_plain_loops(given: Vectors) -> None:
    products = (given.sar @ given.optical.T).detach()
    total, count = 0.0, len(products)
    for matrix in (products, products.T):
        for i in range(count):
            negatives = [math.exp(50 * (float(matrix[i, j]) - 0.5)) for j in range(count) if given.overlap[i, j] == 0]
            total += math.log(1 + math.exp(-2 * (float(matrix[i, i]) - 0.5))) / 2 + math.log(1 + sum(negatives)) / 50
    assert float(loss_of("multi-similarity")(given).detach()) == pytest.approx(total / (2 * count), rel=1e-4)


def test_cross_batch_in_plain_loops() -> None:
    """Windows of earlier batches are negatives; those of the same pair are not."""
    batches = [vectors([0, 0, 1], [(0, 0), (9, 9), (0, 0)], seed=s) for s in (0, 10, 20)]
    loss = loss_of("cross-batch", temperature=5.0, memory=6)
    remembered: dict[str, list[tuple[int, int, Tensor]]] = {"optical": [], "sar": []}
    for number, given in enumerate(batches):
        total = 0.0
        for name, anchors, others in (("optical", given.sar, given.optical), ("sar", given.optical, given.sar)):
            pairs = [10 * number + int(p) for p in given.pair]
            remembered[name] += [(10 * number + i, pairs[i], others[i].detach()) for i in range(3)]
            remembered[name] = remembered[name][-6:]
            for i in range(3):
                here = anchors[i].detach()
                own = math.exp(5 * float(here @ others[i].detach()))
                far = sum(math.exp(5 * float(here @ v)) for _, p, v in remembered[name] if p != pairs[i])
                total -= math.log(own / (own + far)) / 6
        assert float(loss(given).detach()) == pytest.approx(total, rel=1e-4)


def test_cross_batch_memory_is_in_checkpoints() -> None:
    one, other = loss_of("cross-batch", memory=8), loss_of("cross-batch", memory=8)
    assert isinstance(one, CrossBatch)
    one(APART)
    other.load_state_dict(one.state_dict())
    assert float(other(MIXED).detach()) > 0


# --- what all of them keep to ---


@pytest.mark.parametrize("name", METHODS)
def test_both_branches_are_taught(name: str) -> None:
    for gradient in gradients(name, APART):
        assert torch.isfinite(gradient).all()
        assert gradient.any(dim=1).all()


@pytest.mark.parametrize("name", METHODS)
def test_pairs_that_agree_cost_less(name: str) -> None:
    same = Vectors(APART.sar, APART.sar, APART.pair, APART.at_px, SIZE)
    assert float(loss_of(name)(same).detach()) < float(loss_of(name)(APART).detach())


@pytest.mark.parametrize("name", METHODS)
def test_one_pair_alone_has_no_negatives(name: str) -> None:
    given = vectors([0, 0], [(0, 0), (4, 4)])
    for gradient in gradients(name, given):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", METHODS)
def test_overlapping_windows_are_not_pushed_apart(name: str) -> None:
    """What one window is taught depends on where another of its pair is seen little, or not at all."""
    base = functional.normalize(noise(4, 12, seed=4), dim=1)
    base[1] = functional.normalize(base[0] + 0.2 * noise(12, seed=5), dim=0)  # it would be the hardest negative

    def taught(pair: list[int], seen: Tensor) -> Tensor:
        optical, sar = base.clone(), base.roll(1, dims=1).add(base).requires_grad_()
        optical[1] = seen
        at_px = torch.tensor([(0.0, 0.0), (40.0, 0.0), (0.0, 0.0), (0.0, 0.0)])
        given = Vectors(optical, sar, torch.tensor(pair), at_px, SIZE)
        loss_of(name, 12, temperature=1.0)(given).backward()
        assert sar.grad is not None
        return sar.grad[0]

    def influence(pair: list[int]) -> float:
        elsewhere = functional.normalize(base[1] + 0.05 * noise(12, seed=6), dim=0)
        return float((taught(pair, base[1]) - taught(pair, elsewhere)).norm())

    plain, overlapping = influence([0, 1, 2, 3]), influence([0, 0, 2, 3])
    assert plain > 1e-4
    if name == "infonce":
        assert overlapping < 0.5 * plain
    else:
        assert overlapping < 1e-6


def test_window_at_the_same_place_is_no_negative_at_all() -> None:
    """Two windows at one place: the loss is what it is without the other's column."""
    given = vectors([0, 0, 1], [(5, 5), (5, 5), (0, 0)])
    logits = (given.sar @ given.optical.T * 20).detach()
    logits[0, 1] = logits[1, 0] = -math.inf
    own = torch.arange(3)
    expected = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    assert float(loss_of("infonce")(given).detach()) == pytest.approx(float(expected), rel=1e-5)


def test_none_is_none_and_unknown_is_refused() -> None:
    assert make_pooled_loss(LossConfig(), 6) is None
    with pytest.raises(UsageError, match=r"unknown pooled 'triplets'.*none, triplet, infonce, multi-sim.*cross-batch"):
        make_pooled_loss(LossConfig(pooled="triplets"), 6)
