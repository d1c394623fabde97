"""Splits that do not leak, and batches that a seed decides."""

from __future__ import annotations

import csv
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from drawing import NORTH_UP, UTM11, write_tiff
from small_runs import config_of
from torch.utils.data import DataLoader

from geomatch.errors import GeomatchError, InputError
from geomatch.splits import Box, boxes_of, locations_of
from geomatch.training.config import SceneConfig, ValidationConfig
from geomatch.training.data import Batches, ValidationBlock
from geomatch.training.streams import Batch, StreamData

TOWN = SceneConfig("optical.tif", "sar.tif", "split.csv", "town")


def write_locations(file: Path, places: int = 20) -> dict[str, str]:
    """A CSV of one to four dates of each location, mixed up; gives name -> location."""
    rng = np.random.default_rng(0)
    rows = [(f"p{place}_{date}", f"p{place}") for place in range(places) for date in range(1 + place % 4)]
    rng.shuffle(rows)
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["name", "location", "phase"])
        writer.writerows([*row, "before"] for row in rows)
    return dict(rows)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_all_dates_of_a_location_are_on_one_side(tmp_path: Path, share: float) -> None:
    location = write_locations(tmp_path / "pairs.csv")
    train, val = locations_of(tmp_path / "pairs.csv", share)
    assert sorted(train + val) == sorted(location)
    held = {location[name] for name in val}
    assert not held & {location[name] for name in train}
    assert len(held) == round(share * 20)
    assert locations_of(tmp_path / "pairs.csv", share) == (train, val)


@pytest.mark.parametrize("text", [None, "", "name\na\n", "name,location\nonly\n", "name,location\n\xff\n"])
def test_list_of_locations_that_cannot_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "pairs.csv").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"pairs\.csv: .*location"):
        locations_of(tmp_path / "pairs.csv", 0.3)


HEAD = "scene,x_off_px,y_off_px,width_px,height_px,split\n"


def test_boxes_are_those_of_the_scene_and_the_split(tmp_path: Path) -> None:
    file = tmp_path / "split.csv"
    file.write_text(HEAD + "a,0,1,2,3,train\nb,4,5,6,7,train\na,8,9,10,11,val\na,12,13,14,15,train\n")
    assert boxes_of(file, "a", "train") == [Box(0, 1, 2, 3), Box(12, 13, 14, 15)]
    assert boxes_of(file, "b", "train") == [Box(4, 5, 6, 7)]
    assert boxes_of(file, "a", "val") == [Box(8, 9, 10, 11)]


@pytest.mark.parametrize(
    "text", [None, "scene,split\na,train\n", HEAD + "a,0,0,many,5,train\n", HEAD + "a,0\n", HEAD + "a,0,0,5,,train\n"]
)
def test_split_that_cannot_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "split.csv").write_text(text)
    with pytest.raises(InputError, match=r"split\.csv: "):
        boxes_of(tmp_path / "split.csv", "a", "train")


def test_scene_that_the_split_does_not_know_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text(HEAD + "a,0,0,9,9,train\n")
    with pytest.raises(InputError, match=r"split\.csv: .*'b'.*train"):
        boxes_of(tmp_path / "split.csv", "b", "train")
    with pytest.raises(InputError, match=r"split\.csv: .*'a'.*val"):
        boxes_of(tmp_path / "split.csv", "a", "val")


def test_same_seeds_give_the_same_batches(scenes: Path) -> None:
    data = config_of(scenes).data

    def first(*seeds: int) -> list[Batch]:
        return list(islice(Batches(data, *seeds), 2))

    one, same, other, later = first(1, 0), first(1, 0), first(2, 0), first(1, 2)
    assert one[0]["optical"].shape == (2, 6, 66, 66)
    assert (one[0]["large"].shape, one[0]["large_at"].shape) == ((2, 1, 4, 50, 50), (2, 1, 2))
    assert (one[0]["small"].shape, one[0]["small_at"].shape) == ((2, 1, 4, 26, 26), (2, 1, 2))
    for name in one[0]:
        for number in range(2):
            assert torch.equal(one[number][name], same[number][name])
            assert not torch.equal(one[number][name], other[number][name])
            assert not torch.equal(one[number][name], later[number][name])
        assert not torch.equal(one[0][name], one[1][name])


def test_workers_draw_what_the_process_itself_draws(scenes: Path) -> None:
    batches = Batches(config_of(scenes).data, 3)
    loaded = next(iter(DataLoader(batches, batch_size=None, num_workers=1)))
    here = next(iter(batches))
    assert all(torch.equal(loaded[name], here[name]) for name in here)


@pytest.mark.parametrize("workers", [0, 1])
def test_no_epoch_repeats_the_batches_of_another(scenes: Path, workers: int) -> None:
    loader = DataLoader(
        Batches(config_of(scenes).data, 4), batch_size=None, num_workers=workers, persistent_workers=workers > 0
    )
    drawn = [batch["optical"] for _ in range(3) for batch in islice(loader, 2)]
    for number, batch in enumerate(drawn):
        assert not any(torch.equal(batch, other) for other in drawn[:number])


def test_sources_are_drawn_from_by_weight(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[object] = []
    monkeypatch.setattr("geomatch.training.data.make_example", lambda source, rng, options: drawn.append(source))
    monkeypatch.setattr("geomatch.training.data.NAMES", ())
    names = {"optical": "optical.tif", "sar": "sar.tif"}
    data = config_of(
        scenes, scenes=[names | {"weight": 3}, names | {"weight": 1}, names | {"weight": 0}], batch=400
    ).data
    next(iter(Batches(data, 0)))
    counts = sorted(drawn.count(source) for source in set(drawn))
    assert sum(counts) == 400
    assert len(counts) == 2
    assert 70 < counts[0] < 130


@pytest.mark.parametrize("workers", [0, 1])
def test_error_of_a_source_comes_as_it_is(scenes: Path, workers: int) -> None:
    data = config_of(scenes, scenes=[{"optical": "none.tif", "sar": "sar.tif"}]).data
    with pytest.raises(InputError, match=r"none\.tif") as caught:
        for batch in DataLoader(Batches(data, 0), batch_size=None, num_workers=workers):
            StreamData(lambda seeds, _: Batches(data, *seeds), workers, 0).on_before_batch_transfer(batch, 0)
    assert "\n" not in str(caught.value)
    assert str(caught.value.where).endswith("none.tif")


# --- what a run is validated on ---


def test_validation_windows_are_cut_from_the_validation_boxes(scenes: Path) -> None:
    block = ValidationBlock(scenes, TOWN, ValidationConfig("town", windows=12, sizes_px=[104, 56]))
    assert block.planes.shape == (6, 192, 80)
    for size, cells in ((104, 26), (56, 14)):
        planes, truth = block.windows[size]
        assert planes.shape == (12, 4, cells, cells)
        assert truth.shape == (12, 2)
        assert (truth >= 0).all()
        assert (truth <= (torch.tensor([320, 768]) - size) / 8).all()
    again = ValidationBlock(scenes, TOWN, ValidationConfig("town", windows=12, sizes_px=[104, 56]))
    assert torch.equal(block.windows[56][1], again.windows[56][1])


def test_truth_of_a_validation_window_is_where_the_map_shows_the_same(scenes: Path, tmp_path: Path) -> None:
    """With the optical image's own first band in the place of SAR, a window is found by looking for it."""
    import rasterio

    with rasterio.open(scenes / "optical.tif") as file:
        bands, transform, crs = file.read(), file.transform, file.crs
    grey = bands.mean(axis=0).astype("uint8") // 2 + 1
    write_tiff(tmp_path / "optical.tif", grey, transform=transform, crs=crs)
    write_tiff(tmp_path / "sar.tif", grey, transform=transform, crs=crs)
    (tmp_path / "split.csv").write_text((scenes / "split.csv").read_text())
    block = ValidationBlock(tmp_path, TOWN, ValidationConfig("town", windows=8, sizes_px=[104]))
    planes, truth = block.windows[104]
    for window, (col, row) in zip(planes[:, :3, 3:-3, 3:-3].numpy(), truth.numpy() * 2 + 3, strict=True):
        size, best = window.shape[-1], []
        for y in range(block.planes.shape[1] - size + 1):
            for x in range(block.planes.shape[2] - size + 1):
                if abs(x - col) < 8 and abs(y - row) < 8:
                    part = block.planes[:3, y : y + size, x : x + size].numpy()
                    best.append((float(np.corrcoef(part.ravel(), window.ravel())[0, 1]), x, y))
        _, x, y = max(best)
        assert abs(x - col) <= 1
        assert abs(y - row) <= 1


def test_window_larger_than_the_validation_boxes_is_named(scenes: Path) -> None:
    with pytest.raises(GeomatchError, match=r"400.*320 × 768 px"):
        ValidationBlock(scenes, TOWN, ValidationConfig("town", sizes_px=[400]))


def test_one_place_is_enough_for_a_window(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("optical.tif", "sar.tif"):
        write_tiff(tmp_path / name, rng.integers(1, 200, (104, 104), "uint8"), crs=UTM11, transform=NORTH_UP)
    (tmp_path / "split.csv").write_text(HEAD + "town,0,0,104,104,val\n")
    block = ValidationBlock(tmp_path, TOWN, ValidationConfig("town", windows=2, sizes_px=[104]))
    assert not block.windows[104][1].any()
