"""The contact sheet: panels of the crops, and on each a window where it belongs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from small_runs import config_of

from geomatch.errors import InputError, OutputError
from geomatch.training import augment
from geomatch.training.config import EncoderConfig
from geomatch.training.sheet import COLUMNS, ENLARGED, draw_sheet

CELLS = 264 // 4  # of the planes of a crop
PANEL = (CELLS * ENLARGED + 4, 2 * CELLS * ENLARGED + 4)  # height and width, with a border of two pixels


@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (4, 1), (5, 2)])
def test_sheet_has_a_panel_for_each_pair(scenes: Path, tmp_path: Path, batch: int, rows: int) -> None:
    draw_sheet(config_of(scenes, batch=batch), tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet is not None
    assert sheet.shape == (rows * PANEL[0], COLUMNS * PANEL[1])
    panels = [sheet[row * PANEL[0] :][: PANEL[0], col * PANEL[1] :][:, : PANEL[1]] for row, col in np.ndindex(rows, 4)]
    assert [bool(panel.any()) for panel in panels] == [True] * batch + [False] * (rows * COLUMNS - batch)


def test_window_is_laid_where_it_belongs(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the optical image in the place of SAR and no turn between them, the window continues the crop."""
    monkeypatch.setattr(augment, "_optical_photometry", lambda bands, valid, rng, o: bands.mean(axis=0)[None])
    monkeypatch.setattr(augment, "_sar_photometry", lambda sar, valid, rng, o: sar[0])
    scene = {"optical": "optical.tif", "sar": "optical.tif", "split": "split.csv", "scene": "town"}
    config: EncoderConfig = config_of(scenes, "data.augment.disturbed=0", "data.augment.dropped=0", scenes=[scene])
    draw_sheet(config, tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet is not None
    side = CELLS * ENLARGED
    for number in range(2):
        panel = sheet[2 : side + 2, number * PANEL[1] + 2 :]
        left, right = panel[:, :side].astype(float), panel[:, side : 2 * side].astype(float)
        changed = np.argwhere(left != right)
        (top, first), (bottom, last) = changed.min(axis=0), changed.max(axis=0) + 1
        assert abs(bottom - top - 150) <= 2  # a window of 200 px
        assert abs(last - first - 150) <= 2
        window, crop = right[top + 12 : bottom - 12, first + 12 : last - 12], left[top:bottom, first:last]
        match = cv2.matchTemplate(crop.astype(np.float32), window.astype(np.float32), cv2.TM_CCOEFF_NORMED)
        _, best, _, (col, row) = cv2.minMaxLoc(match)
        assert best > 0.8
        assert abs(col - 12) <= 1
        assert abs(row - 12) <= 1


def test_windows_of_the_small_size_are_drawn_where_there_are_no_others(scenes: Path, tmp_path: Path) -> None:
    draw_sheet(config_of(scenes, "data.augment.large=0"), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_sheet_that_cannot_be_written_or_drawn(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        draw_sheet(config_of(scenes), tmp_path / "no" / "sheet.png")
    with pytest.raises(InputError, match=r"none\.tif"):
        draw_sheet(config_of(scenes, scenes=[{"optical": "none.tif", "sar": "sar.tif"}]), tmp_path / "sheet.png")
    assert list(tmp_path.iterdir()) == []
