"""What the last look is shown: local contrast alone, of known pixels alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geomatch import pixel_features
from geomatch.errors import InputError, UsageError
from geomatch.nets.pixel_net import PixelNet
from geomatch.nets.shapes import MODALITIES, Modality, PixelShape
from geomatch.pixel_features import STRUCTURAL, LearnedPixels, standardised
from geomatch.weights import Weights, save_weights


@pytest.fixture
def image() -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(61, 84)).cumsum(axis=1).astype(np.float32)


def everything(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.ones(image.shape, bool)


def test_brightness_and_contrast_are_taken_out(image: NDArray[np.float32]) -> None:
    once, again = standardised(image, everything(image)), standardised(7 * image - 40, everything(image))
    np.testing.assert_allclose(once, again, atol=2e-3)
    assert once.shape == (62, 84)
    assert np.abs(once).max() <= pixel_features.MAX_DEVIATION


def test_local_mean_and_deviation_are_those_of_a_plain_loop(image: NDArray[np.float32]) -> None:
    image = image[:60]
    valid = np.random.default_rng(4).random(image.shape) < 0.8
    radius = int(2.5 * pixel_features.NEIGHBOURHOOD_PX)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-np.square(offsets) / (2 * pixel_features.NEIGHBOURHOOD_PX**2))

    def averaged(values: NDArray[np.float64], row: int, col: int) -> float:
        """The Gaussian mean over known pixels, the image mirrored about its edge pixels."""
        rows, cols = (
            np.pad(np.arange(side), radius, "reflect")[at : at + 2 * radius + 1]
            for side, at in zip(image.shape, (row, col), strict=True)
        )
        weights = np.outer(kernel, kernel) * valid[np.ix_(rows, cols)]
        return float((weights * values[np.ix_(rows, cols)]).sum() / weights.sum())

    mean = np.array([[averaged(image.astype(float), r, c) for c in range(84)] for r in range(60)])
    apart = (image - mean) * valid
    usual = np.sqrt(np.square(apart).sum() / valid.sum())
    found = standardised(image, valid)
    for row, col in [(0, 0), (30, 40), (59, 83), (17, 2)]:
        spread = np.sqrt(averaged(np.square(apart), row, col)) + pixel_features.CONTRAST_FLOOR * usual
        assert found[row, col] == pytest.approx(np.clip(apart[row, col] / spread, -4, 4), abs=1e-3)


def test_what_is_not_known_says_nothing(image: NDArray[np.float32]) -> None:
    valid = everything(image)
    valid[20:40, 30:50] = False
    wild = np.where(valid, image, np.float32(1e4))
    np.testing.assert_array_equal(standardised(wild, valid), standardised(image, valid))
    assert (standardised(wild, valid)[20:40, 30:50] == 0).all()
    (features,) = STRUCTURAL
    assert not features(image, valid, "sar").valid[11:19, 16:24].any()


@pytest.mark.parametrize("modality", MODALITIES)
def test_shipped_features_are_known_where_gradients_are(image: NDArray[np.float32], modality: Modality) -> None:
    valid = everything(image)
    valid[:, :10] = False
    dense, (structural,) = LearnedPixels()(image, valid, modality), STRUCTURAL
    np.testing.assert_array_equal(dense.valid, structural(image, valid, modality).valid)
    assert LearnedPixels()(image, everything(image), modality).valid.all()
    assert dense.values.shape == (PixelShape().channels, 31, 42)
    assert (dense.values[:, ~dense.valid] == 0).all()
    assert np.square(dense.values).sum(axis=0).max() < 1


def test_a_file_of_ones_own_is_run_by_any_backend(image: NDArray[np.float32], tmp_path: Path) -> None:
    torch.manual_seed(1)
    file = tmp_path / "own.safetensors"
    save_weights(PixelNet(PixelShape(channels=3, stem=4, width=4, dilations=(1,))).eval(), file, {})
    ours, theirs = (
        LearnedPixels(str(file), backend)(image, everything(image), "sar").values for backend in ("torch", "auto")
    )
    np.testing.assert_allclose(ours, theirs, atol=0.03)
    with pytest.raises(UsageError, match="unknown backend 'abacus'"):
        LearnedPixels(str(file), "abacus")
    with pytest.raises(InputError, match="weights of another network"):
        Weights.find(str(file))
