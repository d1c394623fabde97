"""Numbers of a configuration that have to lie somewhere, told of by their names before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce

from geomatch.errors import UsageError

# Of every run that has them.
LEAST: Mapping[str, float] = {
    "data.batch": 1,
    "data.steps_per_epoch": 1,
    "data.workers": 0,
    "trainer.max_epochs": 1,
    "validation.every_epochs": 1,
    "optimizer.lr": 0,
    "optimizer.weight_decay": 0,
    "optimizer.warmup_steps": 0,
    "optimizer.clip": 0,
}


def check_numbers(
    config: object, least: Mapping[str, float], above_zero: Sequence[str] = (), *, within: str = ""
) -> None:
    """Raise a UsageError for the first of some dotted names whose number is too small, or none; others have no limit.

    Args:
        config: dataclasses; of names that it has not, or that are null, nothing is asked.
        least: that a name's number may be.
        above_zero: names whose number has to be above zero.
        within: what stands before the names in the whole configuration, like "data.".
    """
    for name, limit in least.items():
        value = _value(config, name)
        if value is not None and not limit <= value < math.inf:
            raise UsageError(f"{value:g} is not possible", where=f"{within}{name}", hint=f"take {limit:g} or more")
    for name in above_zero:
        value = _value(config, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{value:g} is not possible", where=f"{within}{name}", hint="take more than 0")


def check_range(name: str, value: Sequence[float], example: str) -> None:
    """Raise a UsageError unless two numbers are above zero, the second no less than the first."""
    low, high = value
    if not 0 < low <= high < math.inf:
        raise UsageError(f"no range {low:g} to {high:g}", where=name, hint=f"as {example}")


def _value(config: object, name: str) -> float | None:
    found = reduce(lambda one, part: getattr(one, part, None), name.split("."), config)
    return found if isinstance(found, int | float) else None
