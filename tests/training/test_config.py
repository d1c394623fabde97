"""Runs from YAML: what is accepted, what is refused and how, and what comes back from the file that a run keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import write_run

from geomatch.errors import InputError, UsageError
from geomatch.training.config import EncoderConfig, SceneConfig, load_config, save_config

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "encoder").glob("*.yaml"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run.yaml", tmp_path)


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_load(shipped: Path) -> None:
    config = load_config(shipped)
    assert config.data.scenes or config.data.folders
    assert not config.validation.scene or config.validation.scene in {scene.scene for scene in config.data.scenes}


def test_there_are_shipped_configurations() -> None:
    assert SHIPPED


def test_paths_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: {root: '${oc.env:GEOMATCH_DATA,elsewhere}'}")
    monkeypatch.delenv("GEOMATCH_DATA", raising=False)
    assert load_config(tmp_path / "run.yaml").data.root == "elsewhere"
    monkeypatch.setenv("GEOMATCH_DATA", "/data")
    assert load_config(tmp_path / "run.yaml").data.root == "/data"


def test_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("")
    assert load_config(tmp_path / "run.yaml") == EncoderConfig()


def test_overrides_win(file: Path) -> None:
    words = [
        "trainer.max_epochs=7",
        "optimizer.lr=1e-4",
        "trainer.max_minutes=0.5",
        "start=la2",
        "net.shared_norm=true",
    ]
    config = load_config(file, [*words, "validation.sizes_px=[80,40]", "data.augment.speckled=0"])
    assert (config.trainer.max_epochs, config.optimizer.lr, config.trainer.max_minutes) == (7, 1e-4, 0.5)
    assert (config.start, config.net.shared_norm, config.validation.sizes_px) == ("la2", True, [80, 40])
    assert config.data.augment["speckled"] == 0
    assert config.data.augment["sar_px"] == 208  # of the file, beside it
    assert config.net.width == 16


def test_scenes_are_scenes(file: Path) -> None:
    assert load_config(file).data.scenes == [SceneConfig("optical.tif", "sar.tif", "split.csv", "town")]


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("trainer.max_epoch=1", "trainer.max_epochs"),
        ("optimiser.lr=1", "optimizer"),
        ("data.bath=1", "data.batch"),
        ("net.widht=3", "net.width"),
        ("data.augment.speckle=0.1", "data.augment.speckled"),
        ("sead=3", "seed"),
    ],
)
def test_unknown_key_names_the_nearest(file: Path, override: str, near: str) -> None:
    told = override.partition(".lr=")[0].partition("=")[0]
    with pytest.raises(UsageError, match=rf"run\.yaml: unknown key '{told}'.*nearest one is {near}\.$") as caught:
        load_config(file, [override])
    assert "\n" not in str(caught.value)


def test_unknown_key_of_a_scene(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: {scenes: [{optical: a.tif}, {opticl: b.tif}]}")
    with pytest.raises(UsageError, match=r"unknown key 'opticl'.*nearest one is optical\.$"):
        load_config(tmp_path / "run.yaml")


def test_unknown_key_of_the_file_itself(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("trainer: {epochs: 3}")
    with pytest.raises(UsageError, match=r"run\.yaml: unknown key 'trainer\.epochs'.*trainer\.max_epochs"):
        load_config(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    "override",
    [
        "trainer.max_epochs=many",
        "trainer.max_epochs=1.5",
        "trainer.max_epochs",
        "net.shared_norm=perhaps",
        "validation.sizes_px=[a]",
        "data.scenes=3",
        "trainer=3",
        "optimizer.lr=[1,2]",
        "data.augment.speckled=often",
        "data.augment.sar_px=1.5",
        "data.augment.looks=4",
        "data.root=${oc.env:GEOMATCH_NOT_SET}",
    ],
)
def test_value_of_the_wrong_kind_is_a_usage_error(file: Path, override: str) -> None:
    with pytest.raises(UsageError, match=r"run\.yaml: ") as caught:
        load_config(file, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\t- x", "- a\n- list", "\x00"])
def test_what_is_no_yaml_of_keys_is_an_input_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=r"run\.yaml: .*configs/encoder") as caught:
        load_config(tmp_path / "run.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_file_that_is_missing_is_an_input_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be read as YAML"):
        load_config(tmp_path / name)


def test_what_is_saved_loads_as_the_same(file: Path, tmp_path: Path) -> None:
    words = ["trainer.max_minutes=1.25", "optimizer.lr=0.00012345", "start=a.safetensors", "data.augment.looks=[1,3]"]
    for config in (load_config(file, words), EncoderConfig()):
        save_config(config, tmp_path / "kept.yaml")
        assert load_config(tmp_path / "kept.yaml") == config


def test_no_two_runs_share_their_lists() -> None:
    EncoderConfig().data.scenes.append(SceneConfig())
    assert EncoderConfig().data.scenes == []
