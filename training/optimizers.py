"""The optimisers of small networks: AdamW with a cosine, or the plain ones that papers name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass
class SmallOptimizerConfig:
    """What moves the weights.

    Attributes:
        method: "adamw", "adam" or "sgd".
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


def make_optimizer(config: SmallOptimizerConfig, parameters: Iterable[nn.Parameter], total_steps: int) -> Any:
    """What lightning asks of ``configure_optimizers``."""
    trained = list(parameters)
    optimizer: torch.optim.Optimizer
    if config.method == "sgd":
        decay = config.weight_decay
        optimizer = torch.optim.SGD(trained, lr=config.lr, momentum=config.momentum, weight_decay=decay)
    else:
        kind = torch.optim.AdamW if config.method == "adamw" else torch.optim.Adam
        optimizer = kind(trained, lr=config.lr, weight_decay=config.weight_decay)

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
        if not config.cosine:
            return warm
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total_steps))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
