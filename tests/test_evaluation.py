"""Truth of windows against transforms made by hand; scores against plain loops; both through a file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from drawing import UTM11, write_tiff
from towns import PLACE, UTM33, Town, moved, optical, pixel_centres, radar_at, view, write_town

from geomatch import evaluation
from geomatch.attitude import KNOWN, Tolerance
from geomatch.errors import InputError, OutputError
from geomatch.evaluation import Prediction, evaluate, predict, score
from geomatch.index.build import build_index
from geomatch.index.plan import BuildOptions
from geomatch.locator import Locator
from geomatch.raster import open_raster
from geomatch.rows import read_rows, write_rows
from geomatch.sampling import WindowOptions, window_cuts

FOUND = Prediction(
    on_map=True,
    truth_px=(100.0, 200.0),
    found_px=(103.0, 204.0),
    metres_per_px=0.5,
    rank=1,
    textured=True,
    status="located",
    confidence=0.9,
    signs=(1.0, 2.0),
    wall_s=0.2,
    cpu_s=0.1,
)


@pytest.fixture(scope="module")
def locator(town_index: Path) -> Locator:
    return Locator.open(town_index)


SCENES = {  # scene pixel -> map pixel, size of the scene, side of a window
    "the map's grid": (Affine.identity(), (768, 768), 200),
    "shifted by parts of a pixel": (Affine.translation(0.3, -0.6), (760, 768), 200),
    "rotated": (view((384, 384), 27, 1, 700, 700), (700, 700), 200),
    "coarser": (Affine.translation(3, 5) @ Affine.scale(1.5), (500, 500), 140),
    "finer and rotated": (view((384, 384), -140, 0.7, 700, 640), (700, 640), 300),
    "mirrored": (Affine.translation(768, 0) @ Affine.scale(-1, 1), (768, 768), 200),
}


@pytest.mark.parametrize("name", SCENES)
def test_truth_is_the_centre_of_the_window_on_the_map(name: str, town: Town, locator: Locator, tmp_path: Path) -> None:
    to_map, size, side = SCENES[name]
    town.write_strip(tmp_path / "scene.tif", to_map, size, drift=(0, 0))
    options = WindowOptions(4, side, seed=2)
    made = list(predict(locator, tmp_path / "scene.tif", options))
    with open_raster(tmp_path / "scene.tif") as raster:
        assert raster.grid is not None
        cuts = list(window_cuts(raster, raster.grid, locator.index, options, on_map=True))
    for prediction, cut in zip(made, cuts, strict=True):
        assert prediction.truth_px == pytest.approx(moved(to_map, (cut.col + side / 2, cut.row + side / 2)), abs=1e-6)
        if name != "mirrored":  # and what the pixels show agrees
            assert prediction.error_px < 1
            assert prediction.rank == 1
            assert prediction.status == "located"
        assert prediction.on_map
        assert prediction.textured
        assert prediction.metres_per_px == pytest.approx(0.5, rel=1e-3)
        assert prediction.cpu_s > 0
        assert prediction.wall_s > 0


def test_truth_across_reference_systems(town: Town, locator: Locator, tmp_path: Path, gdal) -> None:  # type: ignore[no-untyped-def]
    """GDAL warps the scene; the same ground stays the truth."""
    town.write_strip(tmp_path / "scene.tif", Affine.identity(), (768, 768), drift=(0, 0))
    gdal("gdalwarp", "-q", "-t_srs", "EPSG:3857", "-r", "bilinear", tmp_path / "scene.tif", tmp_path / "mercator.tif")
    made = list(predict(locator, tmp_path / "mercator.tif", WindowOptions(3, 180)))
    assert max(prediction.error_px for prediction in made) < 1.5


def test_windows_of_water_are_told_apart(tmp_path: Path) -> None:
    bands = optical(640)
    bands[:, :, 300:] = 40
    bands += np.random.default_rng(0).integers(0, 2, bands.shape, dtype="uint8")
    map_ = write_town(tmp_path / "map.tif", bands)
    build_index(map_.path, tmp_path / "map.gmi", BuildOptions(stride_px=32))
    pixels = radar_at(bands, pixel_centres(640, 640))
    scene = write_tiff(tmp_path / "scene.tif", pixels, crs=UTM33, transform=PLACE)
    made = list(predict(Locator.open(tmp_path / "map.gmi"), scene, WindowOptions(12, 120)))
    for prediction in made:
        assert prediction.truth_px is not None
        if prediction.truth_px[0] < 240:
            assert prediction.textured
        if prediction.truth_px[0] > 360:
            assert not prediction.textured
    assert len({prediction.textured for prediction in made}) == 2
    assert score(made)["textured"] == sum(prediction.textured for prediction in made)


def test_scene_off_the_map_has_no_truth(locator: Locator, tmp_path: Path) -> None:
    other = optical(512, seed=11)
    far = Affine(0.5, 0, 400_000, 0, -0.5, 3_700_000)
    pixels = radar_at(other, pixel_centres(512, 512))
    scene = write_tiff(tmp_path / "scene.tif", pixels, crs=UTM11, transform=far)
    made = list(predict(locator, scene, WindowOptions(4), on_map=False))
    for prediction in made:
        assert (prediction.on_map, prediction.truth_px, prediction.rank) == (False, None, 0)
        assert prediction.error_px == math.inf
    assert np.mean([prediction.confidence for prediction in made]) < 0.5


def test_scene_without_georeference_is_refused(locator: Locator, tmp_path: Path) -> None:
    scene = write_tiff(tmp_path / "scene.tif", np.ones((300, 300), "uint8"), crs=None, transform=None)
    with pytest.raises(InputError, match=r"scene\.tif: the file has no geotransform"):
        list(predict(locator, scene, WindowOptions(2)))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({}, 5),
        ({"status": "ambiguous"}, 5),
        ({"status": "absent"}, math.inf),
        ({"status": "unusable"}, math.inf),
        ({"found_px": None, "status": "absent"}, math.inf),
        ({"truth_px": None, "on_map": False}, math.inf),
    ],
)
def test_error_is_the_distance_of_the_centres_if_there_is_an_answer(change: dict[str, Any], error: float) -> None:
    assert replace(FOUND, **change).error_px == pytest.approx(error)


def some_predictions(seed: int, count: int = 60) -> list[Prediction]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        status = str(rng.choice(["located", "ambiguous", "absent", "unusable"], p=[0.6, 0.2, 0.1, 0.1]))
        on_map = bool(rng.random() < 0.7)
        error = float(rng.choice([1.0, 3.0, 8.0, 30.0, 300.0]))
        made.append(
            Prediction(
                on_map=on_map,
                truth_px=(50.0, 60.0) if on_map else None,
                found_px=None if status == "unusable" else (50.0 + error, 60.0),
                metres_per_px=float(rng.choice([0.5, 2.0])),
                rank=int(rng.choice([0, 1, 2, 5, 6, 40, 100, 101])),
                textured=bool(on_map and rng.random() < 0.6),
                status=status,
                confidence=round(float(rng.random()), 1),
                signs=None,
                wall_s=float(rng.random()),
                cpu_s=float(rng.random()),
            )
        )
    return made


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_what_plain_loops_count(seed: int) -> None:
    made = some_predictions(seed)
    scores = score(made)
    seen = [p for p in made if p.on_map]
    for name, group in (("", seen), ("_textured", [p for p in seen if p.textured])):
        for k in (1, 5, 10, 50, 100):
            hits = sum(1 for p in group if 1 <= p.rank <= k)
            assert scores[f"recall{name}"][str(k)] == pytest.approx(hits / len(group))
        for px in (2, 5, 10, 50):
            good = 0
            for p in group:
                if p.status in ("located", "ambiguous") and p.found_px is not None and p.found_px[0] - 50 <= px:
                    good += 1
            share = scores[f"success_px{name}"][str(px)]
            low, high = scores[f"success_px{name}_ci"][str(px)]
            assert share == pytest.approx(good / len(group))
            assert low <= share <= high
    metres = sorted(
        (p.found_px[0] - 50) * p.metres_per_px
        for p in seen
        if p.status in ("located", "ambiguous") and p.found_px is not None
    )
    assert scores["answered"] == len(metres)
    assert scores["error_m"]["p50"] == pytest.approx(np.median(metres))
    assert scores["error_m"]["p95"] <= metres[-1]
    assert scores["located_wrong"] == sum(p.status == "located" and p.error_px > 10 for p in seen)
    assert scores["status"] == {
        name: sum(p.status == name for p in seen) for name in ("located", "ambiguous", "absent", "unusable")
    }
    pairs = [(a.confidence, b.confidence) for a in seen for b in made if not b.on_map]
    assert scores["absent_auroc"] == pytest.approx(np.mean([a > b or 0.5 * (a == b) for a, b in pairs]))
    assert scores["windows"] + scores["absent_windows"] == len(made)
    assert scores["wall_s_per_query"] == pytest.approx(sum(p.wall_s for p in made) / len(made))


def test_windows_without_an_answer_are_failures() -> None:
    """Even where the best place was the right one."""
    here = replace(FOUND, found_px=FOUND.truth_px)
    made = [here, replace(here, status="absent"), replace(here, status="unusable", found_px=None)]
    scores = score(made)
    assert scores["success_px"]["2"] == pytest.approx(1 / 3)
    assert scores["error_m"]["p95"] == 0
    assert scores["answered"] == 1


def test_nothing_measured_is_null_and_never_nan() -> None:
    for made in ([], [replace(FOUND, textured=False, status="absent")], [replace(FOUND, on_map=False, truth_px=None)]):
        scores = json.loads(json.dumps(score(made), allow_nan=False))
        assert scores["error_m"] == {"p50": None, "p90": None, "p95": None}
        assert scores["absent_auroc"] is None
        assert scores["success_px_textured"]["2"] is None
        assert scores["success_px_textured_ci"]["2"] == [0, 1]


def test_predictions_come_back_from_their_file(tmp_path: Path) -> None:
    made = some_predictions(7)
    write_rows(made, tmp_path / "p.jsonl")
    lines = (tmp_path / "p.jsonl").read_text().splitlines()
    assert [json.loads(line)["confidence"] for line in lines] == [p.confidence for p in made]
    assert score(read_rows(tmp_path / "p.jsonl", Prediction)) == score(made)


@pytest.mark.parametrize("content", [None, "nonsense\n", '{"on_map": true}\n', "[1, 2]\n", b"\xff\n"])
def test_damaged_predictions_are_told(content: str | bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"p\.jsonl: no predictions.*Run geomatch evaluate again"):
        read_rows(file, Prediction)


def test_scores_come_from_the_file_and_from_nothing_else(
    town: Town, locator: Locator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town.write_strip(tmp_path / "scene.tif", Affine.identity(), (768, 768), drift=(0, 0))
    replaced = some_predictions(3)
    monkeypatch.setattr(evaluation, "write_rows", lambda made, file: write_rows(replaced, file))
    told: list[tuple[str, int, int]] = []
    scores = evaluate(
        locator,
        tmp_path / "scene.tif",
        WindowOptions(2),
        output=tmp_path / "report",
        progress=lambda *step: told.append(step),
    )
    assert scores == score(replaced)
    assert json.loads((tmp_path / "report" / "scores.json").read_text()) == json.loads(json.dumps(scores))
    assert told == [("windows", 0, 2), ("windows", 1, 2), ("windows", 2, 2)]


def test_same_seed_gives_the_same_scores(town: Town, locator: Locator, tmp_path: Path) -> None:
    town.write_strip(tmp_path / "scene.tif", Affine.identity(), (768, 768), drift=(0, 0))
    one, two = (
        [replace(p, wall_s=0, cpu_s=0) for p in predict(locator, tmp_path / "scene.tif", WindowOptions(3, seed=9))]
        for _ in range(2)
    )
    assert one == two


@pytest.mark.parametrize("wrong", ["deep/report", "scene.tif"])
def test_folder_that_cannot_be_written_is_told_before_the_work(
    wrong: str, town: Town, locator: Locator, tmp_path: Path
) -> None:
    town.write_strip(tmp_path / "scene.tif", Affine.identity(), (300, 300), drift=(0, 0))

    def never(*_: object) -> None:
        raise AssertionError("work began")

    with pytest.raises(OutputError):
        evaluate(locator, tmp_path / "scene.tif", WindowOptions(2), output=tmp_path / wrong, progress=never)
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]


def test_scene_that_cannot_be_used_leaves_no_folder(locator: Locator, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        evaluate(locator, tmp_path / "nothing.tif", WindowOptions(2), output=tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


def test_turned_windows_are_scored_by_centre_and_heading(town: Town, locator: Locator, tmp_path: Path) -> None:
    to_map = view((384, 384), 27, 1, 700, 700)
    town.write_strip(tmp_path / "scene.tif", to_map, (700, 700), drift=(0, 0))
    options = WindowOptions(3, 220, seed=2, rotate="any", scale_percent=3)
    made = list(predict(locator, tmp_path / "scene.tif", options))
    with open_raster(tmp_path / "scene.tif") as raster:
        assert raster.grid is not None
        cuts = list(window_cuts(raster, raster.grid, locator.index, options, on_map=True))
    for prediction, cut in zip(made, cuts, strict=True):
        assert prediction.truth_px == pytest.approx(moved(to_map, (cut.col + 110, cut.row + 110)), abs=1e-6)
        assert prediction.error_px < 4
        assert prediction.heading_error_deg is not None
        assert prediction.heading_error_deg < 2.5
    scores = score(made)
    errors = [prediction.heading_error_deg for prediction in made if prediction.status == "located"]
    assert scores["heading_error_deg"]["p50"] == pytest.approx(np.median(np.array(errors, float)))


def test_heading_error_is_scored_only_where_headings_were_asked() -> None:
    assert "heading_error_deg" not in score([FOUND])
    made = [replace(FOUND, heading_error_deg=angle) for angle in (1.0, 2.0, 4.0)]
    missed = replace(FOUND, heading_error_deg=170.0, status="ambiguous")
    assert score([*made, missed])["heading_error_deg"] == {"p50": 2.0, "p90": pytest.approx(3.6)}
    assert score([missed])["heading_error_deg"] == {"p50": None, "p90": None}


def test_predictions_of_before_headings_are_still_read(tmp_path: Path) -> None:
    write_rows([FOUND], tmp_path / "p.jsonl")
    old = json.loads((tmp_path / "p.jsonl").read_text())
    del old["heading_error_deg"], old["scale_error_percent"]
    (tmp_path / "p.jsonl").write_text(json.dumps(old) + "\n")
    assert read_rows(tmp_path / "p.jsonl", Prediction)[0].heading_error_deg is None


def test_rough_attitudes_are_found_and_scored(locator: Locator, town: Town, tmp_path: Path) -> None:
    sar = tmp_path / "scene.tif"
    town.write_strip(sar, view((384, 384), 27, 1, 700, 700), (700, 700), drift=(0, 0))
    told = WindowOptions(windows=3, size_px=220, rotate=9, scale_percent=8, tolerance=Tolerance(10, 1.1))
    made = list(predict(locator, sar, told))
    assert all(prediction.error_px < 5 for prediction in made)
    for prediction in made:
        assert prediction.heading_error_deg is not None
        assert prediction.heading_error_deg < 1.5
        assert prediction.scale_error_percent is not None
        assert prediction.scale_error_percent < 2
    assert set(score(made)) >= {"heading_error_deg", "scale_error_percent"}
    untold = list(predict(locator, sar, replace(told, windows=1, tolerance=KNOWN)))
    assert untold[0].heading_error_deg is None
    assert untold[0].scale_error_percent is None
