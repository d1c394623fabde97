"""A SAR file fixed on an optical image by tie points: the transform that they support, and how exactly it is known.

Of a strip that an index has placed, its windows say one by one where they fit the map; of a pair of files that show one
place, any method of ``geomatch.matching`` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
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
from geomatch.matching.fit import Ellipse, Fit, NoFit, fit
from geomatch.matching.matches import Matcher, Matches
from geomatch.matching.side import Side
from geomatch.matching.ties import tie_points
from geomatch.raster import Raster, open_raster
from geomatch.refine import MapPixels
from geomatch.strips import StripOptions, read_strip
from geomatch.threads import one_thread

MAX_PIXELS = 1 << 24  # of either image of a pair


@dataclass(frozen=True)
class Registration:
    """What ties a SAR file to an optical image.

    Attributes:
        ties: pixels of the file with pixels of ``grid``.
        fit: the transform between them, or why there is none.
        grid: of the optical image.
        file_size: columns and rows of the SAR file.
    """

    ties: Matches
    fit: Fit | NoFit
    grid: Grid
    file_size: tuple[int, int]

    @property
    def placed(self) -> Grid | None:
        """Where the pixels of the SAR file lie in the CRS of the optical image; None without a fit."""
        if isinstance(self.fit, NoFit):
            return None
        (a, b, c), (d, e, f), _ = self.fit.matrix.tolist()
        return Grid(self.grid.crs, self.grid.transform @ Affine(a, b, c, d, e, f), *self.file_size)

    @property
    def ellipse(self) -> Ellipse | None:
        """How exactly the fit says where the middle of the SAR image lies, on the optical image.

        It does not know how exactly the optical image itself lies on the ground.
        """
        if isinstance(self.fit, NoFit):
            return None
        middle = np.array(self.file_size) / 2
        at = self.fit.at(middle[None])[0]
        return Ellipse.of(self.fit.covariance_at(middle.tolist()), ground_jacobian(self.grid, at))

    @property
    def gcps(self) -> tuple[TiePoint, ...]:
        """The tie points on which the fit agrees, or none."""
        if isinstance(self.fit, NoFit):
            return ()
        agreeing = self.ties.some(self.fit.inliers)
        places = self.grid.to_map(agreeing.optical_px)
        rows = zip(agreeing.sar_px.tolist(), places.tolist(), strict=True)
        return tuple(TiePoint(*point, *place) for point, place in rows)

    def properties(self) -> dict[str, Any]:
        """What is to be told, JSON-able."""
        told: dict[str, Any] = {"registered": False, "crs": crs_name(self.grid.crs), "matches": len(self.ties)}
        if isinstance(self.fit, NoFit) or self.placed is None or self.ellipse is None:
            assert isinstance(self.fit, NoFit)
            return told | {"reason": self.fit.reason}
        ellipse = self.ellipse
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


def register_located(trace: Trace, grid: Grid, pixels: MapPixels) -> Registration:
    """Tie points of a strip where it was found.

    Args:
        trace: of a strip that has a place.
        grid: of the index.
        pixels: of the map.

    Raises:
        InputError: the strip has no place.
    """
    size = trace.strip.file_size
    if trace.judged is None or trace.location.transform is None:
        hint = "only located and ambiguous strips have tie points"
        raise InputError(f"it has no place, it is {trace.location.status}", hint=hint)
    if trace.location.evidence.tie_points:
        ties = _sway_ties(trace.location.evidence.tie_points, grid)
    else:
        with one_thread():
            ties = tie_points(trace.strip, trace.judged.corner_px, pixels)
    return Registration(ties, fit(ties, size), grid, size)


def _sway_ties(points: tuple[TiePoint, ...], grid: Grid) -> Matches:
    sar = np.array([(one.col, one.row) for one in points])
    optical = np.asarray(grid.to_pixel(np.array([(one.x, one.y) for one in points])))
    return Matches(sar, optical, np.ones(len(points)), (len(points), len(points)), placed=True)


@dataclass(frozen=True)
class PairRegistration(Registration):
    """Of two files.

    Attributes:
        sides: SAR and optical image as they were matched.
        from_file: pixel of the SAR file -> pixel of the SAR side.
        pixels: of the optical file.
    """

    sides: tuple[Side, Side]
    from_file: Affine
    pixels: MapPixels


@contextmanager
def register_pair(
    sar: str | os.PathLike[str],
    optical: str | os.PathLike[str],
    matcher: Matcher,
    options: StripOptions | None = None,
) -> Iterator[PairRegistration]:
    """Match two files that show one place; the optical one stays open as long as the block lasts.

    Args:
        sar: brought to the scale and heading of the optical image by its georeferencing or ``options``, as a strip is;
            its claimed position is not used.
        optical: georeferenced, at most MAX_PIXELS.
        matcher: a method.
        options: how to read the SAR file.

    Raises:
        InputError: a file cannot be used.
        LimitError: one is too large to be matched as a whole.
    """
    with open_raster(optical, need_grid=True) as raster:
        grid = raster.grid
        assert grid is not None, "asked for"
        _check_size(raster)
        raw = read_strip(sar, grid, options)
        with one_thread():
            strip = raw.at()
            stretch = OpticalStretch.fit(raster)
            patch = raster.read(0, 0, raster.width, raster.height, bands=stretch.bands)
            sides = Side(strip.image, strip.valid, "sar"), Side(stretch.grey(patch), patch.valid, "optical")
            found = matcher(*sides)
            in_file = _in_file(found, strip.from_file)
        pixels = MapPixels(raster, (0, 0), stretch)
        made = fit(in_file, strip.file_size)
        yield PairRegistration(in_file, made, grid, strip.file_size, sides, strip.from_file, pixels)


def _in_file(found: Matches, from_file: Affine) -> Matches:
    places: NDArray[np.float64] = apply_affine(~from_file, found.sar_px) if len(found) else found.sar_px
    return replace(found, sar_px=places)


def _check_size(raster: Raster) -> None:
    if raster.width * raster.height > MAX_PIXELS:
        what = f"{raster.width} × {raster.height} px are too many to be matched as a whole"
        raise LimitError(what, where=Path(raster.path), hint="geomatch index build makes an index of it, to be asked")
