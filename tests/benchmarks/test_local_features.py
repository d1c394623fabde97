"""Rows of the tables of local features are configurations that can be compared."""

from __future__ import annotations

from typing import Any

import local_features
import pytest
from local_features import SHORT, TABLES, Table, bars

TRAINED = {name: table for name, table in TABLES.items() if table.config}


def configured(table: Table, row: str) -> Any:
    assert table.load is not None
    return table.load(local_features.ROOT / "configs" / table.config, [*table.shared, *table.rows[row]])


@pytest.mark.parametrize("name", TRAINED)
def test_every_row_is_a_configuration_of_its_own(name: str) -> None:
    table = TRAINED[name]
    made = [repr(configured(table, row)) for row in table.rows]
    plain = repr(configured(table, next(iter(table.rows))))
    assert len(made) - len(set(made)) <= 1, plain  # the defaults may stand under a second name


@pytest.mark.parametrize(("name", "shipped"), [("d2", "0.4"), ("r2d2", "0.2")])
def test_self_supervision_is_compared_at_as_many_steps_and_at_as_many_comparisons(name: str, shipped: str) -> None:
    """A crop with copies gives three pairs of images, one without gives one."""

    def steps(row: str) -> int:
        config = configured(TABLES[name], row)
        assert bool(config.self_supervision) is (row != "0")
        return int(config.data.batch * config.data.steps_per_epoch * config.trainer.max_epochs)

    weights = ("0.2", "0.4", "0.8", "1.2")
    assert list(TABLES[name].rows) == ["0", *(f"{weight}{SHORT}" for weight in weights), shipped]
    assert steps(shipped) == steps("0")
    for weight in weights:
        short = f"{weight}{SHORT}"
        assert 0.95 * steps("0") <= 3 * steps(short) <= steps("0")
        assert configured(TABLES[name], short).self_supervision == float(weight)


def test_gain_of_self_supervision_is_asked_of_both() -> None:
    told = {"0": {"NCM 1024": 2.0}, "0.4": {"NCM 1024": 5.0}, f"0.4{SHORT}": {"NCM 1024": 1.0}}
    assert [(bar.value, bar.passed) for bar in bars({"d2": told})] == [(2.5, True), (0.5, False)]
    assert bars({"d2": {"0.4": told["0.4"]}}) == []
