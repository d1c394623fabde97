"""Copies by which S2-Net supervises itself: what each kind of change does, by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from geomatch.matching.side import Side
from geomatch.training.local.views import CopyConfig, copied

STILL = CopyConfig((1.0, 1.0), turn_deg=0.0, projective=0.0, noise=0.0, blurred=0.0, inverted=0.0)
SIZE = 200


def side(grey: NDArray[np.float32]) -> Side:
    return Side(grey, np.ones(grey.shape, bool), "optical")


@pytest.fixture
def ramp() -> Side:
    """Every grey that there is."""
    return side(np.tile(np.linspace(0, 1, SIZE, dtype=np.float32), (SIZE, 1)))


def shown(one: Side) -> NDArray[np.float32]:
    return one.bytes.astype(np.float32) / np.float32(255)


def test_defaults_are_the_papers() -> None:
    assert CopyConfig() == CopyConfig((1.0, 1.2), turn_deg=10.0, projective=0.2, noise=0.01)


def test_copy_without_changes_is_the_image(ramp: Side) -> None:
    copy, to_image = copied(ramp, np.random.default_rng(0), STILL)
    np.testing.assert_allclose(copy, shown(ramp), atol=1e-6)
    np.testing.assert_allclose(to_image, np.eye(3), atol=1e-9)


def test_noise_has_its_variance(ramp: Side) -> None:
    copy, _ = copied(ramp, np.random.default_rng(0), replace(STILL, noise=0.01))
    middle = np.abs(shown(ramp) - 0.5) < 0.15  # which noise hardly takes out of [0, 1]
    noise = (copy - shown(ramp))[middle]
    assert float(noise.var()) == pytest.approx(0.01, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0, abs=0.005)


def test_grey_above_a_threshold_of_its_own_is_inverted(ramp: Side) -> None:
    grey, rng, thresholds = shown(ramp), np.random.default_rng(0), []
    for _ in range(20):
        copy, _ = copied(ramp, rng, replace(STILL, inverted=1.0))
        changed = ~np.isclose(copy, grey, atol=1e-6)
        np.testing.assert_allclose(copy[changed], 1 - grey[changed], atol=1e-6)
        off_middle = np.abs(grey - 0.5) > 0.01  # where inverting shows
        threshold = float(grey[changed].min())
        assert changed[(grey >= threshold) & off_middle].all()
        thresholds.append(threshold)
    assert np.std(thresholds) > 0.15


def test_blur_takes_fine_detail_and_no_more() -> None:
    rng = np.random.default_rng(1)
    coarse = np.kron(rng.random((5, 5)), np.ones((40, 40))).astype(np.float32)
    fine = side(np.clip(0.8 * coarse + 0.2 * rng.random((SIZE, SIZE)).astype(np.float32), 0, 1))
    copy, _ = copied(fine, np.random.default_rng(0), replace(STILL, blurred=1.0))
    assert np.diff(copy).std() < 0.6 * np.diff(shown(fine)).std()
    assert np.corrcoef(copy.ravel(), coarse.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("change", ["scale", "turn_deg", "projective"])
def test_geometry_stays_within_what_is_asked_for_and_fills_it(change: str, ramp: Side) -> None:
    config = replace(STILL, **{change: getattr(CopyConfig(), change)})
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        _, to_image = copied(ramp, rng, config)
        to_copy = np.linalg.inv(to_image)
        corners = np.array([[0, 0, 1], [SIZE, 0, 1], [SIZE, SIZE, 1], [0, SIZE, 1.0]]) @ to_image.T
        depth = corners[:, 2] / (np.array([SIZE / 2, SIZE / 2, 1]) @ to_image.T)[2]
        linear = to_copy[:2, :2] / to_copy[2, 2]
        found.append(
            {
                "scale": float(np.sqrt(abs(np.linalg.det(linear)))),
                "turn_deg": float(np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))),
                "projective": float(np.abs(depth - 1).max()),
            }
        )
    values = np.array([one[change] for one in found])
    low, high = {"scale": (1.0, 1.2), "turn_deg": (-10.0, 10.0), "projective": (0.0, 0.2)}[change]
    assert values.min() >= low - 1e-6
    assert values.max() <= high + 1e-6
    assert np.ptp(values) > 0.8 * (high - low)
