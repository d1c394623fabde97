"""What every command shares: errors as one line and an exit code, progress on a terminal, how much is said."""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from geomatch.errors import GeomatchError, OutputError, UsageError

if TYPE_CHECKING:
    from geomatch.locator import Locator
    from geomatch.near import Near

INTERRUPTED = 130  # as shells report a process ended by Ctrl-C
PLAIN_HELP = None  # typer's ``rich_markup_mode``: what draws boxes takes as long to load as all else of ``--help``

log = logging.getLogger("geomatch")

P = ParamSpec("P")
Step = Callable[[str, int, int], None]  # stage, done, total

Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more: how files were understood.")]
HeadingTolerance = Annotated[
    float | None,
    typer.Option(metavar="DEG", help="How far the heading told may be off, either way: it is found then."),
]
GsdTolerance = Annotated[
    float | None,
    typer.Option(metavar="PCT", help="How far the pixel size told may be off, either way: it is found then."),
]


class Kind(StrEnum):
    """What the numbers of a SAR file are, see ``SarRadiometry.detect``."""

    AUTO = "auto"
    POWER = "power"
    AMPLITUDE = "amplitude"
    DB = "db"
    COMPLEX = "complex"


KindOption = Annotated[Kind, typer.Option("--kind", help="What the numbers are.")]
Gsd = Annotated[
    float | None,
    typer.Option(help="Metres per pixel of the SAR image; default its georeferencing, or the map's."),
]
Bands = Annotated[list[int] | None, typer.Option("--band", help="Band to use, from 1; may be repeated. Default all.")]
IndexOption = typer.Option(
    "--index",
    metavar="DIR|milvus://...",
    help="Index directory that `geomatch index build` wrote, or where `geomatch index publish` put it.",
    show_default=False,
)
BACKENDS = "What runs the network: auto, torch, onnxruntime, openvino, onnxruntime-int8 or openvino-int8."
BackendOption = Annotated[str, typer.Option("--backend", help=BACKENDS)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors; no progress.")]
MapOption = Annotated[
    Path | None,
    typer.Option("--map", help="The index's orthomosaic, if it was moved; of several rasters, their folder."),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same city or the same windows.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
ExhaustiveFlag = Annotated[bool, typer.Option("--exhaustive", help="Correlate with the whole map; slower.")]


def friendly(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors are one line on stderr and an exit code, never a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except GeomatchError as error:
            complain(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("geomatch: interrupted, nothing was left half-written", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            sys.stderr.close()  # whoever read our output has gone; Python would complain while it closes stdout
            raise typer.Exit(0) from None
        except OSError as error:
            if error.errno is None or error.filename is not None:
                raise  # a file's: a mistake of ours, for they are told as OutputError or InputError
            _drop_stdout()
            what = f"standard output cannot be written ({error.strerror})"
            refused = OutputError(what, hint="free some space or send it elsewhere")
            complain(refused)
            raise typer.Exit(refused.exit_code) from None

    return wrapped


def _drop_stdout() -> None:
    """Send what stdout keeps nowhere; Python would complain while it closes it."""
    with suppress(OSError):  # one in memory has no fileno
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def complain(error: GeomatchError) -> None:
    """One line on stderr."""
    typer.echo(f"geomatch: {error}", err=True)


def say_how_read(notes: Iterable[str], *, told: bool) -> None:
    """How a SAR file was understood, with -v; what was assumed of its scale or heading, without being told, always."""
    for note in notes:
        assumed = "no georeferencing" in note and not told
        log.log(logging.WARNING if assumed else logging.INFO, "%s", note)


def set_verbosity(verbose: int, quiet: bool) -> None:
    """Messages go to stderr: warnings by default, notes with -v, all with -vv, none with -q."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


@contextmanager
def progress(quiet: bool = False) -> Iterator[Step]:
    """A bar per stage on stderr when that is a terminal, nothing otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield step


def box(text: str | None, option: str = "--bbox") -> tuple[float, float, float, float] | None:
    """Four numbers ``left,bottom,right,top`` from the command line.

    Raises:
        UsageError: they are not four finite numbers, or enclose no area.
    """
    if text is None:
        return None
    try:
        left, bottom, right, top = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        left = bottom = right = top = math.nan
    if not (-math.inf < left < right < math.inf and -math.inf < bottom < top < math.inf):
        hint = "give left,bottom,right,top in units of the map's CRS"
        raise UsageError(f"{text!r} is no bounding box", where=option, hint=hint)
    return left, bottom, right, top


def open_locator(
    index: str, map_path: Path | None, exhaustive: bool, backend: str, near: Near | None = None
) -> Locator:
    """The locator of an index; says when there is no map beside it."""
    from geomatch.locator import Locator

    locator = Locator.open(index, map_path=map_path, exhaustive=exhaustive, near=near, backend=backend)
    if locator.pixels is None:
        log.warning(
            "%s: its map is gone or has changed, answers stand at the accuracy of a cell; say where it is with --map",
            index,
        )
    return locator
