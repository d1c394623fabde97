"""A SAR strip made ready for the map: resampled to its pixels and orientation, cut into windows with known offsets."""

from __future__ import annotations

import os
from dataclasses import dataclass

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geomatch.errors import GeomatchError, InputError, LimitError, UnrectifiedError, UsageError
from geomatch.geo import Grid, ground_resolution_m, linear_to_map, local_grid
from geomatch.images import SarRadiometry
from geomatch.raster import Patch, Raster, open_raster
from geomatch.tiles import starts

MAX_STRIP_PIXELS = 100_000_000
MAX_SIDE_PX = 32_000  # OpenCV's warp counts coordinates in 16 bits
MAX_SCALE = 4.0  # beyond this ratio of pixel sizes the two images show different things
RESAMPLED_FROM = 0.02  # a scale that differs by more is told to the user
MIN_WINDOW_VALID = 0.6
MIN_HOLED_VALID, NEARLY = 0.25, 0.9  # where no window is that full, those nearly as full as the fullest will do
MAX_WINDOWS = 48
MIN_STRIP_PX = 32  # four cells: less has no structure to correlate


@dataclass(frozen=True)
class StripOptions:
    """What the user says about a strip.

    Attributes:
        gsd_m: metres per pixel on the ground, for a file without georeferencing; default the map's.
        heading_deg: where its "up" points, clockwise from true north, for such a file; default 0.
        kind: what its numbers are, see ``SarRadiometry.detect``.
        bands: 1-based bands to use, default all.
    """

    gsd_m: float | None = None
    heading_deg: float | None = None
    kind: str = "auto"
    bands: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.gsd_m is not None and not (np.isfinite(self.gsd_m) and self.gsd_m > 0):
            raise UsageError(f"a pixel of {self.gsd_m:g} m is not possible", where="--gsd", hint="give metres above 0")
        if self.heading_deg is not None and not -360 <= self.heading_deg <= 360:
            raise UsageError(
                f"{self.heading_deg:g} is no heading",
                where="--heading",
                hint="give degrees clockwise from north, 0-360",
            )


@dataclass(frozen=True)
class Strip:
    """A strip on the map's pixel grid, but for its unknown place.

    Attributes:
        image: [H x W] SAR log amplitude.
        valid: [H x W].
        from_file: file pixel -> pixel of ``image``, corner convention.
        file_size: columns and rows of the file.
        notes: how the file was understood, sentences for the user.
    """

    image: NDArray[np.float32]
    valid: NDArray[np.bool_]
    from_file: Affine
    file_size: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def area_px(self) -> float:
        """Pixels of ``image`` that the file covers; the others are the corners of its bounding box."""
        return abs(self.from_file.determinant) * self.file_size[0] * self.file_size[1]


def load_strip(path: str | os.PathLike[str], map_grid: Grid, options: StripOptions | None = None) -> Strip:
    """Read a strip and bring it to the map's scale and orientation.

    The scale and the rotation come from the file's georeferencing; its claimed position is not used. A file without
    any is taken as north up at the map's resolution, unless ``options`` say otherwise.

    Raises:
        InputError: the file cannot be used, or its scale is too far from the map's.
        UnrectifiedError: it is located by ground control points or an RPC model, whose scale and heading vary.
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
            linear = linear_to_map(grid, map_grid)
        except GeomatchError as error:
            raise InputError(error.what, where=raster.path, hint=error.hint) from error
        _check_scale(linear, raster, map_grid, notes)
        radiometry = SarRadiometry.detect(raster, options.kind, options.bands)
        notes.append(radiometry.message)
        patch = raster.read(0, 0, raster.width, raster.height, bands=radiometry.bands)
        return strip_of(patch, linear, radiometry, tuple(notes))


def strip_of(
    patch: Patch, linear: NDArray[np.float64], radiometry: SarRadiometry, notes: tuple[str, ...] = ()
) -> Strip:
    """SAR pixels as a strip on the map's pixel grid.

    Args:
        patch: pixels as in the file.
        linear: [2 x 2] pixel of the patch -> pixel of the map.
        radiometry: of the file.
        notes: to keep with it.
    """
    image, valid, from_file = resample(radiometry.log_amplitude(patch), radiometry.lit(patch), linear)
    height, width = patch.valid.shape
    return Strip(image, valid, from_file, (width, height), notes)


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


def cut_windows(valid: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """Windows of a strip: side by side where that fills it, overlapping where its edge is aslant or holed.

    Args:
        valid: [h x w] cells of the strip.
        size: side of a window, cells.

    Returns:
        [N x 2] first column and row of each window, cells; at most MAX_WINDOWS, spread over the strip; none when
        nothing as large has enough valid cells.
    """
    height, width = valid.shape
    if min(height, width) < size:
        return np.empty((0, 2), np.int64)
    total = np.pad(valid.astype(np.int64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)

    def lattice(step: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        rows, cols = starts(height, size, step), starts(width, size, step)
        place = np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2).astype(np.int64)
        col, row = place.T
        count = total[row + size, col + size] - total[row, col + size] - total[row + size, col] + total[row, col]
        return place, count / size**2

    place, share = lattice(size)
    if share.min() < MIN_WINDOW_VALID:
        place, share = lattice(max(1, size // 3))
        full = share >= max(MIN_HOLED_VALID, min(MIN_WINDOW_VALID, float(share.max()) * NEARLY))
        place, share = _spread(place[full], share[full], size // 2)
    if len(place) > MAX_WINDOWS:
        place = place[np.linspace(0, len(place) - 1, MAX_WINDOWS).astype(int)]
    return place


def _spread(
    place: NDArray[np.int64], share: NDArray[np.float64], apart: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The fullest windows first, each at least ``apart`` from those before along one axis; in reading order."""
    kept: list[int] = []
    for candidate in np.argsort(-share, kind="stable"):
        distance = np.abs(place[kept] - place[candidate]).max(axis=1) if kept else np.array([apart])
        if distance.min() >= apart:
            kept.append(int(candidate))
    order = sorted(kept)
    return place[order], share[order]


def _grid(raster: Raster, map_grid: Grid, options: StripOptions, notes: list[str]) -> Grid:
    """Where the strip says it lies, or where it is assumed to lie for want of anything better."""
    if raster.grid is not None and options.gsd_m is None and options.heading_deg is None:
        return raster.grid
    told = options.gsd_m is not None and options.heading_deg is not None
    if isinstance(raster.no_grid, UnrectifiedError) and not told:
        hint = f"{raster.no_grid.hint}; or give both --gsd and --heading"
        raise UnrectifiedError(raster.no_grid.what, where=raster.path, hint=hint)
    size = (raster.width, raster.height)
    if raster.grid is not None and options.heading_deg is None:
        gsd = options.gsd_m or ground_resolution_m(raster.grid)
        notes.append(f"{raster.path.name}: taken as {gsd:.4g} m per pixel as told, its heading as georeferenced")
        about = Affine.translation(*raster.grid.center_px)
        scaled = about @ Affine.scale(gsd / ground_resolution_m(raster.grid)) @ ~about
        return Grid(raster.grid.crs, raster.grid.transform @ scaled, *size)
    gsd = options.gsd_m or ground_resolution_m(raster.grid or map_grid)
    heading = options.heading_deg or 0.0
    why = "no georeferencing" if raster.grid is None else "its own georeferencing is set aside"
    notes.append(f"{raster.path.name}: {why}, taken as {gsd:.4g} m per pixel, heading {heading:g}°")
    return local_grid(map_grid, gsd, heading, *size)


def _check_scale(linear: NDArray[np.float64], raster: Raster, map_grid: Grid, notes: list[str]) -> None:
    scale = float(np.sqrt(abs(np.linalg.det(linear))))
    map_gsd = ground_resolution_m(map_grid)
    if not 1 / MAX_SCALE <= scale <= MAX_SCALE:
        raise InputError(
            f"its pixels are {scale:.3g} times those of the map ({map_gsd:.3g} m)",
            where=raster.path,
            hint=f"give the true --gsd, or index a map within a factor of {MAX_SCALE:g} of it",
        )
    if abs(scale - 1) > RESAMPLED_FROM:
        notes.append(
            f"{raster.path.name}: resampled from {scale * map_gsd:.3g} m to the map's {map_gsd:.3g} m per pixel"
        )
    size = np.abs(linear) @ [raster.width, raster.height]
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
