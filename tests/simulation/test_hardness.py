"""The simulated pair is a fair problem: raw intensities do not match, structure does."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from geomatch.simulation import Radar, Scene, make_city, render_north_up, render_optical
from geomatch.simulation.relief import Array

SIZE_PX, WINDOW_PX, WINDOWS, CELL_PX = 1024, 200, 24, 4


def orientated_gradients(image: cv2.typing.MatLike) -> Array:
    """Eight gradient magnitudes by direction, smoothed, quarter resolution, [8, H, W]; after CFOG (Ye et al., 2019)."""
    gradient_x, gradient_y = cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)
    angles = np.arange(8) * np.pi / 8
    layers = [np.abs(gradient_x * np.cos(a) + gradient_y * np.sin(a)).astype(np.float32) for a in angles]
    coarse = [
        cv2.resize(cv2.GaussianBlur(x, (0, 0), 2), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for x in layers
    ]
    channels = np.stack(coarse)
    norm = np.sqrt((channels**2).sum(axis=0))
    channels /= norm + 0.3 * norm.mean()
    return np.asarray(channels - channels.mean(axis=0), np.float32)


def best_by_structure(channels: Array, window: Array) -> tuple[int, int]:
    """Column and row of the best match by normalised correlation, in cells."""
    pairs = zip(channels, window, strict=True)
    score = sum(cv2.matchTemplate(np.ascontiguousarray(a), np.ascontiguousarray(b), cv2.TM_CCORR) for a, b in pairs)
    ones = np.ones(window.shape[1:], np.float32)
    energy = cv2.matchTemplate((channels**2).sum(axis=0), ones, cv2.TM_CCORR)
    _, _, _, place = cv2.minMaxLoc(score / np.sqrt(np.maximum(energy, 0.2 * energy.mean())))
    return int(place[0]), int(place[1])


@pytest.mark.parametrize("seed", [1, 2])
def test_intensities_do_not_match_but_structure_does(seed: int) -> None:
    city = make_city(SIZE_PX, seed=seed)
    rng = np.random.default_rng(seed)
    power = render_north_up(Scene.of(city), city.transform, city.shape, Radar(), rng, heading_deg=192.0)
    sar = np.log(power)
    optical = cv2.cvtColor(render_optical(city), cv2.COLOR_RGB2GRAY).astype(np.float32)
    channels = orientated_gradients(cv2.GaussianBlur(optical, (0, 0), 1))
    hits = np.zeros(2)
    for _ in range(WINDOWS):
        col, row = (int(value) // CELL_PX * CELL_PX for value in rng.integers(0, SIZE_PX - WINDOW_PX, 2))
        window = sar[row : row + WINDOW_PX, col : col + WINDOW_PX]
        _, _, _, raw = cv2.minMaxLoc(cv2.matchTemplate(optical, window, cv2.TM_CCOEFF_NORMED))
        cell = best_by_structure(channels, orientated_gradients(cv2.GaussianBlur(window, (0, 0), 2)))
        hits += [
            np.hypot(raw[0] - col, raw[1] - row) <= 5,
            np.hypot(cell[0] * CELL_PX - col, cell[1] * CELL_PX - row) <= 5,
        ]
    by_intensity, by_structure = hits / WINDOWS
    assert by_intensity < 0.35
    assert by_structure > 0.55
    assert by_structure > by_intensity + 0.3
