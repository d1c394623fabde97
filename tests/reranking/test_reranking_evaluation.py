"""Scores of re-rankers against plain counts; the command on a drawn town."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from drawing import write_tiff
from programs import geomatch
from towns import PLACE, UTM33, Town, pixel_centres, radar_at, write_town

from geomatch.errors import UsageError
from geomatch.index.build import build_index
from geomatch.index.plan import BuildOptions
from geomatch.reranking.evaluation import Prediction, compare, rerankers_named, score
from geomatch.reranking.rerankers import BASELINES
from geomatch.rows import read_rows
from geomatch.sampling import WindowOptions
from geomatch.tile_index import TileIndex


def made(plain: int, own: int, present: float, *, on_map: bool = True, margin: float = 0.1) -> Prediction:
    ranks = {"none": plain, "other": own}
    return Prediction(on_map, margin, 5, ranks, {"none": 0.5, "other": present}, {"none": 0.0, "other": 0.002})


def test_scores_are_plain_counts() -> None:
    predictions = [
        made(1, 1, 0.9),
        made(3, 1, 0.8),
        made(1, 2, 0.7),
        made(0, 0, 0.2),
        made(0, 0, 0.1, on_map=False),
        made(0, 0, 0.3, on_map=False),
    ]
    scores = score(predictions)
    assert (scores["windows"], scores["absent_windows"], scores["reachable"]) == (4, 2, 0.75)
    plain, other = scores["rerankers"]
    assert (plain["recall"]["1"], plain["cut"]) == (0.5, 0.0)
    assert (other["recall"]["1"], other["recall"]["5"], other["gained"], other["lost"]) == (0.5, 0.75, 1, 1)
    assert other["present_auroc"] == pytest.approx(7 / 8)
    assert other["cpu_ms"] == pytest.approx(2.0)


def test_selective_use_is_chosen_on_the_even_windows_and_tried_on_the_odd_ones() -> None:
    doubtful, clear = made(2, 1, 0.5, margin=0.01), made(1, 2, 0.5, margin=0.5)
    _, other = score([doubtful, doubtful, clear, clear])["rerankers"]
    assert (other["selective"], other["plain_there"], other["always_there"]) == (1.0, 0.5, 0.5)
    assert other["margin"] == 0.01


@pytest.fixture(scope="module")
def scene(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    town.write_strip(path, Affine.identity(), (768, 768), drift=(0, 0))
    return path


def test_command_writes_predictions_scores_and_a_report(town_index: Path, scene: Path, tmp_path: Path) -> None:
    options = ("--windows", "4", "--rerank", "correlation,smoothing", "--absent", str(scene), "--json")
    told = geomatch("evaluate", "--index", town_index, "--sar", scene, *options, "-o", tmp_path / "out")
    assert told.exit_code == 0, told.stderr
    scores = json.loads(told.stdout)
    assert [row["reranker"] for row in scores["rerankers"]] == ["none", "correlation", "smoothing"]
    assert scores["rerankers"][0]["recall"]["1"] == 1.0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"reranked.jsonl", "reranked.json", "reranked.html"}
    again = score(read_rows(tmp_path / "out" / "reranked.jsonl", Prediction))
    assert json.loads(json.dumps(again)) == scores


def test_windows_of_another_size_than_the_tiles_are_refused(town_index: Path, scene: Path) -> None:
    with pytest.raises(UsageError, match="windows of 104 px are not of the size") as caught:
        compare(TileIndex.open(town_index), scene, WindowOptions(2, 104), rerankers_named("none"))
    assert "--size 200" in str(caught.value)


def test_strips_and_length_contradict_each_other(town_index: Path, scene: Path) -> None:
    told = geomatch("evaluate", "--index", town_index, "--sar", scene, "--strips", "3", "--length", "300")
    assert told.exit_code == 2
    assert "both say how long strips are" in told.stderr


def test_strips_are_windows_end_to_end(town_index: Path, scene: Path) -> None:
    command = ("evaluate", "--index", town_index, "--sar", scene, "--windows", "2", "--json")
    strips, length = (geomatch(*command, *how) for how in (("--strips", "3"), ("--length", "600")))
    strips_told, length_told = json.loads(strips.stdout), json.loads(length.stdout)
    assert strips_told["success_px"] == length_told["success_px"]
    assert strips_told["located"] == 2


def test_index_of_one_tile_and_a_scene_with_holes(town: Town, tmp_path: Path) -> None:
    part = np.ascontiguousarray(town.bands[:, :208, :208])
    small = write_town(tmp_path / "small.tif", part)
    build_index(small.path, tmp_path / "small.gmi", BuildOptions(encoder="structural", stride_px=200))
    pixels = radar_at(part, pixel_centres(208, 208))
    pixels[60:75, 40:60] = np.nan
    write_tiff(tmp_path / "holed.tif", pixels, transform=PLACE, crs=UTM33, nodata=float("nan"))
    index = TileIndex.open(tmp_path / "small.gmi")
    assert len(index) == 4  # the last ones lie flush with the edge
    options = WindowOptions(2, 200)
    scores = compare(index, tmp_path / "holed.tif", options, rerankers_named("all"))
    assert {row["reranker"] for row in scores["rerankers"]} == {*BASELINES, "graph"}
    assert all(row["recall"]["1"] == 1.0 for row in scores["rerankers"])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--rotate", "any"], "where heading and scale are known"),
        (["--heading-tolerance", "10"], "where heading and scale are known"),
        (["--scale", "10"], "where heading and scale are known"),
        (["--curve", "size"], "both measure something else"),
    ],
)
def test_what_re_rankers_do_not_take_is_refused(more: list[str], told: str, town_index: Path, tmp_path: Path) -> None:
    words = ["evaluate", "--index", town_index, "--sar", tmp_path / "s.tif", "--rerank", "none"]
    result = geomatch(*words, *more)
    assert result.exit_code == 2
    assert told in result.stderr
