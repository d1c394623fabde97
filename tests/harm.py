"""What befalls processes of workers in tests: Dask has each of them load this file before its first task."""

from __future__ import annotations

import errno
import functools
import json
import os
import pkgutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

VARIABLE = "GEOMATCH_TEST_HARM"
SMALL = {  # blocks and shards, for a town to have several
    "geomatch.index.plan.BLOCK_PX": 256,
    "geomatch.index.vectors.CHUNK_VALUES": 40_000,
    "geomatch.index.shards.TILES": 27,
    "geomatch.index.codes.PART_TILES": 200,
}


@dataclass(frozen=True)
class Harm:
    """Workers call something, note who did, and from some call on are harmed.

    Attributes:
        folder: for the notes, which is there.
        of: what they call, like "geomatch.index.job.BuildJob.encode".
        how: "" for nothing, "kill" for one of the processes, once, "kill all" for each, "full" for a full disk, "late"
            for a file system that does not answer, "wait" for ever.
        since: number of the first call that is harmed.
    """

    folder: str
    of: str = "geomatch.index.job.BuildJob.encode"
    how: str = ""
    since: int = 4

    @property
    def calls(self) -> list[int]:
        """Processes that called it, in order."""
        with suppress(FileNotFoundError):
            return [int(line) for line in (Path(self.folder) / "calls").read_text().split()]
        return []

    def end(self) -> bool:
        """Harm no one any more; whether someone was till now."""
        try:
            (Path(self.folder) / "ended").open("x").close()
        except FileExistsError:
            return False
        return True

    @contextmanager
    def to_workers(self) -> Iterator[None]:
        """Those that are started within it are the ones."""
        import dask
        import distributed  # noqa: F401  # which brings its own settings, that would go with ours

        os.environ[VARIABLE] = json.dumps(asdict(self))
        try:
            with dask.config.set({"distributed.worker.preload": [__file__]}):
                yield
        finally:
            del os.environ[VARIABLE]

    def lay(self) -> None:
        """In a worker."""
        owner, _, name = self.of.rpartition(".")
        at = pkgutil.resolve_name(owner)
        made: Callable[..., Any] = getattr(at, name)

        @functools.wraps(made)
        def met(*given: Any, **named: Any) -> Any:
            with (Path(self.folder) / "calls").open("a") as calls:
                calls.write(f"{os.getpid()}\n")
            if self.how and len(self.calls) >= self.since and not (Path(self.folder) / "ended").exists():
                self._befall()
            return made(*given, **named)

        setattr(at, name, met)

    def _befall(self) -> None:
        if self.how == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.how == "late":
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        if self.how == "kill all" or (self.how == "kill" and self.end()):
            os.kill(os.getpid(), signal.SIGKILL)
        while self.how == "wait":
            time.sleep(1)


def make_small(assign: Callable[[str, object], None]) -> None:
    """Assign what SMALL says, by names with dots."""
    for name in SMALL:  # all are imported before any is set: one takes another's as its own
        pkgutil.resolve_name(name)
    for name, value in SMALL.items():
        assign(name, value)


def note_calls(patch: pytest.MonkeyPatch, owner: type, names: Sequence[str], note: Callable[[str], None]) -> None:
    """Have methods of this process tell their names, each time that they are called."""

    def noted(name: str) -> Callable[..., Any]:
        made: Callable[..., Any] = getattr(owner, name)

        def met(*given: Any) -> Any:
            note(name)
            return made(*given)

        return met

    for name in names:
        patch.setattr(owner, name, noted(name))


def set_to(name: str, value: object) -> None:
    """Of a module of this process."""
    module, _, last = name.rpartition(".")
    setattr(pkgutil.resolve_name(module), last, value)


def dask_setup(worker: object) -> None:
    """Called by Dask in each worker as it starts."""
    make_small(set_to)
    Harm(**json.loads(os.environ[VARIABLE])).lay()
