"""The command line: ``geomatch locate | evaluate | simulate | demo``, and the commands of plugins such as ``index``."""

from __future__ import annotations

import json
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geomatch.console import INTERRUPTED, Quiet, Verbose, box, complain, friendly, log, progress, set_verbosity
from geomatch.errors import InputError, UsageError

if TYPE_CHECKING:
    from geomatch.location import Location
    from geomatch.locator import Locator
    from geomatch.strips import StripOptions

app = typer.Typer(
    name="geomatch",
    help="Find where a SAR image was taken on an optical map.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 2 usage, 3 bad input, 4 bad index, 5 cannot write, 130 interrupted.",
)

IndexOption = Annotated[Path, typer.Option("--index", help="Index directory that `geomatch index build` wrote.")]
MapOption = Annotated[Path | None, typer.Option("--map", help="The index's orthomosaic, if it was moved.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
ExhaustiveFlag = Annotated[bool, typer.Option("--exhaustive", help="Correlate with the whole map; slower.")]


def main() -> None:
    """Entry point of the ``geomatch`` program."""
    for plugin in sorted(entry_points(group="geomatch.commands"), key=lambda entry: entry.name):
        app.add_typer(plugin.load(), name=plugin.name)
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


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
    index: IndexOption,
    gsd: Annotated[
        float | None, typer.Option(help="Metres per pixel of the strips; default their georeferencing, or the map's.")
    ] = None,
    heading: Annotated[
        float | None,
        typer.Option(help="Where the strips' up points, degrees clockwise from north; default theirs, or 0."),
    ] = None,
    kind: Annotated[str, typer.Option(help="What the numbers are: auto, power, amplitude, db, complex.")] = "auto",
    band: Annotated[list[int] | None, typer.Option(help="Band to use, from 1; may be repeated. Default all.")] = None,
    map_path: MapOption = None,
    as_json: JsonFlag = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the answers: .geojson, .gpkg or .parquet.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Checkerboard picture on the map (PNG); a folder for several strips.")
    ] = None,
    warp: Annotated[
        Path | None, typer.Option(help="The strip on the map's grid (COG); a folder for several strips.")
    ] = None,
    exhaustive: ExhaustiveFlag = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Find where SAR strips were taken.

    Scale and heading come from a strip's georeferencing, its position is not used. A file without georeferencing is
    taken as north up at the map's resolution unless --gsd and --heading say otherwise.
    """
    from geomatch.locator import Locator
    from geomatch.outputs import check_locations_path, feature_collection, write_locations
    from geomatch.strips import StripOptions

    set_verbosity(verbose, quiet)
    options = StripOptions(gsd_m=gsd, heading_deg=heading, kind=kind, bands=tuple(band) if band else None)
    if output is not None:
        check_locations_path(output)
    locator = Locator.open(index, map_path=map_path, exhaustive=exhaustive)
    pictures = _Pictures(locator, options, overlay, warp, several=len(strips) > 1)
    answers: list[tuple[str, Location]] = []
    failed = 0
    with progress(quiet) as step:
        for done, strip in enumerate(strips):
            step("locating", done, len(strips))
            location, failure = _locate_one(locator, strip, options)
            failed = failed or failure
            answers.append((str(strip), location))
            pictures.draw(strip, location)
            _describe(strip, location, quiet=quiet or as_json)
        step("locating", len(strips), len(strips))
    if output is not None:
        write_locations(answers, output)
    if as_json:
        typer.echo(json.dumps(feature_collection(answers), allow_nan=False))
    if failed:
        raise typer.Exit(failed)


def _locate_one(locator: Locator, strip: Path, options: StripOptions) -> tuple[Location, int]:
    """The answer to one file, and the exit code that it asks for; a bad file does not stop the others."""
    from geomatch.location import Evidence, Location, crs_name

    try:
        return locator.locate(strip, options), 0
    except InputError as error:
        complain(error)
        evidence = Evidence(notes=(str(error),))
        return Location("unusable", crs_name(locator.index.grid.crs), evidence=evidence), error.exit_code


def _describe(strip: Path, location: Location, *, quiet: bool) -> None:
    """One line on stdout for people, the notes on stderr with -v."""
    for note in location.evidence.notes:
        log.info("%s", note)
    if quiet:
        return
    if location.center is None:
        typer.echo(f"{strip}: {location.status} (confidence {location.confidence:.2f})")
        return
    x, y = location.center
    typer.echo(
        f"{strip}: {location.status} at {x:.10g}, {y:.10g} ({location.crs if len(location.crs) < 20 else 'map CRS'}), "
        f"within {location.error_radius_m:.3g} m, confidence {location.confidence:.2f}"
    )


class _Pictures:
    """Where --overlay and --warp write: the path itself for one strip, NAME.png and NAME.tif in it for several."""

    def __init__(
        self, locator: Locator, options: StripOptions, overlay: Path | None, warp: Path | None, *, several: bool
    ) -> None:
        self._locator, self._options = locator, options
        self._overlay, self._warp, self._several = overlay, warp, several
        for folder in (overlay, warp):
            if folder is not None and several:
                if folder.exists() and not folder.is_dir():
                    raise UsageError("is a file", where=folder, hint="name a folder when there are several strips")
                folder.mkdir(exist_ok=True)
        if overlay is not None and locator.pixels is None:
            locator.index.open_map()

    def draw(self, strip: Path, location: Location) -> None:
        """Write what was asked for; a strip without a place has no picture."""
        from geomatch.overlay import checkerboard, warp_strip

        if location.transform is None:
            if self._overlay or self._warp:
                log.warning("%s: %s, so there is no picture of it", strip, location.status)
            return
        if self._overlay is not None:
            checkerboard(
                strip, location, self._locator, self._target(self._overlay, strip, ".png"), options=self._options
            )
        if self._warp is not None:
            warp_strip(strip, location, self._locator, self._target(self._warp, strip, ".tif"))

    def _target(self, path: Path, strip: Path, suffix: str) -> Path:
        return path / f"{strip.stem}{suffix}" if self._several else path


@app.command()
@friendly
def evaluate(
    index: IndexOption,
    sar: Annotated[Path, typer.Option(help="A georeferenced SAR scene that shows the map.")],
    windows: Annotated[int, typer.Option(help="How many windows are cut at random places.")] = 500,
    size: Annotated[int, typer.Option(help="Side of a window, pixels of the scene.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the random places.")] = 0,
    bbox: Annotated[
        str | None, typer.Option(help="left,bottom,right,top in the map's CRS that windows must lie in.")
    ] = None,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="Cut on the tile grid, the papers' easier protocol.")
    ] = False,
    absent: Annotated[
        Path | None, typer.Option(help="A SAR scene off the map, to see whether that is noticed.")
    ] = None,
    map_path: MapOption = None,
    as_json: JsonFlag = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for predictions, scores, plots and a report.")
    ] = None,
    exhaustive: ExhaustiveFlag = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Measure how well an index answers, on windows of a SAR scene whose position is hidden.

    Counts are by overlap and distance, never by tile; shares come with Wilson intervals. Windows where the map shows
    open water or nothing (a quarter of the 8 px cells must have a gradient of 0.01 per pixel) are reported apart.
    """
    from geomatch.evaluation import evaluate as run
    from geomatch.locator import Locator
    from geomatch.sampling import WindowOptions

    set_verbosity(verbose, quiet)
    options = WindowOptions(windows=windows, size_px=size, seed=seed, bbox=box(bbox), aligned=aligned)
    locator = Locator.open(index, map_path=map_path, exhaustive=exhaustive)
    with progress(quiet) as step:
        scores = run(locator, sar, options, absent=absent, output=output, progress=step)
    if as_json:
        typer.echo(json.dumps(scores, indent=1, allow_nan=False))
    elif not quiet:
        from geomatch.summary import print_scores

        print_scores(scores)
    if output is not None:
        log.warning("report: %s", output / "report.html")


@app.command()
@friendly
def simulate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to appear.")],
    size: Annotated[int, typer.Option(help="Side of the city, pixels.")] = 4096,
    seed: Annotated[int, typer.Option(help="The same seed gives the same city.")] = 1,
    strips: Annotated[int, typer.Option(help="How many UAV strips.")] = 6,
    gsd: Annotated[float, typer.Option(help="Metres per pixel.")] = 0.5,
    no_georeference: Annotated[
        bool, typer.Option("--no-georeference", help="Strips without georeferencing, not with one that has drifted.")
    ] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Make a city of one's own: orthomosaic, SAR scene, UAV strips at known poses, truth.json."""
    from geomatch.simulation import simulate_city

    set_verbosity(verbose, quiet)
    city = simulate_city(
        output,
        size_px=size,
        seed=seed,
        strips=strips,
        gsd_m=gsd,
        georeference="none" if no_georeference else "drifted",
    )
    if not quiet:
        typer.echo(f"{city.ortho}\n{city.sar}\n" + "\n".join(map(str, city.strips)) + f"\n{city.truth_file}")


@app.command()
@friendly
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write; what a demo wrote is replaced.")
    ] = Path("demo"),
    size: Annotated[int, typer.Option(help="Side of the city, pixels.")] = 3000,
    seed: Annotated[int, typer.Option(help="Of the city.")] = 1,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Simulate a city, index it, locate its strips, and report how far off they are."""
    from geomatch.demo import run_demo

    set_verbosity(verbose, quiet)
    report = run_demo(output, size_px=size, seed=seed, quiet=quiet)
    typer.echo(f"report: {report}")


if __name__ == "__main__":
    main()
