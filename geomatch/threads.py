"""How many threads libraries may take."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[object]:
    """BLAS, OpenMP and so FAISS on one thread within the block.

    Their threads wait for each other by spinning; the products here are too small to gain from them, and on a busy
    machine they lose. Whoever has many queries runs several processes.
    """
    limit: AbstractContextManager[object] = _controller().limit(limits=1)
    return limit


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    """What the libraries loaded by now can be told; finding them takes milliseconds, so it is done once."""
    import faiss  # noqa: F401  # so that its OpenMP is among them
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
