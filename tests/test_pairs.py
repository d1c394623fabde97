"""Crops lie where they may, and both images of a pair show the same pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from affine import Affine
from drawing import NORTH_UP, UTM11, ramp, write_tiff
from numpy.typing import NDArray

from geomatch.errors import InputError
from geomatch.pairs import JITTER_PX, FolderPairs, Pair, PatchNames, PlacePairs, ScenePairs
from geomatch.splits import Box

WIDTH, HEIGHT = 640, 512
SIDE = 96


def places(width: int, height: int) -> NDArray[np.uint16]:
    """[3 x H x W] column, row and a texture that passes for land."""
    rows, cols = np.mgrid[:height, :width]
    blocks = np.random.default_rng(0).integers(0, 60_000, (-(-height // 4), -(-width // 4)))
    return np.stack([cols, rows, np.kron(blocks, np.ones((4, 4), int))[:height, :width]]).astype(np.uint16)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes whose pixels tell where they are; not to be changed."""
    folder = tmp_path_factory.mktemp("told")
    write_tiff(folder / "optical.tif", places(WIDTH, HEIGHT))
    write_tiff(folder / "sar.tif", ramp(HEIGHT, WIDTH, "uint32"))
    return folder


def source(folder: Path, boxes: list[Box] | None = None) -> ScenePairs:
    return ScenePairs(folder / "optical.tif", folder / "sar.tif", boxes)


def sar_places(pair: Pair, width: int = WIDTH, height: int = HEIGHT) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows that the SAR pixels say they are: what they are relative to is the median of 1 … N."""
    number = np.rint(pair.sar[0].astype(float) * (width * height + 1) / 2).astype(int) - 1
    return number % width, number // width


def drawn(pairs: ScenePairs, count: int, side: int = SIDE) -> list[tuple[int, int]]:
    """First columns and rows of many crops, each of which is whole."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        cols, rows = sar_places(pairs.draw(rng, side))
        assert cols.shape == (side, side)
        np.testing.assert_array_equal(cols, cols[0, 0] + np.arange(side)[None, :].repeat(side, 0))
        np.testing.assert_array_equal(rows, rows[0, 0] + np.arange(side)[:, None].repeat(side, 1))
        found.append((int(cols[0, 0]), int(rows[0, 0])))
    return found


@pytest.mark.parametrize("box", [Box(64, 96, 256, 192), Box(10, 20, 301, 287), Box(601, 3, 39, 509)])
def test_crops_lie_wholly_within_their_box(told: Path, box: Box) -> None:
    side = min(SIDE, box.width // 2)
    for col, row in drawn(source(told, [box]), 150, side):
        assert box.col0 <= col <= box.col0 + box.width - side
        assert box.row0 <= row <= box.row0 + box.height - side


def test_whole_scene_is_the_default(told: Path) -> None:
    cols, rows = np.array(drawn(source(told), 300)).T
    assert cols.min() < 40
    assert cols.max() > WIDTH - SIDE - 40
    assert rows.min() < 40
    assert rows.max() > HEIGHT - SIDE - 40


def test_union_may_be_crossed_and_the_buffer_may_not(told: Path) -> None:
    left, right, beyond = Box(0, 0, 192, 512), Box(192, 0, 192, 512), Box(448, 0, 192, 512)  # 384 to 448 is no one's
    cols = np.array(drawn(source(told, [left, right, beyond]), 400))[:, 0]
    assert ((cols < 192) & (cols + SIDE > 192)).any()
    assert not ((cols < 448) & (cols + SIDE > 384)).any()
    assert (cols >= 448).any()


def test_larger_box_is_drawn_from_more_often(told: Path) -> None:
    cols = np.array(drawn(source(told, [Box(0, 0, 128, 128), Box(320, 0, 320, 512)]), 200))[:, 0]
    assert (cols >= 320).mean() > 0.85


def test_optical_and_sar_stay_pixel_on_pixel(told: Path) -> None:
    pairs, rng = source(told), np.random.default_rng(1)
    spans = [np.percentile(band, [1, 99]) for band in places(WIDTH, HEIGHT)[:2]]  # what is stretched to [0, 1]
    for _ in range(50):
        pair = pairs.draw(rng, 130)
        assert pair.optical.shape == (3, 130, 130)
        for band, where, (low, high) in zip(pair.optical[:2], sar_places(pair), spans, strict=True):
            np.testing.assert_allclose(band * (high - low) + low, np.clip(where, low, high), atol=0.01)


def test_nodata_and_textureless_places_are_drawn_again(tmp_path: Path) -> None:
    optical, sar = places(WIDTH, HEIGHT), ramp(HEIGHT, WIDTH, "uint32")
    known = np.ones((HEIGHT, WIDTH), bool)
    known[:, :160] = False  # no optical
    sar[:, 480:] = 0  # beyond the swath
    optical[:, 320:] = optical[:, 320:321, 320:321]  # open water
    write_tiff(tmp_path / "optical.tif", optical, mask=known)
    write_tiff(tmp_path / "sar.tif", sar)
    pairs, rng = source(tmp_path), np.random.default_rng(0)
    for _ in range(100):
        pair = pairs.draw(rng, SIDE)
        assert pair.valid.mean() >= 0.98
        grey = cv2.GaussianBlur(pair.optical[2], (5, 5), 1)
        assert np.mean(np.abs(np.diff(grey, axis=1)) > 1e-4) > 0.2  # a quarter of the cells is textured


@pytest.mark.parametrize("what", ["nodata", "water"])
def test_scene_without_a_usable_place_is_named(tmp_path: Path, what: str) -> None:
    optical, known = places(WIDTH, HEIGHT), np.zeros((HEIGHT, WIDTH), bool)
    known[::4] = True  # there is data, but nowhere enough
    if what == "water":
        optical[:], known[:] = 7, True
    write_tiff(tmp_path / "optical.tif", optical, mask=known)
    write_tiff(tmp_path / "sar.tif", ramp(HEIGHT, WIDTH, "uint32"))
    with pytest.raises(InputError, match=r"optical\.tif: no place of 96 × 96 px"):
        source(tmp_path).draw(np.random.default_rng(0), SIDE)


def test_larger_crop_than_there_is_becomes_what_there_is(told: Path) -> None:
    box = Box(64, 64, 224, 300)
    pair = source(told, [box]).draw(np.random.default_rng(0), 500)
    cols, rows = sar_places(pair)
    assert 160 <= pair.valid.shape[0] == pair.valid.shape[1] <= 224
    assert cols.min() >= 64
    assert cols.max() < 64 + 224
    assert rows.min() >= 64
    assert rows.max() < 64 + 300


@pytest.mark.parametrize("boxes", [[], [Box(0, 0, 20, 20)], [Box(0, 0, -80, 512)]])
def test_boxes_without_room_are_input_errors(told: Path, boxes: list[Box]) -> None:
    with pytest.raises(InputError, match=r"optical\.tif: .*room"):
        source(told, boxes)


@pytest.mark.parametrize("box", [Box(-32, 0, 256, 256), Box(0, 0, 700, 256)])
def test_box_that_leaves_the_scene_is_an_input_error(told: Path, box: Box) -> None:
    with pytest.raises(InputError, match=r"optical\.tif: .*640 × 512 px"):
        source(told, [box])


def test_sizes_that_differ_are_input_errors(told: Path, tmp_path: Path) -> None:
    other = write_tiff(tmp_path / "other.tif", ramp(HEIGHT, WIDTH - 1, "uint32"))
    with pytest.raises(InputError, match=r"other\.tif: 639 × 512 px .* 640 × 512 px.*gdalwarp"):
        ScenePairs(told / "optical.tif", other)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM11, NORTH_UP @ Affine.translation(1, 0)),
        (UTM11, NORTH_UP @ Affine.scale(1.01)),
        (UTM11, NORTH_UP @ Affine.rotation(1)),
        ("EPSG:32612", NORTH_UP),
        ("EPSG:4326", Affine(1e-4, 0, -118, 0, -1e-4, 34)),
    ],
)
def test_grids_that_differ_are_refused_by_name(told: Path, tmp_path: Path, crs: str, transform: Affine) -> None:
    other = write_tiff(tmp_path / "other.tif", ramp(HEIGHT, WIDTH, "uint32"), crs=crs, transform=transform)
    with pytest.raises(InputError, match=r"other\.tif: .*grid.*optical\.tif.*gdalwarp"):
        ScenePairs(told / "optical.tif", other)


def test_scene_that_has_no_grid_is_taken_pixel_on_pixel(told: Path, tmp_path: Path) -> None:
    other = write_tiff(tmp_path / "other.tif", ramp(HEIGHT, WIDTH, "uint32"), crs=None, transform=None)
    assert ScenePairs(told / "optical.tif", other).draw(np.random.default_rng(0), SIDE).valid.all()


# --- at a place that is asked for ---


def test_crop_around_a_place_is_moved_a_little(told: Path) -> None:
    pairs, rng, middles = source(told), np.random.default_rng(0), []
    for _ in range(60):
        cols, rows = sar_places(PlacePairs(pairs, 330, 250).draw(rng, 240))
        assert cols.shape == (240, 240)
        middles.append((int(cols[0, 0]) + 120 - 330, int(rows[0, 0]) + 120 - 250))
    off = np.array(middles)
    assert np.abs(off).max() <= JITTER_PX
    assert (off.min(axis=0) < -20).all()
    assert (off.max(axis=0) > 20).all()


def test_crop_near_an_edge_stays_in_the_boxes_and_shows_the_place(told: Path) -> None:
    box = Box(64, 64, 480, 416)
    pairs, rng = source(told, [box]), np.random.default_rng(0)
    for _ in range(20):
        for col, row in ((190, 190), (420, 300), (304, 272), (64 + 116, 64 + 116)):
            cols, rows = sar_places(pairs.draw_at(rng, 400, col, row))
            assert 200 <= cols.shape[0] <= 400
            assert cols.min() >= 64
            assert cols.max() < 64 + 480
            assert rows.min() >= 64
            assert rows.max() < 64 + 416
            assert cols.min() <= col - 68
            assert cols.max() >= col + 68
            assert rows.min() <= row - 68
            assert rows.max() >= row + 68


@pytest.mark.parametrize("place", [(600, 256), (300, 20), (-50, 100), (5000, 5000), (230, 40)])
def test_place_outside_the_boxes_is_refused(told: Path, place: tuple[int, int]) -> None:
    pairs = source(told, [Box(64, 0, 352, 512), Box(448, 0, 64, 512)])
    with pytest.raises(InputError, match=rf"optical\.tif: .*column {place[0]}, row {place[1]}"):
        pairs.draw_at(np.random.default_rng(0), 240, *place)


def test_found_pair_is_the_drawn_one_and_lies_where_it_says(told: Path) -> None:
    pairs = source(told)
    found, drawn_pair = (draw(np.random.default_rng(4), SIDE) for draw in (pairs.find, pairs.draw))
    np.testing.assert_array_equal(found.pair.sar, drawn_pair.sar)
    cols, rows = sar_places(found.pair)
    assert (cols[0, 0], rows[0, 0]) == (found.col, found.row)


# --- folders of patches ---


def write_patch(folder: Path, name: str, image: NDArray[np.uint8] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    image = np.random.default_rng(len(name)).integers(1, 255, (80, 80, 3), np.uint8) if image is None else image
    assert cv2.imwrite(str(folder / name), image)
    return folder / name


def patches(tmp_path: Path, *names: str) -> tuple[Path, Path]:
    for name in names:
        for kind in ("optical", "sar"):
            write_patch(tmp_path / kind, f"{name}.png")
    return tmp_path / "optical", tmp_path / "sar"


def test_names_that_both_folders_have_are_pairs(tmp_path: Path) -> None:
    optical, sar = patches(tmp_path, "a", "b")
    write_patch(optical, "lonely.png")
    write_patch(sar, "alone.png")
    assert len(FolderPairs.of(optical, sar)) == 2
    assert len(FolderPairs.of(optical, sar, ["b"])) == 1


def test_patches_are_cut_pixel_on_pixel(tmp_path: Path) -> None:
    place = np.arange(1, 14_401).reshape(120, 120)
    blocks = np.kron(np.random.default_rng(0).integers(1, 255, (30, 30)), np.ones((4, 4), int))
    optical = write_patch(tmp_path / "optical", "p.png", np.stack([blocks, place % 256, place // 256], -1).astype("u1"))
    sar = write_patch(tmp_path / "sar", "p.png", blocks.astype("u1"))
    pairs, rng = FolderPairs([PatchNames(optical, sar)]), np.random.default_rng(0)
    low, high = np.percentile(blocks, [1, 99])
    for _ in range(20):
        pair = pairs.draw(rng, 64)
        assert pair.optical.shape == (3, 64, 64)
        grey = pair.sar[0] * np.median(blocks)
        blue = np.clip((np.rint(grey) - low) / (high - low), 0, 1)  # the last band of three as RGB
        np.testing.assert_allclose(pair.optical[2], blue, atol=1e-5)
    assert pairs.draw(rng, 500).valid.shape == (120, 120)


def test_folders_without_common_names_are_named(tmp_path: Path) -> None:
    write_patch(tmp_path / "optical", "a.png")
    write_patch(tmp_path / "sar", "b.png")
    with pytest.raises(InputError, match=r"optical: no pairs of patches.*/sar"):
        FolderPairs.of(tmp_path / "optical", tmp_path / "sar")
    with pytest.raises(InputError, match="no pairs of patches"):
        FolderPairs([])


@pytest.mark.parametrize("missing", ["optical", "sar"])
def test_partner_that_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    optical, sar = patches(tmp_path, "a", "b")
    (tmp_path / missing / "b.png").unlink()
    with pytest.raises(InputError, match=rf"{missing}: .*'b'"):
        FolderPairs.of(optical, sar, ["a", "b"])


@pytest.mark.parametrize("missing", ["optical", "sar"])
def test_folder_that_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    write_patch(tmp_path / ("sar" if missing == "optical" else "optical"), "a.png")
    with pytest.raises(InputError, match=rf"{missing}: "):
        FolderPairs.of(tmp_path / "optical", tmp_path / "sar")


def test_patch_that_is_no_image_is_named(tmp_path: Path) -> None:
    optical, sar = patches(tmp_path, "a")
    (sar / "a.png").write_text("no image")
    with pytest.raises(InputError, match=r"sar/a\.png: cannot be read as an image"):
        FolderPairs.of(optical, sar).draw(np.random.default_rng(0), 64)


def test_patches_of_two_sizes_are_named(tmp_path: Path) -> None:
    optical, sar = patches(tmp_path, "a")
    write_patch(sar, "a.png", np.full((80, 79, 3), 9, np.uint8))
    with pytest.raises(InputError, match=r"sar/a\.png: 79 × 80 px .*80 × 80 px"):
        FolderPairs.of(optical, sar).draw(np.random.default_rng(0), 64)


@pytest.mark.parametrize("value", [0, 90])
def test_folder_without_a_usable_patch_is_named(tmp_path: Path, value: int) -> None:
    for kind in ("optical", "sar"):
        write_patch(tmp_path / kind, "a.png", np.full((80, 80, 3), value, np.uint8))
    with pytest.raises(InputError, match=r"optical: no patch with data and texture"):
        FolderPairs.of(tmp_path / "optical", tmp_path / "sar").draw(np.random.default_rng(0), 64)
