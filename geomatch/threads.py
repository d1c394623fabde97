"""How many threads libraries may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_faiss_thread() -> Iterator[None]:
    """FAISS on one thread within the block.

    Its threads wait for each other by spinning: on two busy cores, building an index with them took several times the
    CPU and the wall time that it takes without.
    """
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
