"""What crops of one place differ by apart from the modality reaches what is trained on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geomatch.simulation.pairs import SimulatedPairs
from geomatch.training.local.sources import CropConfig, PhotometryConfig, disturbed


def test_either_image_is_brighter_or_darker_once_it_is_stretched() -> None:
    plain = PhotometryConfig(inverted=0, gamma=0, speckled=0, blurred=0)
    config = CropConfig(side_px=96, scale=(1.0, 1.0), turn_deg=0, shift_px=0, photometry=plain)
    pair = SimulatedPairs(400, 1).draw(np.random.default_rng(0), 160)
    expected = disturbed(pair, np.random.default_rng(1), config)
    means = []
    for seed in range(8):
        made = disturbed(pair, np.random.default_rng(seed), replace(config, photometry=replace(plain, gamma=0.4)))
        sides = [(made.optical, expected.optical), (made.sar, expected.sar)]
        means.append([float(side.bytes.mean()) - float(before.bytes.mean()) for side, before in sides])
        for side, before in sides:  # in the same order, pixel by pixel
            order = np.argsort(before.bytes[before.valid], kind="stable")
            assert (np.diff(side.bytes[before.valid][order].astype(int)) >= -2).all()
    assert (np.ptp(means, axis=0) > 10).all()
