from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geomatch.errors import UsageError
from geomatch.simulation import City, Flight, Material, draw_frame, make_city
from geomatch.simulation.materials import SURFACES, sigma0_table
from geomatch.simulation.noise import fractal_noise


@pytest.fixture(scope="module")
def city() -> City:
    return make_city(900, seed=5)


def test_same_seed_same_city(city: City) -> None:
    again = make_city(900, seed=5)
    assert np.array_equal(city.height_m, again.height_m)
    assert np.array_equal(city.material, again.material)
    assert np.array_equal(city.variant, again.variant)
    assert city.transform == again.transform


def test_other_seed_other_city(city: City) -> None:
    other = make_city(900, seed=6)
    assert (city.material == other.material).mean() < 0.6
    assert city.transform != other.transform


def test_city_has_streets_houses_and_green_and_one_grid(city: City) -> None:
    shares = np.bincount(city.material.ravel(), minlength=len(Material)) / city.material.size
    roofs = shares[[Material.ROOF_TILE, Material.ROOF_FLAT, Material.ROOF_METAL]].sum()
    assert shares[Material.ASPHALT] > 0.05
    assert roofs > 0.03
    assert shares[Material.TREES] > 0.02
    assert city.height_m.dtype == np.float32
    assert 5.0 < city.height_m.max() < 120.0
    assert city.height_m.min() == 0.0
    assert (city.height_m[city.material == Material.WATER] == 0.0).all()


def test_buildings_follow_several_directions(city: City) -> None:
    large = make_city(1400, seed=5)
    roofs = np.isin(large.material, (Material.ROOF_TILE, Material.ROOF_FLAT)).astype(np.float32)
    drow, dcol = np.gradient(gaussian_filter(roofs, 2.0))
    angle = np.arctan2(drow, dcol)[np.hypot(drow, dcol) > 0.08] % (np.pi / 2)
    counts = np.histogram(angle, 9, (0, np.pi / 2))[0]
    assert (counts > 0.02 * counts.sum()).sum() >= 3


def test_every_material_has_a_surface() -> None:
    assert set(SURFACES) == set(Material)
    assert sigma0_table(0).shape == (len(Material), 256)


def test_noise_has_zero_mean_and_unit_variance() -> None:
    field = fractal_noise(np.random.default_rng(0), (700, 500), 9.0)
    assert field.shape == (700, 500)
    assert field.mean() == pytest.approx(0.0, abs=0.1)
    assert field.std() == pytest.approx(1.0, abs=0.15)


def test_strips_lie_inside_the_map(city: City) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        frame = draw_frame(city, Flight(120, 400), rng)
        corners = np.array([frame.transform @ corner for corner in ((0, 0), (120, 0), (0, 400), (120, 400))])
        inside = np.array([~city.transform @ corner for corner in corners.tolist()])
        assert (inside >= -1e-6).all()
        assert (inside <= 900 + 1e-6).all()


@pytest.mark.parametrize("heading_deg", [None, 45.0])
def test_strip_longer_than_the_map_is_a_usage_error(city: City, heading_deg: float | None) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        draw_frame(city, Flight(300, 2000, heading_deg=heading_deg), np.random.default_rng(0))


def test_values_out_of_range_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="size_px"):
        make_city(50)
    with pytest.raises(UsageError, match="gsd_m"):
        make_city(512, gsd_m=30.0)
    with pytest.raises(UsageError, match="too small"):
        Flight(width_px=2)
    with pytest.raises(UsageError, match="positive"):
        Flight(gsd_m=-0.5)
