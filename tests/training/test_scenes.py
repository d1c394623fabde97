"""Scenes and folders of a configuration: what is held out."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawing import ramp, write_tiff

from geomatch.errors import UsageError
from geomatch.splits import Box
from geomatch.training.config import SceneConfig
from geomatch.training.scenes import BUFFER_PX, scene_boxes, scene_named


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    write_tiff(folder / "optical.tif", ramp(70, 2000))
    return folder


def test_holdout_is_at_the_right_behind_a_buffer(wide: Path) -> None:
    scene = SceneConfig("optical.tif", "sar.tif", holdout=0.25)
    (train,), (val,) = scene_boxes(wide, scene, "train"), scene_boxes(wide, scene, "val")
    assert train == Box(0, 0, 1500 - BUFFER_PX, 70)
    assert val == Box(1500, 0, 500, 70)


def test_without_a_holdout_all_is_for_training(wide: Path) -> None:
    scene = SceneConfig("optical.tif", "sar.tif", scene="own")
    assert scene_boxes(wide, scene, "train") == [Box(0, 0, 2000, 70)]
    with pytest.raises(UsageError, match=r"own.*neither.*split.*holdout"):
        scene_boxes(wide, scene, "val")


def test_scene_to_validate_on_is_one_of_the_configured() -> None:
    scenes = [SceneConfig("a.tif", "b.tif", scene=name) for name in ("west", "east")]
    assert scene_named(scenes, "east") is scenes[1]
    with pytest.raises(UsageError, match="no scene 'north'"):
        scene_named(scenes, "north")
