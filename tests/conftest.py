"""Fixtures that the whole test suite shares."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest

Gdal = Callable[..., str]


@pytest.fixture
def gdal() -> Gdal:
    """Runs a command-line tool of GDAL, an independent witness, and gives what it prints; skips where it is missing."""

    def run(tool: str, *arguments: object, stdin: str = "") -> str:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt-get install gdal-bin)")
        command = [tool, *map(str, arguments)]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout

    return run
