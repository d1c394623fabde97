"""Distances between sets of vectors against what is known of them, and the measure on a small scene."""

from __future__ import annotations

import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_runs import config_of

from geomatch.errors import OutputError, UsageError
from geomatch.learned import LearnedEncoder
from geomatch.pairs import Pair
from geomatch.training.discrepancy import (
    PICTURE,
    UNTRAINED,
    Distances,
    discrepancy_of,
    draw_embeddings,
    embed,
    measure_discrepancy,
    principal_plane,
    table,
)


def silent(stage: str, done: int, total: int) -> None:
    del stage, done, total


def gaussian(count: int, dimensions: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)


def test_a_shifted_set_is_its_shift_away() -> None:
    points, shift = gaussian(60, 5), np.array([3, 0, 4, 0, 0], np.float32)
    found = Distances.between(points, points + shift)
    assert found.w1 == pytest.approx(5, rel=1e-5)
    assert found.w2 == pytest.approx(5, rel=1e-5)
    # A shift's projections on random directions have a mean square of its own over the dimensions.
    assert found.sliced == pytest.approx(5 / np.sqrt(5), rel=0.1)


def test_on_a_line_the_nth_goes_to_the_nth() -> None:
    one, other = gaussian(40, 1), 2 * gaussian(40, 1, seed=1) + 1
    off = np.abs(np.sort(one, axis=0) - np.sort(other, axis=0)).astype(np.float64)
    found = Distances.between(one, other)
    assert found.w1 == pytest.approx(off.mean(), rel=1e-5)
    assert found.w2 == pytest.approx(np.sqrt(np.square(off).mean()), rel=1e-5)
    assert found.sliced == pytest.approx(found.w2, rel=1e-5)


def test_small_sets_are_matched_as_trying_all_ways_does() -> None:
    one, other = gaussian(5, 3), gaussian(5, 3, seed=1)
    far = np.linalg.norm(one[:, None].astype(np.float64) - other[None], axis=2)
    ways = [far[np.arange(5), list(way)] for way in permutations(range(5))]
    found = Distances.between(one, other)
    assert found.w1 == pytest.approx(min(way.mean() for way in ways), rel=1e-5)
    assert found.w2 == pytest.approx(np.sqrt(min(np.square(way).mean() for way in ways)), rel=1e-5)


def test_a_set_is_no_way_from_itself() -> None:
    points = gaussian(30, 4)
    found = Distances.between(points, points[::-1].copy())
    assert (found.sliced, found.w1, found.w2) == pytest.approx((0, 0, 0), abs=1e-3)


def test_sets_of_one_distribution_have_no_gap_and_a_shift_has_its_length() -> None:
    points = gaussian(121, 6)
    alike = discrepancy_of("alike", points, gaussian(121, 6, seed=1))
    assert alike.other_places.w2 == pytest.approx(alike.within.w2, rel=0.1)
    shifted = discrepancy_of("shifted", points, points + np.float32(40))
    assert shifted.same_places.w2 == pytest.approx(40 * np.sqrt(6), rel=1e-5)
    assert shifted.other_places.w1 > 10 * shifted.within.w1
    assert shifted.within.w2 == pytest.approx(alike.within.w2, rel=0.1)


def test_cosines_are_those_of_plain_loops() -> None:
    one, other = gaussian(9, 4), gaussian(9, 4, seed=1)
    cosines = [[float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for b in other] for a in one]
    found = discrepancy_of("a", one, other)
    assert found.pairs == 9
    assert found.cosine_pairs == pytest.approx(np.mean([cosines[i][i] for i in range(9)]), abs=1e-6)
    others = [cosines[i][j] for i in range(9) for j in range(9) if i != j]
    assert found.cosine_others == pytest.approx(np.mean(others), abs=1e-6)


def test_the_principal_plane_keeps_what_lies_in_a_plane() -> None:
    flat = gaussian(20, 2) * np.array([5, 1], np.float32)
    turned = flat @ np.linalg.qr(gaussian(7, 7))[0][:2].astype(np.float32) + 3
    places, share = principal_plane(turned)
    assert share.sum() == pytest.approx(1)
    assert share[0] > share[1]
    expected, found = (np.linalg.norm(points[:, None] - points[None], axis=2) for points in (flat, places))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_weights_are_measured_on_the_same_windows_and_drawn(scenes: Path, weights_file: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    config.data.root, config.validation.scene = str(scenes), "town"
    names = [UNTRAINED, str(weights_file), UNTRAINED]
    found = measure_discrepancy(config, names, tmp_path / "out", silent, pairs=10)
    assert [one.weights for one in found] == names
    assert found[0] == found[2] != found[1]
    for one in found:
        assert one.pairs == 10
        assert -1 <= one.cosine_others < one.cosine_pairs <= 1
        assert 0 < one.within.w1 <= one.within.w2 <= 2
    picture = cv2.imread(str(tmp_path / "out" / PICTURE))
    assert picture is not None
    assert picture.std() > 5
    told = table(found)
    assert f"{found[1].same_places.w1:.4f}" in told
    assert f"{found[1].cosine_pairs:.4f}" in told


def test_the_map_knows_what_surrounds_a_tile_and_a_query_does_not(weights_file: Path) -> None:
    rng = np.random.default_rng(0)
    optical, sar = (rng.uniform(0.1, 1, (count, 280, 280)).astype(np.float32) for count in (3, 1))
    valid, around = np.ones((280, 280), bool), np.ones((280, 280), bool)
    around[40:240, 40:240] = False
    other = [np.where(around, rng.uniform(0.1, 1, image.shape), image).astype(np.float32) for image in (optical, sar)]
    vectors = embed(LearnedEncoder.of(str(weights_file)), [Pair(optical, sar, valid), Pair(*other, valid)])
    np.testing.assert_array_equal(vectors[1][0], vectors[1][1])
    assert 0.5 < vectors[0][0] @ vectors[0][1] < 0.999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=2), 1, atol=1e-5)


def test_what_cannot_be_measured_is_refused(scenes: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    config.data.root = str(scenes)
    for names, pairs, told in (([UNTRAINED], 3, "--pairs"), (["abacus"], 10, "abacus"), ([UNTRAINED], 10, "no scene")):
        with pytest.raises(UsageError, match=told):
            measure_discrepancy(config, names, tmp_path / "out", silent, pairs=pairs)
    with pytest.raises(OutputError):
        measure_discrepancy(config, [UNTRAINED], tmp_path / "no" / "out", silent)
    assert not (tmp_path / "out").exists()


def test_drawing_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'geomatch\[report\]'"):
        draw_embeddings([("a", gaussian(3, 4), gaussian(3, 4))], tmp_path / PICTURE)
