"""The structural encoder keeps the contract that every encoder must keep, and is known by its fingerprint."""

from __future__ import annotations

import numpy as np
import pytest

from geomatch import structure
from geomatch.encoder import ENCODERS, Modality, load_encoder
from geomatch.errors import IndexFormatError


def image(
    bands: int = 3, height: int = 330, width: int = 300
) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    return np.random.default_rng(0).random((bands, height, width)).astype("float32")


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("modality", "bands"), [("optical", 3), ("optical", 1), ("sar", 1)])
def test_features_have_the_promised_shape_and_range(name: str, modality: Modality, bands: int) -> None:
    encoder = load_encoder(name)
    valid = np.ones((330, 300), bool)
    valid[:64, :64] = False
    dense = encoder.dense(image(bands), valid, modality)
    cell = encoder.cell_px
    assert dense.values.shape == (encoder.channels, -(-330 // cell), -(-300 // cell))
    assert dense.values.dtype == np.float32
    assert np.abs(dense.values).max() <= 1
    assert not dense.values[:, ~dense.valid].any()
    assert not dense.valid[: 64 // cell - 1, : 64 // cell - 1].any()


@pytest.mark.parametrize("name", ENCODERS)
def test_blocks_with_the_halo_are_the_whole(name: str) -> None:
    encoder = load_encoder(name)
    cell, halo = encoder.cell_px, encoder.halo_px
    assert halo % cell == 0
    size = 2 * halo + 8 * cell
    bands, valid = image(1, size + 5 * cell, size + 3 * cell), np.ones((size + 5 * cell, size + 3 * cell), bool)
    whole = encoder.dense(bands, valid, "optical")
    part = encoder.dense(bands[:, 5 * cell :, 3 * cell :], valid[5 * cell :, 3 * cell :], "optical")
    cells = halo // cell
    np.testing.assert_allclose(
        part.crop(cells, cells, 8, 8).values, whole.crop(cells + 3, cells + 5, 8, 8).values, rtol=0, atol=1.2e-7
    )


def test_bands_count_as_their_mean() -> None:
    encoder, bands, valid = load_encoder("structural"), image(), np.ones((330, 300), bool)
    grey = bands.mean(axis=0, keepdims=True, dtype=np.float32)
    np.testing.assert_array_equal(
        encoder.dense(bands, valid, "optical").values, encoder.dense(grey, valid, "sar").values
    )


def test_version_stands_for_the_features() -> None:
    """When this fails the features have changed: raise ``structure.VERSION`` and note its number here."""
    image = np.random.default_rng(0).random((160, 160)).astype(np.float32)
    dense = structure.structure(image, np.ones(image.shape, dtype=bool))
    known = {1: [0.243215, 0.059476, 0.047882]}
    assert np.abs(dense.values).mean(axis=(1, 2)) == pytest.approx(known[structure.VERSION], rel=1e-4)


def test_fingerprint_follows_the_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_encoder("structural").fingerprint()
    assert load_encoder("structural").fingerprint() == before
    monkeypatch.setattr(structure, "SMOOTH_PX", 1.3)
    assert load_encoder("structural").fingerprint() != before


def test_encoder_is_loaded_by_name_and_fingerprint() -> None:
    encoder = load_encoder("structural")
    assert load_encoder("structural", encoder.fingerprint()).name == encoder.name == "structural"
    with pytest.raises(IndexFormatError, match=r"has changed since the index was built.*[Bb]uild the index anew"):
        load_encoder("structural", "0" * 64)
    with pytest.raises(IndexFormatError, match=r"unknown encoder 'nobody', known are .*structural"):
        load_encoder("nobody")
