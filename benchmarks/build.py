"""Building an index: megapixels per CPU second and peak memory, beside a ResNet-50 that embeds tile files.

Each build runs in a process of its own that keeps its memory as that of ``geomatch index build`` does, on one thread,
at strides of 25 and 200 px: on the validation block of Los Angeles, and on a large map made of mirrored copies of it,
written as a tiled JPEG GeoTIFF; 13 copies across and 10 down make 40,000 x 40,000 px. The strides take turns in
--rounds rounds, of which the least CPU seconds count, for what others on the machine do shows in them, and the most
memory. CPU seconds are given with and without the start of the interpreter and the imports. The plain loop embeds TILES
tiles that have been cut to PNG beforehand; what all tiles would take follows from their number.

    python benchmarks/build.py [--encoder structural] [--copies 4 4] [--rounds 3] [-o FILE]
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import common
import cv2
import numpy as np
from common import LA_VAL, Bar, Worker
from numpy.typing import NDArray
from plain import Loop

from geomatch.memory import ENVIRONMENT
from geomatch.tiles import TILE_PX

STRIDES_PX = (25, 200)
TILES = 128
LEAST_MPX_PER_CPU_S = {common.STRUCTURAL: 8.0, "": 5.0}
LEAST_TIMES_THE_LOOP = 20.0
MOST_TIMES_SPARSE = 1.5
MOST_RSS_MB = 1500.0


@dataclass(frozen=True)
class Build:
    """What one build took."""

    megapixels: float
    stride_px: int
    tiles: int
    vectors: str
    bytes_per_px: float
    cpu_s: float
    whole_cpu_s: float
    wall_s: float
    peak_rss_mb: float

    @property
    def speed(self) -> float:
        return self.megapixels / self.cpu_s

    @property
    def whole_speed(self) -> float:
        return self.megapixels / self.whole_cpu_s


class Builder:
    """Builds where it is asked to; made in the process that is measured.

    Args:
        encoder: of the index.
    """

    def __init__(self, encoder: str) -> None:
        self._encoder = encoder

    def __call__(self, map_file: Path, index: Path, stride_px: int) -> tuple[int, str, float, float]:
        """Tiles, kind of vectors, CPU seconds of the build alone and of the process so far."""
        from geomatch.index.build import BuildOptions, build_index

        done = common.timed(build_index, map_file, index, BuildOptions(encoder=self._encoder, stride_px=stride_px))
        tiles = done.value.manifest.tiles
        return tiles.count, tiles.vectors, done.cpu_s, time.process_time()


def measure(map_file: Path, megapixels: float, encoder: str, stride_px: int) -> Build:
    index = map_file.with_name(f"{map_file.stem}-{stride_px}.gmi")
    shutil.rmtree(index, ignore_errors=True)
    worker = Worker(Builder, encoder, environment=ENVIRONMENT)
    asked = worker.ask(map_file, index, stride_px)
    _, peak = worker.close()
    tiles, vectors, cpu, whole = asked.value
    size = sum(file.stat().st_size for file in index.iterdir())
    return Build(megapixels, stride_px, tiles, vectors, size / megapixels / 1e6, cpu, whole, asked.wall_s, peak)


def best(map_file: Path, megapixels: float, encoder: str, rounds: int) -> list[Build]:
    """One build for each stride."""
    turns = [[measure(map_file, megapixels, encoder, stride) for stride in STRIDES_PX] for _ in range(rounds)]
    return [
        replace(min(builds, key=lambda build: build.cpu_s), peak_rss_mb=max(build.peak_rss_mb for build in builds))
        for builds in zip(*turns, strict=True)
    ]


@dataclass(frozen=True)
class Looped:
    """What the plain loop took for a tile, and the most memory that it held."""

    cpu_s: float
    wall_s: float
    peak_rss_mb: float


def looped(pixels: NDArray[np.uint8], folder: Path) -> Looped:
    """The plain loop over TILES tiles."""
    folder.mkdir()
    for number, picture in zip(range(TILES), _tiles(pixels), strict=False):
        cv2.imwrite(str(folder / f"{number:04d}.png"), picture)
    worker = Worker(Loop)
    asked = worker.ask(folder)
    _, peak = worker.close()
    return Looped(asked.cpu_s / asked.value, asked.wall_s / asked.value, peak)


def _tiles(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    picture = np.moveaxis(pixels[:3], 0, -1)
    for row in range(0, picture.shape[0] - TILE_PX, TILE_PX):
        for col in range(0, picture.shape[1] - TILE_PX, TILE_PX):
            yield np.ascontiguousarray(picture[row : row + TILE_PX, col : col + TILE_PX])


def row_of(build: Build) -> list[str]:
    return [
        f"{build.megapixels:.1f} Mpx",
        f"{build.stride_px} px",
        f"{build.tiles}",
        build.vectors,
        f"{build.bytes_per_px:.2f}",
        f"{build.cpu_s:.2f}",
        f"{build.speed:.2f}",
        f"{build.whole_cpu_s:.2f}",
        f"{build.whole_speed:.2f}",
        f"{build.wall_s:.1f}",
        f"{build.peak_rss_mb:.0f}",
    ]


def main() -> None:
    parser = common.parser(__doc__, windows=0)
    parser.add_argument("--copies", type=int, nargs=2, default=(4, 4), help="of the block, across and down")
    parser.add_argument("--rounds", type=int, default=3, help="of each build")
    parser.add_argument("--encoder", default=common.STRUCTURAL, help="default structural")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels, place = common.read_area(data, LA_VAL)
        builds = []
        for across, down in ((1, 1), given.copies):
            map_file = folder / f"map-{across}-{down}.tif"
            common.write_map(map_file, pixels, (across, down), place)
            megapixels = LA_VAL.megapixels * across * down
            builds += best(map_file, megapixels, given.encoder, given.rounds)
        loop = looped(pixels, folder / "tiles")
    columns = ["map", "stride", "tiles", "vectors", "bytes/px", "CPU s", "Mpx/CPU s", "with imports", "Mpx/CPU s",
               "wall s", "peak MB"]  # fmt: skip
    common.show(f"Building an index, {given.encoder}, one thread", columns, [row_of(build) for build in builds])
    times = [loop.cpu_s * build.tiles / build.cpu_s for build in builds]
    rows = [
        [
            f"{build.megapixels:.1f} Mpx",
            f"{build.stride_px} px",
            f"{loop.cpu_s * build.tiles:.0f}",
            f"{loop.wall_s * build.tiles:.0f}",
            f"{loop.peak_rss_mb:.0f}",
            f"{ratio:.1f}",
        ]
        for build, ratio in zip(builds, times, strict=True)
    ]
    columns = ["map", "stride", "CPU s", "wall s", "peak MB", "CPU s over the build's"]
    common.show(f"A ResNet-50 over tile files, from {TILES} of them", columns, rows)
    told = {"builds": [asdict(build) for build in builds], "loop_of_a_tile": asdict(loop)}
    common.finish(given.output, told, _bars(builds, times, given.encoder))


def _bars(builds: list[Build], times_the_loop: list[float], encoder: str) -> list[Bar]:
    """Of the large map."""
    large, sparse = builds[-2:]
    least = LEAST_MPX_PER_CPU_S.get(encoder, LEAST_MPX_PER_CPU_S[""])
    return [
        Bar("large map: Mpx per CPU second", large.speed, least),
        Bar("the loop's CPU seconds over the build's, stride 25", times_the_loop[-2], LEAST_TIMES_THE_LOOP),
        Bar("the same, stride 200", times_the_loop[-1], LEAST_TIMES_THE_LOOP),
        Bar("large map: stride 25 over stride 200", large.cpu_s / sparse.cpu_s, MOST_TIMES_SPARSE, at_least=False),
        Bar("large map: peak MB", large.peak_rss_mb, MOST_RSS_MB, at_least=False),
    ]


if __name__ == "__main__":
    main()
