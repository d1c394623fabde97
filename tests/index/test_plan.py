"""Windows, blocks and the choice of search structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from geomatch.errors import InputError, UsageError
from geomatch.geo import Grid, as_crs
from geomatch.index import plan
from geomatch.index.kinds import Kind
from geomatch.index.plan import BuildOptions, Window, blocks, read_options, window_of

UTM = "EPSG:32633"
NORTH_UP = Grid(as_crs(UTM), Affine(0.5, 0, 595_000, 0, -0.5, 5_333_000), 1000, 800)


def boxed(grid: Grid, *points: tuple[float, float]) -> BuildOptions:
    """Options whose box is just around these pixels."""
    xy = grid.to_map(points)
    (left, bottom), (right, top) = xy.min(axis=0), xy.max(axis=0)
    return BuildOptions(bbox=(float(left), float(bottom), float(right), float(top)))


def test_no_box_is_the_whole_map() -> None:
    assert window_of(NORTH_UP, BuildOptions()) == Window(0, 0, 1000, 800)


@pytest.mark.parametrize("flip", [-0.5, 0.5])
def test_box_on_pixel_borders_is_those_pixels(flip: float) -> None:
    grid = Grid(as_crs(UTM), Affine(0.5, 0, 595_000, 0, flip, 5_333_000), 1000, 800)
    assert window_of(grid, boxed(grid, (100, 200), (350, 270))) == Window(100, 200, 250, 70)


def test_pixels_that_the_box_touches_count() -> None:
    assert window_of(NORTH_UP, boxed(NORTH_UP, (100.7, 200.2), (349.1, 269.9))) == Window(100, 200, 250, 70)


def test_box_is_clipped_to_the_map() -> None:
    assert window_of(NORTH_UP, boxed(NORTH_UP, (-50, 700), (120, 900))) == Window(0, 700, 120, 100)
    assert window_of(NORTH_UP, boxed(NORTH_UP, (-50, -50), (5000, 5000))) == Window(0, 0, 1000, 800)


@pytest.mark.parametrize("points", [((1000, 0), (1100, 50)), ((-50, 0), (0, 50)), ((0, 900), (50, 950))])
def test_box_beside_the_map_is_an_input_error(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(UsageError, match=r"does not touch the map.*[Gg]dalinfo"):
        window_of(NORTH_UP, boxed(NORTH_UP, *points))


@pytest.mark.parametrize("bbox", [(1, 0, 0, 1), (0, 1, 1, 0), (0, 0, 0, 1), (float("nan"), 0, 1, 1)])
def test_box_without_area_is_a_usage_error(bbox: tuple[float, float, float, float]) -> None:
    with pytest.raises(UsageError, match=r"--bbox: .*no area.*left,bottom,right,top"):
        window_of(NORTH_UP, BuildOptions(bbox=bbox))


def test_box_in_degrees_covers_what_it_outlines() -> None:
    to_map = Transformer.from_crs("OGC:CRS84", UTM, always_xy=True)
    x, y = NORTH_UP.to_map([[200, 200], [600, 500]]).T
    lonlat = np.array(to_map.transform(x, y, direction="INVERSE")).T
    (left, bottom), (right, top) = lonlat.min(axis=0), lonlat.max(axis=0)
    found = window_of(NORTH_UP, BuildOptions(bbox=(left, bottom, right, top), bbox_crs="EPSG:4326"))
    rng = np.random.default_rng(0)
    inside = rng.uniform((left, bottom), (right, top), (2000, 2))
    px = NORTH_UP.to_pixel(np.stack(to_map.transform(*inside.T), axis=-1))
    low, high = np.array([found.col0, found.row0]), np.array([found.col0 + found.width, found.row0 + found.height])
    assert ((px >= low) & (px <= high)).all()
    assert (px.min(axis=0) - low < 12).all()
    assert (high - px.max(axis=0) < 12).all()


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_blocks_cover_every_pixel_once(width: int, height: int) -> None:
    found = list(blocks(Window(7, 9, width, height)))
    assert sum(block.width * block.height for block in found) == width * height
    for block in found:
        assert block.col0 >= 0
        assert block.col0 + block.width <= width
        assert block.row0 >= 0
        assert block.row0 + block.height <= height
        assert min(block.width, block.height) >= 1
        assert max(block.width, block.height) <= plan.BLOCK_PX
    assert len({(block.col0, block.row0) for block in found}) == len(found)


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_valid_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="valid share"):
        BuildOptions(min_valid=share)


def test_no_file_and_no_flag_are_the_defaults() -> None:
    assert read_options(None, tile_px=None, encoder=None) == BuildOptions()


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "kind.yaml"
    file.write_text("{encoder: structural, stride_px: 24, bbox: [1, 2, 3, 4]}")
    options = read_options(file, stride_px=40, vectors=None)
    assert (options.encoder, options.stride_px, options.vectors) == ("structural", 40, "auto")
    assert tuple(options.bbox or ()) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("strid_px: 8", UsageError, r"unknown key 'strid_px'.*nearest one is stride_px"),
        ("stride_px: wide", UsageError, "stride_px: .*wide"),
        ("bbox: [1, 2]", UsageError, "length 4"),
        ("min_valid: 2", UsageError, "a valid share of 2"),
        ("kinds: [{code: Flat}]", UsageError, "unknown key 'code'.*nearest one is coded"),
        ("kinds: [{up_to: 9}]", UsageError, r"kinds\[0\].coded: .*missing"),
        ("kinds: [{coded: Flat, up_to: 0}]", UsageError, "up to 0 tiles"),
        ("kinds: [{coded: Flat, probes: 2}]", UsageError, "a share of 2 of the lists"),
        ("[1, 2]", InputError, r"holds a list.*configs/index"),
        ("a: [", InputError, "cannot be read as YAML"),
    ],
)
def test_files_that_are_wrong_are_told(text: str, kind: type[Exception], told: str, tmp_path: Path) -> None:
    (tmp_path / "kind.yaml").write_text(text)
    with pytest.raises(kind, match=told):
        read_options(tmp_path / "kind.yaml")


def test_kinds_of_the_file_take_the_place_of_all(tmp_path: Path) -> None:
    file = tmp_path / "kind.yaml"
    file.write_text("kinds: [{coded: Flat, up_to: 10}, {coded: SQ8}]")
    assert read_options(file).kinds == [Kind("Flat", up_to=10), Kind("SQ8")]


def test_shipped_configuration_is_the_default() -> None:
    assert read_options(Path(__file__).parents[2] / "configs" / "index" / "joined.yaml") == BuildOptions()


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"kind\.yaml.*No such file"):
        read_options(tmp_path / "kind.yaml")
