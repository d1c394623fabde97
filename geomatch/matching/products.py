"""What ``geomatch register`` writes of two files: control points, the warped SAR image, pictures, figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from geomatch.files import check_target, published, writing
from geomatch.gcps import WRITERS, write_gcps
from geomatch.geo import apply_affine
from geomatch.matching.drawing import match_picture
from geomatch.matching.fit import NoFit
from geomatch.matching.methods import method
from geomatch.overlay import Canvas, checkerboard, warp_strip, write_png
from geomatch.registration import PairRegistration, register_pair

CONTROL, REGISTERED = "control", "registered.tif"
MATCHES, BOARD, FIGURES = "matches.png", "checkerboard.png", "registration.json"


def register_files(sar: Path, optical: Path, name: str, output: Path | None) -> dict[str, Any]:
    """Register two files and write what came of it.

    Args:
        sar, optical: GeoTIFFs of one place.
        name: of the method, as ``method`` takes it.
        output: folder to write into, or None for none; without a fit it holds the figures and the matches alone.

    Returns:
        ``Registration.properties`` and the names of the files and of the method.

    Raises:
        UsageError, InputError: as ``method``.
        InputError: a file cannot be used.
        OutputError: the folder cannot be written.
    """
    matcher = method(name)
    if output is not None:
        check_target(output, directory=True)
    with register_pair(sar, optical, matcher) as registration:
        told = {"sar": str(sar), "optical": str(optical), "method": name, **registration.properties()}
        if output is not None:
            with writing(output):
                output.mkdir(exist_ok=True)
            _write(registration, sar, optical, output)
            with published(output / FIGURES) as part:
                part.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n")
    return told


def _write(registration: PairRegistration, sar: Path, optical: Path, output: Path) -> None:
    ties, made = registration.ties, registration.fit
    if len(ties):
        agreeing = np.zeros(len(ties), bool) if isinstance(made, NoFit) else made.inliers
        in_side = apply_affine(registration.from_file, ties.sar_px)
        write_png(match_picture(*registration.sides, in_side, ties.optical_px, agreeing), output / MATCHES)
    if isinstance(made, NoFit):
        return
    for suffix in WRITERS:
        write_gcps(registration.gcps, registration.grid.crs, sar, output / f"{CONTROL}{suffix}")
    canvas, location = Canvas(registration.grid, registration.pixels, optical), registration.location()
    warp_strip(sar, location, canvas, output / REGISTERED)
    checkerboard(sar, location, canvas, output / BOARD)
