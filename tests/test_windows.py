"""Windows of a strip that cover what there is to cover."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from geomatch.windows import MAX_WINDOWS, MIN_HOLED_VALID, covered, cut_windows

boxes = arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@settings(deadline=None)
@given(boxes, st.integers(1, 12))
def test_windows_lie_inside_and_hold_enough(valid: NDArray[np.bool_], size: int) -> None:
    places = cut_windows(valid, size)
    assert len(places) <= MAX_WINDOWS
    for col, row in places:
        part = valid[row : row + size, col : col + size]
        assert col >= 0
        assert row >= 0
        assert part.shape == (size, size)
        assert part.mean() >= MIN_HOLED_VALID
    assert len({tuple(place) for place in places.tolist()}) == len(places)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(5, 20))
def test_windows_cover_a_full_strip(width: int, height: int, size: int) -> None:
    places = cut_windows(np.ones((height, width), bool), size)
    if min(width, height) < size:
        assert len(places) == 0
        return
    seen = np.zeros((height, width), bool)
    for col, row in places:
        seen[row : row + size, col : col + size] = True
    assert seen.all() or len(places) == MAX_WINDOWS


def test_narrow_slanting_strip_gets_its_fullest_windows() -> None:
    row, col = np.mgrid[:160, :160]
    valid = np.abs(row - col) < 5  # no square of 25 cells is more than 0.36 full
    places = cut_windows(valid, 25)
    assert len(places) >= 5
    assert all(valid[row : row + 25, col : col + 25].mean() > 0.3 for col, row in places)


def test_slanting_strip_gets_windows_along_its_length() -> None:
    row, col = np.mgrid[:120, :120]
    valid = np.abs(row - col) < 20
    places = cut_windows(valid, 25)
    assert len(places) >= 4
    along = np.sort(places.sum(axis=1))
    assert along[0] < 40
    assert along[-1] > 150
    assert np.diff(along).max() < 60


def test_long_strip_keeps_windows_from_end_to_end() -> None:
    places = cut_windows(np.ones((25, 25 * 200), bool), 25)
    assert len(places) == MAX_WINDOWS
    assert places[0].tolist() == [0, 0]
    assert places[-1].tolist() == [25 * 199, 0]


@given(boxes, st.integers(1, 12))
def test_cells_of_overlapping_windows_count_once(valid: NDArray[np.bool_], size: int) -> None:
    places = cut_windows(valid, size)
    masks = [valid[row : row + size, col : col + size].astype(np.float32) for col, row in places]
    cells = {(int(col) + x, int(row) + y) for (col, row), mask in zip(places, masks, strict=True)
             for y, x in np.argwhere(mask)}  # fmt: skip
    assert covered(places, masks) == len(cells)
