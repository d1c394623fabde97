from __future__ import annotations

import numpy as np
import pytest

from geomatch.errors import UsageError
from geomatch.simulation import Camera, render_optical
from geomatch.simulation.optical import sunlit

from .scenes import GSD_M, block


@pytest.mark.parametrize("elevation_deg", [30.0, 45.0, 60.0])
@pytest.mark.parametrize("azimuth_deg", [0.0, 90.0, 180.0, 270.0])
def test_shadow_points_from_the_sun_and_is_height_over_tangent_long(azimuth_deg: float, elevation_deg: float) -> None:
    city = block(20.0, slice(160, 240), slice(160, 240))
    lit = sunlit(city.height_m, GSD_M, Camera(azimuth_deg, elevation_deg))
    quarter_turns = round(azimuth_deg / 90.0)
    line = np.rot90(lit, quarter_turns)[:, 200]  # now the sun is north, and the shadow falls to the south of the block
    expected = 20.0 / np.tan(np.deg2rad(elevation_deg)) / GSD_M
    assert (line[:238] > 0.5).all()
    assert (line < 0.5).sum() == pytest.approx(expected, abs=2.0)
    assert np.flatnonzero(line < 0.5)[0] == pytest.approx(240, abs=2)


def test_orthophoto_is_darker_in_the_shadow_and_bluer() -> None:
    city = block(20.0, slice(160, 240), slice(160, 240))
    image = render_optical(city, Camera(180.0, 45.0)).astype(float)
    shadow, grass = image[130:155, 170:230].mean(axis=(0, 1)), image[20:80, 170:230].mean(axis=(0, 1))
    assert (shadow < 0.7 * grass).all()
    assert shadow[2] / shadow[0] > grass[2] / grass[0]


def test_roofs_stand_upright_on_their_footprint() -> None:
    city = block(20.0, slice(160, 240), slice(160, 240))
    image = render_optical(city, Camera(sun_elevation_deg=90.0, noise=0.0)).astype(float)
    step = np.abs(np.diff(image[165:235].mean(axis=(0, 2))))
    assert np.argmax(step[:200]) == 159
    assert np.argmax(step[200:]) + 200 == 239


def test_values_out_of_range_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="sun"):
        Camera(sun_elevation_deg=-3.0)
    with pytest.raises(UsageError, match="haze"):
        Camera(haze=2.0)
