"""What the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import write_scenes
from towns import Town


@pytest.fixture(scope="session")
def scenes(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an optical and a SAR scene of the town, and a split; not to be changed."""
    return write_scenes(town, tmp_path_factory.mktemp("scenes"))
