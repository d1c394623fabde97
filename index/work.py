"""Where the parts of a build are made: in this process, or by the workers of a Dask scheduler."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from geomatch.errors import GeomatchError, OutputError, UsageError
from geomatch.extras import needs_extra
from geomatch.manifest import FEATURES, part_names
from geomatch.memory import ENVIRONMENT
from geomatch.raster import open_raster

from .ahead import ahead
from .codes import Coder, VectorFiles, has_room
from .job import BuildJob, Encoded, TileRows, reader_of
from .plan import blocks
from .shards import (
    Recipe,
    keep_fit,
    make_features,
    make_vector_file,
    make_vectors,
    read_features,
    read_rows,
    shards_of,
)
from .vectors import tile_parts

if TYPE_CHECKING:
    import faiss
    from distributed import Client, Future, LocalCluster

Answer = int | GeomatchError  # of a task: the number of what it made, or why it could not

LOCAL = "local:"
RETRIES = 2  # of a shard whose task fails; a worker that dies does not count as one
AHEAD = 64  # shards asked for and not yet taken in
CONNECT_S = 10
LOOK_S = 5  # between looks for whether a worker is left
_TALKATIVE = ("distributed.client", "distributed.core")  # they log tracebacks of a scheduler that goes
_STARTING = ("distributed.nanny",)  # and this one those of processes that cannot be started
_BEFORE_A_WORKER = "distributed.nanny.pre-spawn-environ"  # Dask's key of what a process begins with
_WORKERS_LOG = {"DASK_LOGGING": repr({"distributed.worker.state_machine": "error"})}  # it warns of tasks taken back
_UNWATCHED = {  # where every core has a task, what looks at them many times a second takes from them
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "2s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "500ms",
}
_ITS_PAGES = "127.0.0.1:0"  # of a scheduler, at a port that is free; of its usual one it warns where that is taken
_AGAIN = "start one, then repeat the build: it goes on with the shards that are there"


class Work(Protocol):
    """Makes the parts of a build, in order; whoever stops before the last of them closes what gives them."""

    def features(self) -> Generator[Encoded, None, None]:
        """Of each block of the map."""
        ...

    def tiles(self, folder: Path, index: faiss.Index) -> Generator[TileRows, None, None]:
        """Write the vectors of all tiles that are kept, and give their rows; all is written when all were taken.

        Args:
            folder: of the index, where the features are.
            index: fitted and empty.
        """
        ...


class Here:
    """In this process: the map is read, encoded and written at the same time, a block each."""

    def __init__(self, job: BuildJob) -> None:
        self._job = job

    def features(self) -> Generator[Encoded, None, None]:
        """As ``Work``."""
        return ahead(self._job.encode, ahead(self._job.read, blocks(self._job.window)))

    def tiles(self, folder: Path, index: faiss.Index) -> Generator[TileRows, None, None]:
        """As ``Work``."""
        job, pooler, coder, files = self._job, self._job.pooler(index), Coder(index), VectorFiles(folder, index)
        with open_raster(folder / FEATURES) as raster:
            read = reader_of(raster)
            shards = shards_of(tile_parts(job.tiles, job.encoder.channels))
            pooled = ahead(lambda parts: job.pool(read, parts, pooler), shards)
            with closing(ahead(lambda tiles: job.shard(tiles, coder), pooled)) as shards_made:
                for shard in shards_made:
                    files.add(shard.codes)
                    yield shard.rows
        files.close()


class Shared:
    """By the workers of a scheduler, in shards; what they make is put together by them too, as far as it can be.

    Args:
        job: the build.
        recipe: of its shards.
        client: of the scheduler.
    """

    def __init__(self, job: BuildJob, recipe: Recipe, client: Client) -> None:
        self._job, self._recipe, self._client = job, recipe, client

    def features(self) -> Generator[Encoded, None, None]:
        """As ``Work``."""
        count = len(list(blocks(self._job.window)))
        for number in self._made(partial(make_features, self._recipe), count):
            yield read_features(self._recipe, number)

    def tiles(self, folder: Path, index: faiss.Index) -> Generator[TileRows, None, None]:
        """As ``Work``."""
        recipe, fit = self._recipe, keep_fit(self._recipe, index)
        count = len(shards_of(tile_parts(self._job.tiles, self._job.encoder.channels)))
        files: list[Future[Answer]] = []
        first = held = 0

        def close(beyond: int) -> None:
            """Have the shards from the first that is in no file to before another put into one."""
            files.append(self._asked(partial(make_vector_file, recipe, fit, first, beyond), len(files), priority=1))

        for number in self._made(partial(make_vectors, recipe, str(folder / FEATURES), fit), count):
            rows = read_rows(recipe, fit, number)
            if not has_room(held, len(rows)):
                close(number)
                first, held = number, 0
            held += len(rows)
            yield rows
        close(count)
        for name in part_names(len(files)):
            with self._told():
                number = self._result(files.pop(0))  # held, it would be made again where the worker that made it ends
            shutil.move(recipe.vector_file(fit, number), folder / name)

    def _made(self, task: Callable[[int], int], count: int) -> Iterator[int]:
        """Numbers of shards, in order, each once it is there."""
        waiting: list[Future[Answer]] = []
        with self._told():
            for number in range(count):
                waiting.append(self._asked(task, number))
                if len(waiting) == AHEAD:
                    yield self._result(waiting.pop(0))
            while waiting:
                yield self._result(waiting.pop(0))

    def _asked(self, task: Callable[[int], int], number: int, *, priority: int = 0) -> Future[Answer]:
        from dask.utils import funcname

        key = f"{funcname(task)}-{uuid4()}"  # by which Dask's own pages tell what is made
        return self._client.submit(_answered, task, number, key=key, retries=RETRIES, priority=priority)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What befell the workers or the scheduler, as errors of ours."""
        from distributed import CancelledError, KilledWorker
        from distributed.comm.core import CommClosedError

        try:
            yield
        except KilledWorker as error:
            hint = f"look into the workers' logs, {_AGAIN}"
            raise OutputError("its workers died over one shard", where=self._recipe.folder, hint=hint) from error
        except (CancelledError, CommClosedError, OSError) as error:
            if isinstance(error, GeomatchError):
                raise
            raise UsageError("the scheduler has gone", where="--scheduler", hint=_AGAIN) from error

    def _result(self, shard: Future[Answer]) -> int:
        """Of a shard, unless it cannot be made or there is nobody who could make it."""
        while True:
            try:
                answer = shard.result(timeout=LOOK_S)
            except OSError as error:  # a TimeoutError is one, ours and the shard's own
                if shard.status == "error":
                    hint = f"look at the disks that the workers use, {_AGAIN}"
                    raise OutputError(
                        f"a shard cannot be made ({error})", where=self._recipe.folder, hint=hint
                    ) from error
                if not isinstance(error, TimeoutError):
                    raise
                if shard.status != "finished":
                    self.wait()
                continue
            if isinstance(answer, GeomatchError):
                raise answer
            return answer

    def wait(self) -> None:
        """Until there is a worker: one that died may be started again."""
        try:
            self._client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError:
            raise _no_workers() from None


def _answered(task: Callable[[int], int], number: int) -> Answer:
    """What a task gives, or why it cannot: raised in a worker, Dask would print its traceback and try again."""
    try:
        return task(number)
    except GeomatchError as error:
        return error


@contextmanager
def work_of(job: BuildJob, recipe: Recipe, scheduler: str | None) -> Iterator[Work]:
    """Where the parts of a build are made.

    Args:
        job: the build.
        recipe: of its shards.
        scheduler: as ``build_index`` takes it.

    Raises:
        UsageError: there is no such scheduler, or Dask is not installed.
        OutputError: the shards' folder cannot be written.
    """
    if scheduler is None:
        yield Here(job)
        return
    with needs_extra("cluster", "building by a scheduler"):
        from distributed import Client
    workers = _workers(scheduler)
    with _quiet(_TALKATIVE), ExitStack() as started:
        try:
            with _quiet(_STARTING):
                at = scheduler if workers is None else started.enter_context(local_workers(workers))
                client = started.enter_context(Client(at, timeout=CONNECT_S))  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError, TimeoutError, ValueError) as error:
            raise _not_started(scheduler, workers, error) from error
        shared = Shared(job, recipe, client)
        shared.wait()
        with recipe.kept():
            yield shared


def _not_started(scheduler: str, workers: int | None, error: Exception) -> UsageError:
    if workers is None:
        what, hint = f"no Dask scheduler answers at {scheduler!r}", f"{_AGAIN}; or say local:N"
    else:
        what = f"{workers} processes cannot be started ({' '.join(str(error).split())})"
        hint = "take fewer, or look at what ulimit -a allows"
    return UsageError(what, where="--scheduler", hint=hint)


@contextmanager
def local_workers(count: int) -> Iterator[LocalCluster]:
    """Processes on this machine, of one thread each, that keep their memory."""
    import dask
    from distributed import LocalCluster

    told = _UNWATCHED | {f"{_BEFORE_A_WORKER}.{name}": value for name, value in (ENVIRONMENT | _WORKERS_LOG).items()}
    pages = {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": _ITS_PAGES}}
    one_each = {"threads_per_worker": 1, **pages}
    with dask.config.set(told), LocalCluster(n_workers=count, **one_each) as cluster:  # type: ignore[no-untyped-call]
        yield cluster


@contextmanager
def _quiet(names: Sequence[str]) -> Iterator[None]:
    """Parts of Dask keep the tracebacks of what is told anyway to themselves."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _no_workers() -> UsageError:
    logs = f"if it had some, their logs say why they ended; they need geomatch {version('geomatch')}"
    hint = f"{logs}. {_AGAIN.capitalize()}"
    return UsageError("the scheduler has no workers", where="--scheduler", hint=hint)


def is_here(scheduler: str | None) -> bool:
    """Whether a build by it is made on this machine: in this process or by others of it."""
    return scheduler is None or scheduler.startswith(LOCAL)


def _workers(scheduler: str) -> int | None:
    """N of "local:N"; None of anything else."""
    if not scheduler.startswith(LOCAL):
        return None
    text = scheduler.removeprefix(LOCAL)
    if not text.isdecimal() or not int(text):
        raise UsageError(
            f"{scheduler!r} is no number of processes", where="--scheduler", hint="say local:2, for example"
        )
    return int(text)


__all__: Sequence[str] = ["Here", "Shared", "Work", "is_here", "local_workers", "work_of"]
