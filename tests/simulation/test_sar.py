from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from geomatch.errors import UsageError
from geomatch.simulation import Frame, Look, Material, Radar, Scene, render_north_up, render_sar
from geomatch.simulation.materials import SURFACES
from geomatch.simulation.relief import Array, horizon, slopes
from geomatch.simulation.sar import speckled

from .scenes import EAST, GSD_M, NORTH, beacon, block, flat

quiet = partial(Radar, looks=np.inf, noise_db=-80.0)
CENTRE = (EAST + 100.0, NORTH - 100.0)


def profile(heading_deg: float, radar: Radar) -> Array:
    """A 40 m cube's image averaged along azimuth and divided by that of the same ground without it, near range left."""
    frame = Frame.centred(CENTRE, heading_deg, GSD_M, 400, 400)
    cities = block(20.0, slice(160, 240), slice(160, 240)), flat()
    images = [render_sar(Scene.of(city), frame, radar, np.random.default_rng(0)) for city in cities]
    built, bare = (image[185:215].mean(axis=0) for image in images)
    line = built / bare
    return np.asarray(line if radar.look is Look.RIGHT else line[::-1], np.float32)


@pytest.mark.parametrize("incidence_deg", [35.0, 45.0, 55.0])
@pytest.mark.parametrize("look", list(Look))
@pytest.mark.parametrize("heading_deg", [0.0, 90.0, 180.0])
def test_building_lies_over_towards_the_radar_and_casts_its_shadow_away(
    incidence_deg: float, look: Look, heading_deg: float
) -> None:
    tangent = np.tan(np.deg2rad(incidence_deg))
    line = profile(heading_deg, quiet(incidence_deg, look))
    layover_px, shadow_px = 20.0 / tangent / GSD_M, 20.0 * tangent / GSD_M
    assert np.argmax(line > 1.6) == pytest.approx(160 - layover_px, abs=2.5)
    dark = np.flatnonzero(line < 0.1)
    assert dark.max() + 1 == pytest.approx(240 + shadow_px, abs=2.0)
    assert dark.min() == pytest.approx(
        max(240 - layover_px, 160), abs=5.0
    )  # the roof is gone, the corner's lobes are not


@pytest.mark.parametrize("look", list(Look))
def test_double_bounce_stands_at_the_foot_of_the_wall(look: Look) -> None:
    line = profile(0.0, quiet(45.0, look))
    assert np.argmax(line) == pytest.approx(160, abs=1)
    assert line.max() > 10 * np.median(line[122:158])


def test_double_bounce_fades_as_the_wall_turns_from_the_look() -> None:
    scene = Scene.of(block(20.0, slice(160, 240), slice(160, 240)))
    peaks = []
    for heading in (0.0, 12.0, 30.0):
        frame = Frame.centred(CENTRE, heading, GSD_M, 240, 240)
        image = render_sar(scene, frame, quiet(45.0), np.random.default_rng(0))
        peaks.append(np.sort(image.ravel())[-100:].mean())
    assert peaks[0] > 2 * peaks[1] > 4 * peaks[2]


def test_flat_ground_has_the_sigma0_of_its_material_and_follows_the_cosine_law() -> None:
    scene = Scene.of(flat())
    frame = Frame.centred(CENTRE, 30.0, GSD_M, 120, 120)
    rng = np.random.default_rng(0)
    means = {angle: render_sar(scene, frame, quiet(angle), rng).mean() for angle in (30.0, 40.0, 60.0)}
    grass = SURFACES[Material.GRASS]
    assert 10 * np.log10(means[40.0]) == pytest.approx(grass.sigma0_db, abs=grass.spread_db + 0.5)
    expected = (np.cos(np.deg2rad(30.0)) / np.cos(np.deg2rad(60.0))) ** grass.cosine_power
    assert means[30.0] / means[60.0] == pytest.approx(expected, rel=1e-3)


def test_brightness_does_not_depend_on_the_ground_sample_distance() -> None:
    scene = Scene.of(flat())
    frames = [Frame.centred(CENTRE, 30.0, gsd, round(60 / gsd), round(60 / gsd)) for gsd in (0.3, 0.5, 0.75, 1.5)]
    means = [render_sar(scene, frame, quiet(), np.random.default_rng(0))[5:-5, 5:-5].mean() for frame in frames]
    assert means == pytest.approx([means[1]] * 4, rel=0.05)


@pytest.mark.parametrize("heading_deg", [0.0, 37.3, 141.0, 275.5])
@pytest.mark.parametrize("look", list(Look))
@pytest.mark.parametrize("gsd_m", [0.5, 0.8])
def test_beacon_appears_where_the_pose_puts_it(heading_deg: float, look: Look, gsd_m: float) -> None:
    city, place = beacon(172, 231)
    frame = Frame.centred((CENTRE[0] + 3.21, CENTRE[1] + 1.77), heading_deg, gsd_m, 120, 160)
    power = render_sar(Scene.of(city), frame, quiet(look=look), np.random.default_rng(0))
    peak = (power > 0.5 * power.max()) * power
    rows, cols = np.indices(power.shape) + 0.5
    found = np.array([(cols * peak).sum(), (rows * peak).sum()]) / peak.sum()
    expected = ~frame.transform @ place
    assert np.hypot(*(found - expected)) < 0.4


def test_north_up_scene_keeps_the_map_grid() -> None:
    city, _ = beacon(90, 301)
    rng = np.random.default_rng(0)
    power = render_north_up(Scene.of(city), city.transform, city.shape, quiet(), rng, heading_deg=192.0)
    row, col = np.unravel_index(np.argmax(power), power.shape)
    assert (abs(int(row) - 90) <= 1) and (abs(int(col) - 301) <= 1)


def test_frame_tells_its_heading_and_centre() -> None:
    frame = Frame.centred(CENTRE, 123.4, 0.7, 30, 90)
    assert frame.heading_deg == pytest.approx(123.4)
    assert frame.gsd_m == pytest.approx(0.7)
    assert frame.centre == pytest.approx(CENTRE)
    ahead = np.subtract(frame.transform @ (15, 0), frame.centre) / (45 * 0.7)
    assert ahead == pytest.approx([np.sin(np.deg2rad(123.4)), np.cos(np.deg2rad(123.4))])


@pytest.mark.parametrize("looks", [1.0, 4.0])
def test_speckle_has_mean_one_and_variance_one_over_looks(looks: float) -> None:
    speckle = speckled(np.ones((600, 600), np.float32), Radar(looks=looks, noise_db=-80.0), np.random.default_rng(3))
    assert speckle.mean() == pytest.approx(1.0, abs=0.01)
    assert speckle.var() == pytest.approx(1.0 / looks, rel=0.03)


def test_noise_floor_fills_the_shadow() -> None:
    power = speckled(np.zeros((300, 300), np.float32), Radar(noise_db=-20.0), np.random.default_rng(3))
    assert power.mean() == pytest.approx(0.01, rel=0.02)


def test_horizon_is_the_highest_level_before_each_sample() -> None:
    level = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    expected = [[-np.inf if i == 0 else max(line[:i]) for i in range(len(line))] for line in level]
    assert np.array_equal(horizon(level), np.array(expected, np.float32))


def test_slopes_see_the_pitch_of_a_roof_but_not_its_walls() -> None:
    height = np.zeros((20, 60), np.float32)
    height[:, 20:40] = 5.0 + 0.25 * np.arange(20)
    slope_col, slope_row = slopes(height, GSD_M)
    assert slope_col[10, 22:38] == pytest.approx(0.5)
    assert np.abs(slope_col[10, [*range(20), *range(41, 60)]]).max() == 0
    assert np.abs(slope_row).max() == 0


def test_values_out_of_range_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="looks"):
        Radar(looks=-1.0)
    with pytest.raises(UsageError, match="incidence"):
        Radar(incidence_deg=5.0)
