"""How far do co-registered scenes lie beside each other? Where learned features of pixels see the true place.

Random windows of 104 px of the training fragments of both Los Angeles scenes, and of the validation block, each looked
for within 24 px of the place that the georeferencing tells. Prints the share of peaks that lie within 2, 4, 6 and 10 px
of it along both axes, and of the fragments with at least MIN_WINDOWS windows how many lie, at the median of the peaks
within 10 px, more than 2 px off. A loss that takes the told place for exact is wrong by that much
(``registration_px`` of ``configs/pixels/misregistered.yaml``).

    python benchmarks/misregistered.py [--windows 240] [--weights pixels1 FILE] [--into docs/pixels1.md] [-o FILE]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import common
import numpy as np
from common import finish, show
from numpy.typing import NDArray

from geomatch import defaults
from geomatch.correlate import over, template
from geomatch.pairs import ScenePairs
from geomatch.pixel_features import CELL_PX, LearnedPixels, PixelFeatures
from geomatch.splits import Box, boxes_of

SCENES: tuple[tuple[str, Literal["train", "val"]], ...] = (
    ("los_angeles_west", "train"),
    ("los_angeles_east", "train"),
    ("los_angeles_west", "val"),
)
WINDOW_PX, REACH_PX = 104, 24
WITHIN_PX = (2, 4, 6, 10)
MIN_WINDOWS = 5
COLUMNS = ("windows of, features", "windows", *(f"within {px} px" for px in WITHIN_PX), "fragments more than 2 px off")

Found = tuple[NDArray[np.int64], NDArray[np.int64]]


def offsets(source: ScenePairs, boxes: Sequence[Box], features: PixelFeatures, windows: int, seed: int) -> Found:
    """How far from the told place windows have their peak, and in which of the boxes their middle lies."""
    rng = np.random.default_rng(seed)
    side = WINDOW_PX + 2 * REACH_PX
    inner = slice(REACH_PX, REACH_PX + WINDOW_PX)
    shifts, places = [], []
    while len(shifts) < windows:
        placed = source.find(rng, side)
        image, valid = placed.pair.query(inner)
        query = template(features(image[0], valid, "sar"))
        if query is None:
            continue
        grey = np.asarray(placed.pair.optical.mean(axis=0), np.float32)
        field = features(grey, placed.pair.valid, "optical")
        surface = over(query, field, float(np.sqrt(np.square(field.values).sum() / field.valid.sum())))
        row, col = np.unravel_index(int(surface.argmax()), surface.shape)
        shifts.append((col * CELL_PX - REACH_PX, row * CELL_PX - REACH_PX))
        middle = placed.col + side // 2, placed.row + side // 2
        places.append(next(number for number, box in enumerate(boxes) if _holds(box, *middle)))
    return np.array(shifts), np.array(places)


def _holds(box: Box, col: int, row: int) -> bool:
    return box.col0 <= col < box.col0 + box.width and box.row0 <= row < box.row0 + box.height


def row_of(found: Found) -> list[str]:
    shifts, places = found
    off = np.abs(shifts).max(axis=1)
    medians: dict[int, NDArray[np.float64]] = {}
    for place in np.unique(places):
        near = shifts[(places == place) & (off <= WITHIN_PX[-1])]
        if len(near) >= MIN_WINDOWS:
            medians[int(place)] = np.median(near, axis=0)
    far = sum(bool(np.abs(median).max() > WITHIN_PX[0]) for median in medians.values())
    return [str(len(off)), *(f"{(off <= px).mean():.3f}" for px in WITHIN_PX), f"{far} of {len(medians)}"]


def main() -> None:
    parser = common.parser(__doc__, windows=240)
    parser.add_argument("--weights", nargs="+", default=[defaults.PIXELS], help="names or files of learned features")
    parser.add_argument("--into", type=Path, help="document that gets the table")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    rows: list[list[str]] = []
    for scene, split in SCENES:
        boxes = boxes_of(data / "split.csv", scene, split)
        source = ScenePairs(data / scene / "optical.tif", data / scene / "sar.tif", boxes)
        for weights in given.weights:
            found = offsets(source, boxes, LearnedPixels(weights), given.windows, given.seed)
            rows.append([f"{scene}, {split}, {Path(weights).stem}", *row_of(found)])
            print(" | ".join(rows[-1]), flush=True)
    show("Peaks beside the told place", COLUMNS, rows)
    if given.into is not None:
        common.into(given.into, "misregistered", COLUMNS, rows)
    finish(given.output, rows)


if __name__ == "__main__":
    main()
