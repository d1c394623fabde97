"""A process that was told to give memory back at once, as Dask tells its workers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

ASKED = """
import resource
import numpy as np
from geomatch.index.memory import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
keep_freed()
faults()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_arrays_of_a_size_are_not_faulted_in_again() -> None:
    told = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536", "NUMPY_MADVISE_HUGEPAGE": "0"}  # pages of one size
    run = subprocess.run([sys.executable, "-c", ASKED], env=told, capture_output=True, text=True, check=True)
    given_back, kept = map(int, run.stdout.split())
    assert given_back > 20 * 512  # pages of 4 kB or more of 8 MB each
    assert kept < given_back / 10
