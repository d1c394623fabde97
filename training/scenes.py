"""What a configuration names, opened: its scenes, the boxes of a split in them, and its folders of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from geomatch.errors import UsageError
from geomatch.pairs import FolderPairs, ScenePairs
from geomatch.raster import open_raster
from geomatch.splits import Box, boxes_of, locations_of

from .config import FolderConfig, SceneConfig

BUFFER_PX = 400  # between training and holdout


def scene_boxes(root: Path, scene: SceneConfig, split: Literal["train", "val"]) -> list[Box]:
    """The boxes of a scene that belong to a split: by its CSV, or by its holdout, or all of it for training."""
    if scene.split:
        return boxes_of(root / scene.split, scene.scene, split)
    with open_raster(root / scene.optical) as raster:
        width, height = raster.width, raster.height
    kept = round(width * (1 - scene.holdout))
    if split == "val":
        if not scene.holdout:
            what = f"scene {scene.scene!r} is to validate a run, and has neither a split nor a holdout"
            raise UsageError(what, hint="set its split or its holdout, or leave validation.scene empty")
        return [Box(kept, 0, width - kept, height)]
    return [Box(0, 0, kept - (BUFFER_PX if scene.holdout else 0), height)]


def scene_named(scenes: Sequence[SceneConfig], name: str) -> SceneConfig:
    """The scene of that name.

    Raises:
        UsageError: there is none.
    """
    for scene in scenes:
        if scene.scene == name:
            return scene
    raise UsageError(f"no scene {name!r} to validate on", where="validation.scene", hint="name one of data.scenes")


def open_scene(root: Path, config: SceneConfig) -> ScenePairs:
    """A scene's pairs that are for training."""
    return ScenePairs(root / config.optical, root / config.sar, scene_boxes(root, config, "train"))


def open_folder(root: Path, config: FolderConfig) -> FolderPairs:
    """A folder's pairs that are for training."""
    names = locations_of(root / config.pairs, config.validation_share)[0] if config.pairs else None
    return FolderPairs.of(root / config.optical, root / config.sar, names)
