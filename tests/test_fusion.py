"""Votes and peaks against plain loops, and a strip laid into a field at a known place."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geomatch import fusion
from geomatch.correlate import Field, template
from geomatch.fusion import DISTINCT_CELLS, Poses, Summit, Window, distinct, scan, subpixel, verify, vote
from geomatch.gallery import Hits
from geomatch.structure import Dense

CELL_PX = 8


def map_field(rows: int = 60, cols: int = 70, seed: int = 0) -> Field:
    values = np.random.default_rng(seed).normal(0, 30, (3, rows, cols)).clip(-127, 127).astype(np.int8)
    rms = float(np.sqrt(np.square(values.astype(float) / 127).sum() / (rows * cols)))
    return Field(values, np.ones((rows, cols), bool), rms)


def strip_windows(field: Field, corner: tuple[int, int], places: list[tuple[int, int]], size: int = 10) -> list[Window]:
    """Windows of a strip that lies at ``corner`` cells of the map."""
    whole, windows = field.whole(), []
    for col, row in places:
        ready = template(whole.crop(corner[0] + col, corner[1] + row, size, size))
        assert ready is not None
        windows.append(Window(np.array([col, row]), ready))
    return windows


def as_hits(corners: list[list[tuple[int, int]]], scores: list[list[float]]) -> Hits:
    return Hits(
        np.array(scores, np.float32), np.array(corners, np.int32), np.zeros((len(scores), len(scores[0])), np.int64)
    )


def test_one_window_votes_for_its_tiles_in_their_order() -> None:
    hits = as_hits([[(160, 32), (48, 16), (0, 0)]], [[0.9, 0.5, -np.inf]])
    poses = vote(hits, np.array([[16, 0]]), 16)
    assert poses.corners_px.tolist() == [[144, 32], [32, 16]]
    assert poses.scores == pytest.approx([0.9, 0.5])


def test_windows_that_agree_outvote_a_better_tile() -> None:
    hits = as_hits(
        [[(400, 400), (160, 96), (16, 300)], [(0, 640), (352, 96), (500, 20)]], [[0.9, 0.8, 0.1], [0.9, 0.8, 0.1]]
    )
    poses = vote(hits, np.array([[0, 0], [192, 0]]), 16)
    assert np.abs(poses.corners_px[0] - (160, 96)).max() <= 16
    assert poses.scores[0] == pytest.approx(1.4)


def test_votes_are_the_plain_sum_over_windows() -> None:
    rng = np.random.default_rng(0)
    corners, scores = rng.integers(0, 30, (3, 40, 2)) * 16, np.sort(rng.random((3, 40)), axis=1)[:, ::-1]
    offsets = rng.integers(0, 10, (3, 2)) * 16
    best: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
    for window in range(3):
        for corner, score in zip(corners[window], scores[window], strict=True):
            col, row = (corner - offsets[window]) // 16
            for step in np.ndindex(3, 3):
                place = (int(col) + step[0] - 1, int(row) + step[1] - 1)
                gain = float(np.float32(score) - np.float32(scores[window].min()))
                best[place][window] = max(best[place].get(window, 0.0), gain)
    expected = {place: sum(votes.values()) for place, votes in best.items()}
    poses = vote(
        Hits(scores.astype(np.float32), corners.astype(np.int32), np.zeros(scores.shape, np.int64)), offsets, 16
    )
    found = {
        tuple((corner / 16).astype(int)): score for corner, score in zip(poses.corners_px, poses.scores, strict=True)
    }
    assert found.keys() == expected.keys()
    for place, total in expected.items():
        assert found[place] == pytest.approx(total, abs=1e-5)
    assert (np.diff(poses.scores) <= 0).all()


@pytest.mark.parametrize("places", [[(0, 0)], [(0, 0), (10, 0), (4, 13)]])
def test_scan_finds_where_the_strip_lies(places: list[tuple[int, int]]) -> None:
    field = map_field()
    poses = scan(strip_windows(field, (23, 17), places), field.whole(), field.rms, cell_px=CELL_PX)
    np.testing.assert_allclose(poses.corners_px[0], [23 * CELL_PX, 17 * CELL_PX], atol=CELL_PX / 2)
    assert poses.scores[0] == pytest.approx(1, abs=1e-4)
    assert (np.diff(poses.scores) <= 0).all()


@pytest.mark.parametrize("corner", [(0, 0), (60, 50), (0, 50)])
def test_scan_reaches_every_corner_of_the_map(corner: tuple[int, int]) -> None:
    field = map_field()
    poses = scan(strip_windows(field, corner, [(0, 0)]), field.whole(), field.rms, cell_px=CELL_PX)
    np.testing.assert_allclose(poses.corners_px[0], np.array(corner) * CELL_PX, atol=CELL_PX / 2)


def test_scan_of_a_strip_larger_than_the_map_finds_nothing() -> None:
    field = map_field()
    windows = strip_windows(field, (0, 0), [(0, 0)])
    far = [*windows, Window(np.array([200, 0]), windows[0].template)]
    assert len(scan(far, field.whole(), field.rms, cell_px=CELL_PX)) == 0


@pytest.mark.parametrize("off_px", [(0, 0), (7, -8), (-8, 8)])
def test_verify_finds_the_peak_within_half_a_bin(off_px: tuple[int, int]) -> None:
    field = map_field()
    windows = strip_windows(field, (23, 17), [(0, 0), (10, 0), (4, 13)])
    truth = np.array([23.0, 17.0]) * CELL_PX
    tried = Poses(np.array([truth + 200, truth + off_px, [0, 0]]), np.array([3.0, 2.0, 1.0]))
    poses = verify(tried, windows, field, bin_px=16, cell_px=CELL_PX)
    np.testing.assert_allclose(poses.corners_px[0], truth, atol=CELL_PX / 2)
    assert poses.scores[0] == pytest.approx(1, abs=1e-4)


def test_verify_and_scan_agree() -> None:
    field, other = map_field(), map_field(seed=4)
    windows = strip_windows(other, (23, 17), [(0, 0), (10, 0)])
    grid = np.stack(np.meshgrid(np.arange(0, 420, 16), np.arange(0, 420, 16)), axis=-1).reshape(-1, 2).astype(float)
    found = verify(Poses(grid, np.ones(len(grid))), windows, field, bin_px=16, cell_px=CELL_PX)
    everywhere = scan(windows, field.whole(), field.rms, cell_px=CELL_PX)
    assert found.scores[0] == pytest.approx(everywhere.scores[0], abs=1e-5)
    np.testing.assert_allclose(found.corners_px[0], everywhere.corners_px[0], atol=1e-3)


def test_verified_places_are_distinct_and_above_nothing() -> None:
    field, other = map_field(), map_field(seed=4)
    grid = np.stack(np.meshgrid(np.arange(0, 420, 16), np.arange(0, 420, 16)), axis=-1).reshape(-1, 2).astype(float)
    windows = strip_windows(other, (5, 5), [(0, 0)])
    poses = verify(Poses(grid, np.ones(len(grid))), windows, field, bin_px=16, cell_px=CELL_PX)
    assert (poses.scores > 0).all()
    assert len(poses) <= fusion.MAX_PEAKS
    apart = np.abs(poses.corners_px[:, None] - poses.corners_px[None]).max(axis=2) + 1e9 * np.eye(len(poses))
    assert apart.min() >= (DISTINCT_CELLS - 1) * CELL_PX  # less up to half a cell of fraction on either side


def test_place_of_nothing_is_no_place() -> None:
    flat = np.zeros((5, 5))
    assert len(distinct([Summit(flat, 2, 2, np.zeros(2, np.int64))], CELL_PX)) == 0
    assert len(distinct([], CELL_PX)) == 0


def parabola(centre: tuple[float, float], bend: tuple[float, float]) -> NDArray[np.float64]:
    row, col = np.mgrid[:7, :7].astype(float)
    return np.asarray(5 - bend[0] * (col - centre[0]) ** 2 - bend[1] * (row - centre[1]) ** 2)


@given(st.floats(2.5, 3.5), st.floats(2.5, 3.5), st.floats(0.01, 100), st.floats(0.01, 100))
def test_subpixel_is_the_vertex_of_a_parabola(col: float, row: float, bend_x: float, bend_y: float) -> None:
    across, down = subpixel(parabola((col, row), (bend_x, bend_y)), 3, 3)
    assert (3 + across, 3 + down) == pytest.approx((col, row), abs=1e-6)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_subpixel_never_leaves_its_entry(row: int, col: int, seed: int) -> None:
    across, down = subpixel(np.random.default_rng(seed).normal(size=(7, 7)), row, col)
    assert -0.5 <= across <= 0.5
    assert -0.5 <= down <= 0.5
    assert across == 0 or 0 < col < 6
    assert down == 0 or 0 < row < 6


def test_subpixel_of_a_plateau_stays() -> None:
    assert subpixel(np.ones((7, 7)), 3, 3) == (0, 0)


def test_windows_that_meet_nodata_say_nothing() -> None:
    field = map_field()
    windows = strip_windows(field, (23, 17), [(0, 0)])
    valid = field.valid.copy()
    valid[:, 20:] = False
    holed = Field(field.values, valid, field.rms)
    poses = scan(windows, Dense(field.whole().values * valid, valid), field.rms, cell_px=CELL_PX)
    assert not (np.abs(poses.corners_px - (23 * CELL_PX, 17 * CELL_PX)).max(axis=1) < 16).any()
    tried = Poses(np.array([[23.0, 17.0]]) * CELL_PX, np.ones(1))
    assert len(verify(tried, windows, holed, bin_px=16, cell_px=CELL_PX)) == 0
