"""Confusable places: found as trying all of them does, kept in a file, and shown side by side in batches."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import write_tiff
from small_runs import config_of
from torch import Tensor, nn
from torch.utils.data import DataLoader
from towns import PLACE, UTM33, pixel_centres, radar_at
from towns import optical as town_bands

from geomatch.errors import InputError, UsageError
from geomatch.learned import LearnedEncoder
from geomatch.nets.encoder import EncoderNet
from geomatch.nets.resnet import GlobalNet
from geomatch.nets.shapes import EncoderShape, GlobalShape, Modality
from geomatch.pairs import JITTER_PX, Placed, PlacePairs, ScenePairs
from geomatch.simulation.pairs import SimulatedPairs
from geomatch.splits import Box
from geomatch.structure import Dense
from geomatch.tiles import tile_vectors
from geomatch.training.augment import AugmentOptions, Example, make_example, widest_px
from geomatch.training.checks import check_objective
from geomatch.training.config import DataConfig, MiningConfig
from geomatch.training.data import NAMES, Batches
from geomatch.training.jobs import MINED
from geomatch.training.mining import (
    Confusion,
    MinedFile,
    confusions,
    mine_scene,
    mined_pairs,
    mining_rng,
    read_mined,
    write_mined,
)
from geomatch.training.run import train_encoder
from geomatch.training.scenes import open_scene
from geomatch.training.streams import Batch
from geomatch.training.task import EncoderTask
from geomatch.weights import Weights

FOUND = [Confusion((200, 180), (210, 580), 0.75), Confusion((190, 600), (205, 200), 0.5)]


def encoder(channels: int = 8) -> EncoderNet:
    torch.manual_seed(0)
    return EncoderNet(EncoderShape(channels=channels, stem=16, width=16, blocks=1)).train()


# --- what is confused ---


@pytest.mark.parametrize("apart", [200, 500, 900])
def test_confusions_in_plain_loops(apart: int) -> None:
    rng = np.random.default_rng(apart)
    places = [(int(col), int(row)) for col, row in rng.integers(0, 1000, (60, 2))]
    sar, optical = (nn.functional.normalize(torch.randn(60, 5), dim=1) for _ in range(2))
    expected = []
    for i, (col, row) in enumerate(places):
        others = []
        for j, (x, y) in enumerate(places):
            if abs(x - col) >= apart or abs(y - row) >= apart:
                a, b = sar[i].double().numpy(), optical[j].double().numpy()
                others.append((float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), (x, y)))
        if others:
            expected.append((places[i], *max(others)))
    found = confusions(places, sar, optical, apart)
    assert [(one.place, one.other) for one in found] == [(place, other) for place, _, other in expected]
    assert [one.score for one in found] == pytest.approx([score for _, score, _ in expected], abs=1e-5)
    assert (len(found) < 60) == (apart == 900)


def test_tiles_side_by_side_do_not_overlap() -> None:
    vectors = torch.eye(3)
    found = confusions([(0, 0), (199, 199), (0, 200)], vectors, vectors, 200)
    assert [(one.place, one.other) for one in found] == [((0, 0), (0, 200)), ((0, 200), (0, 0))]


def test_mined_list_in_plain_loops(scenes: Path) -> None:
    """Each tile encoded by the library's own encoder, one by one, and compared in loops."""
    scene = open_scene(scenes, config_of(scenes).data.scenes[0])
    net = encoder()
    found = mine_scene(net, scene, np.random.default_rng(3), 11, 200)
    assert net.training
    rng = np.random.default_rng(3)
    shown = [scene.find(rng, 520) for _ in range(11)]  # as large as the boxes allow
    side = shown[0].pair.valid.shape[0]
    start = (side - 200) // 16 * 8
    shape = EncoderShape(channels=8, stem=16, width=16, blocks=1)
    own = LearnedEncoder(Weights("own", Path(), "", shape), lambda planes, modality: run(net.eval(), planes, modality))
    places, optical, sar = [], [], []
    for one in shown:
        places.append((one.col + start + 100, one.row + start + 100))
        whole = own.dense(one.pair.optical, one.pair.valid, "optical")
        optical.append(vector(whole, start))
        image, valid = one.pair.query(slice(start, start + 200))
        sar.append(vector(own.dense(image, valid, "sar"), 0))
    expected = []
    for i, (col, row) in enumerate(places):
        scores = {
            places[j]: float(sar[i] @ optical[j])
            for j, (x, y) in enumerate(places)
            if abs(x - col) >= 200 or abs(y - row) >= 200
        }
        if scores:
            other = max(scores, key=lambda place: scores[place])
            expected.append((places[i], other, scores[other]))
    assert len(expected) > 5
    assert [(one.place, one.other) for one in found] == [(place, other) for place, other, _ in expected]
    assert [one.score for one in found] == pytest.approx([score for *_, score in expected], abs=1e-4)


def run(net: nn.Module, planes: Any, modality: Modality) -> Any:
    with torch.inference_mode():
        return net(torch.from_numpy(planes)[None], modality)[0].numpy()


def vector(dense: Dense, start: int) -> Any:
    first = np.array([start], np.int32)
    return tile_vectors(dense, first, first, 200, 8).vectors[0, 0]


class Seeing(nn.Module):
    """Gives the orientation channels at 1/8 resolution, in which the modalities look alike."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = EncoderShape(blocks=1)
        self.anything = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        del modality
        return nn.functional.avg_pool2d(x[:, :3], 2)


class Twice:
    """Each place of the upper half of a scene, and then the same place of the lower half."""

    def __init__(self, scene: ScenePairs, period: int) -> None:
        self._scene, self._period = scene, period
        self._last: tuple[int, int] | None = None

    def find(self, rng: np.random.Generator, side_px: int) -> Placed:
        if self._last is None:
            while (found := self._scene.find(rng, side_px)).row + side_px > self._period:
                pass
            self._last = (found.col, found.row)
            return found
        (col, row), self._last = self._last, None
        middle = (col + side_px // 2, row + self._period + side_px // 2)
        pair = self._scene.draw_at(Unmoved(), side_px, *middle)  # type: ignore[arg-type]
        return Placed(pair, col, row + self._period)


class Unmoved:
    """In the place of a generator: no jitter."""

    def integers(self, *_: Any, size: int, **__: Any) -> Any:
        return np.zeros(size, int)


def test_place_of_a_town_that_repeats_itself_is_taken_for_its_copy(tmp_path: Path) -> None:
    bands = town_bands()
    twice = np.concatenate([bands, bands], axis=1)
    write_tiff(tmp_path / "optical.tif", twice, transform=PLACE, crs=UTM33)
    radar = radar_at(twice, pixel_centres(768, 1536), looks=16)
    write_tiff(tmp_path / "sar.tif", radar, transform=PLACE, crs=UTM33)
    scene: Any = Twice(ScenePairs(tmp_path / "optical.tif", tmp_path / "sar.tif"), 768)
    net: Any = Seeing()
    found = mine_scene(net, scene, np.random.default_rng(0), 24, 200)
    assert len(found) == 24
    for one in found:
        (col, row), (x, y) = one.place, one.other
        assert x == col
        assert abs(y - row) == 768
    assert min(one.score for one in found) > 0.3


def test_global_form_is_mined_by_whole_windows(scenes: Path) -> None:
    torch.manual_seed(0)
    net = GlobalNet(GlobalShape(width=16, vector=8))
    scene = open_scene(scenes, config_of(scenes).data.scenes[0])
    found = mine_scene(net, scene, np.random.default_rng(0), 9, 200)
    assert found
    assert all(-1 <= one.score <= 1 and one.place != one.other for one in found)


def test_scene_without_room_for_crops_is_not_mined(scenes: Path) -> None:
    scene = ScenePairs(scenes / "optical.tif", scenes / "sar.tif", [Box(0, 0, 288, 768)])
    assert mine_scene(encoder(), scene, np.random.default_rng(0), 9, 200) == []


# --- the file ---


def test_file_gives_back_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / MINED
    write_mined(file, [FOUND, []], 5)
    assert read_mined(file, 2) == [FOUND, []]
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(InputError, match=r"confusable\.json: holds confusable places of 2 scenes, not of 3"):
        read_mined(file, 3)


@pytest.mark.parametrize("text", ["", "[]", '{"scenes": 3}', '{"scenes": [[{"place": [1]}]]}', '{"scenes": [[[1]]]}'])
def test_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / MINED).write_text(text)
    with pytest.raises(InputError, match=r"confusable\.json: .*[Rr]emove it") as caught:
        read_mined(tmp_path / MINED, 1)
    assert "\n" not in str(caught.value)


def test_newer_file_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / MINED
    mined = MinedFile(file, 1)
    assert mined.latest() == []
    write_mined(file, [FOUND], 1)
    assert mined.latest() == [FOUND]
    write_mined(file, [FOUND[:1]], 2)
    os.utime(file, ns=(1, 1))
    assert mined.latest() == [FOUND[:1]]
    file.unlink()
    assert mined.latest() == [FOUND[:1]]
    assert MinedFile(None, 1).latest() == []


# --- batches ---


def mining_data(folder: Path, share: float = 0.5, batch: int = 8) -> DataConfig:
    return config_of(folder, f"data.mining.share={share}", f"data.batch={batch}").data


def first(data: DataConfig, *seeds: int, mined: Path | None = None, count: int = 3) -> list[Batch]:
    return list(islice(Batches(data, *seeds, mined=mined), count))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in NAMES)


@pytest.fixture
def mined(tmp_path: Path) -> Path:
    write_mined(tmp_path / MINED, [FOUND], 1)
    return tmp_path / MINED


def test_batches_without_mining_are_those_of_the_plain_recipe(scenes: Path, mined: Path) -> None:
    """Sources chosen for a batch at once, then one example after the other from the same generator."""
    config = config_of(scenes, "data.simulated.weight=0.4", "data.simulated.size_px=512", "data.augment.rescaled=0.5")
    data = config.data
    rng = np.random.default_rng([5, 6, 7, 0])
    sources = [open_scene(scenes, data.scenes[0]), SimulatedPairs(512, 60)]
    expected = []
    for _ in range(3):
        chosen = rng.choice(2, size=2, p=np.array([1, 0.4]) / 1.4)
        examples = [make_example(sources[i], rng, AugmentOptions(**data.augment)) for i in chosen]
        expected.append({name: torch.from_numpy(np.stack([getattr(one, name) for one in examples])) for name in NAMES})
    assert data.mining == MiningConfig()
    assert same(first(data, 5, 6, 7), expected)
    assert same(first(data, 5, 6, 7, mined=mined), expected)
    assert same(first(replace(data, mining=MiningConfig(share=1.0)), 5, 6, 7), expected)
    assert same(first(replace(data, mining=MiningConfig(share=1.0)), 5, 6, 7, mined=mined.parent / "none"), expected)
    assert not same(first(replace(data, mining=MiningConfig(share=1.0)), 5, 6, 7, mined=mined), expected)


@pytest.mark.parametrize(("share", "of", "pairs"), [(0.5, 8, 2), (1.0, 4, 2), (0.25, 8, 1), (0.4, 20, 4), (0, 8, 0)])
def test_share_of_a_batch_is_places_and_what_they_are_taken_for(
    scenes: Path, mined: Path, share: float, of: int, pairs: int
) -> None:
    drawn: list[Any] = []

    def kept(source: Any, rng: Any, options: Any, pose: Any = None) -> Example:
        drawn.append((source, None if pose is None else float(pose.random())))
        return Example(*(np.zeros(1, np.float32) for _ in NAMES))

    data = mining_data(scenes, share, of)
    assert mined_pairs(data) == pairs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geomatch.training.data.make_example", kept)
        for batch in first(data, 0, mined=mined, count=5):
            assert len(batch["optical"]) == of
    assert len(drawn) == 5 * of
    placed = [(source, pose) for source, pose in drawn if isinstance(source, PlacePairs)]
    assert len(placed) == 5 * 2 * pairs
    allowed = [(one.place, one.other) for one in FOUND]
    for (one, pose), (other, same_pose) in zip(placed[::2], placed[1::2], strict=True):
        assert one.scene is other.scene
        assert ((one.col, one.row), (other.col, other.row)) in allowed
        assert pose == same_pose
    if pairs > 1:
        assert len({(one.col, one.row) for one, _ in placed[::2]}) == 2


def test_batch_shows_both_places_in_one_geometry(tmp_path: Path) -> None:
    """Crops tell where they are: the middle of each is within the jitter of its place."""
    side = 1024
    rows, cols = np.mgrid[:side, :side].astype(np.uint16)
    blocks = np.random.default_rng(0).integers(0, 60_000, (side // 4, side // 4))
    texture = np.kron(blocks, np.ones((4, 4), int)).astype(np.uint16)
    write_tiff(tmp_path / "optical.tif", np.stack([cols, rows, texture]))
    write_tiff(tmp_path / "sar.tif", texture + 1)
    found = [Confusion((300, 260), (700, 760), 0.5)]
    write_mined(tmp_path / MINED, [found], 1)
    plain = {"rescaled": 0.0, "tilted": 0.0, "mixed": 0.0, "convolved": 0.0, "dropped": 0.0, "disturbed": 0.0}
    data = config_of(tmp_path, scenes=[{"optical": "optical.tif", "sar": "sar.tif"}]).data
    data = replace(data, batch=4, mining=MiningConfig(share=1.0), augment=data.augment | plain)
    low, high = (np.percentile(np.arange(side), q) for q in (1, 99))
    for batch in first(data, 0, mined=tmp_path / MINED, count=6):
        of_colour = batch["optical"][:, 3:5].double() * 0.25 + 0.4
        middles = (of_colour.median(dim=2).values.median(dim=2).values * (high - low) + low).tolist()
        for number, (col, row) in enumerate(middles):
            x, y = (found[0].place, found[0].other)[number % 2]
            assert abs(col - x) <= JITTER_PX + 10
            assert abs(row - y) <= JITTER_PX + 10
        for name in ("large_at", "small_at"):
            assert torch.equal(batch[name][::2], batch[name][1::2])
            assert not torch.equal(batch[name][:2], batch[name][2:])
        across = of_colour[..., 10:-10, -15:-5].mean(dim=(2, 3)) - of_colour[..., 10:-10, 5:15].mean(dim=(2, 3))
        down = of_colour[..., -15:-5, 10:-10].mean(dim=(2, 3)) - of_colour[..., 5:15, 10:-10].mean(dim=(2, 3))
        steps = torch.stack([across, down], dim=1)
        assert torch.allclose(steps[::2], steps[1::2], atol=0.02)
        assert steps.abs().amax(dim=(1, 2)).min() > 0.1


def test_pose_decides_the_geometry_and_nothing_else(scenes: Path) -> None:
    config = config_of(scenes, "data.augment.rescaled=0.5", "data.augment.large=2")
    scene = PlacePairs(open_scene(scenes, config.data.scenes[0]), 200, 300)
    options = AugmentOptions(**config.data.augment)

    def made(seed: int, pose: int) -> Example:
        return make_example(scene, np.random.default_rng(seed), options, np.random.default_rng(pose))

    for pose in range(5):
        one, other, turned = made(1, pose), made(2, pose), made(1, pose + 5)
        assert np.array_equal(one.large_at, other.large_at)
        assert np.array_equal(one.small_at, other.small_at)
        assert not np.array_equal(one.large, other.large)
        assert not np.array_equal(one.large_at, turned.large_at)
        # The same orientations and pixels, as far as brightness lets them be seen.
        likeness = [np.corrcoef(one.optical[0].ravel(), seen.optical[0].ravel())[0, 1] for seen in (other, turned)]
        assert likeness[0] > likeness[1]


def test_workers_notice_the_file(scenes: Path, tmp_path: Path) -> None:
    data, file = mining_data(scenes, 1.0, 2), tmp_path / MINED
    loader = DataLoader(Batches(data, 2, mined=file), batch_size=None, num_workers=1, persistent_workers=True)
    before = list(islice(loader, 2))
    assert same(before, first(data, 2, count=2))
    write_mined(file, [FOUND], 1)
    later = list(islice(loader, 8))
    plain = first(data, 2, count=20)
    assert not same(later[-1:], [later[0]])
    assert not any(same(later[-1:], [one]) for one in plain)


# --- in a run ---


def mining_run(scenes: Path, *words: str) -> Any:
    base = ["share=1", "places=6", "every_epochs=2"]
    words = ("trainer.max_epochs=3", "data.augment.tilted=0", *words)  # smaller crops, which lie apart in the town
    return config_of(scenes, *(f"data.mining.{word}" for word in base), *words)


class StoppedError(Exception):
    """In the place of a SIGKILL."""


def test_run_mines_at_the_end_of_every_so_manieth_epoch(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def kept(task: EncoderTask, file: Path) -> int:
        assert file.name == MINED
        seen.append(task.current_epoch + 1)
        return 3

    monkeypatch.setattr(EncoderTask, "mine", kept)
    train_encoder(mining_run(scenes, "trainer.max_epochs=5"), tmp_path / "on")
    assert seen == [2, 4]
    rows = (tmp_path / "on" / "metrics.csv").read_text().splitlines()
    number = rows[0].split(",").index("confusable")
    assert [row.split(",")[number] for row in rows[1:] if row.split(",")[number]] == ["3.0", "3.0"]
    train_encoder(config_of(scenes, "data.mining.every_epochs=1"), tmp_path / "off")
    assert seen == [2, 4]


def test_run_leaves_places_far_enough_apart(scenes: Path, tmp_path: Path) -> None:
    config = mining_run(scenes, "data.mining.places=20")
    train_encoder(config, tmp_path / "run")
    content = json.loads((tmp_path / "run" / MINED).read_text())
    assert content["epoch"] == 2
    (found,) = read_mined(tmp_path / "run" / MINED, 1)
    apart = widest_px(AugmentOptions(**config.data.augment)) + 2 * JITTER_PX
    assert found
    for one in found:
        assert max(abs(a - b) for a, b in zip(one.place, one.other, strict=True)) >= apart
        for col, row in (one.place, one.other):
            assert 100 <= col <= 316  # the tile lies in the boxes to train on
            assert 100 <= row <= 668


def test_mining_changes_nothing_else(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where batches do not look at the file, weights are those of a run that does not mine."""
    monkeypatch.setattr("geomatch.training.run.MINED", "elsewhere.json")
    weights = []
    for name, share in (("on", 1), ("off", 0)):
        words = ["data.mining.every_epochs=1", f"data.mining.share={share}"]
        train_encoder(mining_run(scenes, *words), tmp_path / name)
        assert (tmp_path / name / MINED).is_file() == bool(share)
        weights.append(torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_random_states_are_left_alone(scenes: Path, tmp_path: Path) -> None:
    task = EncoderTask(mining_run(scenes), 1)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before, legacy = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    task.mine(tmp_path / MINED)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(np.array_equal(a, b) for a, b in zip(legacy, np.random.get_state(), strict=True))  # noqa: NPY002
    once = (tmp_path / MINED).read_bytes()
    task.mine(tmp_path / MINED)
    assert (tmp_path / MINED).read_bytes() == once
    draws = [tuple(mining_rng(*key).integers(1 << 60, size=3)) for key in ((1, 1, 0), (1, 2, 0), (1, 1, 1), (2, 1, 0))]
    assert len(set(draws)) == 4


def test_resumed_run_goes_on_with_the_file_that_is_there(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = tmp_path / "run", []
    real = read_mined

    def kept(file: Path, number: int) -> Any:
        found = real(file, number)
        read.append((file, found))
        return found

    def stop(stage: str, done: int, total: int) -> None:
        if done == 5:
            raise StoppedError

    monkeypatch.setattr("geomatch.training.mining.read_mined", kept)
    with pytest.raises(StoppedError):
        train_encoder(mining_run(scenes, "data.mining.places=24"), folder, stop)
    there = (folder / MINED).read_bytes()
    read.clear()
    train_encoder(mining_run(scenes, "data.mining.places=24"), folder)
    assert (folder / MINED).read_bytes() == there
    assert [file for file, _ in read] == [folder / MINED]
    assert read[0][1][0]


def test_run_that_begins_anew_begins_without_places(scenes: Path, tmp_path: Path) -> None:
    words = ["data.mining.every_epochs=9"]
    train_encoder(mining_run(scenes, *words), tmp_path / "run")
    (tmp_path / "run" / "last.ckpt").unlink()
    write_mined(tmp_path / "run" / MINED, [[], [], FOUND], 1)
    train_encoder(mining_run(scenes, *words), tmp_path / "run")
    assert not (tmp_path / "run" / MINED).exists()


def test_full_disk_leaves_the_file_before(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mined(tmp_path / MINED, [FOUND], 1)
    before = (tmp_path / MINED).read_bytes()

    def full(self: Path, text: str) -> int:
        self.write_bytes(b"half of it")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Exception, match="the disk is full"):
        write_mined(tmp_path / MINED, [[]], 2)
    assert (tmp_path / MINED).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [MINED]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["share=1.5"], r"share of 1\.5 of 8 pairs"),
        (["share=-1"], r"share of -1 of 8"),
        (["share=0.05"], r"share of 0\.05 of 8.*two or more"),
        (["share=0.5", "every_epochs=0"], r"no epochs or places"),
        (["share=0.5", "places=1"], r"no epochs or places"),
    ],
)
def test_mining_that_cannot_be_is_refused(scenes: Path, words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_objective(config_of(scenes, "data.batch=8", *(f"data.mining.{word}" for word in words)))
    assert "\n" not in str(caught.value)


def test_mining_needs_a_scene(scenes: Path) -> None:
    config = config_of(scenes, "data.mining.share=1", "data.simulated.weight=1", scenes=[])
    with pytest.raises(UsageError, match=r"data\.mining: no scenes to look for places in"):
        check_objective(config)
