"""Corners of tiles read in groups are those of the whole table, and what cannot be read says so."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geomatch import index_files
from geomatch.errors import IndexFormatError
from geomatch.index_files import Corners, read_part


@pytest.fixture
def table(tmp_path: Path) -> Path:
    columns = {"row": np.arange(100, dtype=np.int32) * 3, "col": np.arange(100, dtype=np.int32) % 7, "x": np.zeros(100)}
    pq.write_table(pa.table(columns), tmp_path / "tiles.parquet", row_group_size=13)
    return tmp_path / "tiles.parquet"


@pytest.mark.parametrize("tiles", [[5], [99, 0, 13, 12, 13], [[0, 50], [99, 51]], [], [[], []]])
def test_corners_are_those_of_the_table(table: Path, tiles: list[int]) -> None:
    ids = np.array(tiles, np.int64)
    found = Corners(table)[ids]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, np.stack([ids % 7, ids * 3], axis=-1))


def test_no_more_groups_are_read_than_are_asked_for(table: Path) -> None:
    corners = Corners(table)
    assert len(corners) == 100
    corners[np.array([1, 30, 31])]
    assert sorted(corners._read) == [0, 2]
    every = np.asarray(corners)
    np.testing.assert_array_equal(every, np.stack([np.arange(100) % 7, np.arange(100) * 3], axis=1))
    np.testing.assert_array_equal(np.asarray(corners, np.float64), every)
    np.array(corners)[:] = 0  # a copy
    np.testing.assert_array_equal(corners[np.array([99])], [[99 % 7, 99 * 3]])


def test_pandas_is_not_loaded_for_corners(table: Path) -> None:
    pytest.importorskip("pandas")
    code = "import sys; from pathlib import Path; import numpy as np; from geomatch.index_files import Corners;"
    code += "assert Corners(Path(sys.argv[1]))[np.array([5])].any(); print('pandas' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code, str(table)], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_table_without_tiles_has_none(tmp_path: Path) -> None:
    none = np.zeros(0, np.int32)
    pq.write_table(pa.table({"row": none, "col": none}), tmp_path / "tiles.parquet")
    assert np.asarray(Corners(tmp_path / "tiles.parquet")).shape == (0, 2)


def test_what_cannot_be_read_is_named(table: Path) -> None:
    content = table.read_bytes()
    table.write_bytes(content[:40] + bytes(200) + content[240:])  # the first group; the footer is whole
    with pytest.raises(IndexFormatError, match=r"tiles\.parquet"):
        np.asarray(Corners(table))
    for damaged in (content[:-9], b""):
        table.write_bytes(damaged)
        with pytest.raises(IndexFormatError, match=r"tiles\.parquet"):
            Corners(table)
    table.unlink()
    with pytest.raises(IndexFormatError, match=r"tiles\.parquet"):
        Corners(table)


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.95])
def test_vectors_that_are_not_whole_are_named(kept: float, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(2_000, 16)).astype(np.float32)
    index = faiss.index_factory(16, "PQ8x4fs,Refine(SQfp16)", faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    file = tmp_path / "vectors.faiss"
    faiss.write_index(index, str(file))
    content = file.read_bytes()
    assert len(read_part(file)) == 2_000
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(IndexFormatError, match=r"vectors\.faiss: cannot be read"):
        read_part(file)


def test_vectors_in_full_are_read_by_their_numbers_in_any_order(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    index = faiss.index_factory(16, "PQ8x4fs,Refine(Flat)", faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    faiss.write_index(index, str(tmp_path / "vectors.faiss"))
    part = read_part(tmp_path / "vectors.faiss")
    for ids in ([], [7], [5, 6, 7, 3, 3, 4, 299, 0], range(300)):
        np.testing.assert_array_equal(part.stored(np.array(ids, np.int64)), rows[list(ids)])


def test_vectors_that_only_the_disk_has_are_asked_for_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    index = faiss.index_factory(16, "PQ8x4fs,Refine(Flat)", faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    faiss.write_index(index, str(tmp_path / "vectors.faiss"))
    part, asked, ids = read_part(tmp_path / "vectors.faiss"), [], np.array([5, 6, 9, 299], np.int64)
    first = (tmp_path / "vectors.faiss").stat().st_size - 4 - rows.nbytes
    monkeypatch.setattr(index_files.os, "posix_fadvise", lambda *given: asked.append(given[1:]))
    for in_memory in (True, False):
        monkeypatch.setattr(index_files, "_is_in_memory", lambda file, place, known=in_memory: known)
        np.testing.assert_array_equal(part.stored(ids), rows[ids])
        runs = [(5, 2), (9, 1), (299, 1)]
        expected = [] if in_memory else [(first + 64 * at, 64 * count, os.POSIX_FADV_WILLNEED) for at, count in runs]
        assert asked == expected


@pytest.mark.parametrize(
    ("kind", "share"), [("PQ8x4fs,Refine(SQfp16)", 4 / 36), ("PQ8x4fs,Refine(SQ8)", 4 / 20), ("SQ8", 0), ("PQ8x4fs", 0)]
)
def test_first_part_tells_how_much_of_others_a_search_goes_through(kind: str, share: float, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(320, 16)).astype(np.float32)
    index = faiss.index_factory(16, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    for name in ("a.faiss", "b.faiss"):
        faiss.write_index(index, str(tmp_path / name))
    first = read_part(tmp_path / "a.faiss")
    assert first.share_of_codes == pytest.approx(share)
    assert len(read_part(tmp_path / "b.faiss", first)) == 320


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system does not say what it has in memory")
@pytest.mark.parametrize(
    ("answer", "known"), [(None, True), (BlockingIOError(), False), (OSError(errno.EOPNOTSUPP, "not supported"), True)]
)
def test_system_tells_what_of_a_file_it_has_in_memory(
    answer: OSError | None, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        assert answer is not None
        raise answer

    (tmp_path / "a").write_bytes(bytes(1 << 20))
    with (tmp_path / "a").open("rb") as file:
        file.read()
        if answer is not None:
            monkeypatch.setattr(index_files.os, "preadv", refused)
        assert index_files._is_in_memory(file.fileno(), 0) is known
