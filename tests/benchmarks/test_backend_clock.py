"""The clock of benchmarks/backends.py."""

from __future__ import annotations

import time

import pytest
from backends import Clock


def test_a_stage_within_another_one_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "process_time", lambda: now)
    clock = Clock()
    inner = clock.timing("inner", work)

    def outer() -> str:
        work(1)
        inner(2)
        inner(4)
        work(8)
        return "done"

    assert clock.timing("outer", outer)() == "done"
    assert clock.seconds == {"inner": 6, "outer": 9}
