"""A strip that sways is followed along its track; one that lies straight is left alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from drawing import write_tiff
from numpy.typing import NDArray
from programs import geomatch
from towns import PLACE, UTM33, Town, moved, optical, pixel_centres, radar_at, write_town

from geomatch.images import OpticalStretch
from geomatch.index.build import BuildOptions, build_index
from geomatch.location import Location
from geomatch.locator import Locator
from geomatch.map_pixels import MapPixels
from geomatch.overlay import Canvas, warp_strip
from geomatch.pixel_features import CELL_PX
from geomatch.raster import open_raster
from geomatch.strips import Strip
from geomatch.sway import SLOPE, STEP_PX, _likeliest, find_sway

LENGTH, WIDTH = 900, 200
CORNER = np.array([120.0, 60.0])


@pytest.fixture(scope="module")
def long_town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return write_town(tmp_path_factory.mktemp("long") / "town.tif", optical(1024, seed=6))


@pytest.fixture(scope="module")
def locator(long_town: Town) -> Locator:
    build_index(long_town.path, long_town.path.with_suffix(".gmi"), BuildOptions(encoder="structural"))
    return Locator.open(long_town.path.with_suffix(".gmi"))


def offsets(along: NDArray[np.float64], percent: float) -> NDArray[np.float64]:
    """[... x 2] by which what a strip shows at ``along`` px of its track is moved; slopes of up to ``percent``."""
    size = percent / 100 * LENGTH / (2 * np.pi)
    turn = 2 * np.pi * along / LENGTH
    return np.stack([size * np.sin(turn), size * np.cos(turn + 0.5)], axis=-1)


def shown(town: Town, to_map: Affine, percent: float, *, wide: bool = False) -> NDArray[np.float32]:
    """Amplitude of a strip whose track runs down its rows, or along its columns."""
    size = (LENGTH, WIDTH) if wide else (WIDTH, LENGTH)
    places = pixel_centres(*size)
    swayed = moved(to_map, places) + offsets(places[..., 0 if wide else 1], percent)
    return np.asarray(radar_at(town.bands, swayed))


def strip_of(amplitude: NDArray[np.float32]) -> Strip:
    height, width = amplitude.shape
    image = np.log(amplitude + 0.1).astype("float32")
    return Strip(image, np.ones(image.shape, bool), Affine.identity(), (width, height))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("percent", "near_px"), [(3.0, 0.8), (6.0, 1.2)])
def test_sway_is_followed(percent: float, near_px: float, wide: bool, long_town: Town) -> None:
    corner = CORNER[::-1] if wide else CORNER
    strip = strip_of(shown(long_town, Affine.translation(*corner), percent, wide=wide))
    with open_raster(long_town.path) as raster:
        found = find_sway(strip, corner, MapPixels(raster, (0, 0), OpticalStretch.fit(raster)), 8)
    assert found is not None
    assert found.axis == (0 if wide else 1)
    along = np.linspace(40, LENGTH - 40, 30)
    points = np.stack([along, np.full(30, 50.0)], axis=1) if wide else np.stack([np.full(30, 50.0), along], axis=1)
    off = np.hypot(*(found.at(points) - offsets(along, percent)).T)
    assert off.mean() < near_px
    assert off.max() < 2 * near_px


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_likeliest_path_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    evidence, middles = rng.gamma(1, 2, (4, 3, 3)), rng.normal(size=(4, 2))
    entries = np.array([(2.0 * col, 2.0 * row) for row in (-1, 0, 1) for col in (-1, 0, 1)])

    def worth(path: tuple[int, ...]) -> float:
        said = sum(evidence[k].flat[one] for k, one in enumerate(path))
        moves = np.diff(entries[list(path)] + middles, axis=0)
        return float(said - np.square(moves).sum() / (2 * (SLOPE * STEP_PX) ** 2))

    best = max(itertools.product(range(9), repeat=4), key=worth)
    path, weights = _likeliest(evidence, middles)
    assert (np.abs(path - middles - entries[list(best)]) <= CELL_PX).all()  # finer by a parabola
    np.testing.assert_array_equal(weights, [evidence[k].flat[one] for k, one in enumerate(best)])


def test_straight_strip_is_left_alone(long_town: Town) -> None:
    strip = strip_of(shown(long_town, Affine.translation(*CORNER), 0.0))
    with open_raster(long_town.path) as raster:
        assert find_sway(strip, CORNER, MapPixels(raster, (0, 0), OpticalStretch.fit(raster)), 8) is None


@pytest.mark.parametrize("what", ["short", "blank", "noise"])
def test_strip_that_cannot_tell_is_left_alone(what: str, long_town: Town) -> None:
    amplitude = shown(long_town, Affine.translation(*CORNER), 3.0)
    if what == "short":
        amplitude = amplitude[: 9 * STEP_PX]
    if what == "noise":
        amplitude = np.random.default_rng(0).gamma(1, 1, amplitude.shape).astype("float32")
    strip = strip_of(amplitude)
    if what == "blank":
        strip.valid[:] = False
    with open_raster(long_town.path) as raster:
        assert find_sway(strip, CORNER, MapPixels(raster, (0, 0), OpticalStretch.fit(raster)), 8) is None


def test_stretch_without_structure_is_bridged(long_town: Town) -> None:
    amplitude = shown(long_town, Affine.translation(*CORNER), 3.0)
    amplitude[350:500] = np.random.default_rng(0).gamma(4, 0.1, (150, WIDTH))
    with open_raster(long_town.path) as raster:
        found = find_sway(strip_of(amplitude), CORNER, MapPixels(raster, (0, 0), OpticalStretch.fit(raster)), 8)
    assert found is not None
    along = np.linspace(360, 490, 14)
    off = found.at(np.stack([np.full(14, 50.0), along], axis=1)) - offsets(along, 3.0)
    assert np.hypot(*off.T).max() < 3


def located(town: Town, locator: Locator, path: Path, percent: float) -> tuple[Location, Affine]:
    """The answer to a strip on disk, turned on the map, and its transform before it sways."""
    to_map = Affine.translation(512, 512) @ Affine.rotation(20) @ Affine.translation(-WIDTH / 2, -LENGTH / 2)
    truth = town.transform @ to_map
    write_tiff(path, shown(town, to_map, percent), crs=UTM33, transform=Affine.translation(500, 900) @ truth)
    return locator.locate(path), truth


def test_answer_tells_where_its_parts_lie(long_town: Town, locator: Locator, tmp_path: Path) -> None:
    location, truth = located(long_town, locator, tmp_path / "s.tif", 3.0)
    assert location.status == "located"
    ties = location.evidence.tie_points
    assert len(ties) >= 30
    points = np.array([(tie.col, tie.row) for tie in ties])
    swayed = offsets(points[:, 1], 3.0) @ np.diag([PLACE.a, PLACE.e])  # map pixels to its units
    off = np.array([(tie.x, tie.y) for tie in ties]) - moved(truth, points) - swayed
    assert np.hypot(*off.T).mean() / 0.5 < 1.0
    assert location.center is not None
    middle = moved(truth, [WIDTH / 2, LENGTH / 2]) + offsets(np.array(LENGTH / 2), 3.0) @ np.diag([PLACE.a, PLACE.e])
    assert np.hypot(*(np.array(location.center) - middle)) / 0.5 < 1.5
    assert any("sways" in note for note in location.evidence.notes)
    assert location.footprint is not None
    assert location.footprint.is_valid
    assert location.footprint.area == pytest.approx(WIDTH * LENGTH * 0.25, rel=0.03)
    straight, _ = located(long_town, locator, tmp_path / "straight.tif", 0.0)
    assert straight.evidence.tie_points == ()


def test_control_points_follow_the_sway(long_town: Town, locator: Locator, tmp_path: Path) -> None:
    """At 6 % no one transform is within 10 px; a spline through the points, as gdalwarp -tps takes them, is."""
    _, truth = located(long_town, locator, tmp_path / "s.tif", 6.0)
    target = tmp_path / "s.points"
    told = geomatch("locate", tmp_path / "s.tif", "--index", locator.index.path, "--gcps", target)
    assert told.exit_code == 0
    assert "control points follow it, warp with -tps" in told.stderr
    x, y, col, row = np.loadtxt(target, delimiter=",", skiprows=2, usecols=(0, 1, 2, 3)).T
    points = np.stack([col, -row], axis=1)
    places = moved(truth, points) + offsets(points[:, 1], 6.0) @ np.diag([PLACE.a, PLACE.e])
    off = np.hypot(*(np.stack([x, y], axis=1) - places).T) / 0.5
    assert off.mean() < 1.5
    assert off.max() < 5


def test_warped_strip_is_straightened(long_town: Town, locator: Locator, tmp_path: Path) -> None:
    """It shows what a view of the same place without any sway shows, better than by the transform alone."""
    location, _ = located(long_town, locator, tmp_path / "s.tif", 4.0)
    warp_strip(tmp_path / "s.tif", location, Canvas.of(locator), tmp_path / "warped.tif")
    with rasterio.open(tmp_path / "warped.tif") as file:
        found, place = file.read(1), ~PLACE @ file.transform
    expected = radar_at(long_town.bands, moved(place, pixel_centres(found.shape[1], found.shape[0])), looks=1e6)
    known = np.isfinite(found)
    assert known.sum() > 0.9 * WIDTH * LENGTH

    def likeness(image: NDArray[np.float32], there: NDArray[np.bool_]) -> float:
        return float(np.corrcoef(image[there], expected[there])[0, 1])

    bent = replace(location, evidence=replace(location.evidence, tie_points=()))
    warp_strip(tmp_path / "s.tif", bent, Canvas.of(locator), tmp_path / "bent.tif")
    with rasterio.open(tmp_path / "bent.tif") as file:
        other = file.read(1)
    assert other.shape == found.shape
    both = known & np.isfinite(other)
    assert likeness(found, known) > likeness(other, both) + 0.05
