"""SAR scenes that do not show the maps of Los Angeles: OMBRIA's places stitched into one, and drawn cities.

Those of each kind that fit something and those that check it have no place in common.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from affine import Affine
from common import BENCH
from numpy.typing import NDArray

from geomatch.files import published
from geomatch.simulation.pairs import new_city
from geomatch.splits import locations_of

FOLDER = BENCH / "elsewhere"
VALIDATION_SHARE = 0.3  # as in configs/encoder
PATCH_PX = 256
CITIES, CITY_PX = 4, 1536
SEED = {"fit": 2027, "check": 2026}

Part = Literal["fit", "check"]


def ombria(data: Path, part: Part) -> tuple[Path, Path]:
    """Optical and SAR scene of one date of each location that training uses (fit), or that none does (check)."""
    optical, sar = FOLDER / f"ombria-{part}-optical.tif", FOLDER / f"ombria-{part}-sar.tif"
    if not sar.is_file():
        _stitch(data / "ombria", part, optical, sar)
    return optical, sar


def drawn(part: Part) -> list[Path]:
    """SAR scenes of cities, to check those of layouts that no training draws."""
    files = [FOLDER / f"drawn-{part}-{number}.tif" for number in range(CITIES)]
    for number, file in enumerate(files):
        if not file.is_file():
            city = new_city(np.random.default_rng([SEED[part], number]), CITY_PX, unseen=part == "check")
            _write(city.sar, file)
    return files


def _stitch(folder: Path, part: Part, optical: Path, sar: Path) -> None:
    """A square of patches."""
    names = set(locations_of(folder / "pairs.csv", VALIDATION_SHARE)[part == "check"])
    chosen: dict[str, str] = {}
    with (folder / "pairs.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row["name"] in names and (row["phase"] == "before" or row["location"] not in chosen):
                chosen[row["location"]] = row["name"]
    across = int(np.ceil(np.sqrt(len(chosen))))
    for kind, target in (("optical", optical), ("sar", sar)):
        planes: list[NDArray[Any]] = []
        for name in chosen.values():
            with rasterio.open(folder / kind / f"{name}.jpg") as file:
                planes.append(file.read())
        canvas = np.zeros((len(planes[0]), across * PATCH_PX, across * PATCH_PX), np.uint8)
        for number, plane in enumerate(planes):
            down, right = (PATCH_PX * place for place in divmod(number, across))
            canvas[:, down : down + PATCH_PX, right : right + PATCH_PX] = plane
        _write(canvas, target)


def _write(planes: NDArray[Any], target: Path) -> None:
    """A GeoTIFF [bands x H x W] at 10 m about no place in particular."""
    target.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = planes.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": planes.dtype}
    place = {"crs": "EPSG:32631", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    with published(target) as part, rasterio.open(part, "w", **profile, **place) as file:
        file.write(planes)
