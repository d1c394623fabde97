"""A town's map cut into four files, and what else there is to cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from towns import Town, write_town

CUT = (410, 333)  # column and row where four files meet, multiples of nothing


def quarters(town: Town, folder: Path, cut: tuple[int, int] = CUT, **profile: Any) -> list[Path]:
    """The map as four files row by row."""
    folder.mkdir(exist_ok=True)
    height, width = town.bands.shape[1:]
    cols, rows = ((0, cut[0]), (cut[0], width)), ((0, cut[1]), (cut[1], height))
    return [
        piece(town, folder / f"{number}.tif", (left, top, right - left, bottom - top), **profile)
        for number, ((top, bottom), (left, right)) in enumerate((row, col) for row in rows for col in cols)
    ]


def piece(town: Town, path: Path, window: tuple[int, int, int, int], **profile: Any) -> Path:
    """A window of the map, its first column and row, width and height, as a file of its own."""
    col0, row0, width, height = window
    bands = np.ascontiguousarray(town.bands[:, row0 : row0 + height, col0 : col0 + width])
    return write_town(path, bands, town.transform @ Affine.translation(col0, row0), town.crs, **profile).path
