"""A map as large as one likes: the validation block as it is, and around it training fragments, each one varied.

Every piece is a fragment turned by any angle, mirrored or not, enlarged or shrunk by up to a quarter, shifted, with a
gamma and a brightness of its own, so that no two tiles are the same and all are of real ground. Maps and their indexes
stay in bench/, with what the build took, and are not made again.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np
import rasterio
from common import BENCH, LA_VAL, Worker
from numpy.typing import NDArray
from rasterio.windows import Window

from geomatch.manifest import FEATURES, TILES
from geomatch.memory import ENVIRONMENT
from geomatch.splits import Box, boxes_of
from geomatch.tile_index import TileIndex
from geomatch.tiles import STRIDE_PX

SCENES = ("los_angeles_west", "los_angeles_east")

PIECE_PX = 1024
SCALES = (0.8, 1.25)
GAMMAS = (0.7, 1.4)
GAINS = (0.85, 1.15)


@dataclass(frozen=True)
class Built:
    """What the build of an index took and gave, on one thread of a process of its own."""

    megapixels: float
    tiles: int
    vectors: str
    cpu_s: float
    wall_s: float
    peak_rss_mb: float
    features_bytes: int
    vectors_bytes: int
    table_bytes: int
    code: str


def indexed(data: Path, tiles: int) -> tuple[TileIndex, Built]:
    """The index of a varied map of so many tiles, as geomatch builds it when nothing is told; and what that took."""
    side = side_of(tiles, STRIDE_PX)
    index, record = BENCH / f"varied-{side}.gmi", BENCH / f"varied-{side}.json"
    if not (index.is_dir() and record.is_file()):
        map_file = varied_map(data, BENCH / f"varied-{side}.tif", side)
        worker = Worker(_Builder, environment=ENVIRONMENT)
        asked = worker.ask(map_file, index)
        _, peak = worker.close()
        record.write_text(json.dumps(asdict(_built(index, side, asked.value, asked.wall_s, peak)), indent=1))
    built = Built(**json.loads(record.read_text()))
    if built.code != common.code_hash():
        print(f"{index.name} is as earlier code built it; remove {record.name} to have it built again", flush=True)
    return TileIndex.open(index), built


class _Builder:
    """Builds where it is asked to; made in the process that is measured."""

    def __call__(self, map_file: Path, index: Path) -> float:
        """CPU seconds, those of threads that read, encode and write beside each other included."""
        from geomatch.index.build import build_index

        began = time.process_time()
        build_index(map_file, index, overwrite=True)
        return time.process_time() - began


def _built(folder: Path, side_px: int, cpu_s: float, wall_s: float, peak_rss_mb: float) -> Built:
    index = TileIndex.open(folder)
    sizes = {name: entry.size_bytes for name, entry in index.manifest.files.items()}
    features, table = sizes.pop(FEATURES), sizes.pop(TILES)
    taken = (cpu_s, wall_s, peak_rss_mb, features, sum(sizes.values()), table)
    return Built(side_px**2 / 1e6, len(index), index.manifest.tiles.vectors, *taken, common.code_hash())


def side_of(tiles: int, stride_px: int) -> int:
    """Side, pixels, of the smallest map of whole pieces that has so many tiles, and room for the block."""
    side = max((np.sqrt(tiles) + 200 / stride_px) * stride_px, LA_VAL.width, LA_VAL.height)
    return PIECE_PX * int(np.ceil(side / PIECE_PX))


def varied_map(data: Path, file: Path, side_px: int, seed: int = 0) -> Path:
    """Write a map of ``side_px`` x ``side_px`` whose first pixels are the validation block's, unless it is there."""
    if file.is_file():
        return file
    block, _ = common.read_area(data, LA_VAL)
    taken = (-(-LA_VAL.width // PIECE_PX), -(-LA_VAL.height // PIECE_PX))
    pieces = _Pieces(data, seed)
    size = {"width": side_px, "height": side_px, "count": 3, "dtype": "uint8", "bigtiff": "if_safer"}
    part = file.with_suffix(".part.tif")
    with rasterio.open(part, "w", driver="GTiff", **size, **common.JPEG, **common.whole_place()) as out:
        out.write(block, window=Window(0, 0, LA_VAL.width, LA_VAL.height))
        for row in range(side_px // PIECE_PX):
            for col in range(side_px // PIECE_PX):
                if col >= taken[0] or row >= taken[1]:
                    out.write(pieces.next(), window=Window(col * PIECE_PX, row * PIECE_PX, PIECE_PX, PIECE_PX))
    part.rename(file)
    return file


class _Pieces:
    """Training fragments, one variation after the other."""

    def __init__(self, data: Path, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._fragments = [
            _pixels(data, scene, box) for scene in SCENES for box in boxes_of(data / "split.csv", scene, "train")
        ]

    def next(self) -> NDArray[np.uint8]:
        """[3 x PIECE_PX x PIECE_PX]."""
        random, middle = self._random, PIECE_PX / 2
        pixels = self._fragments[random.integers(len(self._fragments))]
        scale = float(np.exp(random.uniform(*np.log(SCALES))))
        turn = cv2.getRotationMatrix2D((middle, middle), random.uniform(0, 360), scale)
        turn[:, 2] += random.uniform(-middle, middle, 2)
        if random.random() < 0.5:
            pixels = pixels[:, ::-1]
        table = 255 * random.uniform(*GAINS) * (np.arange(256) / 255) ** random.uniform(*GAMMAS)
        seen = cv2.warpAffine(pixels, turn, (PIECE_PX, PIECE_PX), borderMode=cv2.BORDER_REFLECT)
        return np.moveaxis(cv2.LUT(seen, np.clip(table, 0, 255).astype(np.uint8)), -1, 0)


def _pixels(data: Path, scene: str, box: Box) -> NDArray[Any]:
    """[H x W x 3] of a fragment."""
    pixels, _ = common.read_area(data, common.Area(scene, box.col0, box.row0, box.width, box.height))
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
