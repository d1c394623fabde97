"""Every encoder keeps the same contract and is known by its fingerprint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from geomatch import defaults, structure
from geomatch.encoder import Encoder, Part, load_encoder
from geomatch.errors import InputError, UsageError
from geomatch.learned import LEARNED_SHARE, LearnedEncoder
from geomatch.nets.encoder import EncoderNet
from geomatch.nets.shapes import EncoderShape, Modality
from geomatch.pixel_features import STRUCTURAL, LearnedPixels
from geomatch.weights import Weights, save_weights

KINDS = ("structural", "joined", "alone")


def image(
    bands: int = 3, height: int = 330, width: int = 300
) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    return np.random.default_rng(0).random((bands, height, width)).astype("float32")


def encoder_of(kind: str, weights_file: Path) -> Encoder:
    names = {"structural": "structural", "joined": str(weights_file), "alone": f"{weights_file}:alone"}
    return load_encoder(names[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("modality", "bands"), [("optical", 3), ("optical", 1), ("sar", 1)])
def test_features_have_the_promised_shape_and_range(
    kind: str, modality: Modality, bands: int, weights_file: Path
) -> None:
    encoder = encoder_of(kind, weights_file)
    valid = np.ones((330, 300), bool)
    valid[:64, :64] = False
    dense = encoder.dense(image(bands), valid, modality)
    cell = encoder.cell_px
    assert dense.values.shape == (encoder.channels, -(-330 // cell), -(-300 // cell))
    assert dense.values.dtype == np.float32
    assert np.abs(dense.values).max() <= 1
    assert not dense.values[:, ~dense.valid].any()
    assert not dense.valid[: 64 // cell - 1, : 64 // cell - 1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_with_the_halo_are_the_whole(kind: str, weights_file: Path) -> None:
    encoder = encoder_of(kind, weights_file)
    cell, halo = encoder.cell_px, encoder.halo_px
    assert halo % cell == 0
    size = 2 * halo + 8 * cell
    bands, valid = image(1, size + 5 * cell, size + 3 * cell), np.ones((size + 5 * cell, size + 3 * cell), bool)
    whole = encoder.dense(bands, valid, "optical")
    part = encoder.dense(bands[:, 5 * cell :, 3 * cell :], valid[5 * cell :, 3 * cell :], "optical")
    cells = halo // cell
    np.testing.assert_allclose(
        part.crop(cells, cells, 8, 8).values, whole.crop(cells + 3, cells + 5, 8, 8).values, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [(0, 0, 20, 10), (30, 25, 20, 30), (0, 40, 47, 31), (47, 71, 1, 1)])
def test_part_of_the_features_is_what_the_whole_has_there(
    kind: str, part: tuple[int, int, int, int], weights_file: Path
) -> None:
    encoder = encoder_of(kind, weights_file)
    height, width = 72 * encoder.cell_px - 3, 48 * encoder.cell_px - 5
    bands, valid = image(3, height, width), np.ones((height, width), bool)
    valid[100:140, 50:350] = False
    whole, found = encoder.dense(bands, valid, "optical"), encoder.dense(bands, valid, "optical", part)
    col0, row0, across, down = part
    there = np.s_[row0 : row0 + down, col0 : col0 + across]
    assert (found.valid == whole.valid[there]).all()
    assert np.allclose(found.values, whole.values[:, *there], atol=1e-5)


def test_network_is_not_shown_what_no_wanted_feature_depends_on() -> None:
    weights, seen = Weights.find(defaults.ENCODER), []

    def run(planes: np.ndarray, modality: Modality) -> np.ndarray:
        seen.append(planes.shape[1:])
        return np.zeros((weights.shape.channels, planes.shape[1] // 2, planes.shape[2] // 2), np.float32)

    encoder = LearnedEncoder(weights, run)
    bands, valid = image(1, 640, 640), np.ones((640, 640), bool)
    encoder.dense(bands, valid, "optical", (20, 30, 40, 40))
    margin = -(-weights.shape.reach_px // 8)
    assert seen == [(2 * (40 + 2 * margin), 2 * (40 + 2 * margin))]


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


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_is_known_by_its_name_and_fingerprint(kind: str, weights_file: Path) -> None:
    encoder = encoder_of(kind, weights_file)
    again = load_encoder(encoder.name)
    assert (again.name, again.fingerprint(), again.channels) == (encoder.name, encoder.fingerprint(), encoder.channels)


def test_other_weights_have_another_fingerprint(weights_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_weights(EncoderNet(EncoderShape(8, 16, 16, 1)), tmp_path / "other.safetensors", {})
    prints = {load_encoder(str(file)).fingerprint() for file in (weights_file, tmp_path / "other.safetensors")}
    prints |= {load_encoder(name).fingerprint() for name in ("structural", f"{weights_file}:alone")}
    assert len(prints) == 4


@pytest.mark.parametrize("part", [None, (3, 2, 20, 15)])
@pytest.mark.parametrize("height", [328, 330])  # whole cells, for both kinds of which gradients serve, and not
def test_joined_features_are_the_learned_beside_the_structural(
    height: int, part: Part | None, weights_file: Path
) -> None:
    bands, valid = image(height=height, width=304), np.ones((height, 304), bool)
    valid[100:103, 50:120] = False
    joined, alone, structural = (
        encoder_of(kind, weights_file).dense(bands, valid, "optical", part)
        for kind in ("joined", "alone", "structural")
    )
    known = alone.valid & structural.valid
    np.testing.assert_array_equal(joined.valid, known)
    np.testing.assert_allclose(joined.values[:8], LEARNED_SHARE * alone.values * known, atol=1e-6)
    np.testing.assert_array_equal(joined.values[8:], structural.values * known)


def test_unknown_encoders_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown weights 'nobody'"):
        load_encoder("nobody")
    with pytest.raises(InputError, match=r"gone\.safetensors"):
        load_encoder(str(tmp_path / "gone.safetensors"))


@pytest.mark.parametrize(("name", "kinds"), [("structural", 1), ("la3", 2), ("la3:alone", 2)])
def test_places_are_looked_at_by_learned_features_where_the_encoder_is_learned(name: str, kinds: int) -> None:
    """The structural ones, which serve any sensor, are always among them."""
    assert load_encoder(name).pixels[:1] == STRUCTURAL
    assert [type(one) for one in load_encoder(name).pixels[1:]] == [LearnedPixels] * (kinds - 1)
