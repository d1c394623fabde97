"""What the C library does with memory that is free again."""

from __future__ import annotations

import ctypes
import platform

_SETTINGS = {  # by the names that the environment has for them: the number in malloc.h, and the value
    "MALLOC_ARENA_MAX": (-8, 1),
    "MALLOC_MMAP_MAX_": (-4, 0),
    "MALLOC_TRIM_THRESHOLD_": (-1, (1 << 31) - 1),
}
ENVIRONMENT = {name: str(value) for name, (_, value) in _SETTINGS.items()}  # of a process that is about to be started


def keep_freed() -> None:
    """Have this process keep what it frees for what it asks for next; other C libraries than glibc stay as they are.

    By itself glibc asks the system for every large array anew, and Dask tells its workers to have it do so for small
    ones too. The system fills with zeros what it hands out, which costs builds and trainings much of their CPU: their
    blocks and steps ask for the same arrays again and again.

    For processes that do one such job, as their first act: threads that begin later share one heap. Those that have one
    of their own take their largest arrays from the system all the same.
    """
    if (libc := _glibc()) is not None:
        for number, value in _SETTINGS.values():
            libc.mallopt(number, value)


def give_back() -> None:
    """Give the system what is free now, whatever is kept later: between stages that ask for different arrays."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
