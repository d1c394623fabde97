"""The baseline is what it says it is."""

from __future__ import annotations

import cfog
import numpy as np
import pytest


@pytest.fixture
def scene() -> np.ndarray:
    return np.random.default_rng(0).random((90, 70), dtype=np.float32)


def test_channels_have_unit_length(scene: np.ndarray) -> None:
    channels = cfog.cfog(scene)
    assert channels.shape == (9, 90, 70)
    np.testing.assert_allclose(np.linalg.norm(channels, axis=0), 1, atol=1e-3)


def test_a_constant_image_has_no_channels() -> None:
    assert not cfog.cfog(np.full((20, 20), 0.5, np.float32)).any()


def test_channels_ignore_inverted_contrast(scene: np.ndarray) -> None:
    np.testing.assert_allclose(cfog.cfog(-scene), cfog.cfog(scene), atol=1e-5)


def test_an_edge_answers_in_its_own_orientation() -> None:
    steps = np.repeat(np.arange(40, dtype=np.float32)[None] > 19, 40, axis=0).astype(np.float32)
    assert cfog.cfog(steps)[:, 20, 20].argmax() == 0


def test_orientations_wrap_around() -> None:
    ramp = np.repeat(np.arange(40, dtype=np.float32)[None], 40, axis=0)
    responses = cfog.cfog(ramp)[:, 20, 20]
    np.testing.assert_allclose(responses[1], responses[-1], rtol=1e-4)


@pytest.mark.parametrize("piece", [None, 32, 64])
def test_the_fft_gives_what_plain_loops_give(scene: np.ndarray, piece: int | None) -> None:
    channels = cfog.cfog(scene)
    window = cfog.cfog(scene[30:50, 20:44] ** 2)
    surface = cfog.Exhaustive(channels, (20, 24), piece).surface(window)
    assert surface.shape == (71, 47)
    for row, col in ((0, 0), (70, 46), (30, 20), (33, 5), (12, 40)):
        patch = channels[:, row : row + 20, col : col + 24]
        at = patch - patch.mean(axis=(1, 2), keepdims=True)
        query = window - window.mean(axis=(1, 2), keepdims=True)
        expected = (at * query).sum() / np.linalg.norm(at) / np.linalg.norm(query)
        assert surface[row, col] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("piece", [None, 32])
def test_a_window_of_the_map_is_found_where_it_is(scene: np.ndarray, piece: int | None) -> None:
    channels = cfog.cfog(scene)
    assert cfog.Exhaustive(channels, (20, 24), piece).find(channels[:, 31:51, 17:41]) == (17, 31)


def test_halving_averages_and_drops_the_odd_edge() -> None:
    image = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_allclose(cfog.halved(image), [[3.0, 5.0]])
