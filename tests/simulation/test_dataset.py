from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from disk import small_disk
from numpy.typing import NDArray
from programs import complaint, geomatch
from rasterio.errors import NotGeoreferencedWarning
from scipy.ndimage import map_coordinates

from geomatch.errors import OutputError, UsageError
from geomatch.geo import Grid, as_crs, linear_between, local_grid
from geomatch.simulation import Flight, Radar, SimulatedCity, dataset, simulate_city

simulate_small = partial(simulate_city, size_px=600, seed=4, strips=2, flight=Flight(100, 240))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> SimulatedCity:
    return simulate_small(tmp_path_factory.mktemp("simulated") / "deep" / "city")


def test_map_and_scene_are_geotiffs_on_one_grid(simulated: SimulatedCity) -> None:
    with rasterio.open(simulated.ortho) as ortho, rasterio.open(simulated.sar) as sar:
        assert ortho.dtypes == ("uint8",) * 3
        assert sar.dtypes == ("float32",)
        assert ortho.shape == sar.shape == (600, 600)
        assert ortho.transform == sar.transform
        assert ortho.crs == sar.crs == "EPSG:32633"
        assert ortho.profile["tiled"]
        assert ortho.overviews(1) == [2]
        assert ortho.read().std() > 20
        assert sar.read().min() >= 0


def test_strips_are_displaced_by_the_drift_that_the_truth_tells(simulated: SimulatedCity) -> None:
    assert len(simulated.strips) == 2
    for path, truth in zip(simulated.strips, simulated.truth, strict=True):
        with rasterio.open(path) as strip:
            assert strip.shape == (240, 100)
            assert strip.dtypes == ("float32",)
            assert strip.crs == truth.crs
            assert float(strip.tags()["heading_deg"]) == pytest.approx(truth.heading_deg, abs=1e-5)
            true = Affine(*truth.transform)
            assert truth.drift_m is not None
            assert strip.transform.almost_equals(Affine.translation(*truth.drift_m) @ true)
        assert 299.0 < np.hypot(*truth.drift_m) < 2001.0
        assert true @ (50, 120) == pytest.approx(truth.center)


def test_truth_file_says_the_same(simulated: SimulatedCity) -> None:
    document = json.loads(simulated.truth_file.read_text(encoding="utf-8"))
    with rasterio.open(simulated.folder / document["map"]["file"]) as ortho:
        assert tuple(document["map"]["transform"]) == ortho.transform[:6]
        bounds = ortho.bounds
    for entry, truth in zip(document["strips"], simulated.truth, strict=True):
        assert (simulated.folder / entry["file"]).is_file()
        assert tuple(entry["transform"]) == truth.transform
        x, y = entry["center"]
        assert bounds.left < x < bounds.right
        assert bounds.bottom < y < bounds.top
        assert entry["look"] == "right"


def test_same_seed_same_files_and_nothing_else_is_left(simulated: SimulatedCity, tmp_path: Path) -> None:
    again = simulate_small(tmp_path / "city")
    for name in ("ortho.tif", "sar.tif", "strip_01.tif", "strip_02.tif"):
        with rasterio.open(simulated.folder / name) as one, rasterio.open(again.folder / name) as two:
            assert np.array_equal(one.read(), two.read())
    assert again.truth == simulated.truth
    assert [path.name for path in tmp_path.iterdir()] == ["city"]


def test_strips_without_georeference_carry_heading_and_scale_in_tags(tmp_path: Path) -> None:
    city = simulate_small(tmp_path / "city", strips=1, georeference="none")
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(city.strips[0]) as strip:
        assert strip.crs is None
        assert float(strip.tags()["gsd_m"]) == 0.5
    assert city.truth[0].drift_m is None


@pytest.mark.parametrize("seed", [3, 15])  # west and east of the central meridian
def test_heading_and_scale_of_the_truth_turn_a_strip_as_it_lies(tmp_path: Path, seed: int) -> None:
    """As ``geomatch locate --gsd --heading`` takes them: from true north, which is off the grid's."""
    city = simulate_small(tmp_path / "city", seed=seed, georeference="none")
    with rasterio.open(city.ortho) as ortho:
        map_grid = Grid(as_crs(ortho.crs), ortho.transform, ortho.width, ortho.height)
    place = json.loads(city.truth_file.read_text(encoding="utf-8"))
    upright = local_grid(map_grid, 0.5, 0.0, 100, 240)
    assert abs(angles_deg(linear_between(upright, map_grid))[0]) > 1.0  # otherwise this would prove nothing
    for truth in city.truth:
        told = local_grid(map_grid, truth.gsd_m, truth.heading_deg, 100, 240)
        true = Grid(map_grid.crs, Affine(*truth.transform), 100, 240)
        found, expected = (linear_between(grid, map_grid) for grid in (told, true))
        assert (np.abs((angles_deg(found) - angles_deg(expected) + 180) % 360 - 180) < 0.1).all()
        assert np.hypot(*found) == pytest.approx(np.hypot(*expected), rel=1e-3)
    # The scene is flown at 192 degrees from grid north.
    scene = local_grid(map_grid, 0.5, place["sar"]["heading_deg"] - 192.0, 100, 240)
    assert np.abs(angles_deg(linear_between(scene, map_grid)) - [0, 90]).max() < 0.1
    with rasterio.open(city.sar) as sar:
        assert float(sar.tags()["heading_deg"]) == pytest.approx(place["sar"]["heading_deg"], abs=1e-5)


def angles_deg(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions of the two columns of a [2 x 2] matrix."""
    return np.asarray(np.rad2deg(np.arctan2(linear[1], linear[0])))


def test_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="something here"):
        simulate_small(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_file_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "city").write_text("mine")
    with pytest.raises(OutputError):
        simulate_small(tmp_path / "city")
    with pytest.raises(OutputError):
        simulate_small(tmp_path / "city" / "below")


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "city").mkdir()
    simulate_small(tmp_path / "city")
    assert [path.name for path in tmp_path.iterdir()] == ["city"]
    assert (tmp_path / "city" / "truth.json").is_file()


def test_what_is_put_into_an_empty_folder_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def someone_else(*_: object) -> None:
        (tmp_path / "city" / "mine.txt").write_text("mine")

    (tmp_path / "city").mkdir()
    monkeypatch.setattr(dataset, "_write_truth", someone_else)
    with pytest.raises(OutputError, match="something here"):
        simulate_small(tmp_path / "city")
    assert [path.name for path in tmp_path.rglob("*")] == ["city", "mine.txt"]


@pytest.mark.parametrize("limit_bytes", [0, 100, 100_000, 600_000, 1_000_000])
@pytest.mark.parametrize("there", [False, True])
def test_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path, limit_bytes: int, there: bool) -> None:
    """Large enough for overviews, in which GDAL crashes if it meets the end of the disk itself."""
    if there:
        (tmp_path / "city").mkdir()
    before = list(tmp_path.rglob("*"))
    with small_disk(limit_bytes):
        result = geomatch("simulate", "-o", tmp_path / "city", "--size", 1040, "--strips", 0)
    assert result.exit_code == 5
    assert f"{tmp_path / 'city'}: the file is larger than this place allows. Choose" in complaint(result.stderr)
    assert list(tmp_path.rglob("*")) == before


def test_disk_that_fills_up_is_an_output_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(bytes(content)[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="the disk is full"):
        simulate_small(tmp_path / "city")
    assert list(tmp_path.iterdir()) == []


def test_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "render_sar", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate_small(tmp_path / "city")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        partial(simulate_small, strips=-1),
        partial(simulate_small, size_px=10),
        partial(simulate_small, georeference="perfect"),
        partial(simulate_small, flight=Flight(300, 1000)),
        partial(simulate_small, radar=Radar(looks=math.inf)),
    ],
)
def test_wrong_arguments_are_usage_errors_and_leave_nothing(
    tmp_path: Path, wrong: Callable[[Path], SimulatedCity]
) -> None:
    with pytest.raises(UsageError):
        wrong(tmp_path / "city")
    assert list(tmp_path.iterdir()) == []


def test_smallest_city_is_written(tmp_path: Path) -> None:
    city = simulate_city(tmp_path / "city", size_px=256, strips=1, flight=Flight(60, 100, gsd_m=0.8))
    with rasterio.open(city.strips[0]) as strip:
        assert strip.res == pytest.approx((0.8, 0.8))


def test_strips_of_a_swaying_flight_show_what_the_truth_tells(tmp_path: Path) -> None:
    """Without speckle a swaying strip is the steady one of the same flight, read where the truth says."""
    radar = Radar(looks=1e6)
    steady, swaying = (
        simulate_city(
            tmp_path / f"{sway:g}", size_px=700, strips=1, flight=Flight(120, 400, sway_percent=sway), radar=radar
        )
        for sway in (0.0, 5.0)
    )
    rows, across, along = np.array(swaying.truth[0].sway_px).T
    assert swaying.truth[0].transform == steady.truth[0].transform
    assert (rows[0], rows[-1]) == (0, 399)
    assert np.interp(200, rows, across) == pytest.approx(0, abs=0.6)
    assert 0.02 < np.abs(np.gradient(along, rows)).max() <= 0.051
    assert json.loads(swaying.truth_file.read_text())["strips"][0]["sway_px"][3][0] == 75
    with rasterio.open(steady.strips[0]) as file:
        before = file.read(1)
    with rasterio.open(swaying.strips[0]) as file:
        after = file.read(1)
    row = np.arange(60, 340)
    moved_rows, moved_cols = row + np.interp(row, rows, along), np.interp(row, rows, across)
    cols = np.arange(30, 90)
    there = np.stack([np.broadcast_to(moved_rows[:, None], (280, 60)), cols + moved_cols[:, None]])
    expected = map_coordinates(before, there, order=1)
    assert np.corrcoef(after[60:340, 30:90].ravel(), expected.ravel())[0, 1] > 0.95
    unmoved = np.corrcoef(after[60:340, 30:90].ravel(), before[60:340, 30:90].ravel())[0, 1]
    assert unmoved < 0.9


@pytest.mark.parametrize("sway", [-1, 11, float("nan")])
def test_sway_that_cannot_be_is_refused(sway: float) -> None:
    with pytest.raises(UsageError, match="sway"):
        Flight(sway_percent=sway)
