"""A SAR strip made ready for the map: resampled to its pixels and orientation, cut into windows with known offsets."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geomatch.attitude import KNOWN, TOLD, Attitude, Tolerance
from geomatch.errors import GeomatchError, InputError, LimitError, UnrectifiedError, UsageError
from geomatch.geo import (
    Grid,
    apply_affine,
    check_even,
    grid_through,
    ground_jacobian,
    ground_resolution_m,
    linear_to_map,
    local_grid,
)
from geomatch.images import SarRadiometry
from geomatch.raster import Patch, Raster, open_raster
from geomatch.tiles import starts

MAX_STRIP_PIXELS = 100_000_000
MAX_SIDE_PX = 32_000  # OpenCV's warp counts coordinates in 16 bits
MAX_COARSER = 4.0  # than the map's pixels: beyond it the two images show different things
MAX_FINER = 20.0  # averages of so many show what the map shows
RESAMPLED_FROM = 0.02  # a scale that differs by more is told to the user
DETAIL_PX = 8  # averaged before it is measured how much a part of a strip shows
MIRROR = np.diag([-1.0, 1.0])  # columns the other way
NORTH_UP = np.diag([1.0, -1.0])  # metres east and north per pixel, but for their size
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


@dataclass(frozen=True)
class Strip:
    """A strip on the map's pixel grid, but for its unknown place.

    Attributes:
        image: [H x W] SAR log amplitude.
        valid: [H x W].
        from_file: file pixel -> pixel of ``image``, corner convention.
        file_size: columns and rows of the file.
        notes: how the file was understood, sentences for the user.
        heading_deg: where the file's up points on the map, clockwise from true north; None where nobody asked.
        mirrored: whether the file shows the ground's mirror image.
        tolerance: how far heading and scale might have been from what was told; then they are ones that were tried.
    """

    image: NDArray[np.float32]
    valid: NDArray[np.bool_]
    from_file: Affine
    file_size: tuple[int, int]
    notes: tuple[str, ...] = ()
    heading_deg: float | None = None
    mirrored: bool = False
    tolerance: Tolerance = KNOWN

    @property
    def area_px(self) -> float:
        """Pixels of ``image`` that the file covers; the others are the corners of its bounding box."""
        return abs(self.from_file.determinant) * self.file_size[0] * self.file_size[1]

    @property
    def middle_px(self) -> NDArray[np.float64]:
        """[2] the centre of the file in ``image``, about which it turns."""
        return apply_affine(self.from_file, np.array(self.file_size) / 2)


@dataclass(frozen=True)
class RawStrip:
    """A strip in its file's own pixels, to be turned and scaled for the map.

    Attributes:
        image: [H x W] SAR log amplitude.
        valid: [H x W].
        linear: [2 x 2] pixel of the file -> pixel of the map.
        ground: [2 x 2] pixel of the map -> metres east and north, since turns are turns on the ground.
        tolerance: how far the true heading and scale may be from what ``linear`` says.
        notes: how the file was understood, sentences for the user.
        part: columns and rows of the file that ``image`` leaves out before its first pixel, and the file's size; None
            where it is all of the file.
    """

    image: NDArray[np.float32]
    valid: NDArray[np.bool_]
    linear: NDArray[np.float64]
    ground: NDArray[np.float64]
    tolerance: Tolerance = KNOWN
    notes: tuple[str, ...] = ()
    part: tuple[int, int, int, int] | None = None

    @classmethod
    def of(
        cls,
        patch: Patch,
        linear: NDArray[np.float64],
        radiometry: SarRadiometry,
        *,
        ground: NDArray[np.float64] = NORTH_UP,
        tolerance: Tolerance = KNOWN,
        notes: tuple[str, ...] = (),
    ) -> RawStrip:
        """SAR pixels as in the file, and what they are."""
        image, valid = radiometry.log_amplitude(patch), radiometry.lit(patch)
        return cls(image, valid, linear, ground, tolerance, notes)

    @property
    def reach_px(self) -> float:
        """From the centre to the corners, pixels of the map."""
        height, width = self.image.shape
        return float(np.linalg.norm(self.linear @ [[width, width], [height, -height]], axis=0).max() / 2)

    @property
    def middle(self) -> NDArray[np.float64]:
        """[2] the centre of ``image``, columns and rows of the file."""
        height, width = self.image.shape
        left, top = (self.part or (0, 0))[:2]
        return np.array([left + width / 2, top + height / 2])

    def arm_px(self, attitude: Attitude, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """[2] from the file's centre to a point of the file, map pixels, at an attitude."""
        height, width = self.image.shape
        size = self.part[2:] if self.part else (width, height)
        return np.asarray(self._linear(attitude) @ (point - np.array(size) / 2))

    def near(self, point: NDArray[np.float64], reach_px: float) -> RawStrip:
        """What of it lies within so many pixels of the map of a point of the file, along its sides."""
        sides = np.linalg.norm(self.linear, axis=0)  # of a pixel of the file
        low, high = (np.rint(point + sign * reach_px / sides).astype(int) for sign in (-1, 1))
        return self._cut(*np.maximum(low, 0).tolist(), *high.tolist())

    def at(self, attitude: Attitude = TOLD) -> Strip:
        """The strip on the map's pixel grid, turned and scaled by so much more than ``linear`` says."""
        image, valid, from_file = resample(self.image, self.valid, self._linear(attitude))
        height, width = self.image.shape
        left, top, *size = self.part or (0, 0, width, height)
        from_file = from_file @ Affine.translation(-left, -top)
        return Strip(
            image,
            valid,
            from_file,
            (size[0], size[1]),
            self.notes,
            heading_deg=self.heading_deg(attitude),
            mirrored=float(np.linalg.det(self.ground @ self._linear(attitude))) > 0,  # rows run south
            tolerance=self.tolerance,
        )

    def middle_at(self, attitude: Attitude, size_px: int) -> Strip:
        """As ``at``, but no more than the square of ``size_px`` about its middle; unknown where it is smaller."""
        strip = self.at(attitude)
        col, row = (int(at) for at in np.rint(apply_affine(strip.from_file, self.middle) - size_px / 2))
        image, valid = np.zeros((size_px, size_px), np.float32), np.zeros((size_px, size_px), bool)
        known = np.s_[max(0, row) : row + size_px, max(0, col) : col + size_px]
        part = strip.image[known]
        there = np.s_[max(0, -row) : max(0, -row) + part.shape[0], max(0, -col) : max(0, -col) + part.shape[1]]
        image[there], valid[there] = part, strip.valid[known]
        return replace(strip, image=image, valid=valid, from_file=Affine.translation(-col, -row) @ strip.from_file)

    def heading_deg(self, attitude: Attitude = TOLD) -> float:
        """Where its up points at that attitude, degrees clockwise from true north, in [0, 360)."""
        east, north = -(self.ground @ self._linear(attitude))[:, 1]
        return float(np.degrees(np.arctan2(east, north)) % 360)

    def richest_parts(self, max_px: int, most: int) -> list[RawStrip]:
        """Parts of at most ``max_px`` pixels of the map, as square as the strip allows, apart from each other.

        The one that shows the most comes first; at most ``most``.
        """
        limit = max_px / abs(float(np.linalg.det(self.linear)))
        if self.image.size <= limit:
            return [self]
        tall, wide = self.image.shape
        short = int(min(tall, wide, np.sqrt(limit)))
        height, width = (short if side == min(tall, wide) else min(side, int(limit / short)) for side in (tall, wide))
        # Differences of averages: speckle counts little there, nodata nothing.
        small, known = _shrunk(self.image, self.valid, DETAIL_PX)
        edges = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        total = cv2.integral(edges * cv2.erode(known.astype(np.float32), np.ones((3, 3), np.uint8)))
        rows, cols = starts(tall, height, max(1, height // 4)), starts(wide, width, max(1, width // 4))
        col, row = np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2).T
        left, top, right, bottom = (at // DETAIL_PX for at in (col, row, col + width, row + height))
        shown = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
        first: list[tuple[int, int]] = []
        for best in np.argsort(-shown, kind="stable"):
            at = int(col[best]), int(row[best])
            if len(first) < most and all(abs(at[0] - c) >= width or abs(at[1] - r) >= height for c, r in first):
                first.append(at)
        return [self._cut(left, top, left + width, top + height) for left, top in first]

    def _cut(self, left: int, top: int, right: int, bottom: int) -> RawStrip:
        """Some of its columns and rows, of all of a file."""
        height, width = self.image.shape
        inside = np.s_[top:bottom, left:right]
        return replace(self, image=self.image[inside], valid=self.valid[inside], part=(left, top, width, height))

    def _linear(self, attitude: Attitude) -> NDArray[np.float64]:
        if attitude == TOLD:
            return self.linear
        linear = self.linear @ MIRROR if attitude.mirrored else self.linear
        sine, cosine = np.sin(np.radians(attitude.turn_deg)), np.cos(np.radians(attitude.turn_deg))
        clockwise = attitude.scale * np.array([[cosine, sine], [-sine, cosine]])  # of east and north
        return np.asarray(np.linalg.solve(self.ground, clockwise @ self.ground @ linear))


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


def strip_of(patch: Patch, linear: NDArray[np.float64], radiometry: SarRadiometry) -> Strip:
    """SAR pixels as a strip on the map's pixel grid, as it is told; arguments as ``RawStrip.of``."""
    return RawStrip.of(patch, linear, radiometry).at()


def resample(
    image: NDArray[np.float32], valid: NDArray[np.bool_], linear: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Affine]:
    """Turn and scale an image about nothing in particular: the result is its bounding box.

    Bilinear; where the result has fewer pixels, the image is averaged first, in the logarithm, by the whole factor.

    Args:
        image: [H x W].
        valid: [H x W].
        linear: [2 x 2] pixel of the image -> pixel of the result.

    Returns:
        The resampled image, its validity, and the affine transform from image pixel to result pixel.
    """
    if np.allclose(linear, np.eye(2), atol=1e-9):
        return image, valid, Affine.identity()
    factor = max(1, int(1 / np.sqrt(abs(np.linalg.det(linear))) + 1e-6))
    small, small_valid = _shrunk(image, valid, factor)
    height, width = image.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ linear.T
    low, high = np.floor(corners.min(axis=0) + 1e-6), np.ceil(corners.max(axis=0) - 1e-6)
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    from_file = Affine(linear[0, 0], linear[0, 1], -low[0], linear[1, 0], linear[1, 1], -low[1])
    # OpenCV puts (0, 0) at the centre of the first pixel, the corner convention half a pixel before it.
    half = Affine.translation(-0.5, -0.5)
    matrix = np.array(half @ from_file @ Affine.scale(factor) @ ~half).reshape(3, 3)[:2]
    warped = cv2.warpAffine(small, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    known = cv2.warpAffine(small_valid.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR, borderValue=0)
    return np.asarray(warped, dtype=np.float32), np.asarray(known > 0.99), from_file


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
            hint="give the true --gsd, or index the map at about its pixel size with --working-gsd",
        )
    shown = np.linalg.norm(linear, axis=0) * [raster.width, raster.height]
    if shown.min() < MIN_STRIP_PX:
        raise InputError(
            f"{raster.width} × {raster.height} px are {shown[0]:.0f} × {shown[1]:.0f} of the map's, of {map_gsd:.3g} m,"
            " and show no structure to match there",
            where=raster.path,
            hint="give a larger strip, or index the map at a smaller pixel with --working-gsd",
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


def _shrunk(
    image: NDArray[np.float32], valid: NDArray[np.bool_], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Averages of the valid pixels of ``factor`` × ``factor`` squares; a remainder at the edge is extended."""
    if factor == 1:
        return image, valid
    below, right = -image.shape[0] % factor, -image.shape[1] % factor

    def average(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        whole = cv2.copyMakeBorder(plane, 0, below, 0, right, cv2.BORDER_REPLICATE)
        size = (whole.shape[1] // factor, whole.shape[0] // factor)
        return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), dtype=np.float32)

    share = average(valid.astype(np.float32))
    mean = average(np.where(valid, image, np.float32(0))) / np.maximum(share, 1e-6)
    return mean.astype(np.float32), share > 0.5
