"""What ``geomatch register`` writes of two files: control points, the warped SAR image, pictures, figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np

from geomatch.errors import UsageError
from geomatch.files import check_target, published, writing
from geomatch.gcps import WRITERS, write_gcps
from geomatch.matching.drawing import match_picture
from geomatch.matching.fit import ORTHO, NoFit
from geomatch.matching.methods import CALIBRATED, method
from geomatch.matching.transforms import Model
from geomatch.outputs import output_file
from geomatch.overlay import Canvas, checkerboard, warp_strip, write_png
from geomatch.registration import Measured, PairRegistration, register_pair
from geomatch.strip_files import StripOptions

CONTROL, REGISTERED = "control", "registered.tif"
MATCHES, BOARD, TIES, FIGURES = "matches.png", "checkerboard.png", "ties.csv", "registration.json"
PRODUCTS = (FIGURES, *(f"{CONTROL}{suffix}" for suffix in WRITERS), REGISTERED, MATCHES, BOARD, TIES)


def register_files(
    sar: Path,
    optical: Path,
    name: str,
    output: Path | None,
    *,
    models: Sequence[Model] = ORTHO,
    options: StripOptions | None = None,
) -> dict[str, Any]:
    """Register two files and write what came of it.

    Args:
        sar, optical: GeoTIFFs of one place.
        name: of the method, as ``method`` takes it.
        output: folder to write into, or None for none. What an earlier run left there goes, whatever came of this
            one; without a fit the figures and the matches alone are written.
        models: kinds of transform that are considered, as of ``fit``.
        options: how to read the SAR file.

    Returns:
        ``Registration.properties``, the names of the files and of the method, and notes on how the SAR file was read.

    Raises:
        UsageError, InputError: as ``method``.
        UsageError: an input is a product of an earlier run in that folder.
        InputError: a file cannot be used.
        OutputError: the folder cannot be written.
    """
    matcher = method(name)
    if output is not None:
        check_target(output, directory=True)
        _check_apart(output, sar, optical)
    with register_pair(sar, optical, matcher, options, models) as registration:
        told = {"sar": str(sar), "optical": str(optical), "method": name, **registration.properties()}
        told["notes"] = list(registration.notes)
        if told["registered"]:  # ellipses of homographies were not looked at
            told["error_ellipse"]["calibrated"] = name in CALIBRATED and told["model"] in ORTHO
        if output is not None:
            with writing(output):
                output.mkdir(exist_ok=True)
                for product in PRODUCTS:
                    (output / product).unlink(missing_ok=True)
            _write(registration, sar, optical, output)
            with published(output / FIGURES) as part:
                part.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n")
    return told


def _check_apart(output: Path, *inputs: Path) -> None:
    """Raise if an input is a file that will be replaced."""
    written = {(output / product).resolve() for product in PRODUCTS}
    for file in inputs:
        if file.resolve() in written:
            raise UsageError("would be overwritten", where=file, hint="name another folder")


def _write(registration: PairRegistration, sar: Path, optical: Path, output: Path) -> None:
    ties, made = registration.ties, registration.fit
    if len(ties):
        agreeing = np.zeros(len(ties), bool) if isinstance(made, NoFit) else made.inliers
        write_png(match_picture(*registration.sides, ties.sar_px, ties.optical_px, agreeing), output / MATCHES)
    if isinstance(made, NoFit):
        return
    for suffix in WRITERS:
        write_gcps(registration.gcps, registration.grid.crs, sar, output / f"{CONTROL}{suffix}")
    _write_ties(registration.measured, output / TIES)
    canvas, location = Canvas(registration.optical_grid, registration.pixels, optical), registration.location()
    to_map = registration.to_map if made.model == "homography" else None
    warp_strip(sar, location, canvas, output / REGISTERED, to_map=to_map)
    checkerboard(sar, location, canvas, output / BOARD, to_map=to_map)


def _write_ties(ties: Sequence[Measured], file: Path) -> None:
    """A line per tie point under a line of names."""
    lines = [",".join(field.name for field in fields(Measured))]
    lines += [",".join(str(int(value) if isinstance(value, bool) else value) for value in astuple(one)) for one in ties]
    with output_file(file) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
