"""A file as a SAR strip: what it and the user say of its scale, heading and numbers, and whether that can be used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geomatch.attitude import Tolerance
from geomatch.errors import GeomatchError, InputError, LimitError, UnrectifiedError, UsageError
from geomatch.geo import Grid, check_even, grid_through, ground_jacobian, ground_resolution_m, linear_to_map, local_grid
from geomatch.images import SarRadiometry
from geomatch.raster import Raster, open_raster
from geomatch.strips import MIRROR, RawStrip

MAX_STRIP_PIXELS = 100_000_000
MAX_SIDE_PX = 32_000  # OpenCV's warp counts coordinates in 16 bits
MAX_COARSER = 4.0  # than the map's pixels: beyond it the two images show different things
MAX_FINER = 20.0  # averages of so many show what the map shows
RESAMPLED_FROM = 0.02  # a scale that differs by more is told to the user
MIN_STRIP_PX = 32  # four cells: less has no structure to correlate

Mirrored = Literal["no", "yes", "unknown"]


@dataclass(frozen=True)
class StripOptions:
    """What the user says about a strip.

    Attributes:
        gsd_m: metres per pixel on the ground, for a file without georeferencing; default the map's.
        heading_deg: where its "up" points, clockwise from true north, for such a file; default 0. "unknown" to have it
            found; then georeferencing gives the scale alone.
        kind: what its numbers are, see ``SarRadiometry.detect``.
        bands: 1-based bands to use, default all.
        heading_tolerance_deg: how far the heading may be off to either side; then it is found. Default not at all.
        gsd_tolerance_percent: how far the pixel size may be off, likewise; up to 100, a factor of 2 either way.
        mirrored: whether the columns run the other way than told, as those of a radar that looks left may; "unknown" to
            have it found. Default no, but unknown for a file without georeferencing whose heading is unknown too.
    """

    gsd_m: float | None = None
    heading_deg: float | Literal["unknown"] | None = None
    kind: str = "auto"
    bands: tuple[int, ...] | None = None
    heading_tolerance_deg: float | None = None
    gsd_tolerance_percent: float | None = None
    mirrored: Mirrored | None = None

    def __post_init__(self) -> None:
        _ = self.tolerance()  # whose terms are checked
        if self.gsd_m is not None and not (np.isfinite(self.gsd_m) and self.gsd_m > 0):
            raise UsageError(f"a pixel of {self.gsd_m:g} m is not possible", where="--gsd", hint="give metres above 0")
        heading: object = self.heading_deg
        if heading is None or heading == "unknown":
            return
        if not isinstance(heading, int | float) or not -360 <= heading <= 360:
            told = f"{heading:g}" if isinstance(heading, int | float) else repr(heading)
            hint = "give degrees clockwise from north, 0-360, or unknown"
            raise UsageError(f"{told} is no heading", where="--heading", hint=hint)

    def tolerance(self, *, georeferenced: bool = True) -> Tolerance:
        """How far what is told may be off, of a file with georeferencing or without."""
        any_turn = self.heading_deg == "unknown"
        mirror = self.mirrored == "unknown" or (self.mirrored is None and any_turn and not georeferenced)
        return Tolerance.told(self.heading_tolerance_deg, self.gsd_tolerance_percent, any_turn=any_turn, mirror=mirror)


def read_strip(path: str | os.PathLike[str], map_grid: Grid, options: StripOptions | None = None) -> RawStrip:
    """Read a strip, and how it is to be brought to the map's scale and orientation.

    The scale and the rotation come from the file's georeferencing; its claimed position is not used. A file without
    any is taken as north up at the map's resolution, unless ``options`` say otherwise.

    Raises:
        InputError: the file cannot be used, or its scale is too far from the map's.
        UnrectifiedError: it is located by an RPC model alone, whose scale and heading vary.
        LimitError: it is too large.
        UsageError: options that the file contradicts.
    """
    options = options or StripOptions()
    with open_raster(path) as raster:
        notes: list[str] = []
        grid = _grid(raster, map_grid, options, notes)
        if min(raster.width, raster.height) < MIN_STRIP_PX:
            raise InputError(
                f"{raster.width} × {raster.height} px shows no structure to match",
                where=raster.path,
                hint=f"give a strip of at least {MIN_STRIP_PX} × {MIN_STRIP_PX} px",
            )
        try:
            check_even(grid)
            linear = linear_to_map(grid, map_grid)
        except GeomatchError as error:
            raise InputError(error.what, where=raster.path, hint=error.hint) from error
        if options.mirrored == "yes":
            linear = linear @ MIRROR
        tolerance = options.tolerance(georeferenced=raster.grid is not None or raster.control is not None)
        _check_scale(linear, raster, map_grid, notes, tolerance)
        radiometry = SarRadiometry.detect(raster, options.kind, options.bands)
        notes.append(radiometry.message)
        patch = raster.read(0, 0, raster.width, raster.height, bands=radiometry.bands)
        ground = ground_jacobian(map_grid)
        return RawStrip.of(patch, linear, radiometry, ground=ground, tolerance=tolerance, notes=tuple(notes))


def _grid(raster: Raster, map_grid: Grid, options: StripOptions, notes: list[str]) -> Grid:
    """Where the strip says it lies, or where it is assumed to lie for want of anything better."""
    heading = None if options.heading_deg == "unknown" else options.heading_deg
    claimed = _claimed(raster, notes)
    if claimed is not None and options.gsd_m is None and heading is None:
        return claimed
    told = options.gsd_m is not None and options.heading_deg is not None
    if claimed is None and isinstance(raster.no_grid, UnrectifiedError) and not told:
        hint = f"{raster.no_grid.hint}; or give both --gsd and --heading"
        raise UnrectifiedError(raster.no_grid.what, where=raster.path, hint=hint)
    size = (raster.width, raster.height)
    if claimed is not None and heading is None:
        gsd = options.gsd_m or ground_resolution_m(claimed)
        whose = "not used" if options.heading_deg == "unknown" else "as georeferenced"
        notes.append(f"{raster.path.name}: taken as {gsd:.4g} m per pixel as told, its heading {whose}")
        about = Affine.translation(*claimed.center_px)
        scaled = about @ Affine.scale(gsd / ground_resolution_m(claimed)) @ ~about
        return Grid(claimed.crs, claimed.transform @ scaled, *size)
    gsd = options.gsd_m or ground_resolution_m(claimed or map_grid)
    why = "no georeferencing" if claimed is None else "its own georeferencing is set aside"
    taken = "unknown" if options.heading_deg == "unknown" else f"{heading or 0:g}°"
    notes.append(f"{raster.path.name}: {why}, taken as {gsd:.4g} m per pixel, heading {taken}")
    return local_grid(map_grid, gsd, heading or 0.0, *size)


def _claimed(raster: Raster, notes: list[str]) -> Grid | None:
    """Where the file says it lies: by its geotransform, or by the affine transform nearest to its control points."""
    if raster.control is None:
        return raster.grid
    places_px, places, crs = raster.control
    try:
        grid = grid_through(places_px, places, crs, raster.width, raster.height)
    except InputError as error:
        hint = f"{error.hint}, or rectify it by other points with gdalwarp -gcp"
        raise InputError(error.what, where=raster.path, hint=hint) from error
    notes.append(f"{raster.path.name}: scale and heading from {len(places)} ground control points")
    return grid


def _check_scale(
    linear: NDArray[np.float64], raster: Raster, map_grid: Grid, notes: list[str], tolerance: Tolerance
) -> None:
    scale = float(np.sqrt(abs(np.linalg.det(linear))))
    map_gsd = ground_resolution_m(map_grid)
    if not 1 / MAX_FINER <= scale <= MAX_COARSER:
        raise InputError(
            f"its pixels are {scale:.3g} times those of the map ({map_gsd:.3g} m)",
            where=raster.path,
            hint="give the true --gsd, or a map of about its pixel size (an index has that of its --working-gsd)",
        )
    shown = np.linalg.norm(linear, axis=0) * [raster.width, raster.height]
    if shown.min() < MIN_STRIP_PX:
        raise InputError(
            f"{raster.width} × {raster.height} px are {shown[0]:.0f} × {shown[1]:.0f} of the map's, of {map_gsd:.3g} m,"
            " and show no structure to match there",
            where=raster.path,
            hint="give a larger strip, or a map of smaller pixels (an index has those of its --working-gsd)",
        )
    if abs(scale - 1) > RESAMPLED_FROM:
        notes.append(
            f"{raster.path.name}: resampled from {scale * map_gsd:.3g} m to the map's {map_gsd:.3g} m per pixel"
        )
    size = np.abs(linear) @ [raster.width, raster.height]
    if tolerance.turn_deg:
        size = np.full(2, scale * np.hypot(raster.width, raster.height))
    size = size * tolerance.scale
    if max(*size, raster.width, raster.height) > MAX_SIDE_PX or max(size.prod(), raster.width * raster.height) > (
        MAX_STRIP_PIXELS
    ):
        raise LimitError(
            f"{raster.width} × {raster.height} px is too large for a strip: at most {MAX_STRIP_PIXELS / 1e6:g} Mpx and"
            f" {MAX_SIDE_PX} px to a side, at the map's scale too",
            where=raster.path,
            hint="cut it into pieces, for example with gdal_translate -srcwin",
        )
