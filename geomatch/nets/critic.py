"""The Wasserstein critic: a score whose mean differs most between the two modalities.

Among functions of bounded slope, the largest difference of means is the Wasserstein-1 distance of the two sets
(Arjovsky et al. 2017, "Wasserstein generative adversarial networks", ICML); an encoder that makes it small aligns them
(Shen et al. 2018, "Wasserstein distance guided representation learning for domain adaptation", AAAI). How the slope is
bounded, by clipping or by a gradient penalty, is the training's choice.
"""

from __future__ import annotations

from torch import Tensor, nn

SLOPE = 0.2  # of LeakyReLU below zero


class Critic(nn.Module):
    """A perceptron of two hidden layers; no norms, since a penalty on the gradient asks for independent examples."""

    def __init__(self, inputs: int, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, hidden // 4),
            nn.LeakyReLU(SLOPE),
            nn.Linear(hidden // 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N x inputs] -> [N]."""
        out: Tensor = self.layers(x)[:, 0]
        return out
