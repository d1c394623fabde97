"""Fixtures that the whole test suite shares."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from harm import make_small
from hypothesis import settings
from programs import Gdal
from towns import Town, optical, write_town

from geomatch.index.build import build_index

settings.register_profile("untimed", deadline=None)  # speed is measured in benchmarks, not here
settings.load_profile("untimed")


@pytest.fixture
def gdal() -> Gdal:
    """Runs a command-line tool of GDAL, an independent witness, and gives what it prints; skips where it is missing."""

    def run(tool: str, *arguments: object, stdin: str = "") -> str:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt-get install gdal-bin)")
        command = [tool, *map(str, arguments)]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout

    return run


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and shards small enough for the town to have several."""
    make_small(monkeypatch.setattr)


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """A small map on disk, north up; not to be changed."""
    return write_town(tmp_path_factory.mktemp("town") / "town.tif", optical())


@pytest.fixture(scope="session")
def town_index(town: Town) -> Path:
    """The index of ``town``, beside it; not to be changed."""
    path = town.path.with_suffix(".gmi")
    build_index(town.path, path)
    return path


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network that learned nothing."""
    import torch

    from geomatch.nets.encoder import EncoderNet
    from geomatch.nets.shapes import EncoderShape
    from geomatch.weights import save_weights

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(EncoderNet(EncoderShape(8, 16, 16, 1)), file, {"run": "test"})
    return file
