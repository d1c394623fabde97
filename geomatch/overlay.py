"""A found strip laid over the map: a checkerboard for the eye, a Cloud Optimized GeoTIFF for the GIS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import rasterio.crs
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.warp import Resampling, reproject
from shapely.geometry import Polygon

from geomatch.errors import InputError, OutputError
from geomatch.gdal import GDAL_OPTIONS
from geomatch.geo import Grid, apply_affine, linear_part
from geomatch.images import SarRadiometry
from geomatch.location import Location
from geomatch.locator import Locator
from geomatch.map_pixels import MapPixels
from geomatch.matching.transforms import apply
from geomatch.outputs import output_file
from geomatch.raster import Patch, Raster, open_raster
from geomatch.strip_files import StripOptions

MAX_PICTURE_PX = 2000
MAX_OVERVIEW_PX = 1200
PIECE_PIXELS = 1 << 24  # of the map, read at a time
OUTLINE_PX = 2
_SUBPIXEL_BITS = 4  # fixed-point corners of OpenCV's polygons

# Of Okabe & Ito's palette: told apart by the colour-blind, and seen on greens and greys alike.
ORANGE, SKY_BLUE = (230, 159, 0), (86, 180, 233)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Canvas:
    """The map that is drawn on.

    Attributes:
        grid: where its pixels lie.
        pixels: of it, or None where they are gone.
        path: of what it was told by, an index or an orthomosaic.
    """

    grid: Grid
    pixels: MapPixels | None
    path: Path

    @classmethod
    def of(cls, locator: Locator) -> Canvas:
        """The map of a locator."""
        return cls(locator.index.grid, locator.pixels, locator.index.path)


@dataclass(frozen=True)
class Outline:
    """A footprint to draw on the map.

    Attributes:
        footprint: polygon in the CRS of the index.
        color: (red, green, blue), 0-255.
        label: written beside it, ASCII; "" for none.
    """

    footprint: Polygon
    color: tuple[int, int, int] = ORANGE
    label: str = ""


@dataclass(frozen=True)
class _View:
    """A part of the indexed map and how much smaller it is drawn.

    Attributes:
        col0, row0, width, height: pixels of the index's grid; whole multiples of ``factor`` to a side.
        factor: pixels of the map that become one of the picture.
    """

    col0: int
    row0: int
    width: int
    height: int
    factor: int

    @classmethod
    def around(cls, points_px: NDArray[np.float64], margin_px: float, max_size_px: int) -> _View:
        """The view that holds some points [N x 2] and a margin, drawn at most ``max_size_px`` to a side."""
        col0, row0 = np.floor(points_px.min(axis=0) - margin_px).astype(int)
        col1, row1 = np.ceil(points_px.max(axis=0) + margin_px).astype(int)
        factor = max(1, -(-int(max(col1 - col0, row1 - row0)) // max_size_px))
        width, height = (-(-int(side) // factor) * factor for side in (col1 - col0, row1 - row0))
        return cls(int(col0), int(row0), width, height, factor)

    @property
    def from_map(self) -> Affine:
        """Pixel of the index's grid -> pixel of the picture, corner convention."""
        return Affine.scale(1 / self.factor) @ Affine.translation(-self.col0, -self.row0)


def checkerboard(
    strip: str | os.PathLike[str],
    location: Location,
    canvas: Canvas,
    target: str | os.PathLike[str],
    *,
    options: StripOptions | None = None,
    cell_px: int = 50,
    margin_px: int = 100,
    to_map: NDArray[np.float64] | None = None,
) -> None:
    """Write a PNG of the map around an answer, with the strip in every other square and its outline.

    Roads and shores that run on from square to square show that the place is right, and how exactly.

    Args:
        strip: the SAR file.
        location: its answer.
        canvas: the map that it stands on, with its pixels.
        target: the picture, at most MAX_PICTURE_PX to a side; what is there is replaced.
        options: how to read the strip's numbers, as they were given to ``locate``.
        cell_px: side of a square, pixels of the picture.
        margin_px: of map on every side, pixels of the map.
        to_map: [3 x 3] homography from pixels of the strip to the map, in the place of the answer's transform.

    Raises:
        InputError: the answer has no place, there are no pixels of the map, or the strip cannot be read.
        OutputError: the picture cannot be written.
    """
    pixels = _pixels(canvas)
    with open_raster(strip) as raster:
        placed = _placed(location, canvas, raster)
        whole = _matrix(placed.transform) if to_map is None else to_map
        view = _View.around(canvas.grid.to_pixel(apply(whole, placed.corners_px)), margin_px, MAX_PICTURE_PX)
        picture = _map_picture(pixels, view)
        to_picture = _matrix(view.from_map @ ~canvas.grid.transform) @ whole
        sar, valid = _sar_picture(raster, options or StripOptions(), to_picture, picture.shape[:2])
    rows, cols = np.indices(valid.shape) // cell_px
    shown = valid & ((rows + cols) % 2 == 1)
    picture[shown] = sar[shown, None]
    _draw_outline(picture, apply(to_picture, placed.corners_px), ORANGE)
    write_png(picture, target)


def footprints(canvas: Canvas, outlines: Sequence[Outline], target: str | os.PathLike[str]) -> None:
    """Write a PNG of the whole indexed map with outlines on it.

    Args:
        canvas: the map, with its pixels.
        outlines: the later are drawn over the earlier.
        target: the picture, at most MAX_OVERVIEW_PX to a side; what is there is replaced.

    Raises:
        InputError: there are no pixels of the map, or they cannot be read.
        OutputError: the picture cannot be written.
    """
    grid = canvas.grid
    view = _View.around(grid.corners_px, 0, MAX_OVERVIEW_PX)
    picture = _map_picture(_pixels(canvas), view)
    to_picture = view.from_map @ ~grid.transform
    for outline in outlines:
        ring = apply_affine(to_picture, np.asarray(outline.footprint.exterior.coords)[:-1])
        _draw_outline(picture, ring, outline.color, outline.label)
    write_png(picture, target)


def warp_strip(
    strip: str | os.PathLike[str],
    location: Location,
    canvas: Canvas,
    target: str | os.PathLike[str],
    *,
    to_map: NDArray[np.float64] | None = None,
) -> None:
    """Write a strip as a Cloud Optimized GeoTIFF on the map's pixel grid, where it was found.

    All data bands by bilinear interpolation (averaging where the map is coarser), with overviews. Values stay what
    they are but become floating point, so that nodata can be NaN: float32, float64 for integers of 32 bits or more
    and for float64, complex64 for complex.

    Args:
        strip: the SAR file.
        location: its answer.
        canvas: the map that it stands on; its pixels are not needed.
        target: the GeoTIFF; its origin lies on a whole pixel of the map, so that pixels coincide.
        to_map: [3 x 3] homography from pixels of the strip to the map, in the place of the answer's transform; then
            nothing is averaged.

    Raises:
        InputError: the answer has no place, or the strip cannot be read.
        LimitError: the strip takes more memory than the limits allow.
        OutputError: the file cannot be written.
    """
    with open_raster(strip) as raster:
        placed = _placed(location, canvas, raster)
        patch = _straight(raster.read(0, 0, raster.width, raster.height), location)
    whole = _matrix(placed.transform) if to_map is None else to_map
    corners = canvas.grid.to_pixel(apply(whole, placed.corners_px))
    # A corner that lies on the grid but for rounding opens no further row or column of pixels.
    low, high = np.floor(corners.min(axis=0) + 1e-6), np.ceil(corners.max(axis=0) - 1e-6)
    snapped = canvas.grid.window(int(low[0]), int(low[1]), *(high - low).astype(int).tolist())
    path = Path(target)
    with output_file(path) as file:
        try:
            _write_cog(patch, placed.transform if to_map is None else to_map, snapped, file)
        except (RasterioError, CPLE_BaseError) as error:
            hint = "free some space or choose another place"
            raise OutputError(f"cannot be written ({error})", where=path, hint=hint) from error


def write_png(picture: NDArray[np.uint8], target: str | os.PathLike[str]) -> None:
    """Write [H x W x 3], red green blue, as PNG.

    Raises:
        OutputError: it cannot be written.
    """
    _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    with output_file(Path(target)) as file:
        file.write_bytes(encoded.tobytes())


def _pixels(canvas: Canvas) -> MapPixels:
    if canvas.pixels is None:
        hint = "say where the map is with --map"
        raise InputError("a picture needs the map's pixels", where=canvas.path, hint=hint)
    return canvas.pixels


def _placed(location: Location, canvas: Canvas, raster: Raster) -> Grid:
    """Where the strip's pixels lie in the CRS of the index."""
    if location.affine is None:
        hint = "only located and ambiguous strips have one"
        raise InputError(f"there is no place to draw, it is {location.status}", where=raster.path, hint=hint)
    return Grid(canvas.grid.crs, location.affine, raster.width, raster.height)


def _straight(patch: Patch, location: Location) -> Patch:
    """A strip that sways resampled so that its transform holds everywhere; any other as it is."""
    ties, affine = location.evidence.tie_points, location.affine
    if not ties or affine is None:
        return patch
    told = np.array([(tie.col, tie.row) for tie in ties])
    off = told - apply_affine(~affine, np.array([(tie.x, tie.y) for tie in ties]))  # of what is at a place of the file
    height, width = patch.valid.shape
    axis = int(height >= width)
    at = np.arange(patch.valid.shape[1 - axis]) + 0.5
    across, along = (np.interp(at, told[:, axis], side) for side in off.T)
    cols, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    if axis == 1:
        across, along = across[:, None], along[:, None]
    places = (cols + np.float32(across)).astype(np.float32), (rows + np.float32(along)).astype(np.float32)

    def moved(plane: NDArray[Any]) -> NDArray[Any]:
        if np.iscomplexobj(plane):
            return np.asarray(moved(plane.real) + 1j * moved(plane.imag))
        return np.asarray(cv2.remap(plane.astype(np.float64), *places, cv2.INTER_LINEAR))

    data = np.stack([moved(np.where(patch.valid, plane, 0)) for plane in patch.data])
    return Patch(data.astype(np.result_type(patch.data.dtype, np.float32)), moved(patch.valid.astype(float)) > 0.99)


def _map_picture(pixels: MapPixels, view: _View) -> NDArray[np.uint8]:
    """The map in a view: [height / factor x width / factor x 3], averaged; black off the map."""
    size = (view.height // view.factor, view.width // view.factor)
    picture = np.zeros((*size, 3), np.uint8)
    rows = max(1, PIECE_PIXELS // (view.width * view.factor))
    for first in range(0, size[0], rows):
        count = min(rows, size[0] - first)
        col0, row0 = view.col0 + pixels.origin_px[0], view.row0 + first * view.factor + pixels.origin_px[1]
        patch = pixels.raster.read(col0, row0, view.width, count * view.factor, bands=pixels.stretch.bands)
        small = cv2.resize(pixels.stretch.rgb(patch), (size[1], count), interpolation=cv2.INTER_AREA)
        picture[first : first + count] = small
    return picture


def _sar_picture(
    raster: Raster, options: StripOptions, to_picture: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The strip's amplitude for the eye and its validity, both [H x W] of the picture."""
    radiometry = SarRadiometry.detect(raster, options.kind, options.bands)
    patch = raster.read(0, 0, raster.width, raster.height, bands=radiometry.bands)
    # What warpPerspective would skip over is averaged first; it reaches no sources beyond 32,767 px either.
    wide, tall = raster.width, raster.height
    corners = apply(to_picture, np.array([[0.0, 0.0], [wide, 0], [wide, tall], [0, tall]]))
    scale = min(1.0, float(np.sqrt(Polygon(corners).area / (wide * tall))))
    size = (max(1, round(raster.width * scale)), max(1, round(raster.height * scale)))
    image = cv2.resize(radiometry.picture(patch), size, interpolation=cv2.INTER_AREA)
    valid = cv2.resize(patch.valid.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    enlarged = Affine.scale(raster.width / size[0], raster.height / size[1])
    # OpenCV puts (0, 0) at the centre of the first pixel, the corner convention half a pixel before it.
    half = Affine.translation(-0.5, -0.5)
    matrix = _matrix(half) @ to_picture @ _matrix(enlarged @ ~half)
    warped = cv2.warpPerspective(image, matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    known = cv2.warpPerspective(valid, matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderValue=0)
    return np.asarray(warped, dtype=np.uint8), np.asarray(known > 0.5)


def _draw_outline(
    picture: NDArray[np.uint8], ring_px: NDArray[np.float64], color: tuple[int, int, int], label: str = ""
) -> None:
    """Draw a closed ring [N x 2] of (column, row) in place, with its label at the first corner."""
    fixed = np.rint((ring_px - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.polylines(picture, [fixed], True, color, OUTLINE_PX, cv2.LINE_AA, _SUBPIXEL_BITS)
    at = (round(ring_px[:, 0].min()) + 6, round(ring_px[:, 1].min()) + 20)
    for shade, width in ((BLACK, 4), (WHITE, 2)):
        cv2.putText(picture, label, at, cv2.FONT_HERSHEY_SIMPLEX, 0.7, shade, width, cv2.LINE_AA)


def _matrix(affine: Affine) -> NDArray[np.float64]:
    return np.array(affine, np.float64).reshape(3, 3)


def _write_cog(patch: Patch, transform: Affine | NDArray[np.float64], grid: Grid, file: Path) -> None:
    """Resample [B x H x W] with its pixel -> map transform to a grid, beside ``file``, and copy it to a COG there."""
    dtype = np.result_type(patch.data.dtype, np.float32)
    crs = rasterio.crs.CRS.from_wkt(grid.crs.to_wkt())
    where = {"crs": crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
    predictor = "NO" if np.issubdtype(dtype, np.complexfloating) else "YES"  # TIFF has none for complex numbers
    plain = file.with_name("plain.tif")
    with rasterio.Env(**GDAL_OPTIONS):
        with rasterio.open(
            plain, "w", driver="GTiff", count=len(patch.data), dtype=dtype, nodata=np.nan, BIGTIFF="IF_SAFER", **where
        ) as dataset:
            for band, plane in enumerate(patch.data, start=1):
                dataset.write(_warped(np.where(patch.valid, plane, dtype.type(np.nan)), transform, grid, crs), band)
        layout = {"compress": "DEFLATE", "predictor": predictor, "overview_resampling": "AVERAGE"}
        rasterio.shutil.copy(plain, file, driver="COG", **layout)


def _warped(
    plane: NDArray[Any], transform: Affine | NDArray[np.float64], grid: Grid, crs: rasterio.crs.CRS
) -> NDArray[Any]:
    """[H x W] with its pixel -> map transform or homography, resampled to a grid; NaN is unknown in both."""
    if not isinstance(transform, Affine):
        return _projected(plane, _matrix(~grid.transform) @ transform, grid)
    # GDAL reads the scale from bounding boxes, and so takes an image that is turned for one to be averaged.
    scale = float(np.sqrt(abs(np.linalg.det(linear_part(~grid.transform @ transform)))))
    warped = np.full((grid.height, grid.width), np.nan, plane.dtype)
    reproject(
        plane,
        warped,
        src_transform=transform,
        src_crs=crs,
        src_nodata=np.nan,
        dst_transform=grid.transform,
        dst_crs=crs,
        dst_nodata=np.nan,
        resampling=Resampling.bilinear,
        tolerance=0,
        XSCALE=scale,
        YSCALE=scale,
    )
    return warped


def _projected(plane: NDArray[Any], to_grid: NDArray[np.float64], grid: Grid) -> NDArray[Any]:
    """[H x W] with a homography from its pixels to a grid's, resampled to that."""
    if np.iscomplexobj(plane):
        real, imaginary = (_projected(part, to_grid, grid) for part in (plane.real, plane.imag))
        return np.asarray(real + 1j * imaginary, plane.dtype)
    half = _matrix(Affine.translation(-0.5, -0.5))  # OpenCV counts from pixel centres
    size, unknown = (grid.width, grid.height), float("nan")
    centred = half @ to_grid @ np.linalg.inv(half)
    return np.asarray(cv2.warpPerspective(plane, centred, size, flags=cv2.INTER_LINEAR, borderValue=unknown))
