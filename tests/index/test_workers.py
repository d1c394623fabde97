"""Builds by processes of workers: the same bytes in many shards, none of them made twice, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from harm import Harm, note_calls
from programs import content
from quarters import quarters
from towns import Town

from geomatch.errors import LimitError, OutputError
from geomatch.index.build import build_index
from geomatch.index.job import BuildJob
from geomatch.index.plan import BuildOptions
from geomatch.index.work import local_workers
from geomatch.manifest import MANIFEST
from geomatch.memory import ENVIRONMENT
from geomatch.raster import Limits

OPTIONS = BuildOptions(encoder="structural", stride_px=16)
BLOCKS = 9
ENCODE, SHARD = "geomatch.index.job.BuildJob.encode", "geomatch.index.job.BuildJob.shard"
FILE = "geomatch.index.codes.VectorFile.write"

BY_ITSELF = """
import sys
from harm import Harm, make_small, set_to
from geomatch.index.build import build_index
from geomatch.index.plan import BuildOptions

if __name__ == "__main__":
    make_small(set_to)
    orthomosaic, target, notes = sys.argv[1:]
    with Harm(notes, how="wait").to_workers():
        build_index(orthomosaic, target, BuildOptions(encoder="structural", stride_px=16), scheduler="local:2")
"""


@pytest.fixture
def notes(tmp_path: Path) -> str:
    (tmp_path / "notes").mkdir()
    return str(tmp_path / "notes")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a build in this process does what shards are made by."""
    told: Counter[str] = Counter()
    note_calls(monkeypatch, BuildJob, ("encode", "shard"), lambda name: told.update([name]))
    return told


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("options", [OPTIONS, BuildOptions(encoder="structural", vectors="PQ16x4fs", components=32)])
def test_workers_give_the_index_of_one_process_byte_for_byte(options: BuildOptions, town: Town, tmp_path: Path) -> None:
    build_index(town.path, tmp_path / "one.gmi", options)
    build_index(town.path, tmp_path / "two.gmi", options, scheduler="local:2")
    assert content(tmp_path / "two.gmi") == content(tmp_path / "one.gmi")
    assert names(tmp_path) == ["one.gmi", "two.gmi"]


def test_workers_give_the_index_of_many_files_byte_for_byte(town: Town, tmp_path: Path) -> None:
    files = quarters(town, tmp_path / "maps")
    build_index(files, tmp_path / "one.gmi", OPTIONS)
    build_index(files, tmp_path / "two.gmi", OPTIONS, scheduler="local:2")
    assert content(tmp_path / "two.gmi") == content(tmp_path / "one.gmi")
    manifests = [(tmp_path / name / MANIFEST).read_text() for name in ("one.gmi", "two.gmi")]
    assert manifests[0] == manifests[1]
    assert names(tmp_path) == ["maps", "one.gmi", "two.gmi"]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("of", [ENCODE, SHARD])
def test_workers_share_the_shards(of: str, town: Town, tmp_path: Path, notes: str, calls: Counter[str]) -> None:
    build_index(town.path, tmp_path / "one.gmi", OPTIONS)
    expected = dict(calls)
    assert expected["encode"] == BLOCKS
    assert expected["shard"] > BLOCKS
    harmless = Harm(notes, of)
    with harmless.to_workers():
        build_index(town.path, tmp_path / "two.gmi", OPTIONS, scheduler="local:2")
    assert content(tmp_path / "two.gmi") == content(tmp_path / "one.gmi")
    assert len(content(tmp_path / "two.gmi")) > 3  # the vectors are in several files
    assert len(harmless.calls) == expected[of.rpartition(".")[2]]
    assert len(set(harmless.calls)) == 2
    assert calls == expected  # the process that asks them made none


@pytest.mark.usefixtures("small_parts")
def test_worker_of_many_threads_gives_the_index_of_one_process(town: Town, tmp_path: Path, notes: str) -> None:
    from distributed import LocalCluster

    build_index(town.path, tmp_path / "one.gmi", OPTIONS)
    with (
        Harm(notes).to_workers(),  # whose shards are small, too
        LocalCluster(n_workers=1, threads_per_worker=4, dashboard_address=None) as cluster,  # type: ignore[no-untyped-call]
    ):
        build_index(town.path, tmp_path / "two.gmi", OPTIONS, scheduler=cluster.scheduler_address)
    assert content(tmp_path / "two.gmi") == content(tmp_path / "one.gmi")


def test_workers_have_the_limits_of_whoever_asks_them(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOMATCH_MAX_PIXELS", "100000")
    with pytest.raises(LimitError, match="the limit is 100,000"):
        build_index(town.path, tmp_path / "one.gmi", OPTIONS)
    build_index(town.path, tmp_path / "two.gmi", OPTIONS, limits=Limits(), scheduler="local:1")
    assert names(tmp_path) == ["two.gmi"]


def test_workers_keep_their_memory_and_are_not_profiled() -> None:
    import dask
    from distributed import Client

    with local_workers(2) as cluster, Client(cluster) as client:  # type: ignore[no-untyped-call]
        kept = client.run(lambda: {name: os.environ.get(name) for name in ENVIRONMENT})
        profiled = client.run(lambda: dask.config.get("distributed.worker.profile.enabled"))
        threads = client.nthreads()
    assert list(kept.values()) == [ENVIRONMENT] * 2
    assert list(profiled.values()) == [False] * 2
    assert list(threads.values()) == [1, 1]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("of", "since"), [(ENCODE, 4), (SHARD, 4), (FILE, 1)])
def test_worker_that_is_killed_costs_its_shard(of: str, since: int, town: Town, tmp_path: Path, notes: str) -> None:
    build_index(town.path, tmp_path / "one.gmi", OPTIONS)
    harmless, killed = Harm(notes, of), Harm(notes, of, "kill", since)
    with harmless.to_workers():
        build_index(town.path, tmp_path / "two.gmi", OPTIONS, scheduler="local:2")
    shards = len(harmless.calls)
    (Path(notes) / "calls").unlink()
    with killed.to_workers():
        build_index(town.path, tmp_path / "three.gmi", OPTIONS, scheduler="local:2")
    assert not killed.end()  # one was
    assert len(killed.calls) == shards + 1
    assert content(tmp_path / "three.gmi") == content(tmp_path / "two.gmi") == content(tmp_path / "one.gmi")


@pytest.mark.usefixtures("small_parts")
def test_shard_over_which_workers_die_ends_the_build(town: Town, tmp_path: Path, notes: str) -> None:
    import dask

    deadly = Harm(notes, how="kill all")
    with (
        deadly.to_workers(),
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(OutputError, match=r"its workers died over one shard\. Look into the workers' logs"),
    ):
        build_index(town.path, tmp_path / "two.gmi", OPTIONS, scheduler="local:1")
    assert names(tmp_path) == ["notes", "two.gmi.shards"]


@pytest.mark.usefixtures("small_parts")
def test_build_that_is_killed_goes_on_with_its_shards(town: Town, tmp_path: Path, notes: str) -> None:
    build_index(town.path, tmp_path / "one.gmi", OPTIONS)
    target, waits = tmp_path / "two.gmi", Harm(notes, how="wait")
    command = [sys.executable, "-c", BY_ITSELF, town.path, target, notes]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], start_new_session=True) as program:
        try:
            while len(waits.calls) < waits.since:
                assert program.poll() is None
                time.sleep(0.05)
            time.sleep(1)  # whoever is at work ends it, and waits too
        finally:
            os.killpg(program.pid, signal.SIGKILL)
    assert not target.exists()
    begun = len(waits.calls)
    (shards,) = target.with_name("two.gmi.shards").iterdir()
    done = [file.name for file in shards.iterdir() if file.name.startswith("features-")]
    assert 2 <= len(done) < BLOCKS
    waits.end()
    with waits.to_workers():
        build_index(town.path, target, OPTIONS, scheduler="local:2")
    assert len(waits.calls) == begun + BLOCKS - len(done)
    assert content(target) == content(tmp_path / "one.gmi")
    assert names(tmp_path) == ["notes", "one.gmi", "two.gmi"]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("at", [("numpy.savez", 4), ("geomatch.index.shards.write_faiss", 4), (FILE, 1)], ids=str)
def test_full_disk_of_a_worker_is_told_and_costs_its_shard(
    at: tuple[str, int], town: Town, tmp_path: Path, notes: str, capfd: pytest.CaptureFixture[str]
) -> None:
    build_index(town.path, tmp_path / "one.gmi", OPTIONS)
    (of, since), target = at, tmp_path / "two.gmi"
    full = Harm(notes, of, "full", since)
    with full.to_workers(), pytest.raises(OutputError, match="the disk is full"):
        build_index(town.path, target, OPTIONS, scheduler="local:2")
    assert capfd.readouterr().err == ""  # Dask's workers would warn of what was asked and is not wanted any more
    assert names(tmp_path) == ["notes", "one.gmi", "two.gmi.shards"]
    full.end()
    with full.to_workers():
        build_index(town.path, target, OPTIONS, scheduler="local:2")
    assert content(target) == content(tmp_path / "one.gmi")
    assert names(tmp_path) == ["notes", "one.gmi", "two.gmi"]


@pytest.mark.usefixtures("small_parts")
def test_file_system_that_does_not_answer_is_not_taken_for_a_scheduler_that_goes(
    town: Town, tmp_path: Path, notes: str
) -> None:
    with Harm(notes, how="late").to_workers(), pytest.raises(OutputError, match="timed out") as caught:
        build_index(town.path, tmp_path / "two.gmi", OPTIONS, scheduler="local:1")
    assert "scheduler" not in str(caught.value)
