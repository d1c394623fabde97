"""Alignments against distances known beforehand, and the critic's training against what was published."""

from __future__ import annotations

import math
from copy import deepcopy

import ot
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from geomatch.errors import UsageError
from geomatch.training.alignment import (
    METHODS,
    ClassAdversarial,
    Wasserstein,
    make_alignment,
    mmd,
    reverse_gradient,
    sinkhorn,
    sliced,
)
from geomatch.training.config import AlignmentConfig


def points(count: int = 24, dimensions: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def aligned(method: str, dimensions: int = 3, **options: float) -> nn.Module:
    torch.manual_seed(0)
    made = make_alignment(AlignmentConfig(method, **options), dimensions)  # type: ignore[arg-type]
    assert made is not None
    return made.train()


def exact(a: Tensor, b: Tensor) -> float:
    """Wasserstein-1 by linear programming."""
    return float(ot.emd2([], [], ot.dist(a.detach().numpy(), b.detach().numpy(), metric="euclidean")))


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("method", METHODS)
def test_sets_that_lie_apart_come_together_from_both_sides(method: str) -> None:
    alignment = aligned(method, weight=1.0, lr=0.003, steps=10, hidden=32, hardest=1.0)
    optical, sar = nn.Parameter(points(seed=1)), nn.Parameter(points(seed=2) + torch.tensor([1.5, 0, 0]))
    start = (optical.detach().clone(), sar.detach().clone())
    classifier = torch.optim.Adam([*alignment.parameters(), nn.Parameter(torch.zeros(()))], lr=0.01)
    optimizer = torch.optim.SGD([optical, sar], lr=1.0)
    for _ in range(80):
        optimizer.zero_grad()
        classifier.zero_grad()
        backward(alignment(optical, sar))
        optimizer.step()
        if method == "class-adversarial":  # a critic steps by itself
            classifier.step()
    assert exact(optical, sar) < 0.7 * exact(*start)
    gap = (sar.mean(dim=0) - optical.mean(dim=0))[0].detach()
    assert abs(float(gap)) < 0.6 * float((start[1].mean(dim=0) - start[0].mean(dim=0))[0])
    assert float((optical.detach() - start[0]).mean(dim=0)[0]) > 0.1
    assert float((sar.detach() - start[1]).mean(dim=0)[0]) < -0.1


@pytest.mark.parametrize("method", METHODS)
def test_both_branches_have_a_gradient(method: str) -> None:
    optical, sar = points(seed=1).requires_grad_(), (points(seed=2) + 0.5).requires_grad_()
    backward(aligned(method)(optical, sar))
    for tensor in (optical, sar):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.any()


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"class-adversarial"}))
def test_loss_is_as_heavy_as_its_weight(method: str) -> None:
    losses = [float(aligned(method, weight=w)(points(seed=1), points(seed=2)).detach()) for w in (1.0, 0.25)]
    assert losses[1] == pytest.approx(losses[0] / 4, rel=1e-5)


# --- the critic ---


@pytest.mark.parametrize("penalty", [10.0, 100.0])
def test_penalised_critic_finds_the_distance_of_a_shift(penalty: float) -> None:
    """A slope s costs penalty * (s - 1)^2 and brings 2 s: the best is 1 + 1 / penalty."""
    options = {"weight": 1.0, "steps": 400, "lr": 0.003, "hidden": 32, "hardest": 1.0}
    critic, a = aligned("critic-gp", 2, penalty=penalty, **options), points(64, 2)
    found = float(critic(a + torch.tensor([2.0, 0.0]), a).detach())
    assert found == pytest.approx(2 * (1 + 1 / penalty), rel=0.05)


def test_published_setting() -> None:
    critic = aligned("critic")
    assert isinstance(critic, Wasserstein)
    critic(points(), points(seed=1))
    assert all(float(p.abs().max()) <= 0.1 + 1e-6 for p in critic.critic.parameters())
    state = critic.get_extra_state()
    assert {int(value["step"]) for value in state["state"].values()} == {5}
    assert state["param_groups"][0]["lr"] == 0.001
    assert AlignmentConfig().weight == 0.01
    assert AlignmentConfig().hardest == 0.5


def test_critic_steps_widen_the_gap_between_the_means() -> None:
    critic = aligned("critic", hardest=1.0, steps=20)
    assert isinstance(critic, Wasserstein)
    a, b = points(seed=1) + 1, points(seed=2)
    before = float(critic.distance(a, b))
    critic(a, b)
    assert float(critic.distance(a, b)) > before


def test_only_the_hardest_pairs_count() -> None:
    optical = points(10).requires_grad_()
    shifts = torch.arange(10)[:, None] * torch.tensor([[0.3, 0, 0]])
    backward(aligned("critic")(optical, optical.detach() + shifts))
    assert optical.grad is not None
    assert optical.grad.any(dim=1).tolist() == [False] * 5 + [True] * 5


def test_critic_does_not_learn_from_the_encoders_loss_nor_in_evaluation() -> None:
    critic = aligned("critic")
    optical, sar = points().requires_grad_(), points(seed=1)
    assert not [p for p in critic.parameters() if p.requires_grad]
    loss = critic(optical, sar)
    kept = [None if p.grad is None else p.grad.clone() for p in critic.parameters()]
    backward(loss)
    for parameter, gradient in zip(critic.parameters(), kept, strict=True):
        assert not parameter.requires_grad
        assert gradient is not None
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)
    before = [p.clone() for p in critic.parameters()]
    critic.eval()(optical, sar)
    assert all(torch.equal(p, old) for p, old in zip(critic.parameters(), before, strict=True))


@pytest.mark.parametrize("method", ["critic", "critic-gp"])
def test_critic_goes_on_where_it_was_interrupted(method: str) -> None:
    one, a, b = aligned(method), points(seed=1), points(seed=2)
    one(a, b)
    other = make_alignment(AlignmentConfig(method), 3)
    assert other is not None
    kept = deepcopy(one.state_dict())
    other.load_state_dict(kept)
    assert other.state_dict()["_extra_state"] is kept["_extra_state"]  # also before its first step
    for made in (one, other):
        torch.manual_seed(3)
        made(b, a + 1)
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


# --- gradient reversal ---


def test_reversed_gradient() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x, 0.25)
    assert torch.equal(y, x)
    backward((y * torch.tensor([3.0, 8.0])).sum())
    assert x.grad is not None
    assert x.grad.tolist() == [-0.75, -2.0]


def test_classifier_learns_what_the_encoder_unlearns() -> None:
    adversary = aligned("class-adversarial", weight=0.1)
    assert isinstance(adversary, ClassAdversarial)
    optical, sar = points(seed=1).requires_grad_(), points(seed=2).requires_grad_()
    backward(adversary(optical, sar))
    found = [p.grad.clone() for p in adversary.parameters() if p.grad is not None]
    assert optical.grad is not None
    reversed_ = optical.grad.clone()
    adversary.zero_grad()
    optical.grad = None
    classifier = adversary.classifier
    plain = functional.softplus(-classifier(optical)).sum() + functional.softplus(classifier(sar)).sum()
    backward(plain / (len(optical) + len(sar)))
    for gradient, parameter in zip(found, adversary.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
    torch.testing.assert_close(reversed_, -0.1 * optical.grad)


# --- distances without training ---


def test_sliced_distance_on_a_line_is_that_of_sorted_points() -> None:
    a, b = points(30, 1, seed=1), 2 * points(30, 1, seed=2) + 1
    expected = (a[:, 0].sort().values - b[:, 0].sort().values).square().mean().sqrt()
    torch.testing.assert_close(sliced(a, b), expected)


def test_sliced_distance_in_plain_loops_is_decided_by_the_seed() -> None:
    a, b = points(20, 4, seed=1), points(20, 4, seed=2) + 0.3
    torch.manual_seed(5)
    found = sliced(a, b, 7)
    torch.manual_seed(5)
    assert float(sliced(a, b, 7)) == float(found)
    torch.manual_seed(5)
    directions = torch.randn(4, 7)
    total = 0.0
    for direction in (directions / directions.norm(dim=0)).T:
        total += float(((a @ direction).sort().values - (b @ direction).sort().values).square().mean())
    assert float(found) == pytest.approx(math.sqrt(total / 7), rel=1e-4)


def test_sinkhorn_divergence_of_a_shift_is_its_square() -> None:
    a = functional.normalize(points(16, 5), dim=1)
    assert float(sinkhorn(a, a)) == pytest.approx(0, abs=1e-5)
    shift = torch.tensor([0.3, 0, 0, 0, -0.4])
    assert float(sinkhorn(a + shift, a)) == pytest.approx(0.25, rel=0.02)


def test_mmd_in_plain_loops() -> None:
    a, b = points(6, 2, seed=1), points(9, 2, seed=2) + 1
    both = [*a, *b]
    distances = sorted(float((x - y).square().sum()) for i, x in enumerate(both) for y in both[:i])
    median = distances[(len(distances) - 1) // 2]

    def kernel(left: Tensor, right: Tensor) -> float:
        values = [math.exp(-float((x - y).square().sum()) / (2 * median)) for x in left for y in right]
        return sum(values) / len(values)

    assert float(mmd(a, b)) == pytest.approx(kernel(a, a) + kernel(b, b) - 2 * kernel(a, b), rel=1e-4)
    assert float(mmd(a, a)) == pytest.approx(0, abs=1e-6)


def test_none_is_none_and_unknown_is_refused() -> None:
    assert make_alignment(AlignmentConfig(), 3) is None
    with pytest.raises(UsageError, match=r"unknown method 'wgan'.*none, critic, critic-gp, class-adv.*mmd"):
        make_alignment(AlignmentConfig("wgan"), 3)
