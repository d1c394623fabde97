"""What the benchmarks share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import common
import gallery
import numpy as np
import pytest
import rasterio
import varied

from geomatch import structure, tiles
from geomatch.structure import Dense

SCRIPTS = sorted((common.ROOT / "benchmarks").glob("*.py"))


def test_windows_lie_within_their_area_and_are_seeded() -> None:
    area = common.Area("nowhere", 100, 200, 300, 500)
    corners = common.random_corners(area, 200, 1000, seed=3)
    assert corners.min() == 0
    assert corners.max(axis=0).tolist() == [100, 300]
    np.testing.assert_array_equal(corners, common.random_corners(area, 200, 1000, seed=3))


def test_a_map_of_copies_is_mirrored_at_every_seam(tmp_path: Path) -> None:
    y, x = np.mgrid[:512, :512]
    pixels = np.stack([x / 4, y / 4, (x + y) / 8]).astype(np.uint8)
    common.write_map(tmp_path / "map.tif", pixels, (2, 2), common.whole_place())
    with rasterio.open(tmp_path / "map.tif") as dataset:
        written = dataset.read().astype(int)
    assert written.shape == (3, 1024, 1024)
    assert np.abs(written[:, :512, :512] - written[:, :512, :511:-1]).max() <= 8
    assert np.abs(written[:, :512, :512] - written[:, :511:-1, :512]).max() <= 8


def test_a_worker_answers_from_a_process_of_its_own() -> None:
    worker = common.Worker(_adder, 3)
    assert worker.ask(4).value == 7
    held, peak = worker.close()
    assert 0 < held <= peak


def _adder(amount: int) -> _Adder:
    return _Adder(amount)


class _Adder:
    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, number: int) -> int:
        return number + self.amount


def test_bars_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bars = [common.Bar("found", 0.9, 0.8), common.Bar("seconds", 2, 1, at_least=False)]
    common.finish(tmp_path / "new" / "out.json", {"a": 1}, bars)
    assert [line[:4] for line in capsys.readouterr().out.splitlines()] == ["pass", "FAIL", "resu"]
    written = json.loads((tmp_path / "new" / "out.json").read_text())
    assert written["results"] == {"a": 1}
    assert [bar["passed"] for bar in written["bars"]] == [True, False]


def test_settings_are_undone() -> None:
    before = tiles.POOL_PX
    with gallery.setting((tiles, "POOL_PX", before + 4)):
        assert before + 4 == tiles.POOL_PX
    assert before == tiles.POOL_PX


def test_pieces_of_a_varied_map_are_real_ground_and_no_two_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    ground = [rng.integers(0, 256, (varied.PIECE_PX, varied.PIECE_PX, 3), np.uint8) for _ in range(2)]
    monkeypatch.setattr(varied, "boxes_of", lambda file, scene, split: [scene])
    monkeypatch.setattr(varied, "_pixels", lambda data, scene, box: ground[varied.SCENES.index(scene)])
    pieces = [varied._Pieces(tmp_path, seed) for seed in (0, 0, 1)]
    made = [[one.next() for _ in range(3)] for one in pieces]
    assert all(piece.shape == (3, varied.PIECE_PX, varied.PIECE_PX) for piece in made[0])
    assert all((ours == theirs).all() for ours, theirs in zip(made[0], made[1], strict=True))
    assert len({piece.tobytes() for row in (made[0], made[2]) for piece in row}) == 6


def test_varied_map_is_large_enough_for_its_tiles() -> None:
    for count, stride in ((1, 16), (100_000, 16), (1_000_000, 25)):
        side = varied.side_of(count, stride)
        assert side % varied.PIECE_PX == 0
        assert side >= max(varied.LA_VAL.width, varied.LA_VAL.height)
        assert ((side - 200) // stride + 1) ** 2 >= count


def test_ranks_count_from_one() -> None:
    corners = np.array([[0, 0], [16, 0], [100, 100]], np.int32)
    ids = np.array([[2, 1, 0], [2, -1, -1]])
    truth = np.array([[20, 3], [0, 0]])
    assert gallery.ranks(corners, ids, truth, 8).tolist() == [2, 0]


def test_gallery_vectors_leave_out_empty_tiles() -> None:
    image = np.random.default_rng(2).random((256, 512), dtype=np.float32)
    valid = np.ones(image.shape, bool)
    valid[:, :256] = False
    dense = structure.structure(image, valid)
    assert isinstance(dense, Dense)
    vectors, corners = gallery.gallery_vectors(dense, tiles.TileGrid(512, 256), 0.5)
    assert len(vectors) == len(corners) > 0
    assert corners[:, 0].min() >= 128


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_without_imagery_a_script_says_so_and_ends_well(script: Path, tmp_path: Path) -> None:
    if "def main()" not in script.read_text():
        pytest.skip("a library")
    if "data_or_skip" not in script.read_text():
        pytest.skip("draws its own imagery")
    command = [sys.executable, str(script), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stdout


def test_no_cell_of_a_table_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no terminal, tables are as wide as they need to be."""
    long = "x" * 200
    common.show("wide", ("structure", "value"), [(long, 1), ("short", 2)])
    assert f" {long} " in capsys.readouterr().out
