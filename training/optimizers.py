"""The optimisers of small networks: AdamW with a cosine, or the plain ones that papers name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .config import one_of


@dataclass
class SmallOptimizerConfig:
    """What moves the weights.

    Attributes:
        method: "adamw", "adam" or "sgd"; raises UsageError on others.
        lr, weight_decay: of it.
        momentum: of sgd.
        warmup_steps: over which the learning rate rises.
        clip: bound of the gradients' norm; 0 for none.
        cosine: whether it then falls to zero by the run's end, or stays.
    """

    method: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.01
    momentum: float = 0.9
    warmup_steps: int = 20
    clip: float = 0.0
    cosine: bool = True

    def __post_init__(self) -> None:
        one_of(self.method, _MAKERS, "optimizer.method")


def _sgd(config: SmallOptimizerConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def _adam(config: SmallOptimizerConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay)


def _adamw(config: SmallOptimizerConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)


_MAKERS: dict[str, Callable[[SmallOptimizerConfig, list[nn.Parameter]], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "sgd": _sgd,
}


def make_optimizer(config: SmallOptimizerConfig, parameters: Iterable[nn.Parameter], total_steps: int) -> Any:
    """What lightning asks of ``configure_optimizers``."""
    optimizer = _MAKERS[config.method](config, list(parameters))

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
        if not config.cosine:
            return warm
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total_steps))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
