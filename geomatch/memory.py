"""What the C library does with memory that is free again."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of malloc.h
_NEVER = (1 << 31) - 1  # bytes that are free, of which some are given back

# The same for a process that is about to be started, in its environment.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(_NEVER)}


def keep_freed() -> None:
    """Have this process keep what it frees for what it asks for next; other C libraries than glibc stay as they are.

    By itself glibc asks the system for every large array anew, and Dask tells its workers to have it do so for small
    ones too. The system fills with zeros what it hands out, which takes a tenth of the CPU of a build and up to a third
    of that of a training, whose steps ask for the same arrays again and again.

    For processes that do one such job, as their first act: threads that begin later share one heap. Those that have one
    of their own take their largest arrays from the system all the same.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)):
            libc.mallopt(option, value)
