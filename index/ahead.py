"""A stage of a pipeline: what is needed next is made while what was made last is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Event, Lock
from typing import TypeVar

from geomatch.threads import one_thread

A = TypeVar("A")
B = TypeVar("B")


def ahead(make: Callable[[A], B], items: Iterable[A]) -> Generator[B, None, None]:
    """``map``, but in a thread of its own and one item ahead of whoever takes the results.

    Stages may follow each other: each holds at most the result that is waited for and the one that is being made, so
    memory does not grow with the number of items. Once it is closed no thread of it or of the stages before it runs, so
    whoever closes what they read, such as a raster, closes them first: ``contextlib.closing``.

    Args:
        make: runs in one thread, so that it may use what is not safe to share, such as a GDAL dataset.
        items: are drawn in the caller's thread.
    """

    busy, over = Lock(), Event()

    def alone(item: A) -> B:
        with busy, one_thread():  # OpenMP counts per calling thread
            if over.is_set():
                raise CancelledError
            return make(item)

    pool = ThreadPoolExecutor(1)
    waiting: deque[Future[B]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(alone, item))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        with busy:  # the pool does not know of a thread during whose start Ctrl-C came
            over.set()
        if isinstance(items, Generator):  # a stage before this one, which an error's traceback would keep alive
            items.close()
