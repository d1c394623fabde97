"""Rows of the tables of local features are configurations that can be compared."""

from __future__ import annotations

from typing import Any

import local_features
import pytest
from local_features import DENSE, TABLES, Table

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


@pytest.mark.parametrize("name", ["d2", "r2d2"])
def test_without_self_supervision_as_many_pairs_are_compared(name: str) -> None:
    """A crop with copies gives three pairs of images, one without gives one."""

    def compared(row: str) -> int:
        config = configured(TABLES[name], row)
        pairs = 3 if config.self_supervision else 1
        return int(pairs * config.data.batch * config.data.steps_per_epoch * config.trainer.max_epochs)

    assert list(TABLES[name].rows) == ["0", "0, 3000 steps", "0.2", "0.4", "0.8", "1.2"]
    assert compared("0, 3000 steps") == compared("0.4") == 3 * compared("0")
    for row in ("0", "0, 3000 steps"):
        config = configured(TABLES[name], row)
        assert config.self_supervision == 0
        assert config.validation.every_epochs * 2 == config.trainer.max_epochs
    assert configured(TABLES[name], "0.4").trainer.max_epochs == int(DENSE[0].partition("=")[2])
