"""A circle on the ground against geodesics, and a map that shows one place twice."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pytest
from affine import Affine
from programs import geomatch
from pyproj import Geod, Transformer
from towns import UTM33, Town, off_px, optical, view, write_town

from geomatch.errors import UsageError
from geomatch.geo import Grid, as_crs
from geomatch.index.build import build_index
from geomatch.index_files import Part, coded
from geomatch.locator import Locator
from geomatch.near import Disc, Near
from geomatch.strip_files import StripOptions
from geomatch.vectors import Vectors

SIDE = 768
SIZE = (240, 260)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Town, Path]:
    """A map of a town and of the same town again, east of it; and its index."""
    bands = optical(SIDE)
    town = write_town(tmp_path_factory.mktemp("twins") / "twins.tif", np.concatenate([bands, bands], axis=2))
    index = town.path.with_suffix(".gmi")
    build_index(town.path, index)
    return town, index


def around(index: Path, x: float, y: float, radius_m: float) -> Near:
    grid = Locator.open(index).index.grid
    return Near(*lonlat(grid, x, y), radius_m)


def lonlat(grid: Grid, x: float, y: float) -> tuple[float, float]:
    """Of a pixel, by PROJ alone."""
    return Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True).transform(*(grid.transform @ (x, y)))


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM33, Affine(0.5, 0, 595_000, 0, -0.5, 5_333_000)),
        ("EPSG:3395", Affine(10, 0, 1_200_000, 0, -10, 6_100_000)),
        ("EPSG:4326", Affine(1e-5, 0, 11.5, 0, -1e-5, 0.2)),
        ("EPSG:4326", Affine(1e-5, 0, 11.5, 0, -1e-5, 60.2)),
    ],
)
def test_circle_is_one_on_the_ground(crs: str, transform: Affine) -> None:
    grid = Grid(as_crs(crs), transform, 4000, 3000)
    lon, lat = lonlat(grid, 2100.0, 1700.0)
    metres = 300 * np.sqrt(abs(transform.determinant)) if crs != "EPSG:4326" else 300.0
    to_map = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    disc = Near(lon, lat, metres).on(grid)
    for bearing in range(0, 360, 30):
        for share, inside in ((0.97, True), (1.03, False)):
            there = Geod(ellps="WGS84").fwd(lon, lat, bearing, metres * share)[:2]
            x, y = ~transform @ to_map.transform(*there)
            assert disc.holds([[x, y]])[0] == inside


@pytest.mark.parametrize(
    "text", ["", "11,48", "a,b,c", "11,48,0", "11,48,-5", "11,48,nan", "200,48,5", "11,91,5", "1,2,3,4"]
)
def test_what_is_no_circle_is_told(text: str) -> None:
    with pytest.raises(UsageError, match=r"no circle|no radius|no longitude"):
        Near.parse(text)


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "PCA16,L2norm,SQ8", "PCA16,L2norm,PQ8x4fs,Refine(SQ8)", "PQ8x4fs"])
def test_search_among_some_is_brute_force_over_them(factory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomatch.vectors.DECODED", 50)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(700, 32)).astype(np.float32)
    index = faiss.index_factory(32, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    if isinstance(coded(index), faiss.IndexRefine):
        coded(index).k_factor = 8
    second = faiss.deserialize_index(faiss.serialize_index(index))
    index.add(rows[:400])
    second.add(rows[400:])
    corners = rng.integers(0, 1000, (700, 2)).astype(np.int32)
    vectors = Vectors([Part(index), Part(second)], corners)
    disc = Disc(np.array([420.5, 530.25]), 320.0, np.eye(2))
    among = np.nonzero(np.hypot(*(corners - disc.center_px).T) <= disc.radius_m)[0]
    assert 100 < len(among) < 400
    queries = rng.normal(size=(3, 32)).astype(np.float32)
    hits = vectors.search(queries, 20, disc)
    every = vectors.searched(queries) @ vectors.stored(among).T
    order = np.argsort(-every, axis=1)[:, :20]
    np.testing.assert_allclose(hits.scores, np.take_along_axis(every, order, axis=1), rtol=1e-4, atol=1e-5)
    assert (hits.tiles == among[order]).mean() > 0.95  # codes of few bits tie
    assert (hits.corners_px == corners[hits.tiles]).all()
    assert vectors.search(queries, 1000, disc).tiles.shape == (3, len(among))
    assert vectors.search(queries, 20, Disc(np.array([-900.0, 0.0]), 5.0, np.eye(2))).tiles.shape == (3, 0)


def test_large_circle_is_searched_by_codes_as_well_as_the_map_is(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, corners, rng = gallery_of_rows()
    disc = Disc(np.array([500.0, 500.0]), 400.0, np.eye(2))
    inside = np.hypot(*(corners - disc.center_px).T) <= disc.radius_m
    queries = vectors.stored(rng.integers(0, len(corners), 20)) + rng.normal(size=(20, 32)).astype(np.float32)
    decoded: list[int] = []
    stored = Vectors.stored
    monkeypatch.setattr(Vectors, "stored", lambda self, ids: decoded.append(len(ids)) or stored(self, ids))
    hits = vectors.search(queries, 10, disc)
    assert 0 < sum(decoded) <= 20 * 80  # for twenty queries, of more than four thousand
    assert inside[hits.tiles].all()
    among = np.flatnonzero(inside)
    best = among[np.argsort(-queries @ stored(vectors, among).T, axis=1)[:, :10]]
    assert np.mean([np.isin(ours, theirs).mean() for ours, theirs in zip(hits.tiles, best, strict=True)]) > 0.98


def test_circle_without_what_a_query_resembles_is_searched_all_the_same() -> None:
    vectors, corners, _ = gallery_of_rows(apart=True)
    disc = Disc(np.array([500.0, 500.0]), 400.0, np.eye(2))
    inside = np.hypot(*(corners - disc.center_px).T) <= disc.radius_m
    query = vectors.stored(np.flatnonzero(~inside)[:1])
    hits = vectors.search(query, 10, disc)
    among = np.flatnonzero(inside)
    assert hits.tiles[0].tolist() == among[np.argsort(-(query @ vectors.stored(among).T)[0])[:10]].tolist()


def test_circles_one_after_the_other_are_each_their_own() -> None:
    vectors, corners, rng = gallery_of_rows()
    query = rng.normal(size=(1, 32)).astype(np.float32)
    ground = np.array([[2.0, 0.3], [0.0, 1.5]])
    for center, radius, metres in (((300, 400), 90.0, ground), ((300, 401), 90.0, ground), ((300, 401), 80.0, ground),
                                   ((300, 401), 80.0, np.eye(2)), ((300, 401), 80.0, np.eye(2))):  # fmt: skip
        disc = Disc(np.array(center, np.float64), radius, metres)
        away = (corners - disc.center_px) @ metres.T
        assert set(vectors.search(query, 9000, disc).tiles[0]) == set(np.flatnonzero(np.hypot(*away.T) <= radius))


def gallery_of_rows(*, apart: bool = False) -> tuple[Vectors, np.ndarray, np.random.Generator]:
    """Codes of 8,000 vectors in four parts, with their corners; ``apart``: those left of 100 px resemble each other."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(8000, 32)).astype(np.float32)
    corners = rng.integers(0, 1000, (8000, 2)).astype(np.int32)
    if apart:
        corners[:4000, 0] = rng.integers(0, 100, 4000)
        rows[:4000] = rng.normal(size=32) * 3 + rows[:4000] * 0.1
    empty = faiss.index_factory(32, "PQ16x4fs,Refine(SQfp16)", faiss.METRIC_INNER_PRODUCT)
    empty.train(rows)
    empty.k_factor = 8
    parts = []
    for some in np.split(rows, 4):
        part = faiss.clone_index(empty)
        part.add(some)
        parts.append(Part(part))
    return Vectors(parts, corners), corners, rng


@pytest.mark.parametrize(
    ("center", "radius", "box"),
    [((10.5, 20.0), 2.0, (9, 12, 18, 22)), ((0.4, 0.4), 0.1, (1, 0, 1, 0)), ((5, 5), 1e300, (-(2**31), 2**31 - 1) * 2)],
)
def test_box_holds_all_pixels_of_a_circle(
    center: tuple[float, float], radius: float, box: tuple[int, int, int, int]
) -> None:
    assert Disc(np.array(center), radius, np.eye(2)).box == box


def test_box_of_a_circle_on_uneven_and_turned_pixels_is_the_least_that_holds_it() -> None:
    ground = np.array([[3.0, 0.5], [-0.4, 2.0]])
    disc = Disc(np.array([100.0, 200.0]), 60.0, ground)
    turn = np.linspace(0, 2 * np.pi, 20_001)
    edge = disc.center_px + 60 * np.stack([np.cos(turn), np.sin(turn)], axis=1) @ np.linalg.inv(ground).T
    assert disc.holds(disc.center_px + 0.999 * (edge - disc.center_px)).all()
    assert not disc.holds(disc.center_px + 1.001 * (edge - disc.center_px)).any()
    (left, top), (right, bottom) = np.ceil(edge.min(axis=0)), np.floor(edge.max(axis=0))
    assert disc.box == (left, right, top, bottom)
    away = np.array([7.0, -5.0])
    assert disc.grown(np.hypot(*away)).holds(edge + 0.999 * away).all()
    assert disc.moved(away).holds(disc.center_px + away)


def test_map_of_a_cone_does_not_go_on_beyond_the_180th_meridian() -> None:
    crs = as_crs("+proj=lcc +lat_1=30 +lat_2=60 +lon_0=0")
    x, y = Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform(87.4, 59.2)
    grid = Grid(crs, Affine(100, 0, x - 1e5, 0, -100, y + 1e5), 2000, 2000)
    with pytest.raises(UsageError, match="nothing of the map"):
        Near(-100, 40, 50_000).on(grid)


def test_large_circle_on_a_map_whose_scale_changes_is_off_by_as_much_as_the_readme_says() -> None:
    x, y = Transformer.from_crs("OGC:CRS84", "EPSG:3857", always_xy=True).transform(11.5, 48)
    grid = Grid(as_crs("EPSG:3857"), Affine(1000, 0, x - 1e6, 0, -1000, y + 1e6), 2000, 2000)
    disc = Near(11.5, 48, 300e3).on(grid)
    turns = np.linspace(0, 2 * np.pi, 720)
    edge = disc.center_px + 300e3 * np.stack([np.cos(turns), np.sin(turns)], axis=1) @ np.linalg.inv(disc.ground).T
    metres = [Geod(ellps="WGS84").inv(11.5, 48, *lonlat(grid, *point))[2] for point in edge]
    assert np.abs(np.array(metres) / 300e3 - 1).max() == pytest.approx(0.026, abs=5e-4)


@pytest.mark.parametrize("text", ["11.5,90,2000", "0,90,20000", "11.5,-90,2000", "11.5,89.99999,2000"])
@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:3395", Affine(10, 0, 1_200_000, 0, -10, 6_100_000)),
        ("EPSG:3857", Affine(10, 0, 1_200_000, 0, -10, 6_100_000)),
        ("EPSG:4326", Affine(1e-5, 0, 11.5, 0, -1e-5, 0.2)),
        (UTM33, Affine(0.5, 0, 595_000, 0, -0.5, 5_333_000)),
    ],
)
def test_there_is_nothing_of_a_map_at_a_pole(crs: str, transform: Affine, text: str) -> None:
    """Longitude and latitude swapped, of a map about 90 degrees east, say."""
    with pytest.raises(UsageError, match="there is nothing of the map"):
        Near.parse(text).on(Grid(as_crs(crs), transform, 4000, 3000))


def test_map_about_a_pole_has_circles() -> None:
    grid = Grid(as_crs("EPSG:3413"), Affine(10, 0, -20_000, 0, -10, 20_000), 4000, 4000)
    disc = Near(0, 90, 2000).on(grid)
    np.testing.assert_allclose(disc.center_px, 2000, atol=1e-6)
    np.testing.assert_allclose(disc.reach_px, 200, rtol=0.04)


def test_circle_that_touches_a_turned_map_is_taken() -> None:
    """The nearest point of the map is not that by columns and rows where these are uneven on the ground."""
    grid = Grid(as_crs("EPSG:4326"), Affine(1e-4, 0, 11, 0, -1e-4, 60) @ Affine.rotation(45), 1000, 1000)
    near = Near(11.03, 60.002, 0.001)
    center = grid.to_pixel([near.lon, near.lat])
    along = np.linspace(0, 1, 20_001)[:, None]
    edges = [a + along * (np.subtract(b, a)) for a, b in pairwise(((0, 0), (1000, 0), (1000, 1000), (0, 1000), (0, 0)))]
    there = grid.to_map(np.concatenate(edges))
    away = Geod(ellps="WGS84").inv(*np.broadcast_arrays(near.lon, near.lat, *there.T))[2].min()
    assert not ((center >= 0) & (center <= 1000)).all()
    assert Near(near.lon, near.lat, 1.01 * away).on(grid)
    with pytest.raises(UsageError, match="nothing of the map"):
        Near(near.lon, near.lat, 0.99 * away).on(grid)


@pytest.mark.parametrize(
    ("crs", "transform", "lon"),
    [
        ("EPSG:4326", Affine(1e-4, 0, 179.9, 0, -1e-4, -16.9), -179.95),
        ("EPSG:4326", Affine(1e-4, 0, -180.1, 0, -1e-4, -16.9), 179.95),
        ("EPSG:3857", Affine(10, 0, 20_027_000, 0, -10, -1_910_000), -179.95),
    ],
)
def test_map_that_goes_on_beyond_the_180th_meridian_has_what_lies_there(
    crs: str, transform: Affine, lon: float
) -> None:
    grid = Grid(as_crs(crs), transform, 2000, 2000)
    disc = Near(lon, -17.0, 2000.0).on(grid)
    shift = 360 if crs == "EPSG:4326" else 2 * np.pi * 6_378_137
    x, y = Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform(lon, -17.0)
    there = ~transform @ (x - np.sign(lon) * shift, y)
    np.testing.assert_allclose(disc.center_px, there, atol=1e-3)


@pytest.mark.parametrize("exhaustive", [False, True])
@pytest.mark.parametrize("size", [SIZE, (120, 130)])
@pytest.mark.parametrize("copy", [0, 1])
def test_twin_that_is_near_is_the_answer(
    copy: int, size: tuple[int, int], exhaustive: bool, twins: tuple[Town, Path], tmp_path: Path
) -> None:
    town, index = twins
    x, y = 380 + SIDE * copy, 400
    truth = town.write_strip(tmp_path / "s.tif", view((x, y), 0, 1, *size), size)
    either = Locator.open(index).locate(tmp_path / "s.tif")
    assert either.status != "located"
    assert either.confidence == pytest.approx(0.5, abs=0.01)
    assert either.evidence.likely_places == 2
    near = around(index, x + 90, y - 50, 80.0)  # of half a metre a pixel
    found = Locator.open(index, near=near, exhaustive=exhaustive).locate(tmp_path / "s.tif")
    assert off_px(found, town, truth, size) < 1
    assert found.status == "located" or size != SIZE
    assert any("no place farther than 80 m" in note for note in found.evidence.notes)


def test_strip_that_lies_elsewhere_is_not_put_into_the_circle(twins: tuple[Town, Path], tmp_path: Path) -> None:
    town, index = twins
    town.write_strip(tmp_path / "s.tif", view((380, 400), 0, 1, *SIZE), SIZE)
    for away in (160.0, 110.0):
        found = Locator.open(index, near=around(index, 380 + 2 * away, 400, 100.0)).locate(tmp_path / "s.tif")
        assert found.status != "located"


def test_heading_is_found_within_a_circle(twins: tuple[Town, Path], tmp_path: Path) -> None:
    town, index = twins
    truth = town.write_strip(tmp_path / "s.tif", view((1150, 390), 35, 1, *SIZE), SIZE, located=False)
    options = StripOptions(heading_deg="unknown", mirrored="no")
    found = Locator.open(index, near=around(index, 1120, 400, 60.0)).locate(tmp_path / "s.tif", options)
    assert off_px(found, town, truth, SIZE) < 2


def test_circle_off_the_map_is_refused_and_one_that_touches_it_is_not(twins: tuple[Town, Path], tmp_path: Path) -> None:
    town, index = twins
    town.write_strip(tmp_path / "s.tif", view((380, 400), 0, 1, *SIZE), SIZE)
    asked = ["locate", str(tmp_path / "s.tif"), "--index", str(index), "--near"]
    away = geomatch(*asked, "0,0,1000")
    assert away.exit_code == 2
    assert "nothing of the map" in away.stderr
    assert geomatch(*asked, "12,north,5").exit_code == 2
    near = around(index, -20.0, 400.0, 15.0)
    assert geomatch(*asked, f"{near.lon},{near.lat},{near.radius_m}").exit_code == 0
