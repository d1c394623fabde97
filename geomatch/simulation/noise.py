"""Smooth random fields, the raw material of textures, forests and lakes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], scale_px: float, octaves: int = 3
) -> NDArray[np.float32]:
    """Return value noise of about zero mean and unit variance, [H, W] float32.

    Octaves of white noise on ever finer lattices are interpolated and summed with halving amplitude (Perlin, 1985,
    calls the sum of octaves turbulence; the lattice values here are heights rather than gradients).

    Args:
        rng: the source of the lattice values.
        shape: rows and columns of the field.
        scale_px: lattice spacing of the coarsest octave, in pixels.
        octaves: how many lattices, each of half the spacing and half the amplitude of the one before.
    """
    field = np.zeros(shape, np.float32)
    power = 0.0
    for octave in range(octaves):
        spacing = max(round(scale_px / 2**octave), 1)
        rows, cols = (side // spacing + 4 for side in shape)
        lattice = rng.standard_normal((rows, cols), dtype=np.float32)
        layer = cv2.resize(lattice, (cols * spacing, rows * spacing), interpolation=cv2.INTER_CUBIC)
        top, left = rng.integers(spacing, 2 * spacing, 2)
        amplitude = 0.5**octave
        field += np.float32(amplitude) * layer[top : top + shape[0], left : left + shape[1]]
        power += (0.8 * amplitude) ** 2  # cubic interpolation leaves about 0.8^2 of the lattice's variance on average
    return field / np.float32(np.sqrt(power))
