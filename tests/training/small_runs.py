"""Training runs that take a second: two scenes of a drawn town, and a small network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affine import Affine
from drawing import write_tiff
from omegaconf import OmegaConf
from towns import PLACE, UTM33, Town

from geomatch.training.config import EncoderConfig, load_config

SPLIT = """scene,x_off_px,y_off_px,width_px,height_px,split
town,0,0,416,768,train
town,416,0,32,768,buffer
town,448,0,320,768,val
"""


def write_scenes(town: Town, folder: Path) -> Path:
    """``optical.tif`` and ``sar.tif`` on one grid, and ``split.csv``."""
    write_tiff(folder / "optical.tif", town.bands, transform=PLACE, crs=UTM33)
    size = (town.bands.shape[2], town.bands.shape[1])
    town.write_strip(folder / "sar.tif", Affine.identity(), size, drift=(0, 0))
    (folder / "split.csv").write_text(SPLIT)
    return folder


def small_run(folder: Path, **data: Any) -> dict[str, Any]:
    """What a YAML of two epochs of two steps says."""
    return {
        "name": "small",
        "data": {
            "root": str(folder),
            "scenes": [{"optical": "optical.tif", "sar": "sar.tif", "split": "split.csv", "scene": "town"}],
            "batch": 2,
            "steps_per_epoch": 2,
            "workers": 0,
            "augment": {"optical_px": 264, "sar_px": 208, "large": 1, "small": 1, "rescaled": 0.0},
        }
        | data,
        "net": {"channels": 8, "stem": 16, "width": 16, "blocks": 1},
        "optimizer": {"warmup_steps": 2},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "precision": "32-true"},
        "validation": {"windows": 4, "sizes_px": [104], "every_epochs": 1},
    }


def write_run(file: Path, folder: Path, **data: Any) -> Path:
    """That YAML."""
    OmegaConf.save(OmegaConf.create(small_run(folder, **data)), file)
    return file


def config_of(folder: Path, *overrides: str, **data: Any) -> EncoderConfig:
    """That run as a configuration."""
    file = folder / "small.yaml"
    return load_config(write_run(file, folder, **data), overrides)
