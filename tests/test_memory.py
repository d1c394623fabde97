"""Arrays that come and go in a process that was told to give memory back at once, as Dask tells its workers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from geomatch.memory import ENVIRONMENT

ASKED = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from geomatch.memory import keep_freed

if sys.argv[2] == "keep":
    keep_freed()

import numpy as np

def arrays():
    for _ in range(20):
        np.ones(int(sys.argv[1]), np.uint8)

def faults(pool):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pool.submit(arrays).result()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with ThreadPoolExecutor(1) as pool:
    faults(pool)
    print(faults(pool))
"""
HELD = """
import resource
from geomatch.memory import give_back, keep_freed

keep_freed()
import numpy as np

def resident():
    with open("/proc/self/statm") as told:
        return int(told.read().split()[1]) * resource.getpagesize()

made = [np.ones(96 << 20, np.uint8) for _ in range(4)]
held = resident()
del made
kept = resident()
give_back()
print(held, kept, resident())
"""
HASTY = {"MALLOC_TRIM_THRESHOLD_": "65536"}
MB = 1 << 20


def faults(size: int, how: str, environment: dict[str, str]) -> int:
    """Of twenty arrays of a size, one after the other, in a thread."""
    told = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"} | environment  # pages of one size
    asked = [sys.executable, "-c", ASKED, str(size), how]
    return int(subprocess.run(asked, env=told, capture_output=True, check=True).stdout)


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")


@glibc
@pytest.mark.parametrize("size", [8 * MB, 96 * MB])
def test_arrays_are_not_faulted_in_again(size: int) -> None:
    given_back = faults(size, "as it is", HASTY)
    assert given_back > 20 * size / 65536  # pages of 64 kB at most
    assert faults(size, "keep", HASTY) < given_back / 50
    assert faults(size, "as it is", ENVIRONMENT) < given_back / 50


@glibc
def test_what_is_kept_is_given_back_when_asked() -> None:
    run = subprocess.run([sys.executable, "-c", HELD], capture_output=True, check=True)
    held, kept, left = map(int, run.stdout.split())
    assert kept > held - 32 * MB
    assert left < held - 3 * 96 * MB
