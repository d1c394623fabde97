"""A contact sheet: what the network is shown in one batch."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.files import published
from geomatch.planes import CELL_PX, PLANE_PX
from geomatch.structure import CHANNELS

from .config import EncoderConfig
from .data import Batches

COLUMNS = 4
ENLARGED = 3  # pixels of the sheet per cell of the input


def draw_sheet(config: EncoderConfig, output: Path) -> None:
    """Draw the first batch of a run: each optical crop, and beside it with one SAR window laid where it belongs.

    The window is laid upright; where it was turned against the crop it shows that.

    Raises:
        InputError: the run's data cannot be used.
        OutputError: the picture cannot be written.
    """
    batch = next(iter(Batches(config.data, config.seed)))
    size = "large" if batch["large"].shape[1] else "small"
    shown = [batch[name].numpy() for name in ("optical", size, f"{size}_at")]
    panels = [_panel(optical, windows[0], at[0]) for optical, windows, at in zip(*shown, strict=True)]
    panels += [np.zeros_like(panels[0])] * (-len(panels) % COLUMNS)
    rows = [np.hstack(panels[first : first + COLUMNS]) for first in range(0, len(panels), COLUMNS)]
    with published(output) as file:
        file.write_bytes(cv2.imencode(".png", np.vstack(rows))[1].tobytes())


def _panel(optical: NDArray[np.float32], window: NDArray[np.float32], at: NDArray[np.float32]) -> NDArray[np.uint8]:
    below, above = _grey(optical[CHANNELS:].mean(axis=0)), _grey(window[CHANNELS:].mean(axis=0))
    left, top = (at * (ENLARGED * CELL_PX / PLANE_PX)).tolist()
    matrix = np.array([[1, 0, left], [0, 1, top]])
    size = (below.shape[1], below.shape[0])
    laid = cv2.warpAffine(above, matrix, size, dst=below.copy(), borderMode=cv2.BORDER_TRANSPARENT)
    return np.pad(np.hstack([below, np.asarray(laid, np.uint8)]), 2)


def _grey(plane: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = np.percentile(plane, [1, 99])
    grey = np.rint(np.clip((plane - low) / max(float(high - low), 1e-6), 0, 1) * 255).astype(np.uint8)
    return np.kron(grey, np.ones((ENLARGED, ENLARGED), np.uint8))
