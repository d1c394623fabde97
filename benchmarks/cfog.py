"""The published CFOG, searched exhaustively: the baseline of ``exhaustive.py``. A library, nothing to run.

Ye et al. 2019, "Fast and robust matching for multimodal remote sensing image registration", IEEE TGRS 57(11): absolute
responses in nine orientations folded to [0, pi), smoothed in the plane and along orientation, of unit length per pixel.
Here at half resolution, the SAR logarithm smoothed first. A window is laid over every place of the map by FFT and the
best zero-mean normalised correlation wins. All that depends on the map alone is computed before the first query.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

ORIENTATIONS = 9
SPATIAL_SIGMA = 0.8
SAR_SIGMA_PX = 2.0
HALF = 2
ENERGY_FLOOR = 0.1  # share of the map's mean energy under a window: flat water must not win
TINY = 1e-6

Array = NDArray[np.float32]


def cfog(image: Array) -> Array:
    """[H x W] -> [9 x H x W], of unit length per pixel, or zero where the image is constant."""
    gx = cv2.Sobel(image, cv2.CV_32F, 1, 0, scale=1 / 8)
    gy = cv2.Sobel(image, cv2.CV_32F, 0, 1, scale=1 / 8)
    raw = np.empty((ORIENTATIONS, *image.shape), np.float32)
    for k in range(ORIENTATIONS):
        angle = np.pi * k / ORIENTATIONS
        response = np.abs(gx * np.float32(np.cos(angle)) + gy * np.float32(np.sin(angle)))
        raw[k] = cv2.GaussianBlur(response, (0, 0), SPATIAL_SIGMA)
    out = np.stack([(raw[k - 1] + 2 * raw[k] + raw[(k + 1) % ORIENTATIONS]) / 4 for k in range(ORIENTATIONS)])
    out /= np.sqrt(np.square(out).sum(axis=0)) + np.float32(TINY)
    return out


def halved(image: Array) -> Array:
    """Averages of 2 × 2 pixels; an odd last row or column is dropped."""
    height, width = (side // HALF for side in image.shape)
    whole = image[: height * HALF, : width * HALF]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)


def sar_channels(log_amplitude: Array) -> Array:
    return cfog(halved(np.asarray(cv2.GaussianBlur(log_amplitude, (0, 0), SAR_SIGMA_PX), dtype=np.float32)))


@dataclass(frozen=True)
class Piece:
    """One piece of the map: where its first pixel lies, and its transform [9 x h x w // 2 + 1]."""

    row0: int
    col0: int
    spectrum: NDArray[np.complex64]


class Exhaustive:
    """Correlation of windows with a whole map.

    Args:
        channels: [C x H x W] of the map.
        window: rows and columns of the windows to come.
        piece: side of the pieces that the map is transformed in (overlap-save), or None for one transform of it all.
        plain: pad and transform the window as one would write it down, without leaving out what is known to be zero.
    """

    def __init__(
        self, channels: Array, window: tuple[int, int], piece: int | None = None, *, plain: bool = False
    ) -> None:
        self._transform = _plain_spectrum if plain else _spectrum
        _, height, width = channels.shape
        self._window = window
        self._places = (height - window[0] + 1, width - window[1] + 1)
        fast = (scipy.fft.next_fast_len(height, real=True), scipy.fft.next_fast_len(width, real=True))
        self._fft = fast if piece is None else (piece, piece)
        self._length = _lengths(channels, window)
        self._pieces = [
            Piece(row, col, _spectrum(channels[:, row : row + self._fft[0], col : col + self._fft[1]], self._fft))
            for row in range(0, self._places[0], self._fft[0] - window[0] + 1)
            for col in range(0, self._places[1], self._fft[1] - window[1] + 1)
        ]

    def surface(self, channels: Array) -> Array:
        """Zero-mean normalised correlation of a window [C x h x w] at every place: [H - h + 1 x W - w + 1]."""
        values = channels - channels.mean(axis=(1, 2), keepdims=True)
        values /= max(float(np.linalg.norm(values)), TINY)
        query = np.conj(self._transform(values, self._fft))
        out = np.empty(self._places, np.float32)
        reach = (self._fft[0] - self._window[0] + 1, self._fft[1] - self._window[1] + 1)
        for piece in self._pieces:
            part = out[piece.row0 : piece.row0 + reach[0], piece.col0 : piece.col0 + reach[1]]
            product = _product(piece.spectrum, query)
            part[:] = scipy.fft.irfft2(product, s=self._fft, overwrite_x=True, workers=1)[
                : part.shape[0], : part.shape[1]
            ]
        out /= self._length
        return out

    def find(self, channels: Array) -> tuple[int, int]:
        """Column and row of the best place."""
        surface = self.surface(channels)
        row, col = np.unravel_index(int(surface.argmax()), surface.shape)
        return int(col), int(row)


def _product(spectrum: NDArray[np.complex64], query: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Sum over channels; by slabs of rows, so that what is summed stays in the cache."""
    out = np.empty(spectrum.shape[1:], np.complex64)
    step = max(1, (1 << 15) // spectrum.shape[2])
    for row in range(0, len(out), step):
        part = np.s_[row : row + step]
        total = spectrum[0, part] * query[0, part]
        for channel in range(1, len(spectrum)):
            total += spectrum[channel, part] * query[channel, part]
        out[part] = total
    return out


def _plain_spectrum(channels: Array, size: tuple[int, int]) -> NDArray[np.complex64]:
    """Transform of the channels padded with zeros to ``size``."""
    return np.asarray(scipy.fft.rfft2(channels, s=size, workers=1), dtype=np.complex64)


def _spectrum(channels: Array, size: tuple[int, int]) -> NDArray[np.complex64]:
    """Padded transform; rows first, so that the padding below is not transformed twice."""
    across = scipy.fft.rfft(channels, n=size[1], axis=2, workers=1)
    return np.asarray(scipy.fft.fft(across, n=size[0], axis=1, overwrite_x=True, workers=1), dtype=np.complex64)


def _lengths(channels: Array, window: tuple[int, int]) -> Array:
    """Length of the map's channels under the window at every place, their means removed."""
    count = window[0] * window[1]
    energy = _box_sums(np.square(channels).sum(axis=0), window)
    for plane in channels:
        energy -= np.square(_box_sums(plane, window)) / count
    return np.sqrt(np.maximum(energy, ENERGY_FLOOR * energy.mean())).astype(np.float32)


def _box_sums(plane: Array, window: tuple[int, int]) -> NDArray[np.float64]:
    total = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1))
    total[1:, 1:] = plane.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    h, w = window
    sums: NDArray[np.float64] = total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]
    return sums
