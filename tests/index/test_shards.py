"""A build in shards: the same bytes as a plain one, whatever dies on the way."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import faiss
import numpy as np
import pytest
from harm import note_calls
from programs import content, geomatch
from quarters import quarters
from towns import Town

from geomatch import defaults
from geomatch.errors import GeomatchError, InputError, LimitError, OutputError, UsageError
from geomatch.index import build, shards, vectors
from geomatch.index.build import build_index
from geomatch.index.job import BuildJob
from geomatch.index.plan import BuildOptions, blocks
from geomatch.index.shards import Recipe, keep_fit, make_features, make_vectors
from geomatch.index.work import Here, Shared, local_workers
from geomatch.manifest import FEATURES, VECTORS
from geomatch.mosaic import open_orthomosaic
from geomatch.raster import open_raster
from geomatch.tiles import TileGrid
from geomatch.weights import Weights

OPTIONS = BuildOptions(encoder="structural", stride_px=16)


class OneByOne:
    """A scheduler's client that runs each task when it is asked for its result, in this process."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def submit(self, answered: object, task: object, number: int, **_: object) -> OneByOne.Later:
        return OneByOne.Later(self, answered, task, number)

    class Later:
        def __init__(self, client: OneByOne, answered: object, task: object, number: int) -> None:
            self._client, self._answered, self._task, self._number = client, answered, task, number

        def result(self, timeout: float) -> int:
            assert timeout > 0
            self._client.asked.append(self._number)
            return self._answered(self._task, self._number)  # type: ignore[operator, no-any-return]


def recipe_of(town: Town, target: Path) -> tuple[BuildJob, Recipe]:
    job = BuildJob.plan(open_raster(town.path, need_grid=True), OPTIONS)
    recipe = Recipe.of(job, target)
    Path(recipe.folder).mkdir(parents=True)
    return job, recipe


@pytest.mark.usefixtures("small_parts")
def test_shards_are_the_parts_of_a_build_in_one_process(town: Town, tmp_path: Path) -> None:
    job, recipe = recipe_of(town, tmp_path / "town.gmi")
    client = OneByOne()
    shared, here = Shared(job, recipe, client), Here(job)  # type: ignore[arg-type]
    for made, expected in zip(shared.features(), here.features(), strict=True):
        assert (made.values == expected.values).all()
        assert (made.energy, made.known) == (expected.energy, expected.known)
    assert client.asked == list(range(len(list(blocks(job.window)))))
    assert len(client.asked) == 9


@pytest.mark.usefixtures("small_parts")
def test_one_process_reads_encodes_and_hands_on_at_once(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(town.path, tmp_path / "one.gmi", OPTIONS)
    index = faiss.read_index(str(tmp_path / "one.gmi" / VECTORS))
    index.reset()
    by: dict[str, set[int]] = {"taken": {threading.get_ident()}}

    def note(name: str) -> None:
        by.setdefault(name, set()).add(threading.get_ident())

    note_calls(monkeypatch, BuildJob, ("read", "encode", "pool", "shard"), note)
    job, _ = recipe_of(town, tmp_path / "two.gmi")
    assert len(list(Here(job).features())) == 9
    assert len(list(Here(job).tiles(tmp_path / "one.gmi", index))) > 9
    for stages in (("read", "encode", "taken"), ("pool", "shard", "taken")):
        assert [len(by[stage]) for stage in stages] == [1, 1, 1]
        assert len(set.union(*(by[stage] for stage in stages))) == 3


@pytest.mark.usefixtures("small_parts")
def test_who_makes_shards_keeps_its_memory(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[None] = []
    monkeypatch.setattr(shards, "keep_freed", lambda: told.append(None))
    _, recipe = recipe_of(town, tmp_path / "town.gmi")
    for number in range(2):
        make_features(recipe, number)
    assert len(told) == 1  # in a process


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("kind", ["Flat", "PQ16x4fs,Refine(SQfp16)", "HNSW16", "IVF4,PQ16x4fs,Refine(SQ8)"])
def test_files_of_vectors_are_those_of_a_build_in_one_process(
    kind: str, town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(town.path, tmp_path / "one.gmi", replace(OPTIONS, vectors=kind, components=32))
    job, recipe = recipe_of(town, tmp_path / "two.gmi")
    index = faiss.read_index(str(tmp_path / "one.gmi" / VECTORS))
    index.reset()
    (tmp_path / "two").mkdir()
    shutil.copy(tmp_path / "one.gmi" / FEATURES, tmp_path / "two")
    shared, here = Shared(job, recipe, OneByOne()), Here(job)  # type: ignore[arg-type]
    rows = list(shared.tiles(tmp_path / "two", index))
    (tmp_path / "three").mkdir()
    shutil.copy(tmp_path / "one.gmi" / FEATURES, tmp_path / "three")
    for made, expected in zip(rows, here.tiles(tmp_path / "three", index), strict=True):
        assert made.done == expected.done
        assert made.table.equals(expected.table)
    files = content(tmp_path / "two")
    assert len(files) > 3
    assert files == content(tmp_path / "three")
    assert files.items() <= content(tmp_path / "one.gmi").items()


@pytest.mark.usefixtures("small_parts")
def test_what_a_killed_build_left_damaged_or_half_is_made_anew(town: Town, tmp_path: Path) -> None:
    build_index(town.path, tmp_path / "one.gmi", OPTIONS)
    job, recipe = recipe_of(town, tmp_path / "two.gmi")
    index = faiss.read_index(str(tmp_path / "one.gmi" / VECTORS))
    index.reset()
    (tmp_path / "two").mkdir()
    shutil.copy(tmp_path / "one.gmi" / FEATURES, tmp_path / "two")
    fit = keep_fit(recipe, index)
    make_vectors(recipe, str(tmp_path / "two" / FEATURES), fit, 0)
    recipe.codes(fit, 0).unlink()
    recipe.vector_file(fit, 0).write_bytes(b"half")
    list(Shared(job, recipe, OneByOne()).tiles(tmp_path / "two", index))  # type: ignore[arg-type]
    assert content(tmp_path / "two").items() <= content(tmp_path / "one.gmi").items()
    assert (tmp_path / "two" / VECTORS).is_file()


@pytest.mark.usefixtures("small_parts")
def test_full_disk_is_not_taken_for_a_scheduler_that_goes(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(town.path, tmp_path / "one.gmi", OPTIONS)
    job, recipe = recipe_of(town, tmp_path / "two.gmi")
    index = faiss.read_index(str(tmp_path / "one.gmi" / VECTORS))
    index.reset()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(OSError, match="No space left"):
        list(Shared(job, recipe, OneByOne()).tiles(tmp_path / "one.gmi", index))  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_parts")
def test_damaged_codes_are_named(town: Town, tmp_path: Path) -> None:
    build_index(town.path, tmp_path / "one.gmi", OPTIONS)
    job, recipe = recipe_of(town, tmp_path / "two.gmi")
    index = faiss.read_index(str(tmp_path / "one.gmi" / VECTORS))
    index.reset()
    fit = keep_fit(recipe, index)
    assert make_vectors(recipe, str(tmp_path / "one.gmi" / FEATURES), fit, 0) == 0
    recipe.codes(fit, 0).write_bytes(b"half")
    with pytest.raises(OutputError, match=r"codes-.*-000000\.faiss: is no whole shard") as caught:
        list(Shared(job, recipe, OneByOne()).tiles(tmp_path / "one.gmi", index))  # type: ignore[arg-type]
    assert "Remove it" in str(caught.value)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("options", [OPTIONS, replace(OPTIONS, working_gsd_m=0.8)])
def test_shards_of_many_files_are_the_parts_of_a_build_in_one_process(
    options: BuildOptions, town: Town, tmp_path: Path
) -> None:
    job = BuildJob.plan(open_orthomosaic(quarters(town, tmp_path / "maps")), options)
    recipe = Recipe.of(job, tmp_path / "town.gmi")
    Path(recipe.folder).mkdir(parents=True)
    shared, here = Shared(job, recipe, OneByOne()), Here(job)  # type: ignore[arg-type]
    for made, expected in zip(shared.features(), here.features(), strict=True):
        assert (made.values == expected.values).all()
        assert (made.energy, made.known) == (expected.energy, expected.known)


@pytest.mark.usefixtures("small_parts")
def test_build_that_was_ended_goes_on_with_its_shards(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, recipe = recipe_of(town, tmp_path / "town.gmi")
    for number in range(9):
        make_features(recipe, number)
    monkeypatch.setattr(BuildJob, "encode", lambda *_: pytest.fail("encoded again"))
    assert len(list(Shared(job, recipe, OneByOne()).features())) == 9  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_parts")
def test_full_disk_costs_the_shard_that_met_it(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it is written when the disk is full: it does not appear, those before stay, a rerun ends the build."""
    job, recipe = recipe_of(town, tmp_path / "town.gmi")
    save, saved = np.savez, []

    def full(out: IO[bytes], **arrays: object) -> None:
        saved.append(out)
        if len(saved) == 4:
            out.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(out, **arrays)  # type: ignore[arg-type]

    monkeypatch.setattr(np, "savez", full)
    shared = Shared(job, recipe, OneByOne())  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="the disk is full") as caught:
        list(shared.features())
    assert "features-000003.npz" in str(caught.value)
    assert sorted(file.name for file in Path(recipe.folder).iterdir()) == [f"features-{n:06d}.npz" for n in range(3)]
    for made, expected in zip(shared.features(), Here(job).features(), strict=True):
        assert (made.values == expected.values).all()
    assert len(saved) == 4 + 6


def test_orthomosaic_that_changes_during_the_build_is_named(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "town.tif"
    shutil.copy(town.path, path)
    job = BuildJob.plan(open_raster(path, need_grid=True), OPTIONS)
    recipe = Recipe.of(job, tmp_path / "town.gmi")
    Path(recipe.folder).mkdir(parents=True)
    os.utime(path, (1, 1))
    with pytest.raises(InputError, match="the orthomosaic has changed during the build"):
        make_features(recipe, 0)
    path.unlink()
    with pytest.raises(InputError, match="the orthomosaic has gone during the build"):
        recipe.check()


def test_shard_of_a_map_that_changes_while_it_is_read_is_not_kept(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "town.tif"
    shutil.copy(town.path, path)
    job = BuildJob.plan(open_raster(path, need_grid=True), OPTIONS)
    recipe = Recipe.of(job, tmp_path / "town.gmi")
    Path(recipe.folder).mkdir(parents=True)
    before, read = path.stat(), BuildJob.read

    def changes(*given: Any) -> object:
        os.utime(path, (1, 1))
        return read(*given)

    monkeypatch.setattr(BuildJob, "read", changes)
    with pytest.raises(InputError, match="changed during the build"):
        make_features(recipe, 0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    recipe.check()  # it is as it was
    assert not recipe.features(0).exists()


def test_any_file_that_changes_during_the_build_is_named(town: Town, tmp_path: Path) -> None:
    files = quarters(town, tmp_path / "maps")
    with open_orthomosaic(files) as raster:
        recipe = Recipe.of(BuildJob.plan(raster, OPTIONS), tmp_path / "town.gmi")
    recipe.check()
    os.utime(files[3], (1, 1))
    with pytest.raises(InputError, match=r"3\.tif: the orthomosaic has changed during the build"):
        make_features(recipe, 0)
    files[1].unlink()
    with pytest.raises(InputError, match=r"1\.tif: the orthomosaic has gone during the build"):
        recipe.check()


def test_other_files_and_another_order_have_other_shards(town: Town, tmp_path: Path) -> None:
    files = quarters(town, tmp_path / "maps")
    folders = set()
    for some in (files, files, files[::-1], files[:3]):
        with open_orthomosaic(some) as raster:
            folders.add(Recipe.of(BuildJob.plan(raster, OPTIONS), tmp_path / "town.gmi").folder)
    assert len(folders) == 3  # the first two are the same


def test_other_options_have_other_shards(town: Town, tmp_path: Path) -> None:
    with open_raster(town.path, need_grid=True) as raster:
        folders = {
            Recipe.of(BuildJob.plan(raster, options), tmp_path / "town.gmi").folder
            for options in (OPTIONS, BuildOptions(encoder="structural"), BuildOptions(encoder="structural", tile_px=96))
        }
    assert len(folders) == 2  # the first two are the same


def test_weights_of_ones_own_are_named_by_their_whole_path(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For workers run in folders of their own; and a build that is repeated from another folder finds its shards."""
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(Weights.find(defaults.ENCODER).path, tmp_path / "own.safetensors")
    recipes = []
    for folder, name in ((tmp_path, "own.safetensors"), (tmp_path / "elsewhere", "../own.safetensors")):
        monkeypatch.chdir(folder)
        with open_raster(town.path, need_grid=True) as raster:
            recipes.append(Recipe.of(BuildJob.plan(raster, BuildOptions(encoder=name)), tmp_path / "town.gmi"))
    assert recipes[0] == recipes[1]
    assert recipes[0].options.encoder == str(tmp_path / "own.safetensors")


@pytest.mark.usefixtures("small_parts")
def test_threads_of_one_process_make_shards_one_at_a_time(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of Dask has as many threads as the machine has cores, unless told otherwise; a raster serves one."""
    job, recipe = recipe_of(town, tmp_path / "town.gmi")
    read, reading, most = BuildJob.read, [], []

    def noted(*given: Any) -> object:
        reading.append(None)
        most.append(len(reading))
        time.sleep(0.02)
        reading.pop()
        return read(*given)

    with monkeypatch.context() as patched, ThreadPoolExecutor(4) as threads:
        patched.setattr(BuildJob, "read", noted)
        assert list(threads.map(partial(make_features, recipe), range(9))) == list(range(9))
    assert most == [1] * 9
    for number, expected in enumerate(Here(job).features()):
        assert (shards.read_features(recipe, number).values == expected.values).all()


@pytest.mark.usefixtures("small_parts")
def test_what_is_not_ours_stays_among_the_shards(town: Town, tmp_path: Path) -> None:
    _, recipe = recipe_of(town, tmp_path / "town.gmi")
    make_features(recipe, 0)
    folder = Path(recipe.folder)
    (folder / ".features-000001.npz.host-1-x.tmp").touch()  # a process that was killed left it
    other = folder.with_name("0123456789abcdef")
    other.mkdir()
    (other / "codes-0123456789abcdef-000000.faiss").touch()
    theirs = [folder.parent / "map.tif", folder.parent / "maps" / "features-000000.npz", other / "notes.txt"]
    for file in theirs:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    recipe.remove()
    assert sorted(file for file in folder.parent.rglob("*") if file.is_file()) == sorted(theirs)
    for file in theirs:
        file.unlink()
    (folder.parent / "maps").rmdir()
    recipe.remove()
    assert not folder.parent.exists()


@pytest.mark.usefixtures("small_parts")
def test_damaged_shard_is_named(town: Town, tmp_path: Path) -> None:
    job, recipe = recipe_of(town, tmp_path / "town.gmi")
    recipe.features(0).write_bytes(b"half")
    with pytest.raises(OutputError, match=r"features-000000\.npz: is no whole shard") as caught:
        next(Shared(job, recipe, OneByOne()).features())  # type: ignore[arg-type]
    assert "Remove it" in str(caught.value)


@pytest.mark.parametrize(
    ("scheduler", "says"),
    [
        ("local:0", "is no number of processes"),
        ("local:many", "is no number of processes"),
        ("tcp://127.0.0.1:1", "no Dask scheduler answers at"),
        ("nonsense://", "no Dask scheduler answers at"),
    ],
)
def test_scheduler_that_is_none_is_a_usage_error(
    scheduler: str, says: str, town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geomatch.index.work.CONNECT_S", 1)
    told = geomatch("index", "build", town.path, "-o", tmp_path / "a.gmi", "--scheduler", scheduler)
    assert told.exit_code == 2, told.stderr
    assert says in told.stderr
    assert not (tmp_path / "a.gmi").exists()


def test_builds_beside_each_other_do_not_take_one_port() -> None:
    """Dask warns where its usual one is taken, and here a warning is an error."""
    with socket.socket() as taken:
        with suppress(OSError):  # by someone else already
            taken.bind(("", 8787))
            taken.listen()
        with local_workers(0) as first, local_workers(0) as second:
            assert first.scheduler_address != second.scheduler_address


def test_scheduler_without_workers_is_told(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomatch.index.work.CONNECT_S", 2)
    with local_workers(0) as cluster:
        address = cluster.scheduler_address
        told = geomatch("index", "build", town.path, "-o", tmp_path / "a.gmi", "--scheduler", address)
    assert told.exit_code == 2
    assert "the scheduler has no workers. If it had some, their logs say why they ended" in told.stderr


@pytest.mark.parametrize(("ends", "says"), [("close", "the scheduler has gone"), ("scale", "has no workers")])
def test_scheduler_or_workers_that_go_are_told(
    ends: str, says: str, town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask
    from distributed import LocalCluster

    monkeypatch.setattr("geomatch.index.work.LOOK_S", 1)
    monkeypatch.setattr("geomatch.index.work.CONNECT_S", 2)
    threads = {"threads_per_worker": 1, "processes": False, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        LocalCluster(n_workers=1, dashboard_address=None, **threads) as cluster,  # type: ignore[no-untyped-call]
    ):
        started, free = threading.Event(), threading.Event()

        def waits(self: BuildJob, seen: object) -> None:
            started.set()
            free.wait(60)
            pytest.fail("nobody waits for it any more")

        def end() -> None:
            started.wait(60)
            cluster.sync(cluster.scheduler.close) if ends == "close" else cluster.scale(0)

        monkeypatch.setattr(BuildJob, "encode", waits)
        ending = threading.Thread(target=end)
        ending.start()
        try:
            with pytest.raises(UsageError, match=says):
                build_index(town.path, tmp_path / "a.gmi", OPTIONS, scheduler=cluster.scheduler_address)
        finally:
            free.set()
            ending.join()


def test_worker_of_another_version_or_other_weights_makes_no_shard(town: Town, tmp_path: Path) -> None:
    _, recipe = recipe_of(town, tmp_path / "town.gmi")
    for other, says in ((replace(recipe, version="0.0.1"), "has geomatch"), (replace(recipe, encoder="x"), "encoder")):
        with pytest.raises(UsageError, match=says):
            make_features(other, 0)
    assert list(Path(recipe.folder).iterdir()) == []


def test_file_that_changes_before_it_is_hashed_is_named(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "town.tif"
    for owner, name in ((BuildJob, "plan"), (build, "sha256_of")):
        shutil.copy(town.path, path)
        before = getattr(owner, name)

        def changed(*given: object, before: Callable[..., object] = before) -> object:
            os.utime(path, (1, 1))
            return before(*given)

        with monkeypatch.context() as patch, pytest.raises(InputError, match="changed during the build"):
            patch.setattr(owner, name, changed)
            build_index(path, tmp_path / "town.gmi", OPTIONS)
        assert not (tmp_path / "town.gmi").exists()


def test_errors_come_whole_out_of_another_process() -> None:
    for kind in (UsageError, InputError, LimitError, OutputError):
        error: GeomatchError = kind("it is so", where="a.tif", hint="do this")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.exit_code) == (kind, str(error), error.exit_code)


def test_shard_that_is_there_is_not_made_again(town: Town, tmp_path: Path) -> None:
    _, recipe = recipe_of(town, tmp_path / "town.gmi")
    for file in (recipe.codes("a", 0), recipe.rows("a", 0)):
        file.write_bytes(b"whatever")
    assert make_vectors(recipe, "no such file", "a", 0) == 0


def test_tiles_coded_by_another_fit_are_not_taken_up(town: Town, tmp_path: Path) -> None:
    """As where a build is ended, and goes on after a library that fits has changed."""
    _, recipe = recipe_of(town, tmp_path / "town.gmi")
    rows = np.random.default_rng(0).normal(size=(2, 500, 8)).astype(np.float32)
    fits = []
    for some in (rows[0], rows[0], rows[1]):
        index = faiss.index_factory(8, "PQ4x4fs", faiss.METRIC_INNER_PRODUCT)
        index.train(some)
        fits.append(keep_fit(recipe, index))
    assert fits[0] == fits[1] != fits[2]
    assert recipe.rows(fits[0], 0) != recipe.rows(fits[2], 0)
    assert faiss.read_index(str(recipe.trained(fits[2]))).is_trained


@pytest.mark.parametrize("channels", [3, 24])
@pytest.mark.parametrize("side", [500, 12_000])
def test_shards_hold_as_many_tiles_whatever_the_features(channels: int, side: int) -> None:
    parts = vectors.tile_parts(TileGrid(side, side), channels)
    made = shards.shards_of(parts)
    assert [part for shard in made for part in shard] == parts
    sizes = [sum(map(len, shard)) for shard in made]
    assert max(sizes) <= 1.5 * shards.TILES
    assert len(sizes) == 1 or np.median(sizes) >= 0.5 * shards.TILES
