"""How many threads libraries may take."""

from __future__ import annotations

import sys
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
    limit: AbstractContextManager[object] = _controller("torch" in sys.modules).limit(limits=1)
    return limit


@lru_cache(maxsize=2)
def _controller(with_torch: bool) -> ThreadpoolController:
    """What the libraries loaded by now can be told; finding them takes milliseconds, so it is seldom done.

    Args:
        with_torch: it is among them, which brings threads of its own and is loaded late.
    """
    import faiss  # noqa: F401  # so that its OpenMP is among them
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
