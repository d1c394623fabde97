"""Files written whole or not at all, and hashed."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geomatch.errors import OutputError
from geomatch.manifest import MANIFEST, VECTORS

STALE_S = 86_400  # since anything unfinished was written to: whoever did, elsewhere, is no more
_REPLACED = "replaced"  # what stepped aside, beside the new


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, hexadecimal; streamed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_target(target: Path, *, directory: bool = False) -> None:
    """Find out before the work whether ``target`` could be written.

    Args:
        target: a file, or a folder to hold files; either may be there or appear in a folder that is.
        directory: whether it is a folder.

    Raises:
        OutputError: a file where a folder is meant or the other way round, no folder to write to, no permission, or a
            place inside an index.
    """
    if directory and target.exists() and not target.is_dir():
        raise OutputError("this is a file", where=target, hint="name a folder")
    if not directory and target.is_dir():
        raise OutputError("this is a folder", where=target, hint="name a file in it")
    folder = target if directory and target.exists() else target.absolute().parent
    if not folder.is_dir():
        raise OutputError("the folder to write to does not exist", where=folder, hint="create it first")
    _check_no_index(folder, target)
    if not os.access(folder, os.W_OK):
        hint = "choose another place or change its permissions"
        raise OutputError("no permission to write", where=folder, hint=hint)


def _check_no_index(folder: Path, target: Path) -> None:
    """Raise if ``folder``, where ``target`` is to appear, is an index or lies inside one."""
    resolved = folder.resolve()
    for place in (resolved, *resolved.parents):
        if (place / MANIFEST).is_file() and (place / VECTORS).is_file():
            hint = "choose another place, an index holds nothing but its own files"
            raise OutputError(f"lies inside the index {place}", where=target, hint=hint)


@contextmanager
def published(target: Path, *, directory: bool = False, overwrite: bool = True) -> Iterator[Path]:
    """A temporary sibling to write to, which becomes ``target`` by one rename when the block ends well.

    Whatever goes wrong, an interrupt included, the sibling is removed and what was at ``target`` stays.

    Args:
        target: the file or directory to appear.
        directory: whether it is a directory.
        overwrite: whether it may replace what is there.

    Raises:
        OutputError: the place cannot be written, lies inside an index, the disk is full, or something is in the way.
    """
    target = Path.cwd() / target
    _check_free(target, directory=directory, overwrite=overwrite)
    if not target.parent.is_dir():
        raise OutputError("the folder to write to does not exist", where=target.parent, hint="create it first")
    _check_no_index(target.parent, target)
    with writing(target):
        temporary = Path(
            tempfile.mkdtemp(prefix=f".{target.name}.{host_mark()}-{os.getpid()}-", suffix=".tmp", dir=target.parent)
        )
    try:
        content = temporary / target.name
        with writing(target):
            if directory:
                content.mkdir()
            yield content
            _check_free(target, directory=directory, overwrite=overwrite)  # someone else may have been faster
            _replace(content, target, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def alone_at(target: Path) -> Iterator[None]:
    """Hold a place for one process while it makes what will appear there; a process that dies gives it up.

    What one that was killed left unfinished there (``published``) is removed, if it ran on another machine a day later;
    where it was killed while the new was to take the place of the old, the old comes back.

    The lock is an empty file beside it, ``.NAME.lock``, which the system holds (``flock``), on network file systems for
    all machines as far as these do; Windows, which has no such lock, holds nothing.

    Raises:
        OutputError: another process holds it, or no file can be made there.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    file = (Path.cwd() / target).with_name(f".{target.name}.lock")
    taken = OutputError(
        "another process is building it", where=target, hint="wait until it has ended, or choose another place"
    )
    with writing(target):
        lock = file.open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise taken from error
        if not _is_at(lock.fileno(), file):  # whoever held it removed it meanwhile, and another may hold a new one
            raise taken
        try:
            _clear(file.with_name(target.name))
            yield
        finally:
            file.unlink(missing_ok=True)


def _clear(target: Path) -> None:
    """Remove what ``published`` of a process that is no more would have given that name, as far as that is possible."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.(?:(\w+)-(\d+)-)?[^.]+\.tmp")
    with suppress(OSError):
        for left, made_by in [(path, ours.fullmatch(path.name)) for path in target.parent.iterdir()]:
            if made_by is None or not (has_ended(*made_by.groups()) or _is_stale(left)):
                continue
            if not os.path.lexists(target) and (left / _REPLACED).exists():
                (left / _REPLACED).rename(target)
            shutil.rmtree(left, ignore_errors=True)


def host_mark() -> str:
    """Tells this machine from others, in a few letters."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def has_ended(host: str | None, process: str | None) -> bool:
    """Whether a process ran on this machine and does not any more; not known on Windows."""
    if process is None or host != host_mark() or sys.platform == "win32":  # where such a signal would end it
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _is_stale(folder: Path) -> bool:
    return time.time() - max(path.stat().st_mtime for path in (folder, *folder.rglob("*"))) >= STALE_S


def _is_at(descriptor: int, file: Path) -> bool:
    """Whether an open file is the one that stands at a place."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _check_free(target: Path, *, directory: bool, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    same_kind = target.is_dir() == directory
    if not (overwrite and same_kind):
        hint = "choose another place, or --overwrite" if same_kind else "choose another place"
        raise OutputError("is there already", where=target, hint=hint)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turns the operating system's refusals while writing ``target`` into OutputError."""
    try:
        yield
    except OSError as error:
        causes = {
            errno.ENOSPC: ("the disk is full", "free some space or choose another place"),
            errno.EDQUOT: ("the disk quota is used up", "free some space or choose another place"),
            errno.EFBIG: ("the file is larger than this place allows", "choose another place"),
            errno.EACCES: ("no permission to write", "choose another place or change its permissions"),
            errno.ENOENT: ("the folder to write to does not exist", "create it first"),
            errno.EROFS: ("the file system is read-only", "choose another place"),
        }
        if isinstance(error, BrokenPipeError):  # of whoever watches the progress
            raise
        reason = error.strerror or str(error)
        what, hint = causes.get(
            error.errno or 0,
            (f"cannot be written ({reason})", "look whether the disk is full, or choose another place"),
        )
        raise OutputError(what, where=target, hint=hint) from error


def _replace(content: Path, target: Path, temporary: Path) -> None:
    """Swap in the new; a directory cannot be renamed over another, so the old one steps aside first."""
    if not (target.is_dir() and content.is_dir()):
        content.replace(target)
        return
    aside = temporary / _REPLACED
    try:
        target.rename(aside)
        content.rename(target)
    except BaseException:
        if os.path.lexists(aside) and not os.path.lexists(target):
            aside.rename(target)
        raise
