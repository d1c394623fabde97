"""Does a second worker halve the time of a build, and is the index the same when one is killed on the way?

    python benchmarks/cluster.py [--size 8192] [--rounds 2] [--backend auto] [--into docs/scale.md] [-o FILE]

A map of --size px made by repeating the validation block of Los Angeles is indexed by one worker and by two, turn by
turn, of which the fastest count, and by two of which one is killed when a quarter of the features are there; each time
the files are compared with those of a build in one process, whose backend they take. Wall seconds, with the start of
the workers, and CPU seconds of all processes; run it on a machine that does nothing else. What such a machine gives a
second process at all is measured beside it: two that encode blocks without a scheduler, against one.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import common
import numpy as np
from common import BENCH, LA_VAL, Bar, Worker, finish, read_area, show, write_map
from distributed import Client

from geomatch.backends import AUTO
from geomatch.files import sha256_of
from geomatch.index.build import build_index
from geomatch.index.job import BuildJob
from geomatch.index.plan import BLOCK_PX, BuildOptions, blocks
from geomatch.index.work import local_workers
from geomatch.manifest import MANIFEST
from geomatch.memory import ENVIRONMENT
from geomatch.mosaic import open_orthomosaic
from geomatch.threads import one_thread

FOLDER = BENCH / "cluster"
GAINS = ("what", "times faster")
BLOCKS, ROUNDS = 8, 3  # encoded by a process at a time, and how often


def content(index: Path) -> dict[str, str]:
    """sha256 of every file but the manifest, which names paths."""
    return {file.name: sha256_of(file) for file in sorted(index.iterdir()) if file.name != MANIFEST}


@dataclass(frozen=True)
class Built:
    """What a build took, and what it made.

    Attributes:
        wall_s, cpu_s: with the start of the workers.
        files: sha256 of each.
        worker_mb: largest resident memory of a worker that lived to the end.
        killed: whether a worker is not there any more.
    """

    wall_s: float
    cpu_s: float
    files: dict[str, str]
    worker_mb: float
    killed: bool = False


def by_workers(optical: Path, options: BuildOptions, workers: int, *, kill_after: int | None = None) -> Built:
    """A build by so many workers; one is killed after so many shards of features."""
    target = FOLDER / f"by{workers}.gmi"
    for folder in (target, target.with_name(f"{target.name}.shards")):
        shutil.rmtree(folder, ignore_errors=True)
    start, cpu = time.perf_counter(), cpu_s()
    with local_workers(workers) as cluster, Client(cluster) as client:
        first = set(client.run(os.getpid).values())
        if kill_after is not None:
            victim = min(first)
            blow = (victim, target.with_name(f"{target.name}.shards"), kill_after)
            threading.Thread(target=_kill_later, args=blow, daemon=True).start()
        build_index(optical, target, options, scheduler=cluster.scheduler_address)
        largest = max(client.run(common.peak_rss_mb).values())
        killed = not first <= set(client.run(os.getpid).values())
    return Built(time.perf_counter() - start, cpu_s() - cpu, content(target), largest, killed)


class Encoding:
    """Encodes blocks of a map; made in a process of its own."""

    def __init__(self, optical: Path, options: BuildOptions) -> None:
        self._job = BuildJob.plan(open_orthomosaic([optical]), options)
        self(range(1))  # what takes time once does not count

    def __call__(self, numbers: range) -> None:
        todo = list(blocks(self._job.window))
        with one_thread():
            for number in numbers:
                self._job.encode(self._job.read(todo[number % len(todo)]))


def plain_gain(optical: Path, options: BuildOptions) -> float:
    """How many blocks two processes encode in the time that one takes for one; no scheduler, nothing shared."""
    workers = [Worker(Encoding, optical, options, environment=ENVIRONMENT) for _ in range(2)]
    gains = []
    with ThreadPoolExecutor(len(workers)) as threads:
        for number in range(ROUNDS):
            numbers = range(number * BLOCKS, (number + 1) * BLOCKS)
            alone = workers[0].ask(numbers).wall_s
            together = max(asked.wall_s for asked in threads.map(Worker.ask, workers, [numbers] * len(workers)))
            gains.append(len(workers) * alone / together)
    for worker in workers:
        worker.close()
    return float(np.median(gains))


def cpu_s() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def _kill_later(victim: int, shards: Path, count: int) -> None:
    while len(list(shards.glob("*/features-*.npz"))) < count:
        time.sleep(0.05)
    os.kill(victim, signal.SIGKILL)


def main() -> None:
    arguments = common.parser(__doc__, windows=0)
    arguments.add_argument("--size", type=int, default=8192, help="side of the map, pixels")
    arguments.add_argument("--rounds", type=int, default=2, help="of one worker and of two")
    arguments.add_argument("--backend", default=AUTO, help="of all builds; default what does best in this process")
    arguments.add_argument("--into", type=Path, help="document that gets the table")
    given = arguments.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    FOLDER.mkdir(parents=True, exist_ok=True)
    pixels, place = read_area(data, LA_VAL)
    repeat = (-(-given.size // LA_VAL.width), -(-given.size // LA_VAL.height))
    optical = FOLDER / "map.tif"
    write_map(optical, pixels, repeat, place)
    alone = FOLDER / "alone.gmi"
    start, cpu = time.perf_counter(), cpu_s()
    asked = BuildOptions(backend=given.backend)
    backend = build_index(optical, alone, asked, overwrite=True).manifest.encoder.backend
    here, here_cpu = time.perf_counter() - start, cpu_s() - cpu
    expected, options = content(alone), BuildOptions(backend=str(backend))
    before = plain_gain(optical, options)
    shards = -(-LA_VAL.width * repeat[0] // BLOCK_PX) * -(-LA_VAL.height * repeat[1] // BLOCK_PX)
    turns = [[by_workers(optical, options, workers) for workers in (1, 2)] for _ in range(given.rounds)]
    one, two = (min(builds, key=lambda build: build.wall_s) for builds in zip(*turns, strict=True))
    killed = by_workers(optical, options, 2, kill_after=max(1, shards // 4))
    runs = {"one worker": one, "two workers": two, "two, one killed": killed}
    rows = [("this process", f"{here:.1f}", f"{here_cpu:.1f}", f"{common.peak_rss_mb():.0f}", "–")]
    rows += [
        (name, f"{made.wall_s:.1f}", f"{made.cpu_s:.1f}", f"{made.worker_mb:.0f}", str(made.files == expected))
        for name, made in runs.items()
    ]
    columns = ("build by", "wall s", "CPU s", "MB, of the largest worker", "the same files")
    show(f"{LA_VAL.width} × {LA_VAL.height} px, {repeat[0]} × {repeat[1]} times, {backend}", columns, rows)
    gain = one.wall_s / two.wall_s
    after = plain_gain(optical, options)
    gains = [
        ("a build by workers", f"{gain:.2f}"),
        ("encoding without a scheduler, before the builds", f"{before:.2f}"),
        ("the same after them", f"{after:.2f}"),
    ]
    show("Two processes against one", GAINS, gains)
    if given.into is not None:
        common.into(given.into, "cluster", columns, rows)
        common.into(given.into, "gains", GAINS, gains)
    every = [*(build for turn in turns for build in turn), killed]
    same = float(all(build.files == expected for build in every))
    bars = [
        Bar("two workers against one", gain, 1.7),
        Bar("the same files", same, 1.0),
        Bar("a worker was killed", float(killed.killed), 1.0),
    ]
    told = {name: asdict(made) | {"same_files": made.files == expected} for name, made in runs.items()}
    told["here"] = {"wall_s": here, "cpu_s": here_cpu, "peak_mb": common.peak_rss_mb()}
    walls = [[build.wall_s for build in turn] for turn in turns]
    finish(given.output, {"backend": backend, "builds": told, "wall_s_by_turn": walls, "gains": dict(gains)}, bars)


if __name__ == "__main__":
    main()
