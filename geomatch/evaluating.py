"""``geomatch evaluate``: windows of a scene whose position is hidden, its curves and re-rankers, and ``matching``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geomatch import defaults
from geomatch.console import (
    PLAIN_HELP,
    BackendOption,
    ExhaustiveFlag,
    GsdTolerance,
    HeadingTolerance,
    IndexOption,
    JsonFlag,
    MapOption,
    Quiet,
    Seed,
    Verbose,
    box,
    friendly,
    log,
    open_locator,
    progress,
    set_verbosity,
)
from geomatch.errors import UsageError
from geomatch.matching.cli import matching

if TYPE_CHECKING:
    from geomatch.locator import Locator
    from geomatch.sampling import WindowOptions

CURVE_NAMES = ("heading", "scale", "looks", "size", "overlap", "all")

evaluations = typer.Typer(invoke_without_command=True, rich_markup_mode=PLAIN_HELP)
evaluations.command("matching")(matching)


@evaluations.callback()
@friendly
def evaluate(
    context: typer.Context,
    index: Annotated[str | None, IndexOption] = None,
    sar: Annotated[
        Path | None, typer.Option(help="A georeferenced SAR scene that shows the map.", show_default=False)
    ] = None,
    windows: Annotated[int, typer.Option(help="How many windows are cut at random places.")] = 500,
    size: Annotated[int, typer.Option(help="Columns of a window, pixels of the scene; its side, if no length.")] = 200,
    length: Annotated[
        int | None, typer.Option(help="Rows of a window, for strips.", show_default="as many as columns")
    ] = None,
    seed: Seed = 0,
    bbox: Annotated[
        str | None, typer.Option(help="left,bottom,right,top in the map's CRS that windows must lie in.")
    ] = None,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="Cut on the tile grid, the papers' easier protocol.")
    ] = False,
    rotate: Annotated[
        str,
        typer.Option(
            metavar="none|any|DEG",
            help="Turn windows at random: by any heading, which has to be found, or up to DEG, which is not told.",
        ),
    ] = "none",
    heading_tolerance: HeadingTolerance = None,
    scale: Annotated[
        float,
        typer.Option(metavar="PCT", help="Percent by which the scale told may be off, at random, up to 100."),
    ] = 0.0,
    gsd_tolerance: GsdTolerance = None,
    absent: Annotated[
        Path | None, typer.Option(help="A SAR scene off the map, to see whether that is noticed.")
    ] = None,
    strips: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Strips of N windows, one below the other, in the place of --length."),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="all|NAME,...",
            help="Compare instead how re-rankers order what the vectors of single windows retrieve.",
        ),
    ] = None,
    curve: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(CURVE_NAMES),
            help="Measure instead how success falls off with an error not told; may be repeated; needs --output.",
        ),
    ] = None,
    map_path: MapOption = None,
    as_json: JsonFlag = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for predictions, scores, plots and a report.")
    ] = None,
    exhaustive: ExhaustiveFlag = False,
    backend: BackendOption = defaults.BACKEND,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Measure how well an index answers, or compare local matchers.

    Windows of a SAR scene are asked about with their position hidden. Counts are by overlap and distance, never by
    tile; shares come with Wilson intervals. Windows where the map shows open water or nothing (a quarter of the 8 px
    cells must have a gradient of 0.01 per pixel) are reported apart.
    """
    from geomatch.attitude import Tolerance
    from geomatch.evaluation import evaluate as run
    from geomatch.sampling import WindowOptions, turns

    if context.invoked_subcommand is not None:
        return
    if index is None or sar is None:
        missing = "--index" if index is None else "--sar"
        raise UsageError("an index and a scene that shows its map are needed", where=missing, hint=f"give {missing}")
    if strips is not None and length is not None:
        raise UsageError("both say how long strips are", where="--strips, --length", hint="give one of them")
    if rerank is not None and curve:
        raise UsageError("both measure something else instead", where="--rerank, --curve", hint="give one of them")
    known = rotate == "none" and not scale and heading_tolerance is None and gsd_tolerance is None
    if rerank is not None and not known:
        hint = "leave --rotate, --scale and the tolerances out; without --rerank they are measured"
        raise UsageError("re-rankers are compared where heading and scale are known", where="--rerank", hint=hint)
    set_verbosity(verbose, quiet)
    options = WindowOptions(
        windows=windows,
        size_px=size,
        length_px=length if strips is None else strips * size,
        seed=seed,
        bbox=box(bbox),
        aligned=aligned,
        rotate=turns(rotate),
        scale_percent=scale,
        tolerance=Tolerance.told(heading_tolerance, gsd_tolerance, any_turn=rotate == "any"),
    )
    locator = open_locator(index, map_path, exhaustive, backend)
    if curve:
        _curves(locator, sar, curve, options, output, as_json=as_json, quiet=quiet)
        return
    if rerank is not None:
        _rerankers(locator, sar, rerank, options, absent, output, as_json=as_json, quiet=quiet)
        return
    with progress(quiet) as step:
        scores = run(locator, sar, options, absent=absent, output=output, progress=step)
    if as_json:
        typer.echo(json.dumps(scores, indent=1, allow_nan=False))
    elif not quiet:
        from geomatch.summary import print_tables, tables

        print_tables(tables(scores))
    if output is not None:
        log.warning("report: %s", output / "report.html")


def _curves(
    locator: Locator,
    sar: Path,
    names: list[str],
    options: WindowOptions,
    output: Path | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure, print and draw tolerance curves."""
    from geomatch.curves import CURVES, measure, tables
    from geomatch.summary import print_tables

    if output is None:
        raise UsageError("curves need a folder", where="--curve", hint="name one with --output; it resumes there")
    with progress(quiet) as step:
        points = measure(locator, sar, options, output, list(CURVES) if "all" in names else names, progress=step)
    if as_json:
        typer.echo(json.dumps([asdict(point) for point in points], indent=1, allow_nan=False))
    elif not quiet:
        print_tables(tables(points))
    log.warning("report: %s", output / "report.html")


def _rerankers(
    locator: Locator,
    sar: Path,
    names: str,
    options: WindowOptions,
    absent: Path | None,
    output: Path | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare re-rankers, and print and draw it."""
    from geomatch.reranking.evaluation import REPORT, compare, rerankers_named, tables
    from geomatch.summary import print_tables

    with progress(quiet) as step:
        chosen = rerankers_named(names)
        scores = compare(locator.index, sar, options, chosen, absent=absent, output=output, progress=step)
    if as_json:
        typer.echo(json.dumps(scores, indent=1, allow_nan=False))
    elif not quiet:
        print_tables(tables(scores))
    if output is not None:
        log.warning("report: %s", output / REPORT)
