"""Radiometry against plain numpy and simulated speckle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import ramp, write_tiff
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geomatch.errors import IndexFormatError, InputError, UsageError
from geomatch.images import OpticalStretch, SarRadiometry, multilook
from geomatch.raster import Patch, open_raster


def speckled_city(shape: tuple[int, int] = (96, 128), looks: float = 1.0, seed: int = 0) -> NDArray[np.float32]:
    """Power of a scene of dull ground and a few bright roofs under gamma speckle: [H x W]."""
    rng = np.random.default_rng(seed)
    scene = np.full(shape, 0.05)
    for row, col in rng.integers(0, np.array(shape) - 8, (40, 2)):
        scene[row : row + 6, col : col + 6] = rng.choice([0.1, 0.4, 1.0])
    return (scene * rng.gamma(looks, 1 / looks, shape)).astype("float32")


def detect(path: Path, **options: Any) -> tuple[SarRadiometry, Patch]:
    with open_raster(path) as raster:
        radiometry = SarRadiometry.detect(raster, **options)
        return radiometry, raster.read(0, 0, raster.width, raster.height, bands=radiometry.bands)


def fit(path: Path, **options: Any) -> tuple[OpticalStretch, Patch]:
    with open_raster(path) as raster:
        stretch = OpticalStretch.fit(raster, **options)
        return stretch, raster.read(0, 0, raster.width, raster.height, bands=stretch.bands)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_grey_is_the_mean_of_stretched_bands(dtype: str, tmp_path: Path) -> None:
    data = np.random.default_rng(1).integers(5, 120, (3, 20, 30)).astype(dtype)
    mask = np.ones((20, 30), bool)
    mask[:5] = False
    data[:, :5] = 127
    stretch, patch = fit(write_tiff(tmp_path / "a.tif", data, mask=mask))
    expected = np.zeros((20, 30))
    for band in data.astype(float):
        low, high = np.percentile(band[mask], [1, 99])
        expected += np.clip((band - low) / (high - low), 0, 1) / 3
    np.testing.assert_allclose(stretch.grey(patch), np.where(mask, expected, 0), atol=1e-6)
    assert stretch.grey(patch).dtype == np.float32


def test_pieces_that_miss_most_of_the_data_do_not_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.zeros((1, 1500, 1500), np.uint8)
    data[:, 1100:1180, 1100:1180] = np.random.default_rng(3).integers(50, 200, (80, 80))
    path = write_tiff(tmp_path / "a.tif", data, nodata=0, tiled=True, blockxsize=256, blockysize=256)
    whole, _ = fit(path)
    monkeypatch.setattr("geomatch.images.FIT_DECODED_PX", 1500 * 1500 // 9)
    with open_raster(path) as raster:
        assert not raster.overview(1024, most_px=1500 * 1500 // 9).valid.any()
    assert fit(path)[0] == whole


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_values_that_are_looked_up_are_those_that_are_computed(dtype: str, tmp_path: Path) -> None:
    data = np.random.default_rng(2).integers(0, np.iinfo(dtype).max, (3, 260, 270)).astype(dtype)
    data[1] = 7  # a band without contrast
    mask = np.ones((260, 270), bool)
    mask[:, 40:90] = False
    stretch, patch = fit(write_tiff(tmp_path / "a.tif", data, mask=mask))
    as_floats = replace(patch, data=patch.data.astype(np.float32))
    np.testing.assert_array_equal(stretch.bands_of(patch), stretch.bands_of(as_floats))


def test_rgb_keeps_the_band_order_and_blacks_out_nodata(tmp_path: Path) -> None:
    data = np.stack([ramp(10, 10), ramp(10, 10)[::-1], ramp(10, 10).T])
    data[:, 0, 0] = 0
    stretch, patch = fit(write_tiff(tmp_path / "a.tif", data, nodata=0))
    picture = stretch.rgb(patch)
    assert picture.shape == (10, 10, 3)
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[9, 0, 0] > 200
    assert picture[9, 0, 1] < 50


@pytest.mark.parametrize(("count", "used"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (5, (1, 2, 3))])
def test_default_bands_are_the_first_three(count: int, used: tuple[int, ...], tmp_path: Path) -> None:
    stretch, patch = fit(write_tiff(tmp_path / "a.tif", np.stack([ramp(6, 6)] * count), photometric="MINISBLACK"))
    assert stretch.bands == used
    assert stretch.rgb(patch).shape == (6, 6, 3)


@given(st.lists(st.tuples(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30)), min_size=1, max_size=4))
def test_stretch_survives_json_exactly(limits: list[tuple[float, float]]) -> None:
    low, high = zip(*limits, strict=True)
    stretch = OpticalStretch(tuple(range(1, len(limits) + 1)), low, high)
    assert OpticalStretch.from_dict(json.loads(json.dumps(stretch.to_dict()))) == stretch


def test_fitted_stretch_survives_json_exactly(tmp_path: Path) -> None:
    stretch, _ = fit(write_tiff(tmp_path / "a.tif", speckled_city()))
    assert OpticalStretch.from_dict(json.loads(json.dumps(stretch.to_dict()))) == stretch


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"bands": [1], "low": [0], "high": []},
        {"bands": 1, "low": 0, "high": 1},
        {"bands": [], "low": [], "high": []},
    ],
)
def test_damaged_stretch_is_an_index_error(values: dict[str, Any]) -> None:
    with pytest.raises(IndexFormatError, match="stretch"):
        OpticalStretch.from_dict(values)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_constant_and_one_pixel_images_are_flat(dtype: str, tmp_path: Path) -> None:
    for shape in [(5, 5), (1, 1)]:
        path = write_tiff(tmp_path / "a.tif", np.full(shape, 7, dtype))
        stretch, patch = fit(path)
        assert (stretch.grey(patch) == 0.5).all()
        radiometry, patch = detect(path)
        np.testing.assert_allclose(radiometry.log_amplitude(patch), np.log(1.1), atol=1e-6)


def test_images_without_data_are_input_errors(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((5, 5), "uint8"), nodata=0)
    for function in (fit, detect):
        with pytest.raises(InputError, match="no valid pixel"):
            function(path)
    dark = write_tiff(tmp_path / "b.tif", np.stack([ramp(5, 5), np.zeros((5, 5), "uint16")]))
    with pytest.raises(InputError, match=r"no backscatter in band\(s\) \[2\]"):
        detect(dark)
    with pytest.raises(InputError, match="complex"):
        fit(write_tiff(tmp_path / "c.tif", ramp(5, 5, "complex64")))


def test_a_patch_of_other_bands_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.stack([ramp(5, 5)] * 2))
    stretch, _ = fit(path)
    radiometry, _ = detect(path, bands=[1])
    one, two = (Patch(np.ones((count, 2, 2)), np.ones((2, 2), bool)) for count in (1, 2))
    with pytest.raises(UsageError, match="bands"):
        stretch.grey(one)
    with pytest.raises(UsageError, match="bands"):
        radiometry.log_amplitude(two)


def looked(amplitude: NDArray[Any]) -> NDArray[Any]:
    """Amplitude of the mean power of 3 × 3 px by plain shifts, mirrored about the edge pixels."""
    power = np.pad(np.square(amplitude.astype(float)), 1, mode="reflect")
    height, width = amplitude.shape
    shifted = [power[row : row + height, col : col + width] for row in range(3) for col in range(3)]
    return np.sqrt(np.mean(shifted, axis=0))


def as_stored(power: NDArray[np.float32], kind: str) -> NDArray[Any]:
    phase = np.exp(2j * np.pi * np.random.default_rng(5).random(power.shape))
    stored: dict[str, NDArray[Any]] = {
        "power": power,
        "amplitude": np.sqrt(power),
        "db": 10 * np.log10(power),
        "complex": (np.sqrt(power) * phase).astype("complex64"),
        "integer": np.rint(np.sqrt(power) * 500).astype("uint16"),
    }
    return stored[kind]


@pytest.mark.parametrize("kind", ["power", "amplitude", "db", "complex", "integer"])
def test_every_kind_is_recognised_and_gives_the_same_image(kind: str, tmp_path: Path) -> None:
    power = speckled_city()
    radiometry, patch = detect(write_tiff(tmp_path / "a.tif", as_stored(power, kind)))
    assert radiometry.kind == {"integer": "amplitude"}.get(kind, kind)
    assert radiometry.kind in radiometry.message
    assert "kind=" in radiometry.message
    amplitude = np.sqrt(power)
    expected = np.log(looked(amplitude) / np.median(amplitude) + 0.1)
    tolerance = 0.1 if kind == "integer" else 1e-4
    np.testing.assert_allclose(radiometry.log_amplitude(patch), expected, atol=tolerance)


@pytest.mark.parametrize("kind", ["power", "amplitude", "complex"])
@pytest.mark.parametrize("gain", [1e-6, 37.0, 1e8])
def test_gain_changes_nothing(kind: str, gain: float, tmp_path: Path) -> None:
    stored = as_stored(speckled_city(), kind)
    first, patch = detect(write_tiff(tmp_path / "a.tif", stored))
    second, louder = detect(write_tiff(tmp_path / "b.tif", (stored * gain).astype(stored.dtype)))
    assert first.kind == second.kind == kind
    np.testing.assert_allclose(second.log_amplitude(louder), first.log_amplitude(patch), atol=1e-4)


def test_an_offset_in_db_changes_nothing(tmp_path: Path) -> None:
    stored = as_stored(speckled_city(), "db")
    first, patch = detect(write_tiff(tmp_path / "a.tif", stored))
    second, louder = detect(write_tiff(tmp_path / "b.tif", stored - 20))
    np.testing.assert_allclose(second.log_amplitude(louder), first.log_amplitude(patch), atol=1e-4)


def test_many_looks_of_a_flat_scene_are_taken_for_amplitude_and_only_the_contrast_changes(tmp_path: Path) -> None:
    flat = np.random.default_rng(2).gamma(8, 1 / 8, (64, 64)).astype("float32")
    path = write_tiff(tmp_path / "a.tif", flat)
    guessed, patch = detect(path)
    told, _ = detect(path, kind="power")
    assert (guessed.kind, told.kind) == ("amplitude", "power")
    wrong, right = guessed.log_amplitude(patch, floor=0), told.log_amplitude(patch, floor=0)
    assert np.corrcoef(wrong.ravel(), right.ravel())[0, 1] > 0.97
    assert wrong.std() == pytest.approx(2 * right.std(), rel=0.1)


def test_hundredths_of_db_are_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", (as_stored(speckled_city(), "db") * 100).astype("int16"))
    with pytest.raises(InputError, match=r"a\.tif: -\d+ dB are not possible.*hundredths"):
        detect(path)


def test_polarisations_are_averaged_as_logarithms(tmp_path: Path) -> None:
    stored = (
        np.sqrt(np.stack([speckled_city(seed=1), speckled_city(seed=2)])) * np.array([1, 50], "float32")[:, None, None]
    )
    radiometry, patch = detect(write_tiff(tmp_path / "a.tif", stored))
    logs = [np.log(looked(band) / np.median(band) + 0.1) for band in stored]
    np.testing.assert_allclose(radiometry.log_amplitude(patch), np.mean(logs, axis=0), atol=1e-5)


def test_invalid_pixels_get_the_median_and_do_not_count(tmp_path: Path) -> None:
    stored = np.sqrt(speckled_city())
    stored[:20] = np.nan
    stored[20:30] = 1e6
    mask = np.ones(stored.shape, bool)
    mask[20:30] = False
    radiometry, patch = detect(write_tiff(tmp_path / "a.tif", stored, mask=mask))
    logs = radiometry.log_amplitude(patch)
    assert radiometry.reference[0] == pytest.approx(np.median(stored[30:]))
    np.testing.assert_allclose(logs[:30], np.log(1.1), atol=1e-6)
    assert np.isfinite(logs).all()
    picture = radiometry.picture(patch)
    assert picture.dtype == np.uint8
    assert (picture[:30] == 0).all()
    assert picture[30:].max() == 255


def test_zeros_do_not_move_the_reference(tmp_path: Path) -> None:
    stored = np.sqrt(speckled_city())
    stored[:60] = 0
    radiometry, patch = detect(write_tiff(tmp_path / "a.tif", stored))
    assert radiometry.reference[0] == pytest.approx(np.median(stored[60:]))
    np.testing.assert_allclose(radiometry.log_amplitude(patch)[:59], np.log(0.1), atol=1e-6)


@pytest.mark.parametrize(("kind", "dtype"), [("phase", "float32"), ("complex", "float32"), ("power", "complex64")])
def test_impossible_kinds_are_usage_errors(kind: str, dtype: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        detect(write_tiff(tmp_path / "a.tif", ramp(5, 5, dtype)), kind=kind)


def test_multilooking_is_the_mean_power_of_the_valid_neighbours() -> None:
    rng = np.random.default_rng(3)
    amplitude = np.sqrt(rng.gamma(1.0, 1.0, (24, 20)))
    valid = rng.random((24, 20)) > 0.3
    looks = multilook(amplitude, valid)
    for row, col in [(10, 10), (5, 3), (20, 17)]:
        near = np.s_[row - 1 : row + 2, col - 1 : col + 2]
        power = (amplitude[near] ** 2)[valid[near]]
        assert looks[row, col] == pytest.approx(np.sqrt(power.mean()), rel=1e-5)


def test_multilooking_calms_speckle_by_its_looks_and_leaves_a_constant_alone() -> None:
    power = np.random.default_rng(4).gamma(1.0, 1.0, (200, 200))
    calm = multilook(np.sqrt(power), np.ones((200, 200), dtype=bool)) ** 2
    assert calm.var() == pytest.approx(1 / 9, rel=0.1)
    np.testing.assert_allclose(multilook(np.full((9, 9), 3.0), np.ones((9, 9), dtype=bool)), 3.0, rtol=1e-6)


def test_nothing_known_around_is_zero() -> None:
    assert not multilook(np.ones((5, 5)), np.zeros((5, 5), dtype=bool)).any()


def test_wide_zeros_are_no_data_and_single_ones_are(tmp_path: Path) -> None:
    data = np.full((60, 80), 7, "uint8")
    data[:, :12] = 0
    data[30, 40] = 0
    radiometry, patch = detect(write_tiff(tmp_path / "a.tif", data))
    expected = np.ones((60, 80), dtype=bool)
    expected[:, :12] = False
    np.testing.assert_array_equal(radiometry.lit(patch), expected)


def test_a_patch_becomes_its_own_reference(tmp_path: Path) -> None:
    scene = speckled_city()
    radiometry, patch = detect(write_tiff(tmp_path / "a.tif", scene), kind="power")
    part = Patch(patch.data[:, :40, :40], patch.valid[:40, :40])
    own, _ = detect(write_tiff(tmp_path / "b.tif", scene[:40, :40]), kind="power")
    assert radiometry.relative_to(part).reference == pytest.approx(own.reference)


@pytest.mark.parametrize("kind", ["amplitude", "power", "db"])
@pytest.mark.parametrize("looks", [1.0, 4.0])
def test_speckle_has_the_looks_that_were_asked_for(kind: str, looks: float, tmp_path: Path) -> None:
    values = {"amplitude": 3.0, "power": 9.0, "db": 10 * np.log10(9.0)}[kind]
    path = write_tiff(tmp_path / "a.tif", np.full((200, 200), values, "float32"))
    with open_raster(path) as raster:
        radiometry, patch = SarRadiometry.detect(raster, kind), raster.read(0, 0, 200, 200)
    shown = radiometry.speckled(patch, looks, np.random.default_rng(0)).data[0].astype(float)
    power = {"amplitude": shown**2, "power": shown, "db": 10 ** (shown / 10)}[kind]
    assert power.mean() == pytest.approx(9, rel=0.03)
    assert power.mean() ** 2 / power.var() == pytest.approx(looks, rel=0.05)  # the equivalent number of looks
