"""PSO-SIFT's parts against plain loops and transforms made by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from places import pair, similarity

from geomatch.matching.descriptors import Described
from geomatch.matching.fit import NoFit, fit
from geomatch.matching.gloh import ORIENTATIONS, PLACES, REACH, _described
from geomatch.matching.keypoints import Keypoints
from geomatch.matching.methods import method
from geomatch.matching.pso_sift import (
    CONSENSUS_PX,
    MIXED,
    FoundKeypoints,
    consensus,
    joint_distance,
    mixed_distance,
    near_modes,
)

TURN, SCALE, SHIFT = np.radians(20.0), 1.1, 3 - 4j


def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """By hand, a similarity as a product of complex numbers."""
    there = SCALE * np.exp(1j * TURN) * (points[:, 0] + 1j * points[:, 1]) + SHIFT
    return np.stack([there.real, there.imag], axis=1)


def keypoints(
    xy_px: NDArray[np.float64], size_px: NDArray[np.float64] | float = 8.0, angle_deg: NDArray[np.float64] | float = 0.0
) -> Keypoints:
    flat = np.zeros(len(xy_px))
    return Keypoints(xy_px, flat + size_px, flat + angle_deg, flat, np.zeros(len(xy_px), np.int32))


def test_consensus_is_the_best_of_all_pairs_refitted_to_those_that_agree() -> None:
    rng = np.random.default_rng(3)
    source = rng.uniform(0, 200, (16, 2))
    target = moved(source) + rng.normal(0, 0.8, (16, 2))
    target[7:] = rng.uniform(0, 200, (9, 2))
    a, b = source[:, 0] + 1j * source[:, 1], target[:, 0] + 1j * target[:, 1]
    best: set[int] = set()
    for i, j in combinations(range(16), 2):
        turn = (b[i] - b[j]) / (a[i] - a[j])
        agreeing = {k for k in range(16) if abs(turn * (a[k] - a[i]) + b[i] - b[k]) <= CONSENSUS_PX}
        best = max(best, agreeing, key=len)
    assert best == set(range(7))
    inside = sorted(best)
    da, db = a[inside] - a[inside].mean(), b[inside] - b[inside].mean()
    turn = (np.conj(da) * db).sum() / (np.conj(da) * da).sum()
    shift = b[inside].mean() - turn * a[inside].mean()
    found = consensus(source, target, np.ones(16, bool), 0)
    assert found is not None
    expected = [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_consensus_is_drawn_through_the_sure_and_taken_however_few_agree() -> None:
    source = np.array([[0.0, 0], [50, 0], [0, 80], [90, 90], [30, 60]])
    target = np.array([[9.0, 9], [59, 9], [200, 10], [10, 200], [120, 0]])
    found = consensus(source, target, np.array([True, True, False, False, False]), 0)
    assert found is not None
    np.testing.assert_allclose(found, [[1, 0, 9], [0, 1, 9], [0, 0, 1]], atol=1e-9)
    assert consensus(source[:1], target[:1], np.ones(1, bool), 0) is None
    assert consensus(np.zeros((4, 2)), target[:4], np.ones(4, bool), 0) is None


@pytest.mark.parametrize("name", ["pso-sift", "cnn-pso-sift"])
def test_image_matched_with_itself_keeps_every_keypoint(name: str) -> None:
    """None is its own rival: a place that SIFT found twice would be, as the descriptor turns it one way."""
    sar, _ = pair(np.eye(3))
    matches = method(name)(sar, sar)
    assert len(matches) == matches.found[0] > 100
    np.testing.assert_array_equal(matches.sar_px, matches.optical_px)


def test_joint_distance_is_the_product_of_its_errors() -> None:
    rng = np.random.default_rng(1)
    ours = keypoints(rng.uniform(0, 90, (4, 2)), rng.uniform(4, 20, 4), rng.uniform(0, 360, 4))
    theirs = keypoints(rng.uniform(0, 90, (5, 2)), rng.uniform(4, 20, 5), rng.uniform(0, 360, 5))
    distance = rng.uniform(0.1, 1, (4, 5))
    cos, sin = SCALE * np.cos(TURN), SCALE * np.sin(TURN)
    matrix = np.array([[cos, -sin, SHIFT.real], [sin, cos, SHIFT.imag], [0, 0, 1]])
    found = joint_distance(distance, ours, theirs, matrix)
    there = moved(ours.xy_px)
    for i in range(4):
        for j in range(5):
            position = np.hypot(*(there[i] - theirs.xy_px[j]))
            scale = abs(1 - SCALE * ours.size_px[i] / theirs.size_px[j])
            turned = theirs.angle_deg[j] - ours.angle_deg[i] - 20
            angle = np.radians(min(turned % 360, -turned % 360))
            assert found[i, j] == pytest.approx((1 + position) * (1 + scale) * (1 + angle) * distance[i, j])


def test_what_is_far_from_a_mode_is_left_out() -> None:
    """Twenty matches of one offset, scale and turn; then one off in each of them, and one off in none."""
    count = 25
    source = np.random.default_rng(2).uniform(0, 200, (count, 2))
    target, size, angle = source + (2.0, -1.0), np.full(count, 8.0), np.full(count, 350.0)
    target[20, 0] += 30
    target[21, 1] -= 30
    size[22] = 16.0
    angle[23] = 60.0
    angle[24] = 5.0  # 15 degrees on, through north
    kept = near_modes(keypoints(source), keypoints(target, size, angle), np.eye(3))
    assert kept.tolist() == [True] * 20 + [False] * 4 + [True]


def test_mode_of_turns_does_not_break_where_they_begin_again() -> None:
    rng = np.random.default_rng(5)
    source, size = rng.uniform(0, 200, (40, 2)), np.full(40, 8.0)
    angle = (180 + rng.uniform(-8, 8, 40)) % 360
    assert near_modes(keypoints(source), keypoints(-source, size, angle), np.diag([-1.0, -1.0, 1.0])).all()


def test_second_descriptor_has_three_tenths_of_the_distance() -> None:
    rng = np.random.default_rng(4)
    own = [rng.random((n, 3)).astype(np.float32) for n in (4, 5)]
    other = [100 * rng.random((n, 2)).astype(np.float32) for n in (4, 5)]
    at = [keypoints(np.zeros((n, 2))) for n in (4, 5)]
    ours, theirs = (FoundKeypoints(Described(a, b), Described(a, c)) for a, b, c in zip(at, own, other, strict=True))

    def table(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
        values = np.array([[float(np.sqrt(((a - b) ** 2).sum())) for b in second] for a in first])
        return values / values.mean()

    assert MIXED == 0.3
    expected = 0.7 * table(*own) + 0.3 * table(*other)
    np.testing.assert_allclose(mixed_distance(ours, theirs), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["fsc-sift", "pso-sift"])
def test_matches_of_different_places_are_given_but_no_fit(name: str) -> None:
    """As published all that is matched agrees; that it means nothing is known all the same."""
    sar, _ = pair(similarity(5, 1, (0, 0)))
    _, optical = pair(similarity(5, 1, (0, 0)), seed=5)
    matches = method(name)(sar, optical)
    assert len(matches) >= 2
    found = fit(matches, sar.size_px)
    assert isinstance(found, NoFit)
    assert found.reason == matches.doubt


@pytest.mark.parametrize(("distance", "first"), [(0.12, 0), (0.5, 1), (0.87, 9)])
@pytest.mark.parametrize("sector", range(8))
def test_gradient_is_counted_where_it_lies(distance: float, first: int, sector: int) -> None:
    """A disc, and two rings of eight sectors each, from the main orientation on."""
    east, south = np.full((200, 200), 0.01, np.float32), np.zeros((200, 200), np.float32)
    turn, radius = np.radians(22.5 + 45 * sector), distance * REACH * 4.0
    col, row = (round(100 + radius * by(turn)) for by in (np.cos, np.sin))
    east[row - 3 : row + 4, col - 3 : col + 4] = 5.0
    angle, vectors = _described(east, south, np.array([[100.5, 100.5]]), np.array([4.0]))
    assert abs(np.degrees(angle[0] + np.pi) % 360 - 180) <= 5.1  # half a bin
    places = vectors.reshape(PLACES, ORIENTATIONS).sum(axis=1)
    assert places.argmax() == (first + sector if first else 0)
