"""``geomatch evaluate matching``: samples whose truth holds, predictions that are resumed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from places import SIZE, pair, similarity
from programs import geomatch

from geomatch.matching.area import AreaMatcher
from geomatch.matching.compare import PREDICTIONS, SCORES
from geomatch.matching.evaluation import Prediction, score
from geomatch.matching.samples import Sample, Warp, needed_px, samples, warped
from geomatch.matching.scores import correct
from geomatch.matching.transforms import apply
from geomatch.pairs import Pair
from geomatch.simulation.pairs import SimulatedPairs

SMALL = ("evaluate", "matching", "--pairs", "simulated", "--count", 1, "--size", 128, "--keypoints", 40)


def test_sample_leads_back_to_the_pair() -> None:
    rng = np.random.default_rng(0)
    warp = Warp(10, (0.9, 1.15), 16, projective=0.1)
    side = needed_px(warp, 64)
    sar = np.zeros((side, side), np.float32)
    for _ in range(5):
        to_optical = warp.draw(rng, 64)
        corners = apply(to_optical, np.array([[0.0, 0], [64, 0], [64, 64], [0, 64]]))
        assert corners.min() > -(side - 64) / 2
        assert corners.max() < 64 + (side - 64) / 2
        place = apply(to_optical, np.array([[30.5, 40.5]]))[0]
        sar[:] = 0.1
        col, row = (place + (side - 64) // 2).astype(int)
        sar[row - 1 : row + 2, col - 1 : col + 2] = 50
        made = Sample.of(Pair(sar[None], sar[None], np.ones(sar.shape, bool)), to_optical, 64)
        found = np.unravel_index(made.sar.image.argmax(), made.sar.image.shape)
        assert np.abs(np.array(found) - (40, 30)).max() <= 2


def test_image_warped_by_whole_pixels_is_moved() -> None:
    image = np.random.default_rng(0).random((20, 20)).astype(np.float32)
    move = np.array([[1, 0, 3], [0, 1, 5], [0, 0, 1.0]])
    out, known = warped(image, np.ones((20, 20), bool), move, (20, 20))
    np.testing.assert_allclose(out[:15, :17], image[5:, 3:], atol=1e-6)
    assert known[:15, :17].all()
    assert not known[15:].any()


def test_area_ties_lie_on_the_truth_and_only_where_the_images_meet() -> None:
    move = similarity(-9, 0.93, (40, 30))
    sar, optical = pair(move)
    ties = AreaMatcher()(sar, optical)
    assert correct(ties, move, 2.0).mean() > 0.85
    assert correct(ties, move, 8.0).all()
    assert ((ties.optical_px > -8) & (ties.optical_px < SIZE + 8)).all()
    assert (np.diff(ties.scores) <= 0).all()


def test_simulated_pairs_are_the_same_for_the_same_seed() -> None:
    ours, theirs = (next(samples(SimulatedPairs(512, 4), 1, Warp(5, (1, 1), 4), size_px=64, seed=3)) for _ in range(2))
    np.testing.assert_array_equal(ours.sar.image, theirs.sar.image)
    np.testing.assert_array_equal(ours.to_optical, theirs.to_optical)


def test_scores_are_counted_from_predictions() -> None:
    made = [
        Prediction("a", "set", 0, (10, 20), (1.0, 4.9, 7.0), 0.5, 3, 4.0, (1.0, 2.0)),
        Prediction("a", "set", 1, (30, 20), (), 1.5, reason="no matches"),
        Prediction("b", "set", 0, (5, 5), (2.0,), 0.1, 1, 9.0),
    ]
    first, second = score(made)
    assert (first["method"], first["count"], first["registered"]) == ("a", 2, {"5": 0.5, "10": 0.5})
    assert (first["matches"], first["correct"]) == (1.5, 1.0)
    assert first["precision"] == pytest.approx(2 / 3)
    assert first["score"] == pytest.approx(2 / 30)
    assert (first["rms_all"], first["rms_loo"], first["n_red"], first["cpu_s"]) == (1.0, 2.0, 1.5, 1.0)
    assert (second["registered"], second["rms_all"]) == ({"5": 0.0, "10": 1.0}, None)


def test_comparison_prints_writes_and_resumes(tmp_path: Path) -> None:
    words = (*SMALL, "--methods", "sift,area", "--detectors", "sift", "-o", tmp_path / "out")
    result = geomatch(*words, "--json")
    assert result.exit_code == 0, result.stderr
    scores = json.loads(result.stdout)
    assert [(row["pairs"], row["method"]) for row in scores["methods"]] == [
        (f"simulated, {kind}", name) for kind in ("aligned", "warped") for name in ("sift", "area")
    ]
    assert {row["detector"] for row in scores["detectors"]} == {"sift"}
    assert json.loads((tmp_path / "out" / SCORES).read_text()) == scores
    before = (tmp_path / "out" / PREDICTIONS).read_text()
    again = geomatch(*words)
    assert "1 pairs, simulated, warped" in again.stdout
    assert (tmp_path / "out" / PREDICTIONS).read_text() == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--methods", "sitf"), 2, "unknown method 'sitf'. Known are sift"),
        (("--detectors", "none,orb"), 2, "unknown name 'none'"),
        (("--pairs", "mars"), 2, "unknown pairs 'mars'"),
        (("--pairs", "validation", "--data", "nowhere"), 3, "nowhere: no imagery there"),
        (("--pairs", "a.tif,b.tif"), 3, "a.tif"),
        (("--count", 0), 2, "no pairs"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[object, ...], code: int, said: str) -> None:
    result = geomatch(*SMALL, "--methods", "sift", *words)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_folder_of_other_pairs_is_refused(tmp_path: Path) -> None:
    words = (*SMALL, "--methods", "none", "--detectors", "none", "-o", tmp_path / "out")
    assert geomatch(*words).exit_code == 0
    result = geomatch(*words, "--seed", 5)
    assert result.exit_code == 2
    assert "holds a comparison on other pairs" in result.stderr


def test_evaluation_of_an_index_still_asks_for_both() -> None:
    result = geomatch("evaluate")
    assert result.exit_code == 2
    assert "--index" in result.stderr
