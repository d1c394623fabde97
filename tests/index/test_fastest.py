"""Which backend ``auto`` comes to: tried on a large map, the usual one elsewhere, and the same for all workers."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawing import write_tiff
from numpy.typing import NDArray
from programs import geomatch
from towns import PLACE, UTM33, Town, optical

from geomatch import backends
from geomatch.backends import Runner
from geomatch.files import sha256_of
from geomatch.index import fastest
from geomatch.index.build import build_index
from geomatch.index.fastest import Trial, settled
from geomatch.index.job import BuildJob
from geomatch.index.plan import BuildOptions
from geomatch.index.shards import Recipe
from geomatch.manifest import MANIFEST
from geomatch.nets.shapes import Modality
from geomatch.raster import open_raster
from geomatch.weights import Weights


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "on_gpu", lambda: False)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that is told, though commands that ran before may have sent it elsewhere."""
    monkeypatch.setattr(fastest.log, "propagate", True)
    monkeypatch.setattr(fastest.log, "handlers", [])
    caplog.set_level(logging.DEBUG, "geomatch")
    return caplog


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any map is large enough for a trial."""
    monkeypatch.setattr(fastest, "LEAST_MPX", 0)


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "_tried", lambda *_: pytest.fail("tried"))


def job_of(town: Town, encoder: str, **options: object) -> BuildJob:
    return BuildJob.plan(open_raster(town.path, need_grid=True), replace(BuildOptions(encoder=encoder), **options))  # type: ignore[arg-type]


@pytest.mark.usefixtures("large")
def test_every_installed_backend_is_tried(town: Town, weights_file: Path, heard: pytest.LogCaptureFixture) -> None:
    job = settled(job_of(town, str(weights_file)), here=True)
    assert job.options.backend in backends.BACKENDS
    assert job.encoder.name == str(weights_file)
    (line,) = heard.messages
    best, others = re.fullmatch(r"backend (\S+): [\d.]+ Mpx/CPU s \((.+)\)", line).groups()  # type: ignore[union-attr]
    assert best == job.options.backend
    assert {best, *(other.split()[0] for other in others.split(", "))} == set(backends.installed())


@pytest.mark.usefixtures("large")
def test_backend_that_errs_is_found_inexact(
    town: Town, weights_file: Path, heard: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not taken, however fast it is."""
    wrong, load = backends.usual(), backends.load_runner
    noise = np.random.default_rng(0)

    def runner(weights: Weights, backend: str, *, exact: bool = False) -> Runner:
        run = load(weights, backend, exact=exact)

        def errs(planes: NDArray[np.float32], modality: Modality) -> NDArray[np.float32]:
            made = run(planes, modality)
            return made + made.std() * noise.normal(size=made.shape).astype(np.float32)

        return errs if backend == wrong else run

    monkeypatch.setattr(backends, "load_runner", runner)
    job = settled(job_of(town, str(weights_file)), here=True)
    assert job.options.backend != wrong
    (line,) = heard.messages
    assert float(re.search(rf"{wrong} inexact at cosine ([\d.]+)", line)[1]) < 0.9  # type: ignore[index]


@pytest.mark.usefixtures("large", "untried")
@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_what_was_chosen_is_not_tried(
    backend: str, town: Town, weights_file: Path, heard: pytest.LogCaptureFixture
) -> None:
    job = job_of(town, str(weights_file), backend=backend)
    assert settled(job, here=True) is job
    assert heard.messages == []


@pytest.mark.usefixtures("large", "untried")
def test_structural_features_need_no_backend(town: Town, heard: pytest.LogCaptureFixture) -> None:
    job = job_of(town, "structural")
    assert settled(job, here=True) is job
    assert fastest.backend_of(job) is None
    assert heard.messages == []


@pytest.mark.usefixtures("untried")
def test_small_map_takes_the_usual_one(town: Town, weights_file: Path, heard: pytest.LogCaptureFixture) -> None:
    job = settled(job_of(town, str(weights_file)), here=True)
    assert job.options.backend == backends.usual()
    assert heard.messages == [f"backend {backends.usual()}: not tried against others, for 1 Mpx are fewer than 64"]


@pytest.mark.usefixtures("large", "untried")
def test_gpu_is_not_tried(town: Town, weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "on_gpu", lambda: True)
    assert settled(job_of(town, str(weights_file)), here=True).options.backend == "torch"


@pytest.mark.usefixtures("large", "untried")
def test_workers_are_told_what_to_use(
    town: Town, weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(town, str(weights_file))
    recipes = []
    for usual in ("openvino", "openvino", "torch"):
        monkeypatch.setattr(backends, "usual", lambda usual=usual: usual)
        recipes.append(Recipe.of(settled(job, here=False), tmp_path / "town.gmi"))
    first, again, other = recipes
    assert (first.options.backend, other.options.backend) == ("openvino", "torch")
    assert first == again  # a build that is repeated finds its shards
    assert other.folder != first.folder  # and none by another backend


@pytest.mark.usefixtures("large", "untried")
def test_build_goes_on_with_the_backend_that_it_began_with(
    town: Town, weights_file: Path, tmp_path: Path, heard: pytest.LogCaptureFixture
) -> None:
    job = job_of(town, str(weights_file))
    begun = Recipe.of(replace(job, options=replace(job.options, backend="torch")), tmp_path / "town.gmi")
    Path(begun.folder).mkdir(parents=True)
    again = settled(job, here=True, has_begun=lambda job: Recipe.of(job, tmp_path / "town.gmi").has_begun())
    assert again.options.backend == "torch"
    assert heard.messages == ["backend torch: the build goes on with it"]


def test_workers_on_this_machine_take_what_does_best_on_it(
    town: Town, weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def trial(job: BuildJob, pieces: object) -> dict[str, Trial]:
        tried.append(job)
        return {"torch": Trial(9.0, 1.0), "openvino": Trial(1.0, 1.0)}

    monkeypatch.setattr(fastest, "LEAST_MPX", 0)
    monkeypatch.setattr(fastest, "_tried", trial)
    options = BuildOptions(encoder=str(weights_file), stride_px=64)
    assert build_index(town.path, tmp_path / "a.gmi", options, scheduler="local:1").manifest.encoder.backend == "torch"
    assert len(tried) == 1


def test_workers_make_the_index_of_one_process(town: Town, weights_file: Path, tmp_path: Path) -> None:
    options = BuildOptions(encoder=str(weights_file), stride_px=64)
    for name, scheduler in (("one.gmi", None), ("two.gmi", "local:2")):
        build_index(town.path, tmp_path / name, options, scheduler=scheduler)
    one, two = (
        {file.name: sha256_of(file) for file in (tmp_path / name).iterdir() if file.name != MANIFEST}
        for name in ("one.gmi", "two.gmi")
    )
    assert one == two
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.gmi", "two.gmi"]


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        ({"torch": 2.0, "openvino": 6.0}, "openvino"),
        ({"torch": 6.5, "openvino": 6.0}, "openvino"),  # by chance
        ({"torch": 9.0, "openvino": 6.0}, "torch"),
        ({"torch": 2.0, "openvino": 6.0, "openvino-int8": 9.0}, "openvino-int8"),
    ],
)
def test_usual_one_is_kept_unless_another_is_clearly_faster(speeds: dict[str, float], best: str) -> None:
    assert fastest._best({name: Trial(speed, 0.9999) for name, speed in speeds.items()}, "openvino") == best


def test_inexact_ones_are_not_taken() -> None:
    trials = {"torch": Trial(1.0, 1.0), "openvino": Trial(6.0, 0.99), "openvino-int8": Trial(9.0, 0.9989)}
    assert fastest._best(trials, "openvino") == "torch"
    assert str(trials["openvino-int8"]) == "inexact at cosine 0.9989"


def test_holes_are_not_tried(tmp_path: Path, town: Town, weights_file: Path) -> None:
    bands = optical()
    bands[:, 100:] = 0
    path = tmp_path / "holes.tif"
    write_tiff(path, bands, transform=PLACE, crs=UTM33, nodata=0)
    job = job_of(replace(town, path=path), str(weights_file))
    assert fastest._pieces(job) == []


@pytest.mark.usefixtures("large")
def test_build_tells_what_it_chose_once(town: Town, tmp_path: Path, weights_file: Path) -> None:
    words = ("index", "build", town.path, "--stride", 64, "--encoder", weights_file)
    told = geomatch(*words, "-o", tmp_path / "a.gmi")
    assert re.fullmatch(r"backend \S+: [\d.]+ Mpx/CPU s \(.+\)\n", told.stderr)
    chosen = told.stderr.split()[1].rstrip(":")
    assert json.loads((tmp_path / "a.gmi" / MANIFEST).read_text())["encoder"]["backend"] == chosen
    assert f"by {chosen}\n" in geomatch("index", "info", tmp_path / "a.gmi").stdout
    assert geomatch(*words, "-o", tmp_path / "b.gmi", "--quiet").stderr == ""


def test_build_tells_why_it_tried_nothing_when_asked(town: Town, tmp_path: Path, weights_file: Path) -> None:
    words = ("index", "build", town.path, "--stride", 64, "--encoder", weights_file)
    assert geomatch(*words, "-o", tmp_path / "a.gmi").stderr == ""
    told = geomatch(*words, "-o", tmp_path / "b.gmi", "-v")
    assert "not tried against others, for 1 Mpx are fewer than 64" in told.stderr
