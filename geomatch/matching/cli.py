"""``geomatch register`` and ``geomatch evaluate matching``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from geomatch.console import (
    Bands,
    Gsd,
    Kind,
    KindOption,
    Quiet,
    Verbose,
    friendly,
    log,
    progress,
    say_how_read,
    set_verbosity,
)


@friendly
def register(
    sar: Annotated[Path, typer.Argument(help="SAR image (GeoTIFF).", show_default=False)],
    optical: Annotated[Path, typer.Argument(help="Optical image of the same place (GeoTIFF).", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for control points (.points, .txt, .tif), the SAR image on the optical grid, and pictures.",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Method of matching; NAME=FILE with weights of your own, NAME@K for K keypoints.")
    ] = "area",
    gsd: Gsd = None,
    heading: Annotated[
        float | None,
        typer.Option(help="Where the SAR image's up points, degrees clockwise from north; default its own, or 0."),
    ] = None,
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Its columns run the other way, as of a radar that looks left.")
    ] = False,
    kind: KindOption = Kind.AUTO,
    band: Bands = None,
    homography: Annotated[
        bool, typer.Option("--homography", help="The SAR image is no orthophoto: consider a homography too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Fix a SAR image on an optical one of the same place.

    Scale and heading come from the SAR image's georeferencing and may be 20 % and 12° off; its position is not used. A
    file without georeferencing is taken as north up at the map's resolution unless --gsd and --heading say otherwise.
    """
    from geomatch.matching.fit import ORTHO
    from geomatch.matching.products import register_files
    from geomatch.matching.transforms import MODELS
    from geomatch.strip_files import StripOptions

    set_verbosity(verbose, quiet)
    bands = tuple(band) if band else None
    options = StripOptions(gsd, heading, kind.value, bands, mirrored="yes" if mirrored else None)
    models = MODELS if homography else ORTHO
    told = register_files(sar, optical, method, output, models=models, options=options)
    say_how_read(told["notes"], told=gsd is not None and heading is not None)
    if as_json:
        typer.echo(json.dumps(told, indent=1, allow_nan=False))
    elif not quiet:
        typer.echo(f"{sar}: {_told(told)}")


def _told(registration: dict[str, Any]) -> str:
    """One line of a registration for people."""
    if not registration["registered"]:
        return f"not registered, {registration['reason']}"
    ellipse = registration["error_ellipse"]
    weak = f"; its points are {registration['weakness']}" if registration["weakness"] else ""
    sure = "at 95 %" if ellipse["calibrated"] else "or so, as this method's errors were not calibrated"
    return (
        f"registered by {registration['inliers']} of {registration['matches']} matches as {registration['model']},"
        f" middle within {ellipse['semi_major_m']:.3g} × {ellipse['semi_minor_m']:.3g} m {sure}{weak}"
    )


@friendly
def matching(
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|OPTICAL.tif,SAR.tif",
            help="Pairs: validation, ombria, simulated, or two co-registered files; may be repeated. Default all sets.",
        ),
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Methods separated by commas, also NAME=FILE and NAME@KEYPOINTS, or all.")
    ] = "all",
    detectors: Annotated[str, typer.Option(help="Detectors whose repeatability is measured, or all, or none.")] = "all",
    count: Annotated[int, typer.Option(help="Random pairs of each set.")] = 400,
    size: Annotated[int, typer.Option(help="Side of an image, pixels.")] = 256,
    keypoints: Annotated[int, typer.Option(help="Keypoints asked of each detector.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pairs.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Folder of the real imagery.", envvar="GEOMATCH_DATA")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for predictions and scores; a run there is resumed.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes that measure, one thread each.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Compare local matching methods on SAR–optical pairs.

    Pairs are aligned, and warped by random similarities. One counts as registered where the fitted transform puts the
    corners within 10 px of the truth; a match as correct within 5 px. In a folder, what was measured of the same
    pixels, code and weights is not measured again.
    """
    from geomatch.matching.compare import SCORES, Comparison, compare, tables
    from geomatch.matching.samples import SOURCES
    from geomatch.summary import print_tables

    set_verbosity(verbose, quiet)
    asked = Comparison(
        pairs=tuple(pairs or SOURCES),
        methods=methods,
        detectors=detectors,
        count=count,
        size_px=size,
        keypoints=keypoints,
        seed=seed,
    )
    with progress(quiet) as step:
        scores = compare(asked, data, output, step, jobs=jobs)
    if as_json:
        typer.echo(json.dumps(scores, indent=1, allow_nan=False))
    elif not quiet:
        print_tables(tables(scores))
    if output is not None:
        log.warning("scores: %s", output / SCORES)
