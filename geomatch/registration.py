"""A SAR file fixed on an optical image by tie points: the transform that they support, and how exactly it is known.

Of a strip that an index has placed, its windows say one by one where they fit the map; of a pair of files that show one
place, any method of ``geomatch.matching`` does.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geomatch.errors import InputError, LimitError
from geomatch.geo import Grid, apply_affine, footprint, ground_jacobian, six
from geomatch.images import OpticalStretch
from geomatch.location import Location, TiePoint, crs_name
from geomatch.locator import Trace
from geomatch.map_pixels import MapPixels
from geomatch.matching.accuracy import Ellipse
from geomatch.matching.area import TOLERANCE
from geomatch.matching.fit import ORTHO, Fit, NoFit, fit
from geomatch.matching.matches import Matcher, Matches
from geomatch.matching.side import Side
from geomatch.matching.ties import tie_points
from geomatch.matching.transforms import Matrix, Model, apply, nearest
from geomatch.raster import open_raster
from geomatch.strip_files import MAX_SIDE_PX, StripOptions, read_strip
from geomatch.strips import resample
from geomatch.threads import one_thread

MAX_PIXELS = 1 << 24  # of either image of a pair
TURNED_PIXELS = 4 * MAX_PIXELS  # of the SAR image turned as far as ``area`` turns it
EVEN = 1.02  # sides of pixels that differ by less are taken for those of squares
GCPS_ALONG = 5  # ground control points along each side of a file


@dataclass(frozen=True)
class Measured:
    """A tie point as it was measured.

    Attributes:
        col, row: in the SAR file, corner convention.
        x, y: in the CRS of the optical image.
        across_px, down_px: from where the fit says, pixels of the optical image, brought to square ones.
        agrees: whether the fit rests on it.
    """

    col: float
    row: float
    x: float
    y: float
    across_px: float
    down_px: float
    agrees: bool


@dataclass(frozen=True)
class Registration:
    """What ties a SAR file to an optical image.

    Attributes:
        ties: pixels of the SAR image, as it was matched, with pixels of ``grid``.
        fit: the transform between them, or why there is none.
        grid: of the optical image, as it was matched.
        file_size: columns and rows of the SAR file.
        from_file: pixel of the SAR file -> pixel of the SAR image as it was matched.
    """

    ties: Matches
    fit: Fit | NoFit
    grid: Grid
    file_size: tuple[int, int]
    from_file: Affine

    @property
    def to_map(self) -> Matrix | None:
        """[3 x 3] from pixels of the SAR file to the CRS of the optical image; None without a fit."""
        if isinstance(self.fit, NoFit):
            return None
        whole = _matrix(self.grid.transform) @ self.fit.matrix @ _matrix(self.from_file)
        return np.asarray(whole / whole[2, 2])

    @property
    def placed(self) -> Grid | None:
        """Where the pixels of the SAR file lie in the CRS of the optical image; None without a fit.

        Of a homography the nearest affine transform.
        """
        if isinstance(self.fit, NoFit):
            return None
        matrix = self.fit.matrix
        if self.fit.model == "homography":
            points = apply_affine(self.from_file, self._spread)
            matrix = nearest("affine", points, self.fit.at(points))
        (a, b, c), (d, e, f), _ = matrix.tolist()
        to_map = self.grid.transform @ Affine(a, b, c, d, e, f) @ self.from_file
        return Grid(self.grid.crs, to_map, *self.file_size)

    @property
    def _spread(self) -> NDArray[np.float64]:
        """[N x 2] points of the file in a grid over all of it."""
        at = [np.linspace(0, side, GCPS_ALONG) for side in self.file_size]
        return np.stack(np.meshgrid(*at), axis=-1).reshape(-1, 2)

    @property
    def ellipse(self) -> Ellipse | None:
        """How exactly the fit says where the middle of the SAR image lies, on the optical image.

        It does not know how exactly the optical image itself lies on the ground.
        """
        if isinstance(self.fit, NoFit):
            return None
        middle = apply_affine(self.from_file, np.array(self.file_size) / 2)
        at = self.fit.at(middle[None])[0]
        return Ellipse.of(self.fit.covariance_at(middle.tolist()), ground_jacobian(self.grid, at))

    @property
    def gcps(self) -> tuple[TiePoint, ...]:
        """Points of the file in a grid over all of it, and where the fit says that they lie; none without a fit.

        Not the tie points: through those another transform would be fitted, and that by other weights.
        """
        to_map = self.to_map
        if to_map is None:
            return ()
        rows = zip(self._spread.tolist(), apply(to_map, self._spread).tolist(), strict=True)
        return tuple(TiePoint(*point, *place) for point, place in rows)

    @property
    def measured(self) -> tuple[Measured, ...]:
        """The tie points, and how far each lies from where the fit says; none without a fit."""
        if isinstance(self.fit, NoFit):
            return ()
        sar, optical = apply_affine(~self.from_file, self.ties.sar_px), self.ties.optical_px
        off = optical - self.fit.at(self.ties.sar_px)
        columns = [*sar.T, *self.grid.to_map(optical).T, *off.T]
        rows = zip(*(column.tolist() for column in columns), self.fit.inliers.tolist(), strict=True)
        return tuple(itertools.starmap(Measured, rows))

    def properties(self) -> dict[str, Any]:
        """What is to be told, JSON-able."""
        told: dict[str, Any] = {"registered": False, "crs": crs_name(self.grid.crs), "matches": len(self.ties)}
        if isinstance(self.fit, NoFit) or self.placed is None or self.ellipse is None:
            assert isinstance(self.fit, NoFit)
            return told | {"reason": self.fit.reason}
        ellipse = self.ellipse
        if self.fit.model == "homography" and self.to_map is not None:
            told["homography"] = self.to_map.tolist()
        return told | {
            "registered": True,
            "inliers": int(self.fit.inliers.sum()),
            "model": self.fit.model,
            "noise_px": self.fit.noise_px,
            "weakness": self.fit.weakness,
            "transform": six(self.placed.transform),
            "error_ellipse": {
                "semi_major_m": ellipse.semi_major_m,
                "semi_minor_m": ellipse.semi_minor_m,
                "azimuth_deg": ellipse.azimuth_deg,
            },
        }

    def location(self) -> Location:
        """The fit as an answer, for those who draw answers.

        Raises:
            InputError: there is no fit.
        """
        placed, ellipse = self.placed, self.ellipse
        if placed is None or ellipse is None:
            raise InputError("there is no transform to draw")
        x, y = placed.to_map(placed.center_px)
        return Location(
            "located",
            crs_name(self.grid.crs),
            transform=six(placed.transform),
            footprint=footprint(placed),
            center=(float(x), float(y)),
            error_radius_m=ellipse.semi_major_m,
            confidence=1.0,
        )


def _matrix(affine: Affine) -> Matrix:
    return np.array(affine, np.float64).reshape(3, 3)


def register_located(trace: Trace, grid: Grid, pixels: MapPixels) -> Registration:
    """Tie points of a strip where it was found, and the one transform that they support.

    Args:
        trace: of a strip that has a place; of one that sways no transform holds, see ``Evidence.tie_points``.
        grid: of the index.
        pixels: of the map.

    Raises:
        InputError: the strip has no place.
    """
    strip = trace.strip
    if trace.judged is None or trace.location.transform is None:
        hint = "only located and ambiguous strips have tie points"
        raise InputError(f"it has no place, it is {trace.location.status}", hint=hint)
    with one_thread():
        in_file = tie_points(strip, trace.judged.corner_px, pixels)
    places: NDArray[np.float64] = apply_affine(strip.from_file, in_file.sar_px) if len(in_file) else in_file.sar_px
    ties = replace(in_file, sar_px=places)
    height, width = strip.image.shape
    return Registration(ties, fit(ties, (width, height)), grid, strip.file_size, strip.from_file)


@dataclass(frozen=True)
class PairRegistration(Registration):
    """Of two files.

    Attributes:
        sides: SAR and optical image as they were matched, on pixels that are square on the ground, those of ``grid``.
        optical_grid, pixels: of the optical file.
        notes: how the SAR file was read.
    """

    sides: tuple[Side, Side]
    optical_grid: Grid
    pixels: MapPixels
    notes: tuple[str, ...]


@contextmanager
def register_pair(
    sar: str | os.PathLike[str],
    optical: str | os.PathLike[str],
    matcher: Matcher,
    options: StripOptions | None = None,
    models: Sequence[Model] = ORTHO,
) -> Iterator[PairRegistration]:
    """Match two files that show one place; the optical one stays open as long as the block lasts.

    Args:
        sar: brought to the scale and heading of the optical image by its georeferencing or ``options``, as a strip is;
            its claimed position is not used.
        optical: georeferenced, at most MAX_PIXELS.
        matcher: a method.
        options: how to read the SAR file.
        models: kinds of transform that are considered, as of ``fit``.

    Raises:
        InputError: a file cannot be used.
        LimitError: one is too large to be matched as a whole.
    """
    with open_raster(optical, need_grid=True) as raster:
        assert raster.grid is not None, "asked for"
        _check_size(raster.path, raster.width, raster.height)
        with one_thread():
            stretch = OpticalStretch.fit(raster)
            patch = raster.read(0, 0, raster.width, raster.height, bands=stretch.bands)
            grey, valid, to_square = resample(stretch.grey(patch), patch.valid, _squaring(raster.grid))
            grid = Grid(raster.grid.crs, raster.grid.transform @ ~to_square, *grey.shape[::-1])
            _check_size(raster.path, grid.width, grid.height)
            raw = read_strip(sar, grid, options)
            strip = raw.at()
            sides = Side(strip.image, strip.valid, "sar"), Side(grey, valid, "optical")
            _check_size(Path(sar), *sides[0].size_px, turned=True)
            found = matcher(*sides)
            made = fit(found, sides[0].size_px, models)
        pixels = MapPixels(raster, (0, 0), stretch)
        given = sides, raster.grid, pixels, raw.notes
        yield PairRegistration(found, made, grid, strip.file_size, strip.from_file, *given)


def _squaring(grid: Grid) -> NDArray[np.float64]:
    """[2 x 2] pixels of a grid -> square ones of the same area on the ground, not turned; those of degrees are none.

    A turn on the ground is one on square pixels alone, and only there do things look as those that networks learned.
    """
    _, sides, axes = np.linalg.svd(ground_jacobian(grid))
    if sides[0] <= EVEN * sides[1]:
        return np.eye(2)
    return np.asarray((axes.T * sides) @ axes / np.sqrt(sides.prod()))


def _check_size(file: Path, width: int, height: int, *, turned: bool = False) -> None:
    """Raise LimitError where an image is too large, or would be when turned and scaled as far as ``area`` does."""
    shown = np.array([width, height], np.float64)
    if turned:
        turn = np.radians(TOLERANCE.turn_deg)
        shown = TOLERANCE.scale * (np.cos(turn) * shown + np.sin(turn) * shown[::-1])
    if width * height > MAX_PIXELS or shown.max() > MAX_SIDE_PX or shown.prod() > TURNED_PIXELS:
        scaled = "at the scale of the optical image " * turned
        what = f"{width} × {height} px {scaled}are too many to be matched as a whole"
        most = f"{MAX_PIXELS / 1e6:.0f} Mpx and {MAX_SIDE_PX} px a side"
        hint = f"cut it with gdal_translate -srcwin, to {most} at most"
        hint += "; or have geomatch index build make an index of the map, to be asked" * (not turned)
        raise LimitError(what, where=file, hint=hint)
