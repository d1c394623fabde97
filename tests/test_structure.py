"""Structure channels: blocks equal the whole, what is unknown does not leak, contrast and inversion do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from geomatch import structure as module
from geomatch.structure import CHANNELS, Dense, Gradients, reach_px, structure

CELLS = [2, 8]


def scene(height: int = 320, width: int = 360, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 0.5, np.float32)
    for row, col, tall, wide in rng.integers(4, 60, (260, 4)) * (height // 60, width // 60, 1, 1):
        image[row : row + tall, col : col + wide] = rng.uniform()
    return image


def everywhere(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.ones(image.shape, bool)


def stripes(angle_deg: float, size: int = 160) -> NDArray[np.float32]:
    """Bright and dark lines whose brightness changes along ``angle_deg`` from the columns towards the rows."""
    row, col = np.mgrid[:size, :size]
    phase = col * np.cos(np.radians(angle_deg)) + row * np.sin(np.radians(angle_deg))
    return np.asarray(np.sin(phase * 0.6), np.float32)


def smooth_blobs(size: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(0).normal(size=(size, size))
    return np.asarray(gaussian_filter(noise, 3), np.float32)


@pytest.mark.parametrize("cell_px", CELLS)
@pytest.mark.parametrize("holes", [False, True])
def test_block_with_its_margin_is_the_whole(cell_px: int, holes: bool) -> None:
    image = scene()
    valid = everywhere(image)
    if holes:
        valid[40:70, 100:180] = False
        valid[200:, :31] = False
    whole = structure(image, valid, cell_px)
    halo = -(-reach_px(cell_px) // cell_px) * cell_px
    block = 64
    for top in range(0, 320, block):
        for left in range(0, 360 - 360 % block, block):
            rows = slice(max(0, top - halo), min(320, top + block + halo))
            cols = slice(max(0, left - halo), min(360, left + block + halo))
            part = structure(image[rows, cols], valid[rows, cols], cell_px)
            inner = part.crop(
                (left - cols.start) // cell_px, (top - rows.start) // cell_px, block // cell_px, block // cell_px
            )
            expected = whole.crop(left // cell_px, top // cell_px, block // cell_px, block // cell_px)
            np.testing.assert_array_equal(inner.valid, expected.valid)
            # Only the last bit may differ: OpenCV adds up the end of a row in another way than its middle.
            np.testing.assert_allclose(inner.values, expected.values, rtol=0, atol=1.2e-7)


@pytest.mark.parametrize("height", [1, 3, 47, 49, 130])
@pytest.mark.parametrize("rows", [1, 7, 48])
def test_strips_in_which_gradients_are_made_do_not_show(
    height: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).random((height, 90), np.float32)
    monkeypatch.setattr(module, "_STRIP_ROWS", 1_000)
    whole = Gradients.of(image, everywhere(image)).harmonics
    monkeypatch.setattr(module, "_STRIP_ROWS", rows)
    np.testing.assert_array_equal(Gradients.of(image, everywhere(image)).harmonics, whole)


def test_same_image_gives_the_same_bits_wherever_it_lies_in_memory() -> None:
    image = smooth_blobs(512)
    first = structure(image, everywhere(image)).values
    kept = []
    for offset in range(0, 64, 4):
        kept.append(np.empty(offset * 37 + 11, np.uint8))  # so that later arrays lie elsewhere
        memory = np.empty(image.nbytes + 64, np.uint8)[offset : offset + image.nbytes]
        copy = memory.view(np.float32).reshape(image.shape)
        copy[:] = image
        np.testing.assert_array_equal(structure(copy, everywhere(copy)).values, first)


@pytest.mark.parametrize("cell_px", CELLS)
@pytest.mark.parametrize(("height", "width"), [(160, 168), (161, 175), (3, 5), (1, 1), (8, 300)])
def test_shape_counts_the_remainder(cell_px: int, height: int, width: int) -> None:
    image = np.random.default_rng(0).random((height, width)).astype("float32")
    found = structure(image, everywhere(image), cell_px)
    assert found.values.shape == (CHANNELS, -(-height // cell_px), -(-width // cell_px))
    assert found.values.dtype == np.float32
    assert np.isfinite(found.values).all()


@pytest.mark.parametrize("change", ["inverted", "brighter", "weaker", "stronger"])
def test_contrast_level_and_inversion_do_not_matter(change: str) -> None:
    image = scene()
    other = {"inverted": 1 - image, "brighter": image + 9, "weaker": image * 0.1, "stronger": image * 50}[change]
    one, two = (structure(np.asarray(part, np.float32), everywhere(image)).values for part in (image, other))
    np.testing.assert_allclose(two, one, atol=2e-3)


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 135, 160])
def test_channels_tell_the_double_angle_of_the_gradient(angle: float) -> None:
    found = structure(stripes(angle), everywhere(stripes(angle)))
    inner = found.values[:, 6:14, 6:14].mean(axis=(1, 2))
    assert np.degrees(np.arctan2(inner[2], inner[1])) % 360 == pytest.approx(2 * angle % 360, abs=4)
    assert inner[0] > 0


def test_turning_the_image_turns_the_channels() -> None:
    image = scene(320, 320)
    found = structure(image, everywhere(image)).values
    turned = structure(np.ascontiguousarray(np.rot90(image)), everywhere(image)).values
    back = np.rot90(turned, -1, axes=(1, 2))
    np.testing.assert_allclose(back[0], found[0], atol=1e-4)
    np.testing.assert_allclose(-back[1:], found[1:], atol=1e-4)


def test_moving_by_a_cell_moves_the_features_by_a_cell() -> None:
    image = smooth_blobs(600)
    one = structure(image[:560, :560], everywhere(image[:560, :560])).values
    two = structure(image[8:568, 16:576], everywhere(image[:560, :560])).values
    edge = reach_px() // 8 + 1
    np.testing.assert_array_equal(
        two[:, edge : 70 - edge - 1, edge : 70 - edge - 2], one[:, edge + 1 : 70 - edge, edge + 2 : 70 - edge]
    )


@pytest.mark.parametrize("garbage", [1e6, -50.0])
def test_what_is_unknown_does_not_leak(garbage: float) -> None:
    image = scene()
    valid = everywhere(image)
    valid[100:180, 90:200] = False
    one = structure(image, valid)
    two = structure(np.where(valid, image, np.float32(garbage)), valid)
    np.testing.assert_array_equal(one.valid, two.valid)
    np.testing.assert_allclose(one.values, two.values, atol=1e-5)
    assert not one.valid[14:22, 13:24].any()
    assert one.valid[:11].all()
    assert not one.values[:, ~one.valid].any()


@pytest.mark.parametrize("level", [0.0, 0.5, -4e4])
def test_constant_images_have_no_features(level: float) -> None:
    image = np.full((160, 160), level, np.float32)
    np.testing.assert_allclose(structure(image, everywhere(image)).values, 0, atol=1e-3)


def test_nothing_known_is_nothing_valid() -> None:
    found = structure(scene(), np.zeros((320, 360), bool))
    assert not found.valid.any()
    assert not found.values.any()


def test_features_stay_within_what_eight_bits_hold() -> None:
    image = scene()
    image[100:110] = 1e4
    found = structure(image, everywhere(image))
    assert np.abs(found.values).max() <= 1


def test_crop_is_a_view_of_the_right_cells() -> None:
    dense = Dense(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.ones((4, 5), bool))
    part = dense.crop(1, 2, 3, 2)
    assert part.values.shape == (3, 2, 3)
    assert part.values[0, 0, 0] == dense.values[0, 2, 1]
    assert np.shares_memory(part.values, dense.values)


def test_partly_known_cells_count_as_much_as_whole_ones() -> None:
    image = stripes(0)
    valid = everywhere(image)
    valid[83:] = False  # the gradients of row 78 on stand on unknown pixels, so cell row 9 is known for three quarters
    cut, whole = structure(image, valid), structure(image, everywhere(image))
    assert cut.valid[9].all()
    np.testing.assert_allclose(cut.values[:2, 9, 4:16], whole.values[:2, 9, 4:16], atol=0.03)
