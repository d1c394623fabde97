"""Correlation against plain loops over offsets, cells and channels."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from geomatch import correlate
from geomatch.correlate import ENERGY_FLOOR, MIN_OVERLAP, NO_MATCH, QUANTUM, Field, Template, around, over, template
from geomatch.structure import Dense


def random_field(shape: tuple[int, int, int] = (3, 30, 34), seed: int = 0, holes: float = 0.0) -> Field:
    """Smooth random features, of which whole patches are not valid and hold garbage there, as -128 on disk does."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 30, shape).clip(-127, 127).astype(np.int8)
    valid = np.ones(shape[1:], bool)
    for row, col in rng.integers(0, shape[1:], (int(holes * 40), 2)):
        valid[row : row + 4, col : col + 5] = False
    values[:, ~valid] = -128
    known = values[:, valid].astype(float) / 127
    return Field(values, valid, float(np.sqrt(np.square(known).sum() / valid.sum())))


def dense_of(field: Field) -> Dense:
    values = np.where(field.valid, field.values.astype(np.float32) * QUANTUM, 0)
    return Dense(values.astype(np.float32), field.valid)


def window_of(field: Field, corner: tuple[int, int], size: tuple[int, int]) -> Dense:
    return dense_of(field).crop(*corner, *size)


def plain(window: Dense, field: Field, col: int, row: int) -> float:
    """Normalised correlation at one offset, cell by cell, in double precision."""
    channels, height, width = window.values.shape
    cells = [(r, c) for r in range(height) for c in range(width) if window.valid[r, c]]
    met = [
        (r, c)
        for r, c in cells
        if 0 <= row + r < field.valid.shape[0] and 0 <= col + c < field.valid.shape[1] and field.valid[row + r, col + c]
    ]
    if len(met) < MIN_OVERLAP * len(cells):
        return NO_MATCH
    cross = ours = theirs = 0.0
    for channel in range(channels):
        mean = math.fsum(float(window.values[channel, r, c]) for r, c in cells) / len(cells)
        seen = [float(field.values[channel, row + r, col + c]) / 127 for r, c in met]
        level = math.fsum(seen) / len(met)
        ours += math.fsum((float(window.values[channel, r, c]) - mean) ** 2 for r, c in cells)
        theirs += math.fsum((value - level) ** 2 for value in seen)
        cross += math.fsum(
            (float(window.values[channel, r, c]) - mean) * value for (r, c), value in zip(met, seen, strict=True)
        )
    floor = ENERGY_FLOOR * field.rms * math.sqrt(len(cells))
    return cross / (math.sqrt(ours) * max(math.sqrt(theirs), floor))


def ready(window: Dense) -> Template:
    made = template(window)
    assert made is not None
    return made


@pytest.mark.parametrize("holes", [0.0, 0.2])
def test_around_is_the_plain_sum_at_every_offset(holes: float) -> None:
    field = random_field(holes=holes)
    window = window_of(random_field(seed=5, holes=holes), (3, 4), (7, 6))
    places = np.array([(10, 12), (0, 0), (-3, -2), (33, 29), (27, 24), (200, 5)])
    found = around(ready(window), field, places[:, 0], places[:, 1], radius=2)
    assert found.shape == (len(places), 5, 5)
    for surface, (col, row) in zip(found, places, strict=True):
        expected = [[plain(window, field, col + dx, row + dy) for dx in range(-2, 3)] for dy in range(-2, 3)]
        np.testing.assert_allclose(surface, expected, atol=2e-5)


@pytest.mark.parametrize("holes", [0.0, 0.2])
def test_over_is_the_plain_sum_at_every_offset(holes: float) -> None:
    field = random_field((3, 16, 19), holes=holes)
    window = window_of(random_field(seed=5, holes=holes), (3, 4), (9, 5))
    found = over(ready(window), dense_of(field), field.rms)
    expected = [[plain(window, field, col, row) for col in range(19 - 9 + 1)] for row in range(16 - 5 + 1)]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_chunks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    field, window = random_field(holes=0.1), window_of(random_field(seed=5), (3, 4), (7, 6))
    cols, rows = np.random.default_rng(2).integers(-5, 30, (2, 23))
    whole = around(ready(window), field, cols, rows, radius=1)
    monkeypatch.setattr(correlate, "_CHUNK_VALUES", 1)
    np.testing.assert_allclose(around(ready(window), field, cols, rows, radius=1), whole, atol=1e-6)


@pytest.mark.parametrize("gain", [1.0, 0.01, 40.0])
def test_true_place_scores_one_whatever_the_gain_and_level(gain: float) -> None:
    field = random_field()
    cut = window_of(field, (11, 8), (10, 9))
    level = np.array([0.3, -0.2, 5.0], np.float32)[:, None, None]
    window = ready(Dense(cut.values * np.float32(gain) + level, cut.valid))
    surface = over(window, dense_of(field), field.rms)
    assert np.argwhere(surface == surface.max()).tolist() == [[8, 11]]
    assert surface.max() == pytest.approx(1, abs=1e-4)
    assert np.abs(surface).max() <= 1 + 1e-4
    (here,) = around(window, field, np.array([12]), np.array([8]), radius=2)
    assert np.argwhere(here == here.max()).tolist() == [[2, 1]]


def test_inverted_window_scores_minus_one() -> None:
    field = random_field()
    cut = window_of(field, (11, 8), (10, 9))
    surface = over(ready(Dense(-cut.values, cut.valid)), dense_of(field), field.rms)
    assert surface[8, 11] == pytest.approx(-1, abs=1e-4)


def test_flat_water_does_not_explode() -> None:
    """Energy next to nothing, a tiny ripple of the window's own shape: it must not count as a match."""
    field = random_field((3, 30, 40))
    cut = window_of(field, (2, 3), (8, 8))
    field.values[:, :, 20:] = 0
    field.values[:, 10:18, 26:34] = np.sign(cut.values) * (np.abs(cut.values) > 0.2)
    surface = over(ready(cut), dense_of(field), field.rms)
    assert surface[3, 2] == pytest.approx(1, abs=1e-4)
    assert 0 < surface[10, 26] < 0.2


def test_what_is_not_valid_counts_for_nothing() -> None:
    field = random_field(holes=0.3)
    window = window_of(random_field(seed=5), (3, 4), (7, 6))
    cols, rows = np.random.default_rng(2).integers(0, 25, (2, 9))
    before = around(ready(window), field, cols, rows, radius=1)
    values = np.where(field.valid, field.values, 127).astype(np.int8)
    other = Field(values, field.valid, field.rms)
    np.testing.assert_array_equal(around(ready(window), other, cols, rows, radius=1), before)


def test_off_the_map_is_no_match() -> None:
    window = ready(window_of(random_field(), (3, 4), (7, 6)))
    far = around(window, random_field(), np.array([500, -500]), np.array([0, -3]), radius=1)
    np.testing.assert_array_equal(far, np.full((2, 3, 3), NO_MATCH))


def test_no_places_give_no_surfaces() -> None:
    window = ready(window_of(random_field(), (3, 4), (7, 6)))
    nowhere = np.empty(0, np.int64)
    assert around(window, random_field(), nowhere, nowhere, radius=2).shape == (0, 5, 5)


def masked(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> Dense:
    return Dense((values * valid).astype(np.float32), valid)


def test_templates_are_centred_and_of_length_one() -> None:
    rng = np.random.default_rng(3)
    valid = rng.random((6, 7)) > 0.3
    made = ready(masked(rng.normal(4, 1, (3, 6, 7)).astype(np.float32), valid))
    assert np.linalg.norm(made.values) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(made.values.sum(axis=(1, 2)), 0, atol=1e-5)
    assert not made.values[:, ~valid].any()
    np.testing.assert_array_equal(made.mask, valid)


@pytest.mark.parametrize("case", ["no cell", "one cell", "constant", "zero"])
def test_windows_without_anything_make_no_template(case: str) -> None:
    valid = np.zeros((5, 5), bool)
    values = np.random.default_rng(0).normal(size=(3, 5, 5)).astype(np.float32)
    if case == "one cell":
        valid[2, 2] = True
    elif case == "constant":
        valid[:], values[:] = True, 0.7
    elif case == "zero":
        valid[:], values[:] = True, 0
    assert template(masked(values, valid)) is None


@pytest.mark.parametrize("size", [(9, 4), (3, 2), (12, 12)])
def test_patches_over_the_edge_are_zero_and_invalid_there(size: tuple[int, int]) -> None:
    features = random_field((2, 5, 6), holes=0.05)
    width, height = size
    places = np.array([(-2, 3), (0, 0), (5, 4), (-1000, 2), (3, 1000), (6, 5)])
    for _ in range(2):  # the second time from the kept margin, after a larger patch was asked for
        values, valid = features.patches(places[:, 0], places[:, 1], width, height)
        assert values.shape == (len(places), 2, height, width)
        for at, (col0, row0) in enumerate(places.tolist()):
            for row in range(height):
                for col in range(width):
                    inside = 0 <= row0 + row < 5 and 0 <= col0 + col < 6
                    known = inside and bool(features.valid[row0 + row, col0 + col])
                    expected = features.values[:, row0 + row, col0 + col] / 127 if known else np.zeros(2)
                    assert valid[at, row, col] == known
                    np.testing.assert_allclose(values[at, :, row, col], expected, atol=1e-6)
        features.patches(places[:, 0], places[:, 1], 20, 17)


def test_one_field_serves_threads_that_ask_for_different_sizes() -> None:
    places = np.random.default_rng(0).integers(-3, 30, (2, 50))
    sizes = [3, 7, 15, 4, 25, 9, 40, 5] * 4
    expected = [_first_values(random_field(), places, size) for size in sizes]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            serve = partial(_first_values, random_field(), places)
            with ThreadPoolExecutor(8) as pool:
                for one, two in zip(pool.map(serve, sizes), expected, strict=True):
                    np.testing.assert_array_equal(one, two)
    finally:
        sys.setswitchinterval(interval)


def _first_values(features: Field, places: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    return features.patches(places[0], places[1], size, size)[0]


def test_whole_is_all_features_with_nothing_where_not_valid() -> None:
    features = random_field(holes=0.2)
    whole = features.whole()
    np.testing.assert_allclose(whole.values, dense_of(features).values, atol=1e-6)
    np.testing.assert_array_equal(whole.valid, features.valid)


def test_patches_that_cross_the_edge_are_those_of_a_padded_map() -> None:
    rng = np.random.default_rng(3)
    values, valid = rng.integers(-127, 128, (3, 12, 15)).astype(np.int8), rng.random((12, 15)) > 0.2
    cols, rows = rng.integers(-9, 20, 200), rng.integers(-9, 18, 200)
    for chosen in (np.ones(200, bool), (cols >= 0) & (rows >= 0) & (cols < 10) & (rows < 6)):
        features, known = Field(values, valid, 1.0).patches(cols[chosen], rows[chosen], 5, 6)
        whole = np.pad(values * valid / np.float32(127), ((0, 0), (20, 20), (20, 20)))
        every = np.pad(valid, 20)
        for number, (col, row) in enumerate(zip(cols[chosen] + 20, rows[chosen] + 20, strict=True)):
            np.testing.assert_allclose(features[number], whole[:, row : row + 6, col : col + 5], rtol=1e-6)
            assert (known[number] == every[row : row + 6, col : col + 5]).all()
