"""The command line: ``geomatch locate | register | evaluate | ...``, and the commands of plugins such as ``index``."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from geomatch import defaults
from geomatch.console import (
    INTERRUPTED,
    PLAIN_HELP,
    BackendOption,
    Bands,
    ExhaustiveFlag,
    Gsd,
    GsdTolerance,
    HeadingTolerance,
    IndexOption,
    JsonFlag,
    Kind,
    KindOption,
    MapOption,
    Quiet,
    Seed,
    Verbose,
    complain,
    friendly,
    open_locator,
    progress,
    say_how_read,
    set_verbosity,
)
from geomatch.errors import GeomatchError, IndexFormatError, InputError, OutputError, UsageError
from geomatch.evaluating import evaluations
from geomatch.matching.cli import register

if TYPE_CHECKING:
    from geomatch.location import Location
    from geomatch.locator import Locator
    from geomatch.pictures import Pictures
    from geomatch.strip_files import StripOptions

app = typer.Typer(
    name="geomatch",
    help="Find where a SAR image was taken on an optical map.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=PLAIN_HELP,
    epilog="Exit codes: 0 done, 2 usage, 3 bad input, 4 bad index, 5 cannot write, 130 interrupted.",
)


def main() -> None:
    """Entry point of the ``geomatch`` program."""
    for plugin in sorted(entry_points(group="geomatch.commands"), key=lambda entry: entry.name):
        app.add_typer(plugin.load(), name=plugin.name)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _terminate(number: int, frame: object) -> None:
    """End as an interrupt does, so that what is half-written goes; shells expect 128 and the signal's number."""
    del frame
    raise SystemExit(128 + number)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"geomatch {version('geomatch')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del show_version


@app.command()
@friendly
def locate(
    strips: Annotated[list[Path], typer.Argument(help="SAR images (GeoTIFF).", show_default=False)],
    index: Annotated[str, IndexOption],
    gsd: Gsd = None,
    heading: Annotated[
        str | None,
        typer.Option(
            metavar="DEG|unknown",
            help="Where the strips' up points, degrees clockwise from north, or unknown; default theirs, or 0.",
        ),
    ] = None,
    heading_tolerance: HeadingTolerance = None,
    gsd_tolerance: GsdTolerance = None,
    mirrored: Annotated[
        Literal["no", "yes", "unknown"] | None,
        typer.Option(
            help="Whether columns run the other way, as of a radar that looks left; unknown to have it found.",
            show_default="no; unknown without georeferencing and heading",
        ),
    ] = None,
    kind: KindOption = Kind.AUTO,
    band: Bands = None,
    map_path: MapOption = None,
    as_json: JsonFlag = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the answers: .geojson, .gpkg or .parquet.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Checkerboard on the map (.png); a folder for several strips.")
    ] = None,
    warp: Annotated[
        Path | None, typer.Option(help="The strip on the map's grid (.tif, a COG); a folder for several strips.")
    ] = None,
    gcps: Annotated[
        Path | None,
        typer.Option(
            help="Ground control points: .points for QGIS, .txt for gdal_translate --optfile, .tif for the strip with"
            " them; a folder for .points of several strips."
        ),
    ] = None,
    near: Annotated[
        str | None,
        typer.Option(
            metavar="LON,LAT,RADIUS",
            help="Look for the strips' middles within so many metres of a place, and nowhere else.",
        ),
    ] = None,
    exhaustive: ExhaustiveFlag = False,
    backend: BackendOption = defaults.BACKEND,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Find where SAR strips were taken.

    Scale and heading come from a strip's georeferencing, its position is not used. A file without georeferencing is
    taken as north up at the map's resolution unless --gsd and --heading say otherwise. With a tolerance, headings and
    scales within it are tried; with --heading unknown all headings are, which takes longer.
    """
    from geomatch.near import Near
    from geomatch.outputs import check_locations_path, feature_collection, write_locations
    from geomatch.pictures import Pictures
    from geomatch.strip_files import StripOptions

    set_verbosity(verbose, quiet)
    heading_deg = None if heading is None else _heading(heading)
    bands = tuple(band) if band else None
    options = StripOptions(gsd, heading_deg, kind.value, bands, heading_tolerance, gsd_tolerance, mirrored)
    if output is not None:
        check_locations_path(output)
    locator = open_locator(index, map_path, exhaustive, backend, None if near is None else Near.parse(near))
    pictures = Pictures(locator, options, strips, overlay=overlay, warp=warp, gcps=gcps)
    answers: list[tuple[str, Location]] = []
    failures: list[GeomatchError] = []
    with progress(quiet) as step:
        for done, strip in enumerate(strips):
            step("locating", done, len(strips))
            try:
                location, failure = _locate_one(locator, strip, options, pictures)
            except IndexFormatError as lost:  # a store that does not answer any more, say: what was found is not lost
                if not answers:
                    raise
                answers += [(str(other), _unusable(locator, lost)) for other in strips[done:]]
                complain(lost)
                failures.insert(0, lost)
                break
            answers.append((str(strip), location))
            if failure is not None:
                complain(failure)
                failures.append(failure)
            if failure is None or location.status != "unusable":  # its failure is told already
                _describe(strip, location, options, quiet=quiet or as_json)
        step("locating", len(strips), len(strips))
    if output is not None:
        try:
            write_locations(answers, output)
        except OutputError as error:
            complain(error)
            failures.append(error)
    if as_json:
        typer.echo(json.dumps(feature_collection(answers), allow_nan=False))
    if failures:
        raise typer.Exit(failures[0].exit_code)


def _heading(text: str) -> float | Literal["unknown"]:
    if text == "unknown":
        return "unknown"
    try:
        return float(text)
    except ValueError:
        hint = "give degrees clockwise from north, 0-360, or unknown"
        raise UsageError(f"{text!r} is no heading", where="--heading", hint=hint) from None


def _locate_one(
    locator: Locator, strip: Path, options: StripOptions, pictures: Pictures
) -> tuple[Location, GeomatchError | None]:
    """The answer to one file, and what went wrong; that does not stop the others."""
    try:
        trace = locator.follow(strip, options)
    except (InputError, UsageError) as error:
        return _unusable(locator, error), error
    try:
        pictures.draw(strip, trace)
    except GeomatchError as error:
        return trace.location, error
    return trace.location, None


def _unusable(locator: Locator, why: GeomatchError) -> Location:
    from geomatch.location import Evidence, Location, crs_name

    return Location("unusable", crs_name(locator.index.grid.crs), evidence=Evidence(notes=(str(why),)))


def _describe(strip: Path, location: Location, options: StripOptions, *, quiet: bool) -> None:
    """One line on stdout for people, the notes on stderr with -v; what was assumed, without being told, always."""
    notes = location.evidence.notes
    say_how_read(notes, told=options.gsd_m is not None and options.heading_deg is not None)
    if quiet:
        return
    if location.status == "unusable":
        typer.echo(f"{strip}: unusable, {notes[-1]}" if notes else f"{strip}: unusable")
        return
    if location.center is None:
        typer.echo(f"{strip}: {location.status} (confidence {location.confidence:.2f})")
        return
    x, y = location.center
    typer.echo(
        f"{strip}: {location.status} at {x:.10g}, {y:.10g} ({location.crs if len(location.crs) < 20 else 'map CRS'}), "
        f"within {location.error_radius_m:.3g} m, confidence {location.confidence:.2f}"
    )


app.command("register")(register)
app.add_typer(evaluations, name="evaluate")


@app.command()
@friendly
def weights(as_json: JsonFlag = False) -> None:
    """Name the trained weights, their data and their figures."""
    from geomatch.weights import NAMED

    if as_json:
        typer.echo(json.dumps({name: asdict(named) for name, named in NAMED.items()}, indent=1))
        return
    for name, named in NAMED.items():
        typer.echo(
            f"{name} ({named.network}): {named.trained_on}; {named.radiometry}; {named.measured}; sha256 {named.sha256}"
        )


@app.command()
@friendly
def simulate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to appear.")],
    size: Annotated[int, typer.Option(help="Side of the city, pixels.")] = 4096,
    seed: Seed = 1,
    strips: Annotated[int, typer.Option(help="How many UAV strips.")] = 6,
    gsd: Annotated[float, typer.Option(help="Metres per pixel.")] = 0.5,
    sway: Annotated[
        float, typer.Option(metavar="PCT", help="How far speed and direction of the flights stray, slowly; 0-10.")
    ] = 0.0,
    no_georeference: Annotated[
        bool, typer.Option("--no-georeference", help="Strips without georeferencing, not with one that has drifted.")
    ] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Draw a city: orthomosaic, SAR scene, and strips at known poses."""
    from geomatch.simulation import Flight, simulate_city

    set_verbosity(verbose, quiet)
    city = simulate_city(
        output,
        size_px=size,
        seed=seed,
        strips=strips,
        gsd_m=gsd,
        flight=Flight(sway_percent=sway),
        georeference="none" if no_georeference else "drifted",
    )
    if not quiet:
        typer.echo("\n".join(map(str, (city.ortho, city.sar, *city.strips, city.truth_file))))


@app.command()
@friendly
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write; what a demo wrote is replaced.")
    ] = Path("demo"),
    size: Annotated[int, typer.Option(help="Side of the city, pixels.")] = 3000,
    seed: Seed = 1,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Draw a city, index it, locate its strips; tell their errors."""
    from geomatch.demo import run_demo

    set_verbosity(verbose, quiet)
    report = run_demo(output, size_px=size, seed=seed, quiet=quiet)
    if not quiet:
        typer.echo(f"report: {report}")


if __name__ == "__main__":
    main()
