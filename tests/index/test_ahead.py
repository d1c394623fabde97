"""Stages that work ahead: in order, one item at most, errors where they are waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from geomatch.index.ahead import ahead


def test_results_come_in_order_and_from_one_other_thread() -> None:
    threads = set()

    def make(item: int) -> int:
        threads.add(threading.get_ident())
        return item * item

    assert list(ahead(make, range(50))) == [item * item for item in range(50)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_next_is_made_while_the_last_is_used() -> None:
    second = threading.Event()

    def make(item: int) -> int:
        if item == 1:
            second.set()
        return item

    results = ahead(make, range(3))
    assert next(results) == 0
    assert second.wait(timeout=30)


def test_no_more_than_one_is_drawn_ahead() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            drawn.append(item)
            yield item

    results = ahead(lambda item: item, ahead(lambda item: item, items()))
    for used in range(10):
        assert next(results) == used
        assert len(drawn) <= used + 3


def test_error_is_raised_where_its_result_is_taken() -> None:
    def make(item: int) -> int:
        return 10 // item

    results = ahead(make, [5, 0, 1])
    assert next(results) == 2
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_one_who_leaves_early_leaves_no_thread() -> None:
    before = threading.active_count()
    results = ahead(lambda item: item, range(1000))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_closed_stages_have_no_thread_at_work() -> None:
    """Nor do those before them: what they read may be closed next."""
    at_work: set[int] = set()

    def make(item: int) -> int:
        at_work.add(threading.get_ident())
        time.sleep(0.05)
        at_work.discard(threading.get_ident())
        return item

    first = ahead(make, range(100))
    results = ahead(make, first)
    assert next(results) == 0
    results.close()
    assert not at_work
    with pytest.raises(StopIteration):
        next(first)


def test_thread_that_its_pool_does_not_know_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during the start of a thread comes out of ``submit``, and the pool forgets it."""
    begun, at_work = threading.Event(), threading.Event()

    def make(item: int) -> int:
        at_work.set()
        begun.set()
        time.sleep(0.3)
        at_work.clear()
        return item

    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        assert begun.wait(timeout=30)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(ahead(make, range(3)))
    assert not at_work.is_set()
