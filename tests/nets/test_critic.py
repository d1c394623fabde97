"""The critic against its contract."""

from __future__ import annotations

import torch

from geomatch.nets.critic import SLOPE, Critic


def test_one_score_for_each_vector() -> None:
    assert Critic(7, hidden=8)(torch.randn(5, 7)).shape == (5,)


def test_layers_in_plain_products() -> None:
    torch.manual_seed(0)
    critic, x = Critic(3, hidden=8), torch.randn(4, 3)
    y = x
    weights = dict(critic.named_parameters())
    for i in (0, 2, 4):
        y = y @ weights[f"layers.{i}.weight"].T + weights[f"layers.{i}.bias"]
        y = y if i == 4 else torch.where(y > 0, y, SLOPE * y)
    torch.testing.assert_close(critic(x), y[:, 0])


def test_vectors_are_scored_one_by_one() -> None:
    critic, x = Critic(6), torch.randn(9, 6)
    torch.testing.assert_close(critic(x)[3], critic(x[3:4])[0])
