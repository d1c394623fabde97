"""The pixels bring a place back from anywhere within reach, and say when it is beyond."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from towns import Town, moved, pixel_centres, radar_at, write_town

from geomatch.images import OpticalStretch
from geomatch.map_pixels import MapPixels
from geomatch.nets.shapes import Modality
from geomatch.pixel_features import STRUCTURAL, PixelFeatures, StructuralPixels
from geomatch.raster import open_raster
from geomatch.refine import SEARCH_PX, Refiner, _aside
from geomatch.strips import Strip
from geomatch.structure import Dense

SIZE = 200
WINDOWS = np.array([[0, 0], [100, 60]])


@pytest.fixture
def pixels(town: Town) -> Iterator[MapPixels]:
    with open_raster(town.path) as raster:
        yield MapPixels(raster, (0, 0), OpticalStretch.fit(raster))


def strip_at(town: Town, corner: tuple[float, float], width: int = 300, height: int = 260) -> Strip:
    places = moved(Affine.translation(*corner), pixel_centres(width, height))
    image = np.log(radar_at(town.bands, places) + 0.1).astype("float32")
    return Strip(image, np.ones((height, width), bool), Affine.identity(), (width, height))


@pytest.mark.parametrize("truth", [(200.0, 210.0), (200.5, 210.0), (231.3, 187.8)])
@pytest.mark.parametrize("off", [(0, 0), (5.3, -7.1), (-13, 13)])
def test_place_is_found_to_a_fraction_of_a_pixel(
    truth: tuple[float, float], off: tuple[float, float], town: Town, pixels: MapPixels
) -> None:
    found = Refiner(strip_at(town, truth), WINDOWS, SIZE, pixels).at(np.add(truth, off))
    assert found.fixed
    assert found.corner_px == pytest.approx(truth, abs=0.5)
    assert found.peak > 0.2
    assert found.cells > SIZE**2 / 4


@pytest.mark.parametrize("off", [(3 * SEARCH_PX, 0), (0, -200)])
def test_place_beyond_reach_is_never_fixed_on_the_truth(
    off: tuple[float, float], town: Town, pixels: MapPixels
) -> None:
    refiner = Refiner(strip_at(town, (300, 300)), WINDOWS, SIZE, pixels)
    there, elsewhere = refiner.at(np.array([300.0, 300.0])), refiner.at(np.add((300.0, 300.0), off))
    assert elsewhere.peak < there.peak / 2
    assert there.certain
    assert not elsewhere.certain
    if not elsewhere.fixed:
        assert elsewhere.corner_px.tolist() == [300 + off[0], 300 + off[1]]


class Counted:
    """Pixels of a map that remember what was read."""

    def __init__(self, pixels: MapPixels, features: Sequence[PixelFeatures] = STRUCTURAL) -> None:
        self._pixels, self.features = pixels, features
        self.read: list[tuple[int, int, int, int]] = []

    def grey(self, left: int, top: int, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        self.read.append((left, top, width, height))
        return self._pixels.grey(left, top, width, height)


def test_windows_are_read_together_where_that_is_less(town: Town, pixels: MapPixels) -> None:
    strip, place = strip_at(town, (200, 210)), np.array([200, 210])
    for windows, corners, reads in (
        ([[0, 0], [40, 0], [0, 40]], place, [(184, 194, 172, 172)]),  # of 100 px, that overlap
        ([[0, 0], [200, 160]], place, [(184, 194, 132, 132), (384, 354, 132, 132)]),  # far apart
        ([[0, 0], [40, 0]], [place, place + 1], [(184, 194, 132, 132), (225, 195, 132, 132)]),  # each elsewhere
    ):
        counted = Counted(pixels)
        Refiner(strip, np.array(windows), 100, counted).surfaces(np.array(corners))
        assert counted.read == reads


def test_windows_read_together_say_what_each_says_by_itself(town: Town, pixels: MapPixels) -> None:
    """But for the smoothing of contrast, which looks beyond a window where it can."""
    strip, place = strip_at(town, (200, 210)), np.array([200, 210])
    windows = np.array([[0, 0], [60, 0], [61, 33]])
    refiner = Refiner(strip, windows, 120, pixels)
    together = refiner.surfaces(place)
    for window, middle, surface in zip(windows // 2 * 2, refiner.middles_px, together, strict=True):
        assert middle.tolist() == (window + 60).tolist()
        alone = Refiner(strip, window[None], 120, pixels).surfaces(place)[0]
        assert np.unravel_index(alone.argmax(), alone.shape) == np.unravel_index(surface.argmax(), surface.shape)
        np.testing.assert_allclose(surface, alone, atol=0.1)


def test_several_features_are_averaged(town: Town, pixels: MapPixels) -> None:
    class Nothing(StructuralPixels):
        """Features that never agree."""

        chance_peak = 1.0

        def __call__(self, image: NDArray[np.float32], valid: NDArray[np.bool_], modality: Modality) -> Dense:
            dense = super().__call__(image, valid, modality)
            return Dense(dense.values if modality == "sar" else np.zeros_like(dense.values), dense.valid)

    strip, place = strip_at(town, (200, 210)), np.array([200.0, 210.0])
    one = Refiner(strip, WINDOWS, SIZE, pixels)
    both = Refiner(strip, WINDOWS, SIZE, Counted(pixels, (*STRUCTURAL, Nothing())))
    assert both.at(place).peak == pytest.approx(one.at(place).peak / 2)
    assert both.chance == pytest.approx(one.chance * (4.2 + 1.0) / 2 / 4.2)


def test_agreement_everywhere_makes_no_place_stand_out(town: Town, pixels: MapPixels) -> None:
    class Lifted(Refiner):
        """As of features that agree so much at any place."""

        everywhere = 0.2

        def surfaces(self, corner_px: NDArray[np.int64]) -> NDArray[np.float64]:
            return super().surfaces(corner_px) + self.everywhere

    refiner, place = Lifted(strip_at(town, (200, 210)), WINDOWS, SIZE, pixels), np.array([203.0, 208.0])
    some = refiner.at(place)
    refiner.everywhere = 0.4
    more = refiner.at(place)
    assert more.peak == pytest.approx(some.peak + 0.2)
    assert (more.height, more.standing) == pytest.approx((some.height, some.standing))
    assert more.corner_px.tolist() == some.corner_px.tolist()


def test_aside_are_the_entries_away_from_the_peak() -> None:
    surface = np.zeros((9, 9))
    surface[2, 3], surface[2, 6], surface[6, 3], surface[8, 0] = 0.9, 0.8, 0.3, 0.2
    aside = _aside(surface, 2, 3)
    assert aside.max() == 0.3
    assert len(aside) == sum(max(abs(row - 2), abs(col - 3)) >= 4 for row in range(9) for col in range(9))


def test_shore_stands_out_less_than_a_town(
    town: Town, pixels: MapPixels, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A straight shore fits anywhere along itself, and as well; a town fits at its place alone."""
    place = np.array([300.0, 210.0])
    there = Refiner(strip_at(town, (300, 210)), WINDOWS, SIZE, pixels).at(place)
    land = np.where(np.arange(town.bands.shape[1]) < 400, 40, 160).astype(np.uint8)
    shore = np.ascontiguousarray(np.broadcast_to(land[None, :, None], town.bands.shape))
    bare = write_town(tmp_path_factory.mktemp("shore") / "map.tif", shore)
    with open_raster(bare.path) as raster:
        sea = MapPixels(raster, (0, 0), OpticalStretch.fit(raster))
        along = Refiner(strip_at(bare, (210, 300)), WINDOWS, SIZE, sea).at(place[::-1])
    assert along.peak > 5 * along.chance
    assert along.standing < 4 < there.standing / 2


def test_wrong_place_over_the_edge_stands_out_no_more_than_one_inside(town: Town, pixels: MapPixels) -> None:
    refiner = Refiner(strip_at(town, (300, 300), 200, 200), WINDOWS[:1], SIZE, pixels)
    rows = range(40, 560, 40)
    inside, over = (
        np.mean([refiner.at(np.array([col, float(row)])).standing for row in rows]) for col in (60.0, -76.0)
    )
    assert over < 1.3 * inside


@pytest.mark.parametrize("place", [(-5000.0, 40.0), (40.0, 90_000.0)])
def test_place_off_the_map_is_not_fixed(place: tuple[float, float], town: Town, pixels: MapPixels) -> None:
    found = Refiner(strip_at(town, (300, 300)), WINDOWS, SIZE, pixels).at(np.array(place))
    assert not found.fixed
    assert found.peak == 0
    assert found.corner_px.tolist() == list(place)


def test_origin_of_the_indexed_window_counts(town: Town) -> None:
    with open_raster(town.path) as raster:
        pixels = MapPixels(raster, (101, 83), OpticalStretch.fit(raster))
        found = Refiner(strip_at(town, (300, 300)), WINDOWS, SIZE, pixels).at(np.array([201.0, 215.0]))
    assert found.corner_px == pytest.approx([199, 217], abs=0.5)


def test_flat_strip_has_no_peak(town: Town, pixels: MapPixels) -> None:
    flat: NDArray[np.float32] = np.zeros((260, 300), np.float32)
    strip = Strip(flat, np.ones(flat.shape, bool), Affine.identity(), (300, 260))
    found = Refiner(strip, WINDOWS, SIZE, pixels).at(np.array([200.0, 200.0]))
    assert (found.fixed, found.peak, found.cells) == (False, 0, 0)


def test_nodata_on_the_map_is_stepped_over(town: Town, tmp_path_factory: pytest.TempPathFactory) -> None:
    bands = np.maximum(town.bands, 1)
    bands[:, 300:360, 200:500] = 0
    holed = write_town(tmp_path_factory.mktemp("holed") / "map.tif", bands, nodata=0)
    with open_raster(holed.path) as raster:
        pixels = MapPixels(raster, (0, 0), OpticalStretch.fit(raster))
        found = Refiner(strip_at(town, (250, 210)), WINDOWS, SIZE, pixels).at(np.array([244.0, 215.0]))
    assert found.fixed
    assert found.corner_px == pytest.approx([250, 210], abs=0.5)
