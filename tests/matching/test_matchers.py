"""Methods on images of one kind under transforms made by hand, where each has to find its way, and on bad ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from places import SIZE, flat, pair, similarity

from geomatch.matching.descriptors import DESCRIPTORS, Described
from geomatch.matching.fit import Fit, NoFit, fit
from geomatch.matching.gloh import GlohDescriptor, redefined_gradient
from geomatch.matching.keypoints import BORDER_PX, DETECTORS, ORIENTED_SIFT, Keypoints
from geomatch.matching.learned import KeypointDetector, NoiseDetector
from geomatch.matching.matches import Keypointed, Matches, Rule, neighbours, of_the_edge
from geomatch.matching.methods import METHODS, method
from geomatch.matching.patches import patches, standardised
from geomatch.matching.scores import corner_error_px, correct, redundant, repeatability, residual_rms
from geomatch.matching.side import Side
from geomatch.matching.transforms import Model

TURNED = similarity(8, 1.08, (6, -9))
LESS_TURNED = similarity(4, 1.04, (6, -9))


@pytest.mark.parametrize("name", METHODS)
def test_method_finds_the_same_image_turned_and_scaled(name: str) -> None:
    # Of one-sided matches half are right at TURNED, and by chance too many others agree for a fit to be believed.
    turned = LESS_TURNED if name == "ltformer-0.5" else TURNED
    sar, optical = pair(turned)
    matches = method(name)(sar, optical)
    assert correct(matches, turned).sum() >= 20
    found = fit(matches, sar.size_px)
    assert isinstance(found, Fit), matches.reason
    assert corner_error_px(found.matrix, turned, sar.size_px) < 3


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bad", ["flat", "nodata", "tiny"])
def test_method_says_why_there_is_nothing(name: str, bad: str) -> None:
    sar, optical = pair(TURNED)
    if bad == "flat":
        sar = flat()
    elif bad == "nodata":
        sar = replace(sar, valid=np.zeros_like(sar.valid))
    else:
        sar = Side(sar.image[:20, :20], sar.valid[:20, :20], "sar")
    matches = method(name)(sar, optical)
    assert bool(matches.reason) == (len(matches) == 0)
    if bad != "tiny":
        assert len(matches) == 0
        assert "SAR" in matches.reason or "sar" in matches.reason


@pytest.mark.parametrize("few", ["SAR", "optical"])
def test_fewer_than_three_keypoints_are_no_matches(few: str) -> None:
    sar, optical = pair(TURNED)

    def extractor(side: Side, most: int) -> Described:
        count = 2 if side is (sar if few == "SAR" else optical) else 5
        at = np.random.default_rng(0).uniform(50, 200, (count, 2))
        return Described(Keypoints.at(at, np.ones(count)), np.eye(5, dtype=np.float32)[:count])

    matches = Keypointed(extractor, Rule())(sar, optical)
    assert (len(matches), matches.reason) == (0, f"fewer than three keypoints in the {few} image")
    assert sorted(matches.found) == [2, 5]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bad", ["another place", "a quarter turn", "a mirror image", "a single dot"])
def test_what_cannot_be_matched_is_told_and_never_placed_wrong(name: str, bad: str) -> None:
    """Some methods bear a quarter turn; what does not has to say so rather than place it elsewhere."""
    turned = similarity(90, 1, (0, 0))
    sar, optical = pair(turned if bad == "a quarter turn" else TURNED)
    if bad == "another place":
        optical = pair(TURNED, seed=5)[1]
    elif bad == "a mirror image":
        sar = replace(sar, image=sar.image[:, ::-1].copy(), valid=sar.valid[:, ::-1].copy())
    elif bad == "a single dot":
        image = np.zeros((SIZE, SIZE), np.float32)
        image[100:103, 120:123] = 1.0
        sar = Side(image, np.ones((SIZE, SIZE), bool), "sar")
    matches = method(name)(sar, optical)
    assert bool(matches.reason) == (len(matches) == 0)
    found = fit(matches, sar.size_px)
    if bad == "a quarter turn" and isinstance(found, Fit):
        assert corner_error_px(found.matrix, turned, sar.size_px) < 5
    else:
        assert isinstance(found, NoFit)
        assert found.reason


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_gives_the_strongest_and_none_at_edges_or_nodata(name: str) -> None:
    sar, _ = pair(np.eye(3))
    valid = sar.valid.copy()
    valid[:, 200:] = False
    found = DETECTORS[name](replace(sar, valid=valid), 50)
    assert 0 < len(found) <= 50
    assert (np.diff(found.score) <= 0).all()
    assert found.xy_px.min() > BORDER_PX
    assert found.xy_px[:, 0].max() < 200 - BORDER_PX + 1
    assert found.xy_px[:, 1].max() < SIZE - BORDER_PX


@pytest.mark.parametrize("name", [*DETECTORS, "learned", "noise"])
def test_detector_finds_nothing_where_there_is_nothing(name: str) -> None:
    learned = {"learned": KeypointDetector, "noise": NoiseDetector}
    detector = learned[name].load("keypoints1") if name in learned else DETECTORS[name]
    sar, _ = pair(np.eye(3))
    assert len(detector(flat(), 300)) == 0
    image = sar.image.copy()
    image[:, 120:] = 0.5
    found = detector(replace(sar, image=image), 300)
    assert len(found)
    assert found.xy_px[:, 0].max() < 120 + 2 * BORDER_PX


@pytest.mark.parametrize("name", ["sift", "akaze", "kaze"])
@pytest.mark.parametrize("deviation_px", [2.0, 4.0])
def test_keypoints_lie_in_the_middle_of_round_blobs(name: str, deviation_px: float) -> None:
    """By the corner convention. Of OpenCV's others ORB and BRISK seek corners, and are off by more."""
    rng = np.random.default_rng(0)
    middles = (np.stack(np.meshgrid(*[np.arange(40, 220, 44.0)] * 2), axis=-1) + rng.uniform(-3, 3, (5, 5, 2))).reshape(
        -1, 2
    )
    rows, cols = np.mgrid[:SIZE, :SIZE] + 0.5
    image = np.zeros((SIZE, SIZE), np.float32)
    for x, y in middles:
        image += np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * deviation_px**2)).astype(np.float32)
    found = DETECTORS[name](Side(image, np.ones(image.shape, bool), "optical"), 100).xy_px
    off = found[:, None] - middles[None]
    nearest = off[np.arange(len(found)), np.linalg.norm(off, axis=2).argmin(axis=1)]
    nearest = nearest[np.linalg.norm(nearest, axis=1) < deviation_px]
    assert len(nearest) >= 20
    assert np.abs(nearest.mean(axis=0)).max() < 0.08


@pytest.mark.parametrize("name", DETECTORS)
def test_no_place_is_found_twice(name: str) -> None:
    """SIFT finds one for each orientation of a place; where none turns with it, or places count, these are copies."""
    sar, _ = pair(np.eye(3))
    found = DETECTORS[name](sar, 300)
    assert len(np.unique(np.column_stack([found.xy_px, found.size_px]), axis=0)) == len(found)
    copies = ORIENTED_SIFT(sar, 300)
    assert len(np.unique(copies.xy_px, axis=0)) < len(copies) == 300
    assert len(np.unique(np.column_stack([copies.xy_px, copies.angle_deg]), axis=0)) == 300


@pytest.mark.parametrize("name", ["sift", "orb"])
def test_what_is_found_near_the_edge_is_described(name: str) -> None:
    sar, _ = pair(np.eye(3))
    found = DETECTORS[name](sar, 500)
    assert (np.minimum(found.xy_px, SIZE - found.xy_px).min(axis=1) < 2 * BORDER_PX).any()
    assert len(DESCRIPTORS[name](sar, found)) == len(found)


def test_keypoints_survive_the_way_through_opencv() -> None:
    sar, _ = pair(np.eye(3))
    found = DETECTORS["sift"](sar, 30)
    again = Keypoints.from_opencv(found.opencv())
    np.testing.assert_allclose(again.xy_px, found.xy_px, atol=1e-4)
    np.testing.assert_allclose(again.angle_deg, found.angle_deg, atol=1e-3)
    np.testing.assert_array_equal(again.octave, found.octave)


@pytest.mark.parametrize("metric", ["euclidean", "hamming"])
@pytest.mark.parametrize("rule", [Rule(), Rule(ratio=0.8, mutual=False), Rule(distance=0.9)])
def test_neighbours_are_those_of_a_plain_loop(metric: str, rule: Rule) -> None:
    rng = np.random.default_rng(0)
    if metric == "hamming":
        first, second = (rng.integers(0, 256, (n, 64)).astype(np.uint8) for n in (40, 50))
        for number in range(30):  # each has one that is nearer than all others, and by how much is told apart
            second[number] = first[number]
            second[number, : number + 1] ^= 1
        table = np.array([[float(np.unpackbits(a ^ b).sum()) for b in second] for a in first])
    else:
        first, second = (rng.normal(0, 0.3, (n, 8)).astype(np.float32) for n in (40, 50))
        table = np.array([[float(np.sqrt(((a - b) ** 2).sum())) for b in second] for a in first])
    expected = set()
    for row in range(40):
        order = np.argsort(table[row], kind="stable")
        near, next_near = table[row, order[0]], table[row, order[1]]
        kept = near <= rule.ratio * next_near and (rule.distance is None or near <= rule.distance)
        if rule.mutual:
            kept = kept and table[:, order[0]].min() == near
        if kept:
            expected.add((row, round(near, 3)))
    at = np.zeros((50, 2))
    kind = "hamming" if metric == "hamming" else "euclidean"
    found = neighbours(
        Described(Keypoints.at(at[:40]), first, kind),  # type: ignore[arg-type]
        Described(Keypoints.at(at), second, kind),  # type: ignore[arg-type]
        rule,
    )
    pairs = {(int(row), round(float(d), 3)) for row, d in zip(found.first, found.distance, strict=True)}
    assert {one for one in pairs if one[0] < 30} == {one for one in expected if one[0] < 30}
    assert metric == "hamming" or pairs == expected  # the others' distances are whole numbers, and ties occur
    assert (np.diff(found.distance) >= 0).all()


def test_patch_is_what_lies_around_the_keypoint() -> None:
    image = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    (cut,) = patches(image, Keypoints.at(np.array([[32.0, 20.0]])), 8, 8)
    np.testing.assert_allclose(cut, image[16:24, 28:36])
    even = standardised(cut[None])[0]
    assert even.mean() == pytest.approx(0, abs=1e-5)
    assert even.std() == pytest.approx(1, abs=1e-5)
    assert not standardised(np.full((1, 4, 4), 7, np.float32)).any()


def test_gloh_has_136_numbers_that_do_not_turn_with_the_image() -> None:
    sar, optical = pair(similarity(30, 1.0, (0, 0)))
    places = np.array([[128.0, 128.0], [110.0, 140.0], [150.0, 120.0], [135.0, 105.0]])
    turn = similarity(30, 1.0, (0, 0))
    moved = places @ turn[:2, :2].T + turn[:2, 2]
    ours, theirs = (GlohDescriptor()(side, Keypoints.at(at)) for side, at in ((sar, places), (optical, moved)))
    assert ours.vectors.shape == (4, 136)
    np.testing.assert_allclose(np.linalg.norm(ours.vectors, axis=1), 1, atol=1e-5)
    alike = ours.vectors @ theirs.vectors.T
    assert (alike.argmax(axis=1) == np.arange(4)).all()
    turned = (theirs.keypoints.angle_deg - ours.keypoints.angle_deg) % 360
    assert np.median(np.abs(turned - 30)) < 5


def test_redefined_gradient_does_not_see_inversion() -> None:
    sar, _ = pair(np.eye(3))
    one, other = redefined_gradient(sar.image, 1.5), redefined_gradient(np.float32(1) - sar.image, 1.5)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_rootsift_is_the_root_of_the_shares() -> None:
    sar, _ = pair(np.eye(3))
    keypoints = DETECTORS["sift"](sar, 10)
    plain, root = (DESCRIPTORS[name](sar, keypoints).vectors for name in ("sift", "rootsift"))
    np.testing.assert_allclose(root, np.sqrt(plain / plain.sum(axis=1, keepdims=True)), atol=1e-6)


def test_repeatability_counts_every_keypoint_once() -> None:
    shift = similarity(0, 1.0, (10, 0))
    ours = np.array([[50.0, 50.0], [50.5, 50.0], [100.0, 100.0], [250.0, 50.0]])  # the last leaves the other image
    theirs = np.array([[60.0, 50.0], [110.0, 101.9], [200.0, 200.0], [4.0, 20.0]])  # so does the last of these
    assert repeatability(ours, theirs, shift, (256, 256)) == pytest.approx(2 / 3)
    assert repeatability(ours[:0], theirs, shift, (256, 256)) == 0


@pytest.mark.parametrize(("model", "needed"), [("translation", 1), ("similarity", 2), ("affine", 3), ("homography", 4)])
def test_points_beyond_those_that_a_transform_needs_are_redundant(model: Model, needed: int) -> None:
    assert [redundant(count, model) for count in (0, needed, needed + 7)] == [0, 0, 7]


def test_residuals_are_about_their_own_fit() -> None:
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 256, (12, 2))
    target = source + (3, 4) + rng.normal(0, 1, (12, 2))
    every, left_out = residual_rms(Matches(source, target, np.zeros(12), (12, 12)), "translation")
    move = target - source
    assert every == pytest.approx(np.sqrt(np.square(move - move.mean(axis=0)).sum(axis=1).mean()))
    loo = [np.linalg.norm(move[i] - np.delete(move, i, axis=0).mean(axis=0)) for i in range(12)]
    assert left_out == pytest.approx(np.sqrt(np.square(loo).mean()))


@pytest.mark.parametrize("name", ["d2", "r2d2"])
def test_network_finds_no_keypoints_where_there_is_nothing(name: str) -> None:
    image = np.zeros((SIZE, SIZE), np.float32)
    image[100:103, 120:123] = 1.0
    found = METHODS[name]().extractor(Side(image, np.ones((SIZE, SIZE), bool), "sar"), 1000)  # type: ignore[attr-defined]
    assert len(found) > 0
    assert np.abs(found.keypoints.xy_px - (121.5, 101.5)).max() < BORDER_PX + 3
    assert (np.diff(found.keypoints.score) <= 0).all()


def test_matches_that_only_share_an_edge_are_told() -> None:
    sar = np.array([[10.0, 100], [10, 100], [100, 100], [250, 100], [60, 100], [100, 8]])
    optical = np.array([[11.0, 40], [30, 100], [100, 100], [194, 40], [60, 100], [100, 9]])
    matches = Matches(sar, optical, np.zeros(6), (6, 6))
    # The same distance from the left; not the same; far from all; from the right, of another width; too far; the top.
    assert of_the_edge(matches, (256, 256), (200, 256), 48).tolist() == [True, False, False, True, False, True]
