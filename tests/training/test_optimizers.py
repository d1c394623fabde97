"""Optimisers by their names, and how their learning rate runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from geomatch.errors import UsageError
from geomatch.training.local.descriptor import load_descriptor_config
from geomatch.training.optimizers import SmallOptimizerConfig, make_optimizer

KINDS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@pytest.mark.parametrize("method", KINDS)
def test_names_make_what_they_say(method: str) -> None:
    made = make_optimizer(SmallOptimizerConfig(method, lr=0.5, weight_decay=0.25), [nn.Parameter(torch.ones(1))], 10)
    assert type(made["optimizer"]) is KINDS[method]
    assert made["optimizer"].defaults["weight_decay"] == 0.25
    assert made["optimizer"].defaults["lr"] == 0.5


def test_unknown_name_is_told_before_any_training() -> None:
    file = Path(__file__).parents[2] / "configs" / "descriptor" / "ltformer.yaml"
    with pytest.raises(UsageError, match=r"unknown method 'foo'.*adamw, adam, sgd"):
        load_descriptor_config(file, ["optimizer.method=foo"])


def test_rate_rises_and_then_falls_as_a_cosine_or_stays() -> None:
    for cosine, last in ((True, 0.0), (False, 1.0)):
        config = SmallOptimizerConfig("sgd", lr=1.0, warmup_steps=4, cosine=cosine)
        factor = make_optimizer(config, [nn.Parameter(torch.ones(1))], 100)["lr_scheduler"]["scheduler"].lr_lambdas[0]
        assert factor(0) == pytest.approx(0.25)
        assert factor(3) == pytest.approx(1.0, abs=0.01)
        assert factor(100) == pytest.approx(last, abs=1e-9)
