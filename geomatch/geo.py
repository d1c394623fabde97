"""Where pixels lie on the ground: affine maths, CRS, metres per pixel, footprints, the antimeridian.

Pixel coordinates are (column, row) in the corner convention of GDAL: (0, 0) is the outer corner of the first pixel,
its centre is (0.5, 0.5). Map coordinates are (x, y) = (easting, northing) or (longitude, latitude), whatever the axis
order of the authority. Angles are degrees, headings clockwise from true north.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.polygon import orient

from geomatch.errors import InputError

WGS84 = Geod(ellps="WGS84")
CRS84 = CRS.from_user_input("OGC:CRS84")

MAX_EDGE_POINTS = 64  # a footprint's side is bent by at most this many points on the way to CRS84
STRAIGHT_DEG = 1e-6  # and by no more than it takes to keep this close to the true curve, 0.1 m
FULL_TURN = 360.0
MIN_GCP_SPREAD = 0.01  # of the image's diagonal, across the line that ground control points come nearest to
MAX_GCP_RESIDUAL = 0.02  # of the image's diagonal; relief and a curved Earth give less
MAX_UNEVEN = 2.0  # largest over smallest side of a pixel within one image
FAR_M = 300_000.0  # a UTM zone is that wide; within it the map's projection holds
_HALF_STEPS = np.array([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])


@dataclass(frozen=True)
class Grid:
    """Where the pixels of an image lie.

    Attributes:
        crs: coordinate reference system of the map coordinates.
        transform: (column, row) -> (x, y) in units of the CRS, corner convention.
        width: columns, pixels.
        height: rows, pixels.

    Raises:
        InputError: the transform is not finite or folds the image onto a line, or the size is not positive.
    """

    crs: CRS
    transform: Affine
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise InputError(f"an image of {self.width} × {self.height} pixels has no place")
        if not np.isfinite(tuple(self.transform)).all() or self.transform.determinant == 0:
            raise InputError(
                "the geotransform is not finite or has no area", hint="write a valid one with gdal_edit.py -a_ullr"
            )

    @property
    def center_px(self) -> NDArray[np.float64]:
        """Centre of the image: [2] (column, row)."""
        return np.array([self.width / 2, self.height / 2])

    @property
    def corners_px(self) -> NDArray[np.float64]:
        """Outer corners from the first pixel along the first row: [4 x 2] (column, row)."""
        return np.array([[0, 0], [self.width, 0], [self.width, self.height], [0, self.height]], dtype=np.float64)

    def to_map(self, colrow: ArrayLike) -> NDArray[np.float64]:
        """Map coordinates of pixel positions: [... x 2] (column, row) -> [... x 2] (x, y) in ``crs``."""
        return apply_affine(self.transform, colrow)

    def to_pixel(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Pixel positions of map coordinates: [... x 2] (x, y) in ``crs`` -> [... x 2] (column, row)."""
        return apply_affine(~self.transform, xy)

    def window(self, col0: float, row0: float, width: int, height: int) -> Grid:
        """The grid of the ``width`` × ``height`` px window whose first corner is (col0, row0); it may reach outside."""
        return Grid(self.crs, self.transform @ Affine.translation(col0, row0), width, height)

    def shrunk(self, factor: int) -> Grid:
        """The grid of the image with ``factor`` × ``factor`` px made one; a remainder at the edge counts as a pixel."""
        width, height = -(-self.width // factor), -(-self.height // factor)
        return Grid(self.crs, self.transform @ Affine.scale(factor), width, height)


def as_crs(crs: Any) -> CRS:
    """Any CRS that pyproj, rasterio or a user writes (EPSG code, WKT, object), as a two-dimensional ``pyproj.CRS``.

    Raises:
        InputError: pyproj does not know it.
    """
    try:
        return CRS.from_user_input(crs).to_2d()
    except ProjError as error:
        raise InputError(f"unknown CRS {str(crs)[:80]!r}", hint="name it by its EPSG code, like EPSG:32611") from error


def apply_affine(transform: Affine, points: ArrayLike) -> NDArray[np.float64]:
    """Points moved by an affine transform: [... x 2] -> [... x 2]."""
    moved: NDArray[np.float64] = np.asarray(points, dtype=np.float64) @ linear_part(transform).T
    moved += np.array([transform.c, transform.f])
    return moved


def linear_part(transform: Affine) -> NDArray[np.float64]:
    """The [2 x 2] matrix of an affine transform, without its offset."""
    return np.array([[transform.a, transform.b], [transform.d, transform.e]])


def six(transform: Affine) -> tuple[float, float, float, float, float, float]:
    """The numbers a, b, c, d, e, f of an affine transform: x = a col + b row + c, y = d col + e row + f."""
    return (transform.a, transform.b, transform.c, transform.d, transform.e, transform.f)


@lru_cache(maxsize=64)
def _transformer(source: CRS, target: CRS) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


def transform_points(points: ArrayLike, source: CRS, target: CRS) -> NDArray[np.float64]:
    """Points from one CRS to another: [... x 2] (x, y) -> [... x 2] (x, y).

    Raises:
        InputError: there is no way between the two, or a point lies outside the domain of ``target``.
    """
    xy = np.asarray(points, dtype=np.float64)
    hint = "check the CRS of the file, gdalinfo prints it"
    try:
        moved = np.stack(_transformer(source, target).transform(xy[..., 0], xy[..., 1]), axis=-1)
    except ProjError as error:
        raise InputError(f"no way from {source.name!r} to {target.name!r}", hint=hint) from error
    if not np.isfinite(moved).all():
        bad = xy[~np.isfinite(moved).all(axis=-1)][0]
        raise InputError(
            f"({bad[0]:.10g}, {bad[1]:.10g}) in {source.name!r} has no place in {target.name!r}", hint=hint
        )
    return moved


def pixel_between(source: Grid, target: Grid, colrow: ArrayLike) -> NDArray[np.float64]:
    """Where pixels of one grid lie in another: [... x 2] (column, row) -> [... x 2].

    Raises:
        InputError: a place cannot be expressed in the target's CRS.
    """
    return target.to_pixel(transform_points(source.to_map(colrow), source.crs, target.crs))


def ground_jacobian(grid: Grid, at_px: ArrayLike | None = None) -> NDArray[np.float64]:
    """Metres on the ground per pixel: [2 x 2], rows east and north, columns per image column and per image row.

    Geodesics on the WGS 84 ellipsoid (Karney 2013) from the place to half a pixel on either side of it, so degrees,
    feet and the stretch of Mercator all come out as metres on the ground.

    Args:
        grid: where the image lies.
        at_px: (column, row) of the place, default the centre.

    Raises:
        InputError: the place has no longitude and latitude.
    """
    here = grid.center_px if at_px is None else np.asarray(at_px, dtype=np.float64)
    lon, lat = transform_points(grid.to_map(here + np.vstack([np.zeros(2), _HALF_STEPS])), grid.crs, CRS84).T
    azimuth, _, metres = WGS84.inv(np.full(4, lon[0]), np.full(4, lat[0]), lon[1:], lat[1:])
    east_north = metres * np.array([np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))])
    return np.stack([east_north[:, 0] - east_north[:, 1], east_north[:, 2] - east_north[:, 3]], axis=1)


def ground_resolution_m(grid: Grid, at_px: ArrayLike | None = None) -> float:
    """Side in metres of the square with the ground area of one pixel, at (column, row), default the centre."""
    return float(np.sqrt(abs(np.linalg.det(ground_jacobian(grid, at_px)))))


def check_even(grid: Grid) -> None:
    """Raise InputError if pixels differ too much in size from one side of an image to another to be one grid.

    In degrees they grow narrower towards a pole and are nothing at it; in Mercator's projection they shrink.
    """
    inner = grid.corners_px + np.sign(grid.center_px - grid.corners_px) / 2  # half a pixel beyond a pole is no place
    sides = np.array([np.linalg.norm(ground_jacobian(grid, place), axis=0) for place in (*inner, grid.center_px)])
    uneven = float((sides.max(axis=0) / np.maximum(sides.min(axis=0), 1e-9)).max())
    if uneven > MAX_UNEVEN:
        raise InputError(
            f"its pixels are up to {min(uneven, 1000):.3g} times as large at one side as at another, as near a pole",
            hint="bring it to a projection made for the place with gdalwarp -t_srs, like EPSG:3413 or EPSG:3031",
        )


def local_grid(near: Grid, gsd_m: float, heading_deg: float, width: int, height: int) -> Grid:
    """The georeference assumed for an image that has none: square pixels, at the centre of ``near``.

    Args:
        near: the map whose centre it is given.
        gsd_m: side of a pixel on the ground, metres.
        heading_deg: where the image's "up" points, clockwise from true north.
        width: columns, pixels.
        height: rows, pixels.

    Returns:
        A grid in the azimuthal equidistant projection about that centre, where metres and true north hold.
    """
    lon, lat = transform_points(near.to_map(near.center_px), near.crs, CRS84)
    crs = CRS.from_proj4(f"+proj=aeqd +lat_0={lat:.12f} +lon_0={lon:.12f} +datum=WGS84 +units=m +type=crs")
    east, north = gsd_m * np.sin(np.radians(heading_deg)), gsd_m * np.cos(np.radians(heading_deg))
    turned = Affine(north, -east, 0.0, -east, -north, 0.0)
    return Grid(crs, turned @ Affine.translation(-width / 2, -height / 2), width, height)


def grid_through(places_px: ArrayLike, places: ArrayLike, crs: CRS, width: int, height: int) -> Grid:
    """The georeference of an image by ground control points: the affine transform nearest to them.

    Least squares in metres, in the azimuthal equidistant projection about them, so that points in degrees, near a pole
    or on both sides of the antimeridian count as what they are.

    Args:
        places_px: [N x 2] (column, row) of the points.
        places: [N x 2] (x, y) of them.
        crs: of ``places``.
        width: columns, pixels.
        height: rows, pixels.

    Raises:
        InputError: fewer than three points, all of them along a line, or so far from any affine transform that they
            contradict each other.
    """
    px, hint = np.asarray(places_px, dtype=np.float64).reshape(-1, 2), "check them with gdalinfo"
    if len(px) < 3:
        raise InputError(f"has {len(px)} ground control points, of at least 3", hint=hint)
    lonlat = transform_points(places, crs, CRS84)
    lonlat[:, 0] = np.unwrap(lonlat[:, 0], period=FULL_TURN)
    lon, lat = lonlat.mean(axis=0)
    local = CRS.from_proj4(f"+proj=aeqd +lat_0={lat:.12f} +lon_0={lon:.12f} +datum=WGS84 +units=m +type=crs")
    metres = transform_points(lonlat, CRS84, local)
    middle, diagonal = px.mean(axis=0), float(np.hypot(width, height))
    spread = np.linalg.svd(px - middle, compute_uv=False)[-1] / np.sqrt(len(px))
    if spread < MIN_GCP_SPREAD * diagonal:
        raise InputError("its ground control points lie along a line", hint=hint)
    found, *_ = np.linalg.lstsq(np.column_stack([px - middle, np.ones(len(px))]), metres, rcond=None)
    (a, d), (b, e), (c, f) = found.tolist()
    transform = Affine(a, b, c, d, e, f) @ Affine.translation(*-middle)
    grid = Grid(local, transform, width, height)
    worst = float(np.linalg.norm(grid.to_pixel(metres) - px, axis=1).max())
    if worst > MAX_GCP_RESIDUAL * diagonal:
        what = f"its ground control points contradict each other: the best transform misses one by {worst:.0f} px"
        raise InputError(what, hint=hint)
    return grid


def linear_between(source: Grid, target: Grid, at_px: ArrayLike | None = None) -> NDArray[np.float64]:
    """How the target's pixel moves with the source's: [2 x 2], rows target column and row, columns source's.

    Affine algebra where the two share a CRS, otherwise central differences over one source pixel through PROJ.

    Args:
        source: grid of the image.
        target: grid of the map.
        at_px: (column, row) of a source pixel, default the source's centre.

    Raises:
        InputError: the place cannot be expressed in the target's CRS.
    """
    if source.crs == target.crs:
        return linear_part(~target.transform) @ linear_part(source.transform)
    here = source.center_px if at_px is None else np.asarray(at_px, dtype=np.float64)
    px = pixel_between(source, target, here + _HALF_STEPS)
    return np.stack([px[0] - px[1], px[2] - px[3]], axis=1)


def linear_to_map(source: Grid, map_grid: Grid) -> NDArray[np.float64]:
    """How an image that claims a place has to be turned and scaled for a map that may lie elsewhere: [2 x 2].

    ``linear_between`` where the two share a CRS or the claimed place is within FAR_M of the map's centre. Farther away
    another projection turns and stretches what it shows; then metres on the ground and true north are compared.

    Raises:
        InputError: the claimed place has no longitude and latitude.
    """
    if source.crs == map_grid.crs:
        return linear_between(source, map_grid)
    here, there = (transform_points(grid.to_map(grid.center_px), grid.crs, CRS84) for grid in (source, map_grid))
    _, _, metres = WGS84.inv(here[0], here[1], there[0], there[1])
    if not np.isfinite(metres):
        raise InputError(f"({here[0]:.6g}, {here[1]:.6g}) is no longitude and latitude", hint="check its geotransform")
    if metres <= FAR_M:
        return linear_between(source, map_grid)
    return np.asarray(np.linalg.solve(ground_jacobian(map_grid), ground_jacobian(source)))


def footprint(grid: Grid) -> Polygon:
    """The outline of an image in its own CRS: closed, counter-clockwise, from the outer corners."""
    return orient(Polygon(grid.to_map(grid.corners_px)))


def to_crs84(geometry: Polygon | MultiPolygon, crs: CRS) -> Polygon | MultiPolygon:
    """A footprint in longitude and latitude as RFC 7946 asks for.

    Sides are bent by points along them, exteriors run counter-clockwise (section 3.1.6), and what crosses the
    antimeridian is cut there into a MultiPolygon (section 3.1.9). A ring around a pole is closed along it.

    Args:
        geometry: polygon(s) in ``crs``.
        crs: its coordinate reference system.

    Raises:
        InputError: a corner has no longitude and latitude.
    """
    polygons = list(geometry.geoms) if isinstance(geometry, MultiPolygon) else [geometry]
    pieces = [piece for polygon in polygons for piece in _cut_at_antimeridian(_unrolled(polygon, crs))]
    whole = pieces[0] if len(pieces) == 1 else shapely.union_all(pieces)
    if isinstance(whole, Polygon):
        return orient(whole)
    return MultiPolygon([orient(part) for part in shapely.get_parts(whole)])


def _unrolled(polygon: Polygon, crs: CRS) -> Polygon:
    """The polygon in degrees, longitudes continuous along each ring, so possibly beyond ±180."""
    bent = shapely.segmentize(polygon, _straight_length(polygon, crs))
    exterior = _unrolled_ring(np.asarray(bent.exterior.coords), crs)
    anchor = exterior[:, 0].mean()
    holes = [_unrolled_ring(np.asarray(ring.coords), crs) for ring in bent.interiors]
    for hole in holes:
        hole[:, 0] += FULL_TURN * np.round((anchor - hole[:, 0].mean()) / FULL_TURN)
    return Polygon(exterior, holes)


def _straight_length(polygon: Polygon, crs: CRS) -> float:
    """How long a side's pieces may be, in units of ``crs``, to run straight in degrees too."""
    points = 1
    while points < MAX_EDGE_POINTS:
        ring = np.asarray(shapely.segmentize(polygon.exterior, polygon.length / (4 * points)).coords)[:, :2]
        corners = transform_points(ring, crs, CRS84)
        middles = transform_points((ring[1:] + ring[:-1]) / 2, crs, CRS84)
        bend = np.abs(middles - (corners[1:] + corners[:-1]) / 2) % FULL_TURN
        if np.minimum(bend, FULL_TURN - bend).max() <= STRAIGHT_DEG:
            break
        points *= 2
    return max(float(polygon.length) / (4 * points), 1e-12)


def _unrolled_ring(ring: NDArray[np.float64], crs: CRS) -> NDArray[np.float64]:
    lonlat = transform_points(ring[:, :2], crs, CRS84)
    lonlat[:, 0] = np.unwrap(lonlat[:, 0], period=FULL_TURN)
    first, last = lonlat[0], lonlat[-1]
    if abs(last[0] - first[0]) < FULL_TURN / 2:
        return lonlat
    pole = np.copysign(90.0, lonlat[:, 1].mean())
    return np.vstack([lonlat, [[last[0], pole], [first[0], pole], first]])


def _cut_at_antimeridian(polygon: Polygon) -> list[Polygon]:
    """The polygon's pieces, each within longitudes [-180, 180]."""
    west, _, east, _ = polygon.bounds
    first, last = int(np.floor((west + 180) / FULL_TURN)), int(np.ceil((east - 180) / FULL_TURN))
    if first == last == 0:
        return [polygon]
    pieces: list[Polygon] = []
    for turn in range(first, last + 1):
        cut = polygon.intersection(box(turn * FULL_TURN - 180, -90, turn * FULL_TURN + 180, 90))
        back = translate(cut, xoff=-turn * FULL_TURN)
        pieces += [part for part in shapely.get_parts(back) if isinstance(part, Polygon) and part.area]
    return pieces
