"""Curves are evaluations of one changed thing each, kept point by point."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from affine import Affine
from drawing import write_tiff
from programs import geomatch
from towns import PLACE, UTM33, Town, optical, pixel_centres, radar_at

from geomatch import curves
from geomatch.curves import CURVES, POINTS, Curve, measure, options_at
from geomatch.errors import InputError, UsageError
from geomatch.evaluation import predict, score
from geomatch.locator import Locator
from geomatch.sampling import WindowOptions


@pytest.fixture(scope="module")
def sar(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of the town that reaches 200 px beyond it, where it shows another."""
    to_map = Affine.translation(-200, -200)
    around = optical(1168, seed=8)
    around[:, 200:968, 200:968] = town.bands
    pixels = radar_at(around, pixel_centres(1168, 1168))
    path = tmp_path_factory.mktemp("scene") / "sar.tif"
    return write_tiff(path, pixels, crs=UTM33, transform=PLACE @ to_map)


@pytest.fixture(scope="module")
def locator(town_index: Path) -> Locator:
    return Locator.open(town_index)


PLAIN = WindowOptions(8, 200, seed=3)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves of two points each."""
    for name, curve in CURVES.items():
        monkeypatch.setitem(curves.CURVES, name, replace(curve, values=(curve.values[0], curve.values[-2])))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", CURVES)
def test_point_is_the_evaluation_of_that_one_change(name: str, locator: Locator, sar: Path, tmp_path: Path) -> None:
    points = measure(locator, sar, PLAIN, tmp_path / "out", [name])
    assert [point.value for point in points] == list(CURVES[name].values)
    expected = score(list(predict(locator, sar, options_at(CURVES[name], points[1].value, PLAIN))))
    assert points[1].windows == 8
    assert points[1].within == expected["success_px_textured"]["10"]
    assert points[1].recall_1 == expected["recall_textured"]["1"]
    assert (tmp_path / "out" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert CURVES[name].title in (tmp_path / "out" / "report.html").read_text()


def test_larger_error_is_found_less(locator: Locator, sar: Path, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setitem(curves.CURVES, "heading", Curve("Heading", "degrees", (0, 45), "rotate", ""))
    straight, turned = measure(locator, sar, PLAIN, tmp_path / "out", ["heading"])
    assert straight.within > turned.within + 0.4


@pytest.mark.usefixtures("short")
def test_points_that_are_there_are_not_made_again(
    locator: Locator, sar: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[float] = []

    def counted(locator: Locator, sar: Any, options: WindowOptions) -> Any:
        made.append(options.rotate if isinstance(options.rotate, float | int) else -1)
        if len(made) == 2:
            raise KeyboardInterrupt
        return predict(locator, sar, options)

    monkeypatch.setattr(curves, "predict", counted)
    with pytest.raises(KeyboardInterrupt):
        measure(locator, sar, PLAIN, tmp_path / "out", ["heading"])
    assert len(json.loads((tmp_path / "out" / POINTS).read_text())["points"]) == 1
    measure(locator, sar, PLAIN, tmp_path / "out", ["heading"])
    assert made == [CURVES["heading"].values[0], CURVES["heading"].values[1], CURVES["heading"].values[1]]
    with pytest.raises(InputError, match="another map, scene"):
        measure(locator, sar, replace(PLAIN, seed=4), tmp_path / "out", ["heading"])
    (tmp_path / "out" / POINTS).write_text("{}")
    with pytest.raises(InputError, match="holds no curves"):
        measure(locator, sar, PLAIN, tmp_path / "out", ["heading"])


def test_unknown_curves_are_named(locator: Locator, sar: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'hedding'.*heading, scale"):
        measure(locator, sar, PLAIN, tmp_path / "out", ["hedding"])
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("short")
def test_command_prints_and_draws_them(town_index: Path, sar: Path, tmp_path: Path) -> None:
    asked = ["evaluate", "--index", town_index, "--sar", sar, "--windows", 3, "--curve", "size"]
    done = geomatch(*asked, "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert "Size" in done.stdout
    assert geomatch(*asked, "-o", tmp_path / "out", "--json").stdout.count('"curve": "size"') == 2
    refused = geomatch(*asked)
    assert refused.exit_code == 2
    assert "--output" in refused.stderr
