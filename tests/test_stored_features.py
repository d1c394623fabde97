"""Features read where they are looked at, against the same ones in memory."""

from __future__ import annotations

import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pyproj import Transformer
from towns import PLACE, UTM33, Town, moved, view

from geomatch import stored_features
from geomatch.correlate import Field
from geomatch.errors import IndexFormatError
from geomatch.locator import Locator
from geomatch.manifest import FEATURES
from geomatch.near import Near
from geomatch.raster import Raster
from geomatch.stored_features import StoredFeatures
from geomatch.tile_index import TileIndex

SIDE = 96  # of the town's features


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_features, "BLOCK_CELLS", 20)  # no divisor of SIDE


@pytest.fixture
def known(town_index: Path) -> Field:
    features = TileIndex.open(town_index).features
    assert isinstance(features, Field)
    assert features.shape[1:] == (SIDE, SIDE)
    return features


@pytest.fixture
def stored(town_index: Path, known: Field) -> StoredFeatures:
    return StoredFeatures(town_index / FEATURES, known.rms)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, ...]]:
    """How often each window of a raster is read."""
    told: Counter[tuple[int, ...]] = Counter()
    read = Raster.read

    def noted(raster: Raster, *window: int, **how: object) -> object:
        told[window] += 1
        return read(raster, *window, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Raster, "read", noted)
    return told


def places(count: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """[2 x N] columns and rows of patches, some over the edge, some off the map."""
    return np.random.default_rng(0).integers(-2 * max(size), SIDE + max(size), (2, count))


def test_whole_and_parts_are_those_in_memory(stored: StoredFeatures, known: Field) -> None:
    assert stored.shape == known.shape
    for first, beyond in (((0, 0), (SIDE, SIDE)), ((19, 20), (41, 40)), ((5, 7), (6, 8)), ((90, 3), (SIDE, SIDE))):
        ends = np.array(first), np.array(beyond)
        np.testing.assert_array_equal(stored.part(*ends).values, known.part(*ends).values)
        np.testing.assert_array_equal(stored.part(*ends).valid, known.part(*ends).valid)
    np.testing.assert_array_equal(stored.whole().values, known.whole().values)


@pytest.mark.parametrize("size", [(5, 9), (33, 33)])
@pytest.mark.parametrize("kept", [1, 1 << 30])
def test_patches_are_those_in_memory(
    size: tuple[int, int], kept: int, town_index: Path, known: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_features, "KEPT_BYTES", kept)
    stored = StoredFeatures(town_index / FEATURES, known.rms)
    for found, expected in zip(
        stored.patches(*places(200, size), *size), known.patches(*places(200, size), *size), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_no_more_is_read_than_is_looked_at_and_that_once(
    town_index: Path, known: Field, reads: Counter[tuple[int, ...]]
) -> None:
    stored = StoredFeatures(town_index / FEATURES, known.rms)
    for _ in range(2):
        stored.patches(np.array([2, 35]), np.array([3, 61]), 10, 10)
    assert reads == Counter({(0, 0, 20, 20): 1, (20, 60, 20, 20): 1, (40, 60, 20, 20): 1})


def test_no_more_is_kept_than_the_bound(
    town_index: Path, known: Field, reads: Counter[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_features, "KEPT_BYTES", 2 * (known.shape[0] + 1) * 20**2)
    stored = StoredFeatures(town_index / FEATURES, known.rms)
    for col in (0, 20, 0, 40, 0, 20):
        stored.patches(np.array([col]), np.array([0]), 10, 10)
    assert reads == Counter({(0, 0, 20, 20): 1, (20, 0, 20, 20): 2, (40, 0, 20, 20): 1})


def test_threads_share_them(stored: StoredFeatures, known: Field) -> None:
    size = (9, 9)
    cols, rows = places(400, size)
    expected, _ = known.patches(cols, rows, *size)
    with ThreadPoolExecutor(8) as threads:
        parts = list(threads.map(lambda at: stored.patches(cols[at::8], rows[at::8], *size)[0], range(8)))
    for at, part in enumerate(parts):
        np.testing.assert_array_equal(part, expected[at::8])


def test_damage_is_told_where_it_is_met(town_index: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(town_index, tmp_path / "copy.gmi")
    content = (copy / FEATURES).read_bytes()
    (copy / FEATURES).write_bytes(content[: len(content) // 2])
    with pytest.raises(IndexFormatError, match=r"features\.tif: cannot be read.*geomatch index build"):
        StoredFeatures(copy / FEATURES, 1.0).whole()


@pytest.mark.parametrize("how", ["vectors", "near", "exhaustive"])
def test_strips_are_located_as_by_features_in_memory(
    how: str, town: Town, town_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (240, 260)
    town.write_strip(tmp_path / "strip.tif", view((380, 400), 8, 1.1, *size), size)
    lon, lat = Transformer.from_crs(UTM33, "OGC:CRS84", always_xy=True).transform(*moved(PLACE, [380, 400]))
    options: dict[str, Any] = {"near": Near(lon, lat, 60)} if how == "near" else {"exhaustive": how == "exhaustive"}
    expected = Locator.open(town_index, **options).locate(tmp_path / "strip.tif")
    monkeypatch.setattr("geomatch.tile_index.FEATURES_BYTES", 0)
    locator = Locator.open(town_index, **options)
    assert isinstance(locator.index.features, StoredFeatures)
    found = locator.locate(tmp_path / "strip.tif")
    assert expected.status == "located"
    assert (found.status, found.center, found.confidence) == (expected.status, expected.center, expected.confidence)
