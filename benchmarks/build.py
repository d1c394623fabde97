"""Building an index: megapixels per CPU second and peak memory.

Each build runs in a process of its own, on one thread: on the validation block of Los Angeles, and on a large map made
of mirrored copies of it, written as a tiled JPEG GeoTIFF. CPU seconds are given with and without the start of the
interpreter and the imports.

    python benchmarks/build.py [--copies 4] [-o FILE]
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import common
from common import LA_VAL, Bar, Worker

LEAST_MPX_PER_CPU_S = 3.0
MOST_RSS_MB = 1000.0


@dataclass(frozen=True)
class Build:
    """What one build took."""

    megapixels: float
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

    def __call__(self, map_file: Path, index: Path) -> tuple[int, str, float, float]:
        """Tiles, kind of vectors, CPU seconds of the build alone and of the process so far."""
        from geomatch.index.build import BuildOptions, build_index

        done = common.timed(build_index, map_file, index, BuildOptions(encoder=self._encoder))
        tiles = done.value.manifest.tiles
        return tiles.count, tiles.vectors, done.cpu_s, time.process_time()


def measure(map_file: Path, megapixels: float, folder: Path, encoder: str) -> Build:
    index = folder / f"{map_file.stem}.gmi"
    worker = Worker(Builder, encoder)
    asked = worker.ask(map_file, index)
    _, peak = worker.close()
    tiles, vectors, cpu, whole = asked.value
    size = sum(file.stat().st_size for file in index.iterdir())
    return Build(megapixels, tiles, vectors, size / megapixels / 1e6, cpu, whole, asked.wall_s, peak)


def row_of(build: Build) -> list[str]:
    return [
        f"{build.megapixels:.1f} Mpx",
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
    parser.add_argument("--copies", type=int, default=4, help="of the block, across and down: 4 make 201 Mpx")
    parser.add_argument("--encoder", default=common.STRUCTURAL, help="default structural")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels, place = common.read_area(data, LA_VAL)
        builds = []
        for copies in (1, given.copies):
            map_file = folder / f"map-{copies}.tif"
            common.write_map(map_file, pixels, (copies, copies), place)
            builds.append(measure(map_file, LA_VAL.megapixels * copies**2, folder, given.encoder))
    columns = ["map", "tiles", "vectors", "bytes/px", "CPU s", "Mpx/CPU s", "with imports", "Mpx/CPU s", "wall s",
               "peak MB"]  # fmt: skip
    common.show("Building an index, one thread", columns, [row_of(build) for build in builds])
    bars = [Bar(f"{b.megapixels:.0f} Mpx: Mpx per CPU second", b.whole_speed, LEAST_MPX_PER_CPU_S) for b in builds]
    bars += [Bar(f"{b.megapixels:.0f} Mpx: peak MB", b.peak_rss_mb, MOST_RSS_MB, at_least=False) for b in builds]
    common.finish(given.output, [asdict(build) for build in builds], bars)


if __name__ == "__main__":
    main()
