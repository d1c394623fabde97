"""Which parts of scenes and folders are for training and which are kept for validation, as CSV files say."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geomatch.errors import InputError


@dataclass(frozen=True)
class Box:
    """Pixels of a scene that may be used."""

    col0: int
    row0: int
    width: int
    height: int


def boxes_of(file: Path, scene: str, split: str) -> list[Box]:
    """The boxes of a scene that a CSV gives to a split.

    Raises:
        InputError: the CSV cannot be read, or gives it none.
    """
    rows = [row for row in _rows(file, ("scene", "split", *_BOX)) if row["scene"] == scene and row["split"] == split]
    if not rows:
        raise InputError(f"no boxes of scene {scene!r} for {split!r}", where=file, hint="name one that it lists")
    try:
        return [Box(*(int(row[key]) for key in _BOX)) for row in rows]
    except ValueError as error:
        raise InputError(f"a box is no four whole numbers ({error})", where=file) from error


def locations_of(file: Path, validation_share: float) -> tuple[list[str], list[str]]:
    """Names of patches for training and for validation; all dates of one location are in one of the two.

    Raises:
        InputError: the CSV cannot be read.
    """
    rows = _rows(file, ("name", "location"))
    places = sorted({row["location"] for row in rows})
    kept = np.random.default_rng(0).permutation(len(places))[: round(validation_share * len(places))]
    held = {places[i] for i in kept}
    return (
        [row["name"] for row in rows if row["location"] not in held],
        [row["name"] for row in rows if row["location"] in held],
    )


_BOX = ("x_off_px", "y_off_px", "width_px", "height_px")


def _rows(file: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV, which has values in the columns needed."""
    hint = f"it has to have the columns {', '.join(needed)}"
    try:
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read as CSV ({error})", where=file, hint=hint) from error
    if not rows or any(row.get(key) is None for row in rows for key in needed):
        raise InputError("is empty or lacks values", where=file, hint=hint)
    return rows
