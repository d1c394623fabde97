"""What every command shares."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from geomatch.console import box, friendly, log, progress, set_verbosity
from geomatch.errors import GeomatchError, IndexFormatError, InputError, LimitError, OutputError, UsageError


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    yield
    log.handlers.clear()


def command_that_raises(error: BaseException) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @friendly
    def fail() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("kind", "code"),
    [(GeomatchError, 1), (UsageError, 2), (InputError, 3), (LimitError, 3), (IndexFormatError, 4), (OutputError, 5)],
)
def test_errors_are_one_line_and_an_exit_code(kind: type[GeomatchError], code: int) -> None:
    result = CliRunner().invoke(command_that_raises(kind("is odd", where="a.tif", hint="look at it")), [])
    assert result.exit_code == code
    assert result.stderr == "geomatch: a.tif: is odd. Look at it.\n"
    assert result.stdout == ""


def test_interrupt_is_told_and_ends_with_130() -> None:
    result = CliRunner().invoke(command_that_raises(KeyboardInterrupt()), [])
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


def test_mistakes_of_ours_are_not_hidden() -> None:
    result = CliRunner().invoke(command_that_raises(ZeroDivisionError("ours")), [])
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        ("gdalinfo prints it", "gdalinfo prints it"),
        ("gdal_edit.py -a_ullr writes one", "gdal_edit.py -a_ullr writes one"),
        ("geomatch reads GeoTIFF", "geomatch reads GeoTIFF"),
        ("geometry must be valid", "Geometry must be valid"),
        ("list them with ls", "List them with ls"),
        ("1 is the strongest", "1 is the strongest"),
    ],
)
def test_next_step_is_a_sentence_but_programs_keep_their_names(hint: str, told: str) -> None:
    assert str(InputError("is odd", where="a.tif", hint=hint)) == f"a.tif: is odd. {told}."
    assert str(InputError("is odd")) == "is odd."


class FullDisk(io.RawIOBase):
    """A stream to a disk that is full; what it keeps is refused again and again."""

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        del data
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("flush", [True, False])
def test_stdout_on_a_full_disk_is_an_output_error(
    flush: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = FullDisk()
    monkeypatch.setattr(raw, "close", lambda: None)
    stdout = io.TextIOWrapper(io.BufferedWriter(raw))
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(typer.Exit) as caught:
        friendly(lambda: print("answer", flush=flush))()
    assert caught.value.exit_code == 5
    said = capsys.readouterr().err
    assert said.startswith("geomatch: standard output cannot be written (No space left on device). Free some space")
    assert len(said.splitlines()) == 1
    with pytest.raises(OSError, match="No space"):
        stdout.close()


def test_other_refusals_of_the_system_are_not_blamed_on_stdout() -> None:
    for error in (FileNotFoundError("ours"), FileNotFoundError(errno.ENOENT, "No such file", "ours.tif")):
        result = CliRunner().invoke(command_that_raises(error), [])
        assert result.exception is error


@pytest.mark.parametrize(
    ("verbose", "quiet", "said"),
    [
        (0, False, ["warning", "error"]),
        (1, False, ["info", "warning", "error"]),
        (2, False, ["debug", "info", "warning", "error"]),
        (7, False, ["debug", "info", "warning", "error"]),
        (0, True, ["error"]),
        (2, True, ["error"]),
    ],
)
def test_messages_go_to_stderr_by_how_much_is_asked(
    verbose: int, quiet: bool, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # asked twice, said once
        set_verbosity(verbose, quiet)
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)("%s", level)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == said


def test_other_libraries_are_not_made_talkative(capsys: pytest.CaptureFixture[str]) -> None:
    set_verbosity(2, quiet=False)
    logging.getLogger("rasterio").debug("noise")
    assert capsys.readouterr().err == ""


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as step:
        for done in range(4):
            step("encoding", done, 3)
    assert capsys.readouterr() == ("", "")


def test_progress_is_drawn_on_a_terminal_but_not_when_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with progress(quiet=True) as step:
        step("encoding", 1, 3)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress() as step:
        step("encoding", 1, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "encoding" in err
    assert "1/3" in err


finite = st.floats(-1e7, 1e7)


@given(finite, finite, finite, finite)
def test_box_is_read_as_it_was_written(left: float, bottom: float, width: float, height: float) -> None:
    numbers = (left, bottom, left + abs(width) + 1, bottom + abs(height) + 1)
    assert box(",".join(map(repr, numbers))) == numbers
    assert box(" ".join(map(repr, numbers))) == numbers


def test_no_box_is_none() -> None:
    assert box(None) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1,2,3",
        "1,2,3,4,5",
        "a,b,c,d",
        "3,1,1,2",
        "1,4,3,2",
        "1,1,1,2",
        "nan,1,2,3",
        "1,nan,2,3",
        "1,2,inf,3",
        "-inf,1,2,3",
    ],
)
def test_anything_else_is_no_box(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--bbox: .* is no bounding box\. Give left,bottom,right,top"):
        box(text)
