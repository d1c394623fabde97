"""What a worker's C library does with memory that is free again."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 32 << 20  # glibc takes no more for the second, and comes to it by itself where nothing was told


def keep_freed() -> None:
    """Have this process keep what it frees for what it asks for next, as one does that nobody told otherwise.

    Dask tells its workers to give memory back at once (``MALLOC_TRIM_THRESHOLD_``). Then glibc asks the system for the
    arrays of every block anew, and a fifth of a build's CPU goes into pages that come and go. Other C libraries are
    left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * KEPT_BYTES)
