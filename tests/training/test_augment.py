"""Examples against pictures whose places are known: what is the same in both images lies where it is said to."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from geomatch.pairs import FolderPairs, Pair
from geomatch.planes import CELL_PX, PLANE_PX
from geomatch.training import augment
from geomatch.training.augment import AugmentOptions, Example, _blanked, _convolved, _pseudo_sar, make_example

SMALL = AugmentOptions(optical_px=264, sar_px=208, dropped=0)
IMAGE = 3  # the plane behind the three of orientation


@dataclass
class Still:
    """One picture that optical and SAR share; crops are cut from its middle.

    Attributes:
        picture: [H x W] in [0, 1].
        bands, polarisations: how often it is repeated.
    """

    picture: NDArray[np.float32]
    bands: int = 3
    polarisations: int = 1

    def draw(self, rng: np.random.Generator, side_px: int) -> Pair:
        del rng
        side = min(side_px, *self.picture.shape)
        row, col = ((size - side) // 2 for size in self.picture.shape)
        cut = self.picture[row : row + side, col : col + side]
        bands, polarisations = (np.repeat(cut[None], count, axis=0) for count in (self.bands, self.polarisations))
        return Pair(bands, polarisations, np.ones(cut.shape, bool))


def noise(side_px: int = 700, seed: int = 0) -> NDArray[np.float32]:
    """A smooth picture in [0, 1]."""
    rng = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(rng.standard_normal((side_px, side_px)).astype(np.float32), (0, 0), 9)
    return np.clip(0.5 + 0.2 * smooth / smooth.std(), 0, 1).astype(np.float32)


@pytest.fixture
def same_light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both images keep the pixels that they are warped from."""
    monkeypatch.setattr(augment, "_optical_photometry", lambda bands, valid, rng, o: bands)
    monkeypatch.setattr(augment, "_sar_photometry", lambda sar, valid, rng, o: sar[0])


@dataclass(frozen=True)
class Places:
    """Where in the source the cells of an example's planes are from: [... x 2] column and row, pixels."""

    optical: NDArray[np.float64]
    windows: list[tuple[NDArray[np.float64], NDArray[np.float32]]]  # and where the first cell lies in the optical crop


def places_of(seed: int, options: AugmentOptions, side_px: int = 700) -> Places:
    """Read off two examples of the same geometry, whose pixels tell the column and the row."""
    ramp = np.repeat(((np.arange(side_px) + 0.5) / side_px).astype(np.float32)[None], side_px, axis=0)
    by_col, by_row = (
        make_example(Still(np.ascontiguousarray(p)), np.random.default_rng(seed), options) for p in (ramp, ramp.T)
    )
    np.testing.assert_array_equal(by_col.large_at, by_row.large_at)

    def told(name: str, spread: float, middle: float) -> NDArray[np.float64]:
        planes = [getattr(example, name)[..., IMAGE, :, :].astype(float) for example in (by_col, by_row)]
        return (np.stack(planes, axis=-1) * spread + middle) * side_px  # standardised as their modality is

    return Places(
        told("optical", 0.25, 0.4),
        [
            *zip(told("large", 0.5, 0.1), by_col.large_at, strict=True),
            *zip(told("small", 0.5, 0.1), by_col.small_at, strict=True),
        ],
    )


def seen_at(places: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a position among the features, corner convention, shows of the source: between the planes' cells."""
    x, y = cell * CELL_PX / PLANE_PX - 0.5
    col, row = int(x), int(y)
    right, down = x - col, y - row
    top, bottom = ((1 - right) * line[col] + right * line[col + 1] for line in places[row : row + 2])
    return np.asarray((1 - down) * top + down * bottom)


@pytest.mark.usefixtures("same_light")
@pytest.mark.parametrize("disturbed", [0.0, 1.0])
def test_middle_of_a_window_shows_what_is_seen_where_it_is_said_to_lie(disturbed: float) -> None:
    options = replace(AugmentOptions(), disturbed=disturbed, rescaled=0.6, dropped=0)
    turns, ratios = [], []
    for seed in range(40):
        places = places_of(seed, options, 1100)
        step = np.linalg.norm(places.optical[20, 21] - places.optical[20, 20])  # of a cell of the planes, source px
        for window, at in places.windows:
            half = len(window) // 2
            middle = window[half - 1 : half + 1, half - 1 : half + 1].mean(axis=(0, 1))
            there = seen_at(places.optical, at.astype(float) + half * PLANE_PX / CELL_PX)
            assert np.linalg.norm(middle - there) / step * PLANE_PX < 0.5  # pixels of the crop
            jacobian = np.linalg.solve(edges(places.optical), edges(window))  # of the window -> of the crop
            turns.append(np.degrees(np.arctan2(jacobian[1, 0], jacobian[0, 0])))
            ratios.append(np.sqrt(np.linalg.det(jacobian)))
    if not disturbed:
        np.testing.assert_allclose(turns, 0, atol=0.1)
        np.testing.assert_allclose(ratios, 1, atol=0.003)
        return
    assert min(turns) < -6
    assert max(turns) > 6
    assert np.abs(turns).max() < options.turn_deg + 0.1
    assert min(ratios) < 0.92
    assert max(ratios) > 1.08
    assert np.abs(np.log(ratios)).max() < options.scale + 0.003


def edges(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """[2 x 2] how the source's column and row change along an image's rows and columns."""
    middle = places[2:-2, 2:-2]
    count = len(middle) - 1
    return (
        np.stack([(middle[:, -1] - middle[:, 0]).mean(axis=0), (middle[-1] - middle[0]).mean(axis=0)], axis=1) / count
    )


@pytest.mark.usefixtures("same_light")
def test_landmark_is_where_it_is_said_to_be() -> None:
    errors = []
    for seed in range(60):
        picture = np.zeros((900, 900), np.float32)
        col, row = 450 + np.random.default_rng(1000 + seed).integers(-60, 60, 2)
        picture[row - 10 : row + 10, col - 10 : col + 10] = 1
        example = make_example(Still(picture), np.random.default_rng(seed), replace(SMALL, rescaled=0.7, disturbed=0.0))
        theirs = centroid(example.optical[IMAGE])
        windows = [
            *zip(example.large, example.large_at, strict=True),
            *zip(example.small, example.small_at, strict=True),
        ]
        for window, at in windows:
            ours = centroid(window[IMAGE])
            if ours is not None and theirs is not None:
                errors.append(np.abs(ours + at - theirs).max())
    assert len(errors) > 60
    assert max(errors) < 0.2  # cells; the interpolation overshoots at the edges of a square


def centroid(plane: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Where the bright square is, in cells; None where it is not seen whole."""
    weight = plane.astype(float) - plane.min()
    if weight.max() < 1 or max(weight[0].max(), weight[-1].max(), weight[:, 0].max(), weight[:, -1].max()) > 1e-3:
        return None
    rows, cols = np.indices(plane.shape) + 0.5
    at = np.array([(cols * weight).sum(), (rows * weight).sum()]) / weight.sum()
    return np.asarray(at * PLANE_PX / CELL_PX)


@pytest.mark.usefixtures("same_light")
@pytest.mark.parametrize("plane", [0, 1, 2, IMAGE])
def test_planes_of_the_same_picture_agree(plane: int) -> None:
    for seed in range(4):
        example = make_example(Still(noise()), np.random.default_rng(seed), replace(SMALL, disturbed=0.0))
        for window, at in zip(example.large, example.large_at, strict=True):
            size = len(window[plane])
            x, y = at.astype(float) * CELL_PX / PLANE_PX
            matrix = np.array([[1, 0, x], [0, 1, y]])  # the same in both conventions
            cut = cv2.warpAffine(
                example.optical[plane], matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            )
            inner = np.s_[10:-10, 10:-10]  # the window's border is not known to it
            assert np.corrcoef(cut[inner].ravel(), window[plane][inner].ravel())[0, 1] > 0.95


@pytest.mark.usefixtures("same_light")
def test_examples_are_turned_and_flipped_in_all_ways() -> None:
    picture = np.zeros((400, 400), np.float32)
    picture[140:160, 100:300] = 1  # a bar off the middle
    picture[140:260, 100:120] = 1  # and a shorter one at its end: no two of the eight are alike
    options = replace(SMALL, rescaled=0.0, disturbed=0.0)
    ways = set()
    for seed in range(60):
        plane = make_example(Still(picture), np.random.default_rng(seed), options).optical[IMAGE]
        weight = plane - plane.min()
        half = weight.shape[0] // 2
        parts = (weight[:half], weight[half:], weight[:, :half], weight[:, half:])
        ways.add(tuple(np.argsort([part.sum() for part in parts]).tolist()))
    assert len(ways) == 8


def test_share_and_range_of_scales() -> None:
    asked = []

    @dataclass
    class Asked(Still):
        def draw(self, rng: np.random.Generator, side_px: int) -> Pair:
            asked.append(side_px)
            return super().draw(rng, side_px)

    options = AugmentOptions(optical_px=64, sar_px=48, large=0, small=0, rescaled=0.5, max_scale=3.0, finer=1.5)
    for seed in range(150):
        make_example(Asked(noise(300)), np.random.default_rng(seed), options)
    aslant = np.cos(np.radians(15)) + np.sin(np.radians(15))
    assert 64 / 1.5 <= min(asked) < 0.8 * 64
    assert 2.5 * 64 < max(asked) <= 3 * 64 * aslant + 3
    plain = [side for side in asked if 64 <= side <= 64 * aslant + 3]
    assert 0.5 < len(plain) / len(asked) < 0.8


@pytest.mark.parametrize("bands", [1, 2, 3])
@pytest.mark.parametrize("polarisations", [1, 2])
def test_any_light_gives_finite_planes(bands: int, polarisations: int) -> None:
    still = Still(noise(400), bands, polarisations)
    for seed in range(12):
        options = replace(SMALL, mixed=0.8, inverted=0.5, convolved=0.5, dropped=0.5, pseudo=0.5)
        example = make_example(still, np.random.default_rng(seed), options)
        assert example.optical.shape == (6, 66, 66)
        for array in (getattr(example, field.name) for field in fields(example)):
            assert array.dtype == np.float32
            assert np.isfinite(array).all()


def test_same_seed_gives_the_same_example() -> None:
    still = Still(noise(500))
    one, same, other = (make_example(still, np.random.default_rng(seed), SMALL) for seed in (5, 5, 6))
    for field in fields(Example):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(same, field.name))
        assert not np.array_equal(getattr(one, field.name), getattr(other, field.name))


def test_small_patch_of_a_folder_fills_the_example(tmp_path: Path) -> None:
    picture = np.rint(noise(256, seed=2) * 250 + 2).astype(np.uint8)
    for kind in ("optical", "sar"):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / "p.png"), picture)
    pairs = FolderPairs.of(tmp_path / "optical", tmp_path / "sar")
    for seed in range(6):
        example = make_example(pairs, np.random.default_rng(seed), AugmentOptions())
        assert example.optical.shape == (6, 98, 98)
        assert (example.large.shape, example.large_at.shape) == ((2, 4, 50, 50), (2, 2))
        assert (example.small.shape, example.small_at.shape) == ((4, 4, 26, 26), (4, 2))


def test_random_filter_is_a_convolution_of_every_band() -> None:
    bands = np.stack([noise(64, seed) for seed in range(3)])
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, 64, dtype=np.float32), (3, 64, 64))
    for seed in range(20):
        filtered = _convolved(bands, np.random.default_rng(seed))
        assert filtered.shape == bands.shape
        assert filtered.dtype == np.float32
        assert (filtered.min(), filtered.max()) == (0, 1)
        inner = _convolved(ramp, np.random.default_rng(seed))[:, 4:-4, 8:-8]
        assert np.ptp(inner, axis=1).max() < 1e-3  # what varies along one axis varies along that axis alone
        assert np.ptp(np.diff(inner, axis=2)) < 1e-3  # and as evenly as before


def test_blanked_rectangles_are_some_but_not_most() -> None:
    shares = [_blanked(np.ones((96, 96), bool), np.random.default_rng(seed)).mean() for seed in range(50)]
    assert min(shares) > 1 - 3 / 9
    assert np.mean(shares) < 0.98


def test_pseudo_sar_has_the_edges_of_its_picture_and_not_its_tones() -> None:
    picture = np.zeros((128, 128), np.float32)
    picture[:, 64:] = 0.8
    tones, edge = [], []
    for seed in range(200):
        log_amplitude = np.log(_pseudo_sar(picture, np.random.default_rng(seed)) + 1e-3)
        left, right = (float(np.median(log_amplitude[:, part])) for part in (np.s_[:60], np.s_[68:]))
        tones.append(right - left)
        edge.append(float(np.median(log_amplitude[:, 63:65])) - (left + right) / 2)
    assert 0.3 < np.mean(np.array(tones) > 0) < 0.7
    assert np.mean(edge) > 1


@pytest.mark.parametrize(("large", "small"), [(0, 3), (1, 0)])
def test_one_size_of_window_may_be_left_out(large: int, small: int) -> None:
    example = make_example(Still(noise()), np.random.default_rng(0), replace(SMALL, large=large, small=small))
    assert (example.large.shape, example.large_at.shape) == ((large, 4, 50, 50), (large, 2))
    assert (example.small.shape, example.small_at.shape) == ((small, 4, 26, 26), (small, 2))


@pytest.mark.usefixtures("same_light")
def test_what_is_not_known_is_zero() -> None:
    class Holed(Still):
        def draw(self, rng: np.random.Generator, side_px: int) -> Pair:
            pair = super().draw(rng, side_px)
            valid = pair.valid.copy()
            valid[: valid.shape[0] // 2] = False
            return replace(pair, valid=valid)

    example = make_example(Holed(noise()), np.random.default_rng(0), replace(SMALL, rescaled=0.0))
    empty = (example.optical == 0).all(axis=0)
    assert 0.4 < empty.mean() < 0.6
