"""Where evaluation cuts its windows: at random places of a SAR scene that hold data and lie in the map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry import Polygon, box

from geomatch.attitude import ANY_TURN_DEG, KNOWN, Tolerance
from geomatch.errors import InputError, UsageError
from geomatch.geo import Grid, apply_affine, pixel_between
from geomatch.images import SarRadiometry
from geomatch.raster import Patch, Raster
from geomatch.strip_files import MIN_STRIP_PX
from geomatch.tile_index import TileIndex

MIN_VALID = 0.99  # share of a window's pixels that must hold data
MAX_SCALE_PERCENT = 100.0  # a factor of two either way
OVERLAP_WITHIN = 0.02  # of the share asked for
_TRIES = 400  # per window, before giving up on a scene that is mostly nodata
_POSES = 1  # the random stream of headings and scales, apart from that of the places


@dataclass(frozen=True)
class WindowOptions:
    """Which windows are cut.

    Attributes:
        windows: how many.
        size_px: columns, and rows unless ``length_px`` says otherwise, pixels of the SAR scene.
        seed: of their places.
        bbox: (left, bottom, right, top) in the map's CRS that they must lie in, or None for the whole index.
        aligned: whether they lie on the index's tile grid, the easier protocol of the papers.
        rotate: "any" to turn each about its centre by a random heading, which the locator has to find, or by up to how
            many degrees either way it is turned without the locator being told.
        scale_percent: how far its scale may be off what is told, at random: 10 for a factor of 1.1 either way, evenly
            in the logarithm.
        tolerance: what the locator is told of that; by ``rotate`` "any" the heading is unknown in any case.
        length_px: rows, or None for squares.
        exact: whether headings and scales are off by just so much, one way or the other, rather than by up to so much.
        looks: of the gamma speckle that is multiplied in, or None for none.
        overlap: share of its area that lies on the map, less than one for windows over the map's edge.
    """

    windows: int = 500
    size_px: int = 200
    seed: int = 0
    bbox: tuple[float, float, float, float] | None = None
    aligned: bool = False
    rotate: Literal["any"] | float = 0.0
    scale_percent: float = 0.0
    tolerance: Tolerance = KNOWN
    length_px: int | None = None
    exact: bool = False
    looks: float | None = None
    overlap: float = 1.0

    def __post_init__(self) -> None:
        if self.rotate != "any" and not 0 <= self.rotate <= 180:
            raise _no_turn(self.rotate)
        if not 0 <= self.scale_percent <= MAX_SCALE_PERCENT:
            hint = f"give percent, 0-{MAX_SCALE_PERCENT:g}"
            raise UsageError(f"{self.scale_percent:g} is no error of scale", where="--scale", hint=hint)
        if self.windows < 1 or min(self.shape_px) < MIN_STRIP_PX:
            raise UsageError(
                f"{self.windows} windows of {self.shown} px are not possible",
                hint=f"take at least 1 window of at least {MIN_STRIP_PX} px",
            )
        if not 0 < self.overlap <= 1 or (self.looks is not None and not self.looks > 0):
            raise UsageError("windows overlap the map by a share up to 1, and speckle has looks above 0")

    @property
    def shape_px(self) -> tuple[int, int]:
        """Columns and rows of a window."""
        return self.size_px, self.size_px if self.length_px is None else self.length_px

    @property
    def shown(self) -> str:
        """Its size, for people."""
        return str(self.size_px) if self.length_px is None else f"{self.size_px} × {self.length_px}"

    @property
    def told(self) -> Tolerance:
        """How far the locator is told that heading and scale may be off."""
        return replace(self.tolerance, turn_deg=ANY_TURN_DEG) if self.rotate == "any" else self.tolerance


def turns(text: str) -> Literal["any"] | float:
    """What the command line says of ``WindowOptions.rotate``: none, any or degrees.

    Raises:
        UsageError: anything else.
    """
    if text == "any":
        return "any"
    try:
        return 0.0 if text == "none" else float(text)
    except ValueError:
        raise _no_turn(text) from None


def _no_turn(given: object) -> UsageError:
    return UsageError(f"{given!r} is no way to turn windows", where="--rotate", hint="say none, any or degrees, 0-180")


@dataclass(frozen=True)
class Cut:
    """Where one window is cut.

    Attributes:
        col, row: first pixel of the upright window about the same centre.
        width, height: columns and rows of the window.
        turn_deg: where its up points, clockwise from the scene's.
        scale: pixels of the scene per pixel of the window.
    """

    col: int
    row: int
    width: int
    height: int
    turn_deg: float = 0.0
    scale: float = 1.0

    @property
    def upright(self) -> bool:
        """Whether its pixels are the scene's."""
        return self.turn_deg == 0 and self.scale == 1

    @property
    def center_px(self) -> tuple[float, float]:
        """Its centre, pixels of the scene."""
        return self.col + self.width / 2, self.row + self.height / 2

    @property
    def to_scene(self) -> Affine:
        """Pixel of the window -> pixel of the scene, corner convention."""
        turned = Affine.translation(*self.center_px) @ Affine.rotation(self.turn_deg) @ Affine.scale(self.scale)
        return turned @ Affine.translation(-self.width / 2, -self.height / 2)

    @property
    def outline_px(self) -> NDArray[np.float64]:
        """[4 x 2] its corners, pixels of the scene."""
        right, below = self.width, self.height
        return apply_affine(self.to_scene, [(0, 0), (right, 0), (right, below), (0, below)])

    def read(self, raster: Raster, radiometry: SarRadiometry) -> Patch:
        """Its pixels; unless it is upright they are interpolated, which smooths speckle as a processor's would be.

        Bilinear in what the file holds, amplitude or power, but of decibels in power. Between pixels that averages up
        to four speckles, so the windows look a little less noisy than the scene; where their pixels are larger than the
        scene's they are averages of it, as a coarser sensor's. A pixel is valid where all that it is made of is.
        """
        if self.upright:
            return raster.read(self.col, self.row, self.width, self.height, bands=radiometry.bands)
        patch, matrix = self._around(raster, radiometry.bands)
        data = np.where(patch.valid, patch.data, 0)
        if radiometry.kind == "db":
            data = np.power(10.0, data / 10)
        data = np.stack([_interpolated(self._averaged(band), matrix, self._size) for band in data])
        if radiometry.kind == "db":
            data = 10 * np.log10(np.maximum(data, np.finfo(np.float32).tiny))
        return Patch(data, self._known(patch, matrix))

    def is_full(self, raster: Raster) -> bool:
        """Whether enough of its pixels hold data."""
        if self.upright:
            valid = raster.read(self.col, self.row, self.width, self.height).valid
        else:
            valid = self._known(*self._around(raster, None))
        return bool(valid.mean() >= MIN_VALID)

    def _around(self, raster: Raster, bands: Sequence[int] | None) -> tuple[Patch, NDArray[np.float64]]:
        """The upright patch that it is made of, and the matrix from its pixels to the patch's as OpenCV counts."""
        low = np.floor(self.outline_px.min(axis=0)).astype(int) - 1
        wide, tall = (np.ceil(self.outline_px.max(axis=0)).astype(int) + 1 - low).tolist()
        # OpenCV puts (0, 0) at the centre of the first pixel, the corner convention half a pixel before it.
        half = Affine.translation(-0.5, -0.5)
        matrix = np.array(half @ Affine.translation(*-low) @ self.to_scene @ ~half).reshape(3, 3)[:2]
        return raster.read(int(low[0]), int(low[1]), wide, tall, bands=bands), matrix

    def _known(self, patch: Patch, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray(_interpolated(patch.valid.astype(np.float32), matrix, self._size) > 0.99)

    @property
    def _size(self) -> tuple[int, int]:
        return self.width, self.height

    def _averaged(self, band: NDArray[Any]) -> NDArray[Any]:
        """A band of the scene, smoothed to what larger pixels hold."""
        if self.scale <= 1 or np.iscomplexobj(band):
            return band
        # Of a box of a pixel's width s the variance is s^2 / 12; the scene's own pixels have theirs already.
        return np.asarray(cv2.GaussianBlur(band.astype(np.float32), (0, 0), np.sqrt((self.scale**2 - 1) / 12) + 1e-3))


def _interpolated(plane: NDArray[Any], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[Any]:
    """A plane [H x W], real or complex, at the places that ``matrix`` gives: columns and rows of ``size``."""
    if np.iscomplexobj(plane):
        return np.asarray(_interpolated(plane.real, matrix, size) + 1j * _interpolated(plane.imag, matrix, size))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(plane.astype(np.float32), matrix, size, flags=flags))


def window_cuts(raster: Raster, grid: Grid, index: TileIndex, options: WindowOptions, *, on_map: bool) -> Iterator[Cut]:
    """Windows that hold data and, on the map, lie inside the part that is asked for.

    One seed gives one sequence of places whatever the headings and scales; those that then do not fit are left out.
    """
    rng, poses = np.random.default_rng(options.seed), np.random.default_rng([options.seed, _POSES])
    area = _area(index, options) if on_map else None
    span = _span(raster, grid, index, options, area)
    scene = box(0, 0, raster.width, raster.height)
    found = 0
    for _ in range(_TRIES * options.windows):
        if found == options.windows:
            return
        if options.aligned and on_map:
            corner = index.corner(int(rng.integers(len(index))))
            at = pixel_between(index.grid, grid, corner)
            col, row = int(np.rint(at[0])), int(np.rint(at[1]))
        else:
            col, row = (int(rng.integers(low, high + 1)) for low, high in span)
        if options.overlap < 1:  # over one of the edges by just so much
            edge = int(rng.integers(4))
            col, row = (span[0][edge % 2], row) if edge < 2 else (col, span[1][edge % 2])
        turn, grown = poses.uniform(-1, 1), poses.uniform(-1, 1)
        if options.exact:
            turn, grown = np.sign(turn), np.sign(grown)
        turn_deg = 180 * (1 + turn) if options.rotate == "any" else turn * options.rotate
        scale = np.exp(grown * np.log1p(options.scale_percent / 100))
        cut = Cut(col, row, *options.shape_px, turn_deg=float(turn_deg), scale=float(scale))
        inside = scene.covers(Polygon(cut.outline_px))
        if inside and area is not None:
            inside = _overlaps(area, Polygon(pixel_between(grid, index.grid, cut.outline_px)), options.overlap)
        if inside and cut.is_full(raster):
            found += 1
            yield cut
    raise InputError(
        f"only {found} of {options.windows} windows of {options.shown} px lie in the map and hold data",
        where=raster.path,
        hint="look whether the scene overlaps the map, or take fewer or smaller windows",
    )


def _overlaps(area: Polygon, outline: Polygon, share: float) -> bool:
    """Whether such a share of a window lies in the area."""
    if share == 1:
        return area.covers(outline)
    return abs(area.intersection(outline).area / outline.area - share) <= OVERLAP_WITHIN


def _span(
    raster: Raster, grid: Grid, index: TileIndex, options: WindowOptions, area: Polygon | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Columns and rows among which first pixels of windows are drawn: where the scene meets the area."""
    size = np.array(options.shape_px)
    low, high = np.zeros(2), np.array([raster.width, raster.height], np.float64) - size
    if area is not None:
        px = pixel_between(index.grid, grid, np.asarray(area.exterior.coords))
        beyond = size * (1 - options.overlap)
        low = np.maximum(low, np.floor(px.min(axis=0) - beyond))
        high = np.minimum(high, np.ceil(px.max(axis=0) + beyond) - size)
    if (high < low).any():
        raise InputError(
            f"no window of {options.shown} px of the scene lies in the map",
            where=raster.path,
            hint="look whether the two overlap, gdalinfo prints their extents, or take smaller windows",
        )
    return (int(low[0]), int(high[0])), (int(low[1]), int(high[1]))


def _area(index: TileIndex, options: WindowOptions) -> Polygon:
    """Where windows may lie, in pixels of the index's map; half a pixel beyond its edge is no matter."""
    whole = box(0, 0, index.grid.width, index.grid.height).buffer(0.5, join_style="mitre")
    if options.bbox is None:
        return whole
    left, bottom, right, top = options.bbox
    asked = Polygon(index.grid.to_pixel([(left, bottom), (right, bottom), (right, top), (left, top)]))
    common = asked.buffer(0.5, join_style="mitre").intersection(whole)
    if not isinstance(common, Polygon) or common.is_empty:
        raise UsageError(
            f"the box {options.bbox} does not touch the index", hint="geomatch index info prints its extent"
        )
    return common
