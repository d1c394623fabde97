"""``geomatch evaluate matching``: samples whose truth holds, predictions that are resumed, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from places import SIZE, pair, similarity
from programs import geomatch, listing

from geomatch.errors import UsageError
from geomatch.matching.area import AreaMatcher
from geomatch.matching.compare import FITS, MATCHES, SCORES, Comparison
from geomatch.matching.evaluation import Judged, Prediction, Result, predict, prediction_of, score
from geomatch.matching.matches import Matcher, Matches
from geomatch.matching.methods import METHODS
from geomatch.matching.samples import (
    ALIGNED,
    PER_CITY,
    SOURCES,
    WARPED,
    Cities,
    Sample,
    Warp,
    needed_px,
    samples,
    warped,
)
from geomatch.matching.scores import correct
from geomatch.matching.transforms import apply
from geomatch.pairs import Pair
from geomatch.simulation.city import City, make_city
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


def test_pairs_depend_on_seed_and_number_alone() -> None:
    """However many are drawn, in whatever order, before or after others."""
    source = Cities(512)

    def digests(count: int, warp: Warp = WARPED, seed: int = 0) -> list[str]:
        return [one.digest for one in samples(source, count, warp, size_px=64, seed=seed)]

    seven = digests(7)
    assert len(set(seven)) == 7
    digests(2, ALIGNED)
    assert digests(3) == seven[:3]
    assert not set(digests(7, seed=1)) & set(seven)
    assert [one.digest for one in samples(Cities(512), 7, WARPED, size_px=64)] == seven


def test_simulated_pairs_are_of_several_cities_that_no_training_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts = []

    def city(size_px: int, *, gsd_m: float, seed: int) -> City:
        layouts.append(seed)
        return make_city(size_px, gsd_m=gsd_m, seed=seed)

    monkeypatch.setattr("geomatch.simulation.pairs.make_city", city)
    list(samples(Cities(400), 2 * PER_CITY + 1, ALIGNED, size_px=64))
    assert len(set(layouts)) == len(layouts) == 3
    assert min(layouts) >= 2**31
    SimulatedPairs(400).draw(np.random.default_rng(0), 64)
    assert layouts[-1] < 2**31


def test_pairs_larger_than_the_images_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--size: pairs of 500 px, where the images have room for 400"):
        next(samples(Cities(400), 1, ALIGNED, size_px=500))


def test_scores_are_counted_from_predictions() -> None:
    made = [
        Result("a", "set", Judged((10, 20), (1.0, 4.9, 7.0), 5, 4.0, (1.0, 2.0), redundant=3), 0.5),
        Result("a", "set", Judged((30, 20), (), reason="no matches"), 1.5),
        Result("b", "set", Judged((5, 5), (2.0,), 1, 9.0, (3.0, 4.0)), 0.1),
        Result("b", "set", Judged((5, 5), (), 4, 11.0, (50.0, 60.0)), 0.1),
    ]
    first, second = score(made)
    assert (first["method"], first["count"], first["registered"]) == ("a", 2, {"5": 0.5, "10": 0.5})
    assert (first["matches"], first["correct"], first["misplaced"]) == (1.5, 1.0, 0.0)
    assert first["precision"] == pytest.approx(2 / 3)
    assert first["score"] == pytest.approx(2 / 30)
    assert (first["rms_all"], first["rms_loo"], first["n_red"], first["cpu_s"]) == (1.0, 2.0, 1.5, 1.0)
    assert (second["registered"], second["misplaced"]) == ({"5": 0.0, "10": 0.5}, 0.5)
    assert (second["rms_all"], second["rms_loo"]) == (3.0, 4.0)  # of the fit that is right


def test_prediction_keeps_its_matches() -> None:
    rng = np.random.default_rng(0)
    whole = Matches(
        rng.uniform(0, 256, (30, 2)), rng.uniform(0, 256, (30, 2)), rng.random(30), (40, 50), "", 4.0, 96.0, True, "why"
    )
    kept = prediction_of(**json.loads(json.dumps(asdict(Prediction.of(whole, 1.5)))))
    again = kept.matches
    np.testing.assert_allclose(again.sar_px, whole.sar_px, atol=2e-5)
    np.testing.assert_allclose(again.optical_px, whole.optical_px, atol=2e-5)
    np.testing.assert_allclose(again.scores, whole.scores, atol=1e-6)
    for name in ("found", "reason", "grain_px", "step_px", "placed", "doubt"):
        assert getattr(again, name) == getattr(whole, name)
    assert kept.digest == Prediction.of(whole, 99.0).digest != Prediction.of(whole.some(np.arange(29)), 1.5).digest
    assert len(Prediction.of(Matches.none("nothing"), 0.1).matches) == 0


def nothing_is_left(matcher: Matcher, sample: Sample) -> Prediction:
    raise AssertionError("matched again")


def test_comparison_prints_writes_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*SMALL, "--methods", "sift,area", "--detectors", "sift", "-o", tmp_path / "out")
    result = geomatch(*words, "--json")
    assert result.exit_code == 0, result.stderr
    scores = json.loads(result.stdout)
    assert [(row["pairs"], row["method"]) for row in scores["methods"]] == [
        (f"simulated, {kind}", name) for kind in ("aligned", "warped") for name in ("sift", "area")
    ]
    assert {row["detector"] for row in scores["detectors"]} == {"sift"}
    assert json.loads((tmp_path / "out" / SCORES).read_text()) == scores
    before = listing(tmp_path / "out")
    kept = tmp_path / "out" / MATCHES / "simulated-warped" / "sift.jsonl"
    monkeypatch.setattr("geomatch.matching.compare.predict", nothing_is_left)
    again = geomatch(*words)
    assert "1 pairs, simulated, warped" in again.stdout
    assert listing(tmp_path / "out") == before
    monkeypatch.setattr("geomatch.matching.compare.predict", predict)
    kept.write_bytes(kept.read_bytes()[:-7])
    assert geomatch(*words).exit_code == 0
    changed = {name for name, sha in listing(tmp_path / "out").items() if before[name] != sha}
    assert changed <= {f"{MATCHES}/simulated-warped/sift.jsonl", SCORES}  # its seconds


def test_processes_measure_what_one_does() -> None:
    words = (*SMALL, "--methods", "sift,orb", "--detectors", "sift,orb")
    shares = []
    for more in ((), ("--jobs", 2)):
        result = geomatch(*words, *more, "--json")
        assert result.exit_code == 0, result.stderr
        scores = json.loads(result.stdout)
        shares.append([{key: row[key] for key in row if key != "cpu_s"} for row in scores["methods"]])
        shares[-1] += scores["detectors"]
    assert shares[0] == shares[1]
    assert [row.get("method", row.get("detector")) for row in shares[1]] == ["sift", "orb"] * 4


def killed(task: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomatch.matching.compare._measured", killed)
    out = tmp_path / "out"
    result = geomatch(*SMALL, "--methods", "sift", "--detectors", "none", "--jobs", 2, "-o", out)
    assert result.exit_code == 5
    assert result.stderr.startswith("geomatch: --jobs: one of the processes was killed. Give fewer jobs")
    assert result.stderr.count("\n") == 1
    assert not (out / SCORES).exists()


@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_the_one_that_asked(blow: signal.Signals, tmp_path: Path) -> None:
    words = (
        "evaluate",
        "matching",
        "--pairs",
        "simulated",
        "--methods",
        "area",
        "--detectors",
        "none",
        "--jobs",
        "2",
        "--count",
        "20",
    )
    command = [sys.executable, "-m", "geomatch", *words, "-o", str(tmp_path / "out")]
    with subprocess.Popen(command, start_new_session=True) as asking:
        try:
            wait_for(lambda: list((tmp_path / "out").glob(f"{FITS}/*/area.jsonl")))
            asking.send_signal(blow)
            assert asking.wait(timeout=30) != 0
            wait_for(lambda: not is_there(asking.pid))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(asking.pid, signal.SIGKILL)
    assert not (tmp_path / "out" / SCORES).exists()


def is_there(group: int) -> bool:
    """Whether a process of a group lives."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(come: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_has_changed_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another seed, another rule under the same name; not the rest."""
    asked: list[int] = []

    def told(matcher: Matcher, sample: Sample) -> Prediction:
        asked.append(1)
        return predict(matcher, sample)

    monkeypatch.setattr("geomatch.matching.compare.predict", told)
    words = (*SMALL, "--methods", "sift,orb", "--detectors", "none", "-o", tmp_path / "out")
    counts = []
    for more in ((), ("--seed", 4), ()):
        assert geomatch(*words, *more).exit_code == 0
        counts.append(len(asked))
    assert counts == [4, 8, 8]
    monkeypatch.setitem(METHODS, "sift", METHODS["sift-mutual"])
    assert geomatch(*words).exit_code == 0
    assert len(asked) == 10
    assert geomatch(*words).exit_code == 0
    assert len(asked) == 10


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--methods", "sitf"), 2, "unknown method 'sitf'. Known are sift"),
        (("--detectors", "none,orb"), 2, "unknown name 'none'"),
        (("--pairs", "mars"), 2, "unknown pairs 'mars'"),
        (("--pairs", "validation", "--data", "nowhere"), 3, "nowhere: no imagery there"),
        (("--pairs", "a.tif,b.tif"), 3, "a.tif"),
        (("--pairs", "validation"), 2, "--pairs validation: needs the folder of the real imagery"),
        (("--count", 0), 2, "--count: 0 is less than 1"),
        (("--keypoints", -5), 2, "--keypoints: -5 is less than 1"),
        (("--jobs", 0), 2, "--jobs: 0 processes measure nothing"),
        (("--size", 31), 2, "--size: 31 is less than 32"),
        (("--size", 5000), 2, "--size: pairs of 5000 px, where the images have room for 768"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: tuple[object, ...], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEOMATCH_DATA", raising=False)
    result = geomatch(*SMALL, "--methods", "sift", *words)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_all_sets_are_compared_where_none_is_named() -> None:
    assert Comparison().pairs == tuple(SOURCES) == ("validation", "ombria", "simulated")


def test_evaluation_of_an_index_still_asks_for_both() -> None:
    result = geomatch("evaluate")
    assert result.exit_code == 2
    assert "--index" in result.stderr
