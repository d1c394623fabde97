"""Alignment: what draws the two modalities' vectors together as sets, beside the loss that draws pairs together.

Each method takes the vectors of a batch, [T x D] of both modalities, and gives what is added to the loss. Gradients
reach both branches. ``METHODS`` is the table of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ot
import torch
from torch import Tensor, nn
from torch.nn import functional

from geomatch.nets.critic import Critic

from .config import AlignmentConfig, one_of

_TINY = 1e-9


class Wasserstein(nn.Module):
    """A critic that is trained beside the encoder (Shen et al. 2018, WDGRL, AAAI), and the distance that it finds.

    It looks at the pairs whose two vectors are farthest apart. Its slope is bounded by clipping (Arjovsky et al. 2017,
    "Wasserstein GAN", ICML) or by a penalty on its gradient between the two sets (Gulrajani et al. 2017, "Improved
    training of Wasserstein GANs", NeurIPS). Its Adam stays with it, in its ``state_dict``, so that a run
    can be resumed.
    """

    def __init__(self, config: AlignmentConfig, dimensions: int, *, penalised: bool) -> None:
        super().__init__()
        self._config, self._penalised = config, penalised
        self.critic = Critic(dimensions, config.hidden).requires_grad_(False)  # not the encoder's optimiser's
        self._optimizer: torch.optim.Adam | None = None
        self._kept: dict[str, Any] = {}

    def forward(self, optical: Tensor, sar: Tensor) -> Tensor:
        """[T x D] and [T x D] -> the weighted distance; trains the critic first, in training."""
        optical, sar = self._hardest(optical, sar)
        if self.training:
            with torch.enable_grad(), self._critic_learns():
                for _ in range(self._config.steps):
                    self._step(optical.detach(), sar.detach())
        return self._config.weight * self.distance(optical, sar)

    def distance(self, optical: Tensor, sar: Tensor) -> Tensor:
        """Difference of the critic's means."""
        found: Tensor = self.critic(optical).mean() - self.critic(sar).mean()
        return found

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser's, for checkpoints."""
        return self._kept if self._optimizer is None else self._optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Kept until the first step: only then it is known where the critic runs."""
        self._kept, self._optimizer = state, None

    def _hardest(self, optical: Tensor, sar: Tensor) -> tuple[Tensor, Tensor]:
        count = max(1, round(self._config.hardest * len(optical)))
        chosen = (optical - sar).detach().square().sum(dim=1).topk(count).indices
        return optical[chosen], sar[chosen]

    @contextmanager
    def _critic_learns(self) -> Iterator[None]:
        self.critic.requires_grad_(True)
        try:
            yield
        finally:
            self.critic.requires_grad_(False)

    def _step(self, optical: Tensor, sar: Tensor) -> None:
        if self._optimizer is None:
            self._optimizer = torch.optim.Adam(self.critic.parameters(), lr=self._config.lr)
            if self._kept:
                self._optimizer.load_state_dict(self._kept)
        loss = -self.distance(optical, sar)
        if self._penalised:
            loss = loss + self._config.penalty * self._excess(optical, sar)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # missing in torch's own hints
        self._optimizer.step()
        if not self._penalised:
            with torch.no_grad():
                for parameter in self.critic.parameters():
                    parameter.clamp_(-self._config.clip, self._config.clip)

    def _excess(self, optical: Tensor, sar: Tensor) -> Tensor:
        """How far the gradient is from length one, between the two sets."""
        share = torch.rand(len(optical), 1, device=optical.device)
        between = (share * optical + (1 - share) * sar).requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        excess: Tensor = (gradient.norm(dim=1) - 1).square().mean()
        return excess


class _Reversed(torch.autograd.Function):
    """Identity whose gradient is turned round and weighed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


def reverse_gradient(x: Tensor, weight: float) -> Tensor:
    """``x`` itself; backwards, its gradient times ``-weight``."""
    reversed_: Tensor = _Reversed.apply(x, weight)  # type: ignore[no-untyped-call]
    return reversed_


class ClassAdversarial(nn.Module):
    """A classifier that tells the modalities apart, behind a gradient reversal (Ganin et al. 2016, DANN, JMLR 17).

    The classifier learns by the encoder's own optimiser; the weight is that of the gradient which reaches the encoder.
    """

    def __init__(self, config: AlignmentConfig, dimensions: int) -> None:
        super().__init__()
        self._weight = config.weight
        self.classifier = Critic(dimensions, config.hidden)

    def forward(self, optical: Tensor, sar: Tensor) -> Tensor:
        """[T x D] and [T x D] -> cross-entropy of the classifier."""
        logits = self.classifier(reverse_gradient(torch.cat([optical, sar]), self._weight))
        labels = torch.cat([logits.new_ones(len(optical)), logits.new_zeros(len(sar))])
        return functional.binary_cross_entropy_with_logits(logits, labels)


class Discrepancy(nn.Module):
    """A distance of two sets that needs no training, weighed."""

    def __init__(self, distance: Callable[[Tensor, Tensor], Tensor], weight: float) -> None:
        super().__init__()
        self._distance, self._weight = distance, weight

    def forward(self, optical: Tensor, sar: Tensor) -> Tensor:
        """[T x D] and [T x D] -> the weighted distance."""
        return self._weight * self._distance(optical, sar)


def sliced(optical: Tensor, sar: Tensor, projections: int = 50) -> Tensor:
    """Sliced Wasserstein-2 distance on random directions (Bonneel et al. 2015, JMIV 51), by POT."""
    directions = torch.randn(optical.shape[1], projections, device=optical.device)  # of the run's own generator
    directions = directions / directions.norm(dim=0)
    found: Tensor = ot.sliced_wasserstein_distance(optical, sar, projections=directions)
    return found


def sinkhorn(optical: Tensor, sar: Tensor, regularisation: float = 0.1) -> Tensor:
    """Debiased Sinkhorn divergence of squared distances (Genevay et al. 2018, AISTATS; Feydy et al. 2019), by POT."""
    found: Tensor = ot.bregman.empirical_sinkhorn_divergence(
        optical, sar, reg=regularisation, method="sinkhorn_log", numIterMax=100, stopThr=1e-4, warn=False
    )
    return found


def mmd(optical: Tensor, sar: Tensor) -> Tensor:
    """Squared maximum mean discrepancy, biased estimate (Gretton et al. 2012, JMLR 13, eq. 5).

    The kernel is Gaussian, its bandwidth the median distance of the vectors of both sets.
    """
    both = torch.cat([optical, sar])
    squares = both.square().sum(dim=1)
    distances = (squares[:, None] + squares - 2 * both @ both.T).clamp_min(0)
    apart = ~torch.eye(len(both), dtype=torch.bool, device=both.device)
    kernel = torch.exp(-distances / (2 * distances.detach()[apart].median()).clamp_min(_TINY))
    count = len(optical)
    return kernel[:count, :count].mean() + kernel[count:, count:].mean() - 2 * kernel[:count, count:].mean()


METHODS: dict[str, Callable[[AlignmentConfig, int], nn.Module]] = {
    "critic": lambda config, dimensions: Wasserstein(config, dimensions, penalised=False),
    "critic-gp": lambda config, dimensions: Wasserstein(config, dimensions, penalised=True),
    "class-adversarial": ClassAdversarial,
    "sliced": lambda config, _: Discrepancy(lambda o, s: sliced(o, s, config.projections), config.weight),
    "sinkhorn": lambda config, _: Discrepancy(lambda o, s: sinkhorn(o, s, config.regularisation), config.weight),
    "mmd": lambda config, _: Discrepancy(mmd, config.weight),
}


def make_alignment(config: AlignmentConfig, dimensions: int) -> nn.Module | None:
    """The alignment that a configuration names, for vectors of so many components; None for ``none``.

    Raises:
        UsageError: there is none of that name.
    """
    one_of(config.method, ("none", *METHODS), "alignment.method")
    return None if config.method == "none" else METHODS[config.method](config, dimensions)
