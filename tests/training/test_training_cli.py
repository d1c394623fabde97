"""The commands: what they print, and one line and an exit code where they cannot go on."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from programs import complaint
from small_runs import write_run
from typer.testing import CliRunner, Result

from geomatch.errors import UsageError
from geomatch.training import finetune
from geomatch.training.cli import app
from geomatch.training.config import EncoderConfig
from geomatch.training.finetune import finetune_encoder


def train(*words: object) -> Result:
    """A command; an exception that is not the program's own way out fails the test."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def config(scenes: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run.yaml", scenes)


def test_encoder_prints_the_path_of_its_weights(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[None] = []
    monkeypatch.setattr("geomatch.training.cli.keep_freed", lambda: kept.append(None))
    words = ("encoder", "--config", config, "-o", tmp_path / "run", "trainer.max_epochs=1")
    done = train(*words)
    assert kept == [None]
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{tmp_path / 'run' / 'encoder.safetensors'}\n", "")
    assert (tmp_path / "run" / "encoder.safetensors").is_file()
    done = train(*words, "-q")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["trainer.max_epoch=1"], 2, "trainer.max_epochs"),
        (["trainer.max_epochs=few"], 2, "max_epochs"),
        (["data.scenes=[]"], 2, "neither scenes nor folders"),
        (["validation.scene=elsewhere"], 2, "elsewhere"),
        (["trainer.accelerator=abacus"], 2, "abacus"),
        (["data.root=/nowhere"], 3, r"/nowhere/split\.csv"),
        (["data.root=/nowhere", "data.workers=1"], 3, r"/nowhere/split\.csv"),
        (["start=missing.safetensors"], 3, r"missing\.safetensors"),
    ],
)
def test_errors_are_one_line_and_a_code(config: Path, tmp_path: Path, words: list[str], code: int, told: str) -> None:
    done = train("encoder", "--config", config, "-o", tmp_path / "run", *words)
    assert done.exit_code == code
    assert re.search(told, complaint(done.stderr))
    assert done.stdout == ""


def test_another_run_in_the_folder_is_a_usage_error(config: Path, tmp_path: Path) -> None:
    words = ("encoder", "--config", config, "-o", tmp_path / "run")
    assert train(*words, "trainer.max_epochs=1").exit_code == 0
    done = train(*words, "trainer.max_epochs=2")
    assert done.exit_code == 2
    assert "another configuration" in complaint(done.stderr)


def test_missing_files_and_folders(config: Path, tmp_path: Path) -> None:
    done = train("encoder", "--config", tmp_path / "none.yaml", "-o", tmp_path / "run")
    assert done.exit_code == 3
    assert "none.yaml" in complaint(done.stderr)
    done = train("encoder", "--config", config, "-o", tmp_path / "no" / "run")
    assert done.exit_code == 5
    complaint(done.stderr)
    assert train("encoder", "--config", config).exit_code == 2


def test_sheet_prints_its_path(config: Path, tmp_path: Path) -> None:
    done = train("sheet", "--config", config, "-o", tmp_path / "sheet.png", "data.batch=1")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{tmp_path / 'sheet.png'}\n", "")
    done = train("sheet", "--config", config, "-o", tmp_path / "sheet.png", "data.root=/nowhere")
    assert done.exit_code == 3
    complaint(done.stderr)


def test_discrepancy_prints_a_table_or_json(config: Path, tmp_path: Path) -> None:
    words = ("discrepancy", "--config", config, "-o", tmp_path / "out", "--pairs", 8, "validation.scene=town")
    done = train(*words, "--weights", "untrained", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    (found,) = json.loads(done.stdout)
    assert (found["weights"], found["pairs"]) == ("untrained", 8)
    assert (tmp_path / "out" / "embeddings.png").is_file()
    done = train(*words, "--weights", "untrained")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"{found['same_places']['w2']:.4f}" in done.stdout
    done = train(*words, "--weights", "abacus")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "abacus" in complaint(done.stderr)
    assert train(*words).exit_code == 2


# --- fine-tuning ---


def told_to_train(monkeypatch: pytest.MonkeyPatch) -> list[EncoderConfig]:
    asked: list[EncoderConfig] = []

    def train_encoder(config: EncoderConfig, output: Path, progress: Any) -> Path:
        asked.append(config)
        return output / "encoder.safetensors"

    monkeypatch.setattr(finetune, "train_encoder", train_encoder)
    return asked


def test_finetune_is_a_run_of_two_scenes(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = told_to_train(monkeypatch)
    files = (scenes / "optical.tif", scenes / "sar.tif")
    done = train("finetune", *files, "-o", tmp_path / "own", "--from", "a.safetensors", "--minutes", "4")
    weights = tmp_path / "own" / "encoder.safetensors"
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == str(weights)
    assert f"--encoder {weights}" in done.stdout
    (config,) = asked
    (scene,) = config.data.scenes
    assert (scene.optical, scene.sar, scene.holdout) == (str(files[0]), str(files[1]), 0.25)
    assert (config.start, config.trainer.max_minutes, config.validation.scene) == ("a.safetensors", 4, scene.scene)
    assert config.trainer.max_epochs % config.validation.every_epochs == 0  # the last epoch is validated too


def test_finetune_without_a_holdout_is_not_validated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = told_to_train(monkeypatch)
    finetune_encoder(Path("o.tif"), Path("s.tif"), tmp_path, holdout=0)
    assert asked[0].validation.scene == ""
    assert asked[0].data.scenes[0].optical == str(Path("o.tif").resolve())


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_that_cannot_be_are_usage_errors(minutes: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--minutes"):
        finetune_encoder(Path("o.tif"), Path("s.tif"), tmp_path, minutes=minutes)


@pytest.mark.parametrize("holdout", [-0.1, 0.6, float("nan")])
def test_holdouts_that_cannot_be_are_usage_errors(holdout: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--holdout"):
        finetune_encoder(Path("o.tif"), Path("s.tif"), tmp_path, holdout=holdout)


def test_finetune_of_a_missing_scene_is_an_input_error(tmp_path: Path) -> None:
    done = train("finetune", tmp_path / "o.tif", tmp_path / "s.tif", "-o", tmp_path / "own", "--from", "a.safetensors")
    assert done.exit_code == 3
    assert "o.tif" in complaint(done.stderr)


def test_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "omegaconf", None)
    for name in [name for name in sys.modules if name.startswith("geomatch.training.") and not name.endswith(".cli")]:
        monkeypatch.delitem(sys.modules, name)
    result = CliRunner().invoke(app, ["sheet", "--config", str(tmp_path / "a.yaml"), "-o", str(tmp_path / "a.png")])
    assert result.exit_code == 2
    assert "pip install 'geomatch[train]'" in result.stderr
