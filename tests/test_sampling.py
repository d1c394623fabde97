"""Where evaluation cuts its windows, against transforms made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from drawing import write_tiff
from numpy.typing import NDArray
from towns import PLACE, UTM33, Town, corners, moved, pixel_centres, view

from geomatch.errors import InputError, UsageError
from geomatch.images import SarRadiometry
from geomatch.raster import open_raster
from geomatch.sampling import Cut, WindowOptions, turns, window_cuts
from geomatch.tile_index import TileIndex

SIZE = 100
SKEWED = view((384, 384), 33, 0.7, 900, 800)  # scene pixel -> map pixel; its corners reach beyond the map


@pytest.fixture(scope="module")
def index(town_index: Path) -> TileIndex:
    return TileIndex.open(town_index)


def scene(
    path: Path, to_map: Affine, size: tuple[int, int] = (900, 800), valid: NDArray[np.bool_] | None = None
) -> Path:
    return write_tiff(path, np.ones(size[::-1], "uint8"), crs=UTM33, transform=PLACE @ to_map, mask=valid)


def cut(path: Path, index: TileIndex, options: WindowOptions, *, on_map: bool = True) -> list[tuple[int, int]]:
    with open_raster(path) as raster:
        assert raster.grid is not None
        return [(cut.col, cut.row) for cut in window_cuts(raster, raster.grid, index, options, on_map=on_map)]


def outlines(found: list[tuple[int, int]], to_map: Affine, size: int = SIZE) -> NDArray[np.float64]:
    """[N x 4 x 2] corners of windows in map pixels."""
    return moved(to_map, np.array(found)[:, None] + corners(size, size))


def test_windows_lie_in_the_map_whatever_the_scenes_grid(town: Town, index: TileIndex, tmp_path: Path) -> None:
    found = cut(scene(tmp_path / "a.tif", SKEWED), index, WindowOptions(60, SIZE))
    assert len(found) == 60
    places = outlines(found, SKEWED)
    assert places.min() >= -0.5
    assert places.max() <= 768.5
    assert np.ptp(places.mean(axis=1), axis=0).min() > 300  # all over it


def test_one_seed_one_choice(index: TileIndex, tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", SKEWED)
    one, again, other = (cut(path, index, WindowOptions(20, SIZE, seed=seed)) for seed in (4, 4, 5))
    assert one == again
    assert one != other
    assert cut(path, index, WindowOptions(10, SIZE, seed=4)) == one[:10]


def test_random_windows_do_not_lie_on_the_tile_grid(index: TileIndex, tmp_path: Path) -> None:
    found = cut(scene(tmp_path / "a.tif", Affine.identity(), (768, 768)), index, WindowOptions(60, 200))
    assert len({col % 16 for col, _ in found}) > 8
    assert len({row % 16 for _, row in found}) > 8


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_aligned_windows_start_where_tiles_start(scale: float, index: TileIndex, tmp_path: Path) -> None:
    to_map = Affine.scale(scale)
    side = round(768 / scale)
    found = cut(
        scene(tmp_path / "a.tif", to_map, (side, side)), index, WindowOptions(40, round(200 / scale), aligned=True)
    )
    tiles = {tuple(index.corner(tile).tolist()) for tile in range(len(index))}
    assert {tuple(corner) for corner in moved(to_map, found).tolist()} <= tiles
    assert len(set(found)) > 30


def test_box_holds_every_window(index: TileIndex, tmp_path: Path) -> None:
    (left, top), (right, bottom) = moved(PLACE, [300, 100]), moved(PLACE, [560, 330])
    options = WindowOptions(40, SIZE, bbox=(left, bottom, right, top))
    places = outlines(cut(scene(tmp_path / "a.tif", SKEWED), index, options), SKEWED)
    np.testing.assert_array_less([299.4, 99.4], places.min(axis=(0, 1)))
    np.testing.assert_array_less(places.max(axis=(0, 1)), [560.6, 330.6])


def test_windows_hold_data(index: TileIndex, tmp_path: Path) -> None:
    valid = np.zeros((800, 900), bool)
    valid[300:520, 350:700] = True
    for col, row in cut(scene(tmp_path / "a.tif", SKEWED, valid=valid), index, WindowOptions(30, SIZE)):
        assert valid[row : row + SIZE, col : col + SIZE].mean() >= 0.99


def test_windows_off_the_map_come_from_all_of_the_scene(index: TileIndex, tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", Affine.translation(1e5, 0), (300, 260))
    found = np.array(cut(path, index, WindowOptions(400, SIZE, aligned=True), on_map=False))
    assert found.min(axis=0).tolist() == [0, 0]
    assert found.max(axis=0).tolist() == [200, 160]


def test_scene_of_one_window_gives_that_one(index: TileIndex, tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", Affine.translation(40, 50), (SIZE, SIZE))
    assert cut(path, index, WindowOptions(3, SIZE)) == [(0, 0)] * 3


def test_scene_elsewhere_and_windows_too_large_are_told(index: TileIndex, tmp_path: Path) -> None:
    elsewhere = scene(tmp_path / "elsewhere.tif", Affine.translation(1e5, 0))
    with pytest.raises(InputError, match=r"elsewhere\.tif: no window.* Look whether the two overlap"):
        cut(elsewhere, index, WindowOptions(3, SIZE))
    with pytest.raises(InputError, match="no window of 801 px"):
        cut(scene(tmp_path / "a.tif", SKEWED), index, WindowOptions(3, 801))


def test_scene_without_data_is_told_and_not_searched_for_ever(index: TileIndex, tmp_path: Path) -> None:
    path = scene(tmp_path / "empty.tif", SKEWED, valid=np.zeros((800, 900), bool))
    with pytest.raises(InputError, match=r"empty\.tif: only 0 of 2 windows.*fewer or smaller"):
        cut(path, index, WindowOptions(2, SIZE))


def test_box_off_the_index_is_told(index: TileIndex, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not touch the index"):
        cut(scene(tmp_path / "a.tif", SKEWED), index, WindowOptions(2, SIZE, bbox=(0, 0, 10, 10)))


@pytest.mark.parametrize(("windows", "size"), [(0, 200), (-3, 200), (5, 31), (5, 0), (5, -200)])
def test_windows_that_cannot_be_are_refused(windows: int, size: int) -> None:
    with pytest.raises(UsageError, match="not possible"):
        WindowOptions(windows, size)


def smooth(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """A picture whose value at any place is known, above zero."""
    return np.asarray(3 + np.sin(points[..., 0] / 17) + np.cos(points[..., 1] / 23), np.float32)


@pytest.mark.parametrize("kind", ["amplitude", "power", "db", "complex"])
@pytest.mark.parametrize("scale", [0.6, 1.1])
def test_turned_windows_show_what_lies_there(kind: str, scale: float, tmp_path: Path) -> None:
    values = smooth(pixel_centres(500, 400))
    stored = {"db": 10 * np.log10(values), "complex": values.astype("complex64")}.get(kind, values)
    path = write_tiff(tmp_path / "a.tif", stored, crs=UTM33, transform=PLACE)
    cut = Cut(150, 120, 160, 120, turn_deg=33.0, scale=scale)
    with open_raster(path) as raster:
        patch = cut.read(raster, SarRadiometry.detect(raster, kind))
    assert patch.valid.all()
    centre, above = moved(cut.to_scene, [(80, 60), (80, 59)])
    np.testing.assert_allclose(centre, [230, 180])
    right, down = above - centre
    assert np.degrees(np.arctan2(right, -down)) == pytest.approx(33)
    truth = smooth(moved(cut.to_scene, pixel_centres(160, 120)))
    shown = np.power(10.0, patch.data[0] / 10) if kind == "db" else np.abs(patch.data[0])
    np.testing.assert_allclose(shown, truth, atol=0.01)


def test_turned_windows_are_full_and_lie_in_the_map(index: TileIndex, tmp_path: Path) -> None:
    valid = np.ones((800, 900), bool)
    valid[300:420, 300:420] = False
    path = scene(tmp_path / "a.tif", SKEWED, valid=valid)
    options = WindowOptions(60, SIZE, rotate="any", scale_percent=10)
    with open_raster(path) as raster:
        assert raster.grid is not None
        cuts = list(window_cuts(raster, raster.grid, index, options, on_map=True))
        assert cuts == list(window_cuts(raster, raster.grid, index, options, on_map=True))
        radiometry = SarRadiometry.detect(raster)
        for cut in cuts:
            assert cut.read(raster, radiometry).valid.mean() >= 0.99
            places = moved(SKEWED, moved(cut.to_scene, corners(SIZE, SIZE)))
            assert places.min() >= -0.5
            assert places.max() <= 768.5
    assert np.histogram([cut.turn_deg for cut in cuts], 4, (0, 360))[0].min() > 5
    scales = np.array([cut.scale for cut in cuts])
    assert 1 / 1.1 <= scales.min() < 0.93
    assert 1.07 < scales.max() <= 1.1


def cuts_of(path: Path, index: TileIndex, options: WindowOptions) -> list[Cut]:
    with open_raster(path) as raster:
        assert raster.grid is not None
        return list(window_cuts(raster, raster.grid, index, options, on_map=True))


def test_long_windows_are_as_long_as_asked_and_scaled_within_a_factor(index: TileIndex, tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", Affine.translation(-300, -300), (1400, 1400))
    options = WindowOptions(60, 60, length_px=240, rotate="any", scale_percent=100)
    found = cuts_of(path, index, options)
    for cut in found:
        right, below = (np.hypot(*side) for side in np.diff(moved(cut.to_scene, [(0, 0), (60, 0), (60, 240)]), axis=0))
        assert (right, below) == pytest.approx((60 * cut.scale, 240 * cut.scale))
        places = moved(cut.to_scene, corners(60, 240)) - 300
        assert places.min() >= -0.5
        assert places.max() <= 768.5
    scales = np.log2([cut.scale for cut in found])
    assert -1 <= scales.min() < -0.8
    assert 0.5 < scales.max() <= 1


def test_errors_are_exact_where_asked(index: TileIndex, tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", Affine.translation(-300, -300), (1400, 1400))
    found = cuts_of(path, index, WindowOptions(40, SIZE, rotate=7, scale_percent=10, exact=True))
    assert {round(cut.turn_deg, 6) for cut in found} == {-7, 7}
    assert {round(cut.scale, 6) for cut in found} == {1.1, round(1 / 1.1, 6)}


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_share_of_the_windows_lies_on_the_map(share: float, index: TileIndex, tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", Affine.translation(-300, -300), (1400, 1400))
    for col, row in cut(path, index, WindowOptions(40, SIZE, overlap=share)):
        inside = (pixel_centres(SIZE, SIZE) + [col - 300, row - 300]).reshape(-1, 2)
        on_map = ((inside >= 0) & (inside <= 768)).all(axis=1).mean()
        assert on_map == pytest.approx(share, abs=0.031)


@pytest.mark.parametrize("wrong", [{"overlap": 0.0}, {"overlap": 1.1}, {"looks": 0.0}, {"length_px": 20}])
def test_windows_of_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        WindowOptions(5, SIZE, **wrong)  # type: ignore[arg-type]


def test_windows_are_turned_by_up_to_the_degrees(index: TileIndex, tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", Affine.translation(-300, -300), (1400, 1400))
    with open_raster(path) as raster:
        assert raster.grid is not None
        cuts = list(window_cuts(raster, raster.grid, index, WindowOptions(60, SIZE, rotate=6), on_map=True))
    turned = np.array([cut.turn_deg for cut in cuts])
    assert -6 <= turned.min() < -4
    assert 4 < turned.max() <= 6


def test_places_do_not_depend_on_headings(index: TileIndex, tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", Affine.translation(-300, -300), (1400, 1400))
    whole = cut(path, index, WindowOptions(80, SIZE))
    turned = cut(path, index, WindowOptions(30, SIZE, rotate="any"))
    assert set(turned) <= set(whole)


@pytest.mark.parametrize("scale", [-1, 100.1, float("nan"), float("inf")])
def test_scales_that_cannot_be_are_refused(scale: float) -> None:
    with pytest.raises(UsageError, match="--scale"):
        WindowOptions(scale_percent=scale)


def test_turns_that_are_not_known_are_refused() -> None:
    with pytest.raises(UsageError, match="--rotate"):
        turns("some")
    for degrees in (-1, 181, float("nan")):
        with pytest.raises(UsageError, match="--rotate"):
            WindowOptions(rotate=degrees)


@pytest.mark.parametrize(("text", "rotate"), [("none", 0), ("any", "any"), ("6.5", 6.5)])
def test_turns_are_none_any_or_degrees(text: str, rotate: object) -> None:
    assert turns(text) == rotate
