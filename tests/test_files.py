"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geomatch.errors import OutputError
from geomatch.files import alone_at, check_target, published, sha256_of, writing
from geomatch.manifest import MANIFEST, VECTORS

HOLDING = """
import os
from pathlib import Path
from geomatch.files import alone_at
with alone_at(Path({target!r})):
    {then}
"""
FAILURES = [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=st.none() | st.binary(max_size=200), new=st.binary(max_size=200), fails=st.booleans())
def test_file_is_the_old_or_the_new_and_nothing_else(
    old: bytes | None, new: bytes, fails: bool, tmp_path: Path
) -> None:
    target = tmp_path / "a.bin"
    target.unlink(missing_ok=True)
    if old is not None:
        target.write_bytes(old)
    try:
        with published(target) as draft:
            draft.write_bytes(new)
            assert (target.read_bytes() if target.exists() else None) == old
            if fails:
                raise RuntimeError("on purpose")
    except RuntimeError:
        pass
    assert (target.read_bytes() if target.exists() else None) == (old if fails else new)
    assert {file.name for file in tmp_path.iterdir()} <= {"a.bin"}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("old", [False, True])
def test_failing_folder_leaves_the_old_one(failure: type[BaseException], old: bool, tmp_path: Path) -> None:
    target = tmp_path / "a"
    if old:
        target.mkdir()
        (target / "x").write_text("old")
    with pytest.raises(failure), published(target, directory=True) as draft:
        (draft / "x").write_text("new")
        raise failure("on purpose")
    assert [file.name for file in tmp_path.iterdir()] == (["a"] if old else [])
    assert not old or (target / "x").read_text() == "old"


def test_folder_replaces_a_folder_whole(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")
    with published(tmp_path / "a", directory=True) as draft:
        (draft / "new").write_text("new")
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["new"]
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("step", ["first", "second"])
@pytest.mark.parametrize("failure", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_rename_that_fails_brings_the_old_folder_back(
    step: str, failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt may come just after the old folder has stepped aside, before the new one takes its place."""
    target, rename, calls = tmp_path / "a", Path.rename, 0
    target.mkdir()
    (target / "x").write_text("old")

    def failing(self: Path, to: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == 1 and step == "first":
            rename(self, to)
            raise failure
        if calls == 2 and step == "second":
            raise failure
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises((OutputError, KeyboardInterrupt)), published(target, directory=True) as draft:
        (draft / "x").write_text("new")
    assert (target / "x").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("directory", "there"), [(True, "file"), (False, "folder")])
@pytest.mark.parametrize("overwrite", [True, False])
def test_file_and_folder_do_not_replace_each_other(
    directory: bool, there: str, overwrite: bool, tmp_path: Path
) -> None:
    target = tmp_path / "a"
    target.write_text("mine") if there == "file" else target.mkdir()
    with (
        pytest.raises(OutputError, match=r"a: is there already\. Choose another place\."),
        published(target, directory=directory, overwrite=overwrite),
    ):
        pytest.fail("the block must not begin")
    assert target.exists()


@pytest.mark.parametrize("directory", [True, False])
def test_without_overwrite_what_is_there_stays(directory: bool, tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.mkdir() if directory else target.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"), published(target, directory=directory, overwrite=False):
        pytest.fail("the block must not begin")


@pytest.mark.parametrize("directory", [True, False])
def test_without_overwrite_what_came_meanwhile_stays(directory: bool, tmp_path: Path) -> None:
    target = tmp_path / "a"
    with (
        pytest.raises(OutputError, match="is there already"),
        published(target, directory=directory, overwrite=False) as draft,
    ):
        if not directory:
            draft.write_text("late")
        target.mkdir() if directory else target.write_text("early")
    assert directory or target.read_text() == "early"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_relative_place_is_one_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with published(Path("a.txt")) as draft:
        draft.write_text("new")
        os.chdir("/")  # whoever writes may go elsewhere
    assert (tmp_path / "a.txt").read_text() == "new"


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"gone: the folder to write to does not exist\. Create it first"),
        published(tmp_path / "gone" / "a.txt"),
    ):
        pytest.fail("the block must not begin")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """What is taken for an index."""
    folder = tmp_path / "city.gmi"
    folder.mkdir()
    for name in (MANIFEST, VECTORS):
        (folder / name).write_text("mine")
    return folder


@pytest.mark.parametrize("name", [VECTORS, "new.png", "deep/new.png"])
def test_nothing_is_published_inside_an_index(name: str, index: Path) -> None:
    (index / "deep").mkdir()
    with (
        pytest.raises(OutputError, match=r"lies inside the index .*city\.gmi\. Choose") as caught,
        published(index / name),
    ):
        pytest.fail("the block must not begin")
    assert caught.value.where == str(index / name)
    assert {file.name for file in index.iterdir()} == {MANIFEST, VECTORS, "deep"}
    assert (index / VECTORS).read_text() == "mine"


@pytest.mark.parametrize("directory", [True, False])
def test_target_inside_an_index_is_told_before_the_work(directory: bool, index: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(index)
    for target in (index / "new", tmp_path / "link" / "new", *([index, tmp_path / "link"] if directory else [])):
        with pytest.raises(OutputError, match="lies inside the index"):
            check_target(target, directory=directory)
    check_target(tmp_path / "beside", directory=directory)
    (index / VECTORS).unlink()  # someone else's manifest.json
    check_target(index / "new", directory=directory)


def test_target_must_be_of_its_kind_and_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for name, directory, told in [
        ("file", True, "this is a file. Name a folder"),
        ("folder", False, "this is a folder. Name a file in it"),
        ("gone/a", True, "does not exist. Create it first"),
        ("gone/a", False, "does not exist. Create it first"),
    ]:
        with pytest.raises(OutputError, match=told):
            check_target(tmp_path / name, directory=directory)
    for name, directory in [("file", False), ("folder", True), ("new", False), ("new", True)]:
        check_target(tmp_path / name, directory=directory)
    assert {file.name for file in tmp_path.iterdir()} == {"file", "folder"}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "larger than this place allows"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "cannot be written"),
        (errno.ENAMETOOLONG, "cannot be written"),
    ],
)
def test_refusals_of_the_system_are_told(code: int, told: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=rf"a\.txt: .*{told}") as caught, published(tmp_path / "a.txt"):
        raise OSError(code, os.strerror(code))
    assert caught.value.hint
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []


def test_broken_pipe_of_the_watcher_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), writing(tmp_path / "a.txt"):
        raise BrokenPipeError(errno.EPIPE, "broken pipe")


def test_name_too_long_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError), published(tmp_path / ("a" * 300)):
        pytest.fail("the block must not begin")


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_sha256_is_that_of_the_content(size: int, tmp_path: Path) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(content[:size])
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content[:size]).hexdigest()


def test_place_is_held_for_one_process(tmp_path: Path) -> None:
    target = tmp_path / "city.gmi"
    script = HOLDING.format(target=str(target), then="print('in')")
    with alone_at(target):
        assert [file.name for file in tmp_path.iterdir()] == [".city.gmi.lock"]
        told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert "another process is building it" in told.stderr
        with pytest.raises(OutputError, match=r"city\.gmi: another process is building it. Wait"), alone_at(target):
            pass
    assert list(tmp_path.iterdir()) == []
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "in\n"


def test_process_that_dies_gives_the_place_up(tmp_path: Path) -> None:
    target = tmp_path / "city.gmi"
    script = HOLDING.format(target=str(target), then="os._exit(9)")
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    with alone_at(target):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    target = tmp_path / "city.gmi"
    script = f"""
import os
from pathlib import Path
from geomatch.files import alone_at, published
with alone_at(Path({str(target)!r})), published(Path({str(target)!r}), directory=True) as folder:
    (folder / "features.tif").write_bytes(bytes(100))
    os._exit(9)
"""
    others = [tmp_path / ".city.gmi.old.abcd.tmp", tmp_path / ".town.gmi.abcd.tmp", tmp_path / "city.gmi.abcd.tmp"]
    for other in others:
        other.mkdir()
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    (left,) = (path for path in tmp_path.iterdir() if path not in others and path.name != ".city.gmi.lock")
    here, process, rest = left.name.removeprefix(".city.gmi.").split("-")
    elsewhere = tmp_path / f".city.gmi.{here[::-1]}x-{process}-{rest}"  # of another machine
    alive = tmp_path / f".city.gmi.{here}-{os.getpid()}-{rest}"
    for other in (elsewhere, alive):
        shutil.copytree(left, other)
    with alone_at(target):
        assert not left.exists()
        assert elsewhere.is_dir()
        assert alive.is_dir()
    for path in (*elsewhere.rglob("*"), elsewhere):
        os.utime(path, (1e9, 1e9))
    with alone_at(target):
        assert sorted(tmp_path.iterdir()) == sorted([*others, alive, tmp_path / ".city.gmi.lock"])


def test_what_stepped_aside_comes_back_where_nothing_took_its_place(tmp_path: Path) -> None:
    target, left = tmp_path / "city.gmi", tmp_path / ".city.gmi.abcd.tmp"
    for name in ("replaced", "city.gmi"):
        (left / name).mkdir(parents=True)
        (left / name / "what").write_text(name)
    for path in (*left.rglob("*"), left):
        os.utime(path, (1e9, 1e9))
    with alone_at(target):
        assert (target / "what").read_text() == "replaced"
    assert list(tmp_path.iterdir()) == [target]


def test_lock_that_was_removed_under_its_holder_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened while another process held it, and taken after that one removed it: a third may hold a new one."""
    import fcntl

    target, take = tmp_path / "city.gmi", fcntl.flock

    def late(lock: int, how: int) -> None:
        (tmp_path / ".city.gmi.lock").unlink()
        take(lock, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(OutputError, match=r"another process is building it"), alone_at(target):
        pass
