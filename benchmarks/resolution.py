"""From fine UAV imagery to satellite imagery: what is found at which working pixel?

Windows of 200 px of the working pixel are looked for in simulated cities, which nothing was trained on, and in the
validation block of Los Angeles (where it is there), each indexed at its own pixel and at coarser ones. Prints the share
of textured windows placed within 10 working pixels with Wilson's 95 % interval, recall of the vectors, the median error
in metres, and the map's size in working pixels, since a smaller map is an easier one.

    python benchmarks/resolution.py [--windows 200] [--encoders la3 structural] [--seed 402] [-o FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
from common import LA_VAL, finish, show

from geomatch import defaults
from geomatch.evaluation import predict, score
from geomatch.geo import ground_resolution_m
from geomatch.index.build import BuildOptions, build_index
from geomatch.locator import Locator
from geomatch.raster import open_raster
from geomatch.sampling import WindowOptions
from geomatch.simulation import simulate_city

CITY_PX = 4096
WINDOW_PX = 200
CITIES = ((0.2, (1,)), (0.5, (1, 2, 4)))  # pixel in metres, and working pixels in those
BLOCK = (1, 2, 3)


@dataclass(frozen=True)
class Scene:
    """A map and a SAR scene of it, and the working pixels to try, in the map's."""

    name: str
    map_file: Path
    sar: Path
    scales: tuple[int, ...]


def scenes(folder: Path, data: Path | None, seed: int) -> Iterator[Scene]:
    for number, (gsd, scales) in enumerate(CITIES):
        city = simulate_city(folder / f"city-{number}", size_px=CITY_PX, seed=seed + number, strips=0, gsd_m=gsd)
        yield Scene(f"simulated, {gsd:g} m", city.ortho, city.sar, scales)
    if data is not None:
        block = common.area_file(data, LA_VAL, folder)
        yield Scene("Los Angeles, 10 m", block, data / LA_VAL.scene / "sar.tif", BLOCK)


def measured(scene: Scene, scale: int, encoder: str, folder: Path, windows: int) -> dict[str, Any]:
    with open_raster(scene.map_file, need_grid=True) as raster:
        assert raster.grid is not None, "asked for"
        gsd = ground_resolution_m(raster.grid) * scale
    index = folder / "map.gmi"
    build_index(scene.map_file, index, BuildOptions(encoder=encoder, working_gsd_m=gsd), overwrite=True)
    locator = Locator.open(index)
    grid = locator.index.grid
    found = score(list(predict(locator, scene.sar, WindowOptions(windows, WINDOW_PX * scale))))
    return {
        "scene": scene.name,
        "encoder": encoder,
        "working_gsd_m": gsd,
        "map_mpx": grid.width * grid.height / 1e6,
        **found,
    }


def row_of(found: dict[str, Any]) -> list[str]:
    low, high = found["success_px_textured_ci"]["10"]
    return [
        found["scene"],
        f"{found['working_gsd_m']:.3g} m",
        f"{found['map_mpx']:.1f} Mpx",
        found["encoder"],
        f"{found['textured']} of {found['windows']}",
        f"{found['success_px_textured']['10']:.3f} [{low:.3f}, {high:.3f}]",
        f"{found['recall_textured']['1']:.3f}",
        f"{found['error_m']['p50']:.2f} m",
    ]


def main() -> None:
    parser = common.parser(__doc__, windows=200)
    parser.set_defaults(seed=402)
    parser.add_argument("--encoders", nargs="+", default=[defaults.ENCODER, common.STRUCTURAL])
    given = parser.parse_args()
    common.one_thread()
    rows, results = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for scene in scenes(folder, common.find_data(given.data), given.seed):
            for scale in scene.scales:
                for encoder in given.encoders:
                    found = measured(scene, scale, encoder, folder, given.windows)
                    rows.append(row_of(found))
                    results.append(found)
                    print(" | ".join(rows[-1]), flush=True)
    columns = ("scene", "working pixel", "map", "encoder", "textured", "within 10 px", "R@1", "median error")
    show("Windows of 200 working pixels", columns, rows)
    finish(given.output, results, [])


if __name__ == "__main__":
    main()
