"""Two files of one place fixed on each other, and what is written of it, against GDAL's own tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine
from drawing import write_tiff
from numpy.typing import NDArray
from programs import Gdal, geomatch
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp

from geomatch.errors import InputError, OutputError, UsageError
from geomatch.gcps import write_gcps
from geomatch.geo import Grid, apply_affine
from geomatch.location import TiePoint
from geomatch.matching.fit import fit
from geomatch.matching.matches import Matches
from geomatch.matching.methods import method
from geomatch.matching.products import register_files
from geomatch.matching.samples import Sample, Warp, samples
from geomatch.matching.transforms import Model
from geomatch.registration import Registration, register_pair
from geomatch.simulation.pairs import SimulatedPairs

UTM11 = "EPSG:32611"
MAP = Affine(10, 0, 400_000, 0, -10, 3_700_000)
POINTS = tuple(
    TiePoint(float(col), float(row), 400_000 + 10 * col, 3_700_000 - 10 * row)
    for col, row in ((5, 5), (90, 10), (20, 70), (80, 75), (50, 40))
)


@pytest.fixture(scope="module")
def sample() -> Sample:
    """A drawn city as both see it; the SAR image is turned by some degrees and a little larger."""
    return next(samples(SimulatedPairs(640, 4), 1, Warp(6, (1.03, 1.08), 10), size_px=256, seed=5))


@pytest.fixture(scope="module")
def files(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The pair as GeoTIFFs; the SAR image has the map's scale and heading and no place."""
    folder = tmp_path_factory.mktemp("pair")
    grey = (255 * sample.optical.image).astype(np.uint8)
    amplitude = np.where(sample.sar.valid, np.exp(sample.sar.image), 0).astype(np.float32)
    optical = write_tiff(folder / "optical.tif", grey, crs=UTM11, transform=MAP)
    sar = write_tiff(folder / "sar.tif", amplitude, crs=UTM11, transform=Affine(10, 0, 0, 0, -10, 0), nodata=0)
    return sar, optical


def off_px(placed: Affine, sample: Sample) -> NDArray[np.float64]:
    """How far the corners lie from the truth, pixels of the map."""
    corners = np.array([(0, 0), (256, 0), (256, 256), (0, 256)], float)
    true = np.c_[corners, np.ones(4)] @ sample.to_optical.T
    return np.linalg.norm(apply_affine(~MAP @ placed, corners) - true[:, :2] / true[:, 2:], axis=1)


def test_pair_is_fixed_where_it_lies(files: tuple[Path, Path], sample: Sample) -> None:
    with register_pair(*files, method("area")) as found:
        assert found.placed is not None
        assert found.ellipse is not None
        assert off_px(found.placed.transform, sample).max() < 4
        assert 0 < found.ellipse.semi_minor_m <= found.ellipse.semi_major_m < 80
        assert sum(one.agrees for one in found.measured) == found.fit.inliers.sum()  # type: ignore[union-attr]
        for one in found.measured:
            expected = apply_affine(~MAP @ found.placed.transform, (one.col, one.row))
            told = apply_affine(~MAP, (one.x, one.y)) - (one.across_px, one.down_px)
            np.testing.assert_allclose(told, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM11, Affine(10, 0, 400_000, 0, -5, 3_700_000)),
        ("EPSG:4326", Affine(10 / 55_800, 0, 24, 0, -5 / 111_412, 60)),  # metres of a degree at 60 degrees north
    ],
)
def test_pair_is_turned_on_the_ground_whatever_the_pixels(
    crs: str, transform: Affine, files: tuple[Path, Path], sample: Sample, tmp_path: Path
) -> None:
    """The map's pixels are twice as wide as high; a turned image is sheared on them."""
    grey = cv2.resize((255 * sample.optical.image).astype(np.uint8), (256, 512), interpolation=cv2.INTER_LINEAR)
    optical = write_tiff(tmp_path / "wide.tif", grey, crs=crs, transform=transform)
    told = register_files(files[0], optical, "area", tmp_path / "out")
    assert told["registered"]
    placed = ~(transform @ Affine.scale(1, 2)) @ Affine(*told["transform"])
    assert off_px(MAP @ placed, sample).max() < 4
    assert told["error_ellipse"]["semi_major_m"] < 80
    with rasterio.open(tmp_path / "out" / "registered.tif") as warped:  # on the grid of the optical file
        assert warped.res == pytest.approx((transform.a, -transform.e))
        first = ~transform @ (warped.transform.c, warped.transform.f)
        np.testing.assert_allclose(first, np.rint(first), atol=1e-6)


def test_mirrored_file_is_told_and_registered_as_one(files: tuple[Path, Path], sample: Sample, tmp_path: Path) -> None:
    with rasterio.open(files[0]) as file:
        pixels, profile = file.read(1), file.profile
    with rasterio.open(tmp_path / "left.tif", "w", **profile) as file:
        file.write(pixels[:, ::-1], 1)
    assert not register_files(tmp_path / "left.tif", files[1], "area", None)["registered"]
    done = geomatch("register", tmp_path / "left.tif", files[1], "--mirrored", "--json")
    placed = Affine(*json.loads(done.stdout)["transform"]) @ Affine(-1, 0, 256, 0, 1, 0)
    assert off_px(placed, sample).max() < 4


@pytest.mark.parametrize("wide", ["sar", "optical"])
def test_image_that_is_too_wide_is_refused(wide: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    """OpenCV counts columns in 16 bits; and turned by some degrees a ribbon takes much more room."""
    columns = {"sar": 30_000, "optical": 33_000}[wide]
    grey = np.random.default_rng(0).integers(1, 255, (40, columns)).astype(np.uint8)
    given = dict(zip(("sar", "optical"), files, strict=True))
    given[wide] = write_tiff(tmp_path / "wide.tif", grey, crs=UTM11, transform=MAP)
    done = geomatch("register", given["sar"], given["optical"], "--method", "orb")
    assert (done.exit_code, done.stdout) == (3, "")
    assert f"wide.tif: {columns} × 40 px " in done.stderr
    assert "are too many to be matched as a whole" in done.stderr


def test_everything_is_written_and_gdal_warps_to_the_same_place(
    files: tuple[Path, Path], sample: Sample, tmp_path: Path, gdal: Run
) -> None:
    done = geomatch("register", *files, "-o", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["registered"]
    assert told == json.loads((tmp_path / "out" / "registration.json").read_text())
    placed = Affine(*told["transform"])
    assert off_px(placed, sample).max() < 4
    made = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"matches.png", "checkerboard.png"}
    control = {"control.points", "control.tif", "control.txt"}
    assert made == pictures | control | {"registered.tif", "registration.json", "ties.csv"}
    ties = (tmp_path / "out" / "ties.csv").read_text().splitlines()
    assert ties[0] == "col,row,x,y,across_px,down_px,agrees"
    assert len(ties) == 1 + told["matches"]
    assert sum(line.endswith(",1") for line in ties) == told["inliers"]
    # Bright squares in the four corners of a copy of the file, warped by GDAL from the points, lie where the transform
    # says, by either file of points.
    marked = write_tiff(tmp_path / "marked.tif", squares(), crs=None, transform=None)
    options = (tmp_path / "out" / "control.txt").read_text().split()
    assert_warped(gdal, options, marked, placed, tmp_path)
    lines = (tmp_path / "out" / "control.points").read_text().splitlines()[2:]
    points = [[float(value) for value in line.split(",")[:4]] for line in lines]
    gcps = [word for x, y, col, row in points for word in ("-gcp", col, -row, x, y)]
    assert_warped(gdal, ["-a_srs", UTM11, *gcps], marked, placed, tmp_path)


SQUARES = ((20, 20), (236, 20), (236, 236), (20, 236))
Run = Callable[..., str]


def squares() -> NDArray[np.uint8]:
    """[256 x 256] with a bright square about each of SQUARES."""
    image = np.zeros((256, 256), np.uint8)
    for col, row in SQUARES:
        image[row - 10 : row + 10, col - 10 : col + 10] = 255
    return image


def assert_warped(run: Run, options: Sequence[object], marked: Path, placed: Affine, folder: Path) -> None:
    """GDAL's own warp of ``squares`` from control points puts each within a pixel of the map of where it should be."""
    run("gdal_translate", "-q", *options, marked, folder / "told.tif")
    run("gdalwarp", "-q", "-overwrite", "-order", 1, "-tr", 2, 2, "-r", "near", folder / "told.tif", folder / "w.tif")
    with rasterio.open(folder / "w.tif") as warped:
        count, _, _, middles = cv2.connectedComponentsWithStats((warped.read(1) > 100).astype(np.uint8))
        assert count == 1 + len(SQUARES)
        found = apply_affine(warped.transform, middles[1:] + 0.5)
    for square in SQUARES:
        off = np.linalg.norm(found - placed @ square, axis=1).min()
        assert off < MAP.a


SAME = Affine.identity()
TRANSFORMS: dict[Model, tuple[float, float, float, float, float, float]] = {
    "translation": (1, 0, 12.3, 0, 1, -7.7),
    "similarity": (1.05, -0.12, 12.3, 0.12, 1.05, -7.7),
    "affine": (1.08, -0.12, 12.3, 0.06, 0.95, -7.7),
}


def registration(model: Model, from_file: Affine = SAME, seed: int = 0) -> Registration:
    """Of noisy matches of a 256 px image, many more at one end, some wrong."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 256, (80, 2)) * np.where(rng.random((80, 1)) < 0.6, (0.4, 0.5), 1)
    target = apply_affine(Affine(*TRANSFORMS[model]), points) + rng.normal(0, 1.2, points.shape)
    target[:20] = rng.uniform(0, 256, (20, 2))
    ties = Matches(points, target, np.zeros(80), (80, 80))
    size = tuple(np.rint(apply_affine(~from_file, (256, 256))).astype(int).tolist())
    return Registration(ties, fit(ties, (256, 256), (model,)), Grid(CRS(UTM11), MAP, 300, 300), size, from_file)


@pytest.mark.parametrize("model", TRANSFORMS)
def test_gdal_lands_at_every_corner_where_the_fit_says(model: Model, tmp_path: Path, gdal: Run) -> None:
    found = registration(model)
    assert found.placed is not None
    assert found.fit.model == model  # type: ignore[union-attr]
    marked = write_tiff(tmp_path / "marked.tif", squares(), crs=None, transform=None)
    write_gcps(found.gcps, found.grid.crs, marked, tmp_path / "control.txt")
    options = (tmp_path / "control.txt").read_text().split()
    assert_warped(gdal, options, marked, found.placed.transform, tmp_path)
    # At the very corners, by the transform that GDAL itself fits to the points.
    write_gcps(found.gcps, found.grid.crs, marked, tmp_path / "control.tif")
    corners = "\n".join(f"{col} {row}" for col, row in ((0, 0), (256, 0), (256, 256), (0, 256)))
    told = gdal("gdaltransform", "-order", 1, tmp_path / "control.tif", stdin=corners)
    places = np.array([[float(value) for value in line.split()[:2]] for line in told.splitlines()])
    np.testing.assert_allclose(places, found.placed.to_map(found.placed.corners_px), atol=0.01)


def test_pixels_of_the_file_are_not_those_that_were_matched() -> None:
    """Of a file of four times finer pixels the transform is its own; how exactly it is known does not change."""
    coarse, fine = (registration("affine", from_file) for from_file in (SAME, Affine.scale(0.25)))
    assert coarse.placed is not None
    assert fine.placed is not None
    np.testing.assert_allclose(fine.placed.corners_px, 4 * coarse.placed.corners_px)
    places = [one.to_map(one.corners_px) for one in (coarse.placed, fine.placed)]
    np.testing.assert_allclose(*places)
    assert coarse.ellipse is not None
    assert fine.ellipse is not None
    assert fine.ellipse.semi_major_m == pytest.approx(coarse.ellipse.semi_major_m)


@pytest.mark.parametrize("how", ["mask", "nodata", "alpha"])
def test_what_is_not_known_of_the_file_is_not_known_of_its_warp(how: str, tmp_path: Path, gdal: Run) -> None:
    known = np.zeros((256, 256), np.uint8)
    known[:, :160] = 255
    values = np.full((256, 256), 100, np.uint8)
    bands = {"mask": values[None], "alpha": np.stack([values, known]), "nodata": np.where(known, values, 0)[None]}[how]
    profile = {"driver": "GTiff", "width": 256, "height": 256, "count": len(bands), "dtype": "uint8", "transform": MAP}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "sar.tif", "w", **profile) as file:
        if how == "nodata":
            file.nodata = 0
        if how == "alpha":
            file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
        file.write(bands)
        if how == "mask":
            file.write_mask(known)
    found = registration("similarity")
    write_gcps(found.gcps, found.grid.crs, tmp_path / "sar.tif", tmp_path / "control.tif")
    with rasterio.open(tmp_path / "control.tif") as copy:
        assert (copy.dataset_mask() == known).all()
    gdal("gdalwarp", "-q", "-order", 1, "-tr", 10, 10, "-dstalpha", tmp_path / "control.tif", tmp_path / "warped.tif")
    with rasterio.open(tmp_path / "warped.tif") as warped:
        seen = (warped.dataset_mask() > 0).sum()
    assert seen == pytest.approx(256 * 160 * 1.05**2, rel=0.05)


def test_points_are_those_that_gdal_reads(tmp_path: Path) -> None:
    values = np.arange(80 * 100, dtype=np.uint16).reshape(80, 100)
    sar = write_tiff(tmp_path / "sar.tif", values, crs=UTM11, transform=MAP, nodata=7)
    write_gcps(POINTS, CRS(UTM11), sar, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as copy:
        gcps, crs = copy.gcps
        assert crs.to_epsg() == 32611
        assert (copy.read(1) == values).all()
        assert copy.nodata == 7
        assert copy.dtypes == ("uint16",)
    told = {(one.col, one.row, one.x, one.y) for one in gcps}
    assert told == {(one.col, one.row, one.x, one.y) for one in POINTS}
    write_gcps(POINTS, CRS(UTM11), sar, tmp_path / "out.points")
    lines = (tmp_path / "out.points").read_text().splitlines()
    assert lines[0].startswith("#CRS: PROJCRS")
    assert lines[1].split(",")[:5] == ["mapX", "mapY", "sourceX", "sourceY", "enable"]
    first = [float(value) for value in lines[2].split(",")]
    assert first[:5] == [POINTS[0].x, POINTS[0].y, POINTS[0].col, -POINTS[0].row, 1]
    assert len(lines) == 2 + len(POINTS)


def test_unknown_kinds_and_places_are_refused(tmp_path: Path) -> None:
    sar = write_tiff(tmp_path / "sar.tif", np.ones((80, 100), np.uint8), crs=UTM11, transform=MAP)
    with pytest.raises(UsageError, match="unknown kind of file"):
        write_gcps(POINTS, CRS(UTM11), sar, tmp_path / "out.csv")
    with pytest.raises(OutputError):
        write_gcps(POINTS, CRS(UTM11), sar, tmp_path / "nowhere" / "out.txt")
    with pytest.raises(InputError):
        write_gcps(POINTS, CRS(UTM11), tmp_path / "gone.tif", tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("wrong", ["nothing to see", "another place"])
def test_pair_that_does_not_match_says_so(wrong: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    shape = (256, 256)
    if wrong == "nothing to see":
        amplitude = np.full(shape, 3, np.float32)
    else:
        other = next(samples(SimulatedPairs(640, 4), 1, Warp(0, (1, 1), 0), size_px=256, seed=77))
        amplitude = np.exp(other.sar.image).astype(np.float32)
    sar = write_tiff(tmp_path / "sar.tif", amplitude, crs=UTM11, transform=Affine(10, 0, 0, 0, -10, 0))
    done = geomatch("register", sar, files[1], "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "not registered" in done.stdout
    assert not json.loads((tmp_path / "out" / "registration.json").read_text())["registered"]
    assert not (tmp_path / "out" / "registered.tif").exists()


PROJECTIVE = np.array([[1.02, 0.05, 8], [-0.04, 0.98, 12], [3e-4, -2e-4, 1]])


def projected(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Under PROJECTIVE, pixels of the map."""
    x, y, depth = PROJECTIVE @ np.array([*points.T, np.ones(len(points))])
    return np.stack([x / depth, y / depth], axis=1)


def test_homography_is_kept_whole(files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a method that knows the answer: figures, control points and the warped image, against the matrix itself."""
    points = np.random.default_rng(0).uniform(0, 256, (80, 2))
    ties = Matches(points, projected(points), np.zeros(80), (80, 80), step_px=0.1)
    monkeypatch.setattr("geomatch.matching.products.method", lambda name: lambda sar, optical: ties)
    grey = squares().astype(np.float32) + 1
    sar = write_tiff(tmp_path / "s.tif", grey, crs=UTM11, transform=Affine(10, 0, 0, 0, -10, 0))
    assert geomatch("register", sar, files[1], "-o", tmp_path / "out", "--json").exit_code == 0
    plain = json.loads((tmp_path / "out" / "registration.json").read_text())
    assert plain.get("model") != "homography"
    done = geomatch("register", sar, files[1], "-o", tmp_path / "out", "--homography", "--json")
    told = json.loads(done.stdout)
    assert told["model"] == "homography"
    assert not told["error_ellipse"]["calibrated"]  # whose model no figure is of
    expected = np.array(MAP).reshape(3, 3) @ PROJECTIVE
    np.testing.assert_allclose(told["homography"], expected, rtol=1e-6, atol=1e-5)
    corners = np.array([(0.0, 0.0), (256, 0), (256, 256), (0, 256)])
    with rasterio.open(tmp_path / "out" / "control.tif") as control:
        gcps = {(one.col, one.row): (one.x, one.y) for one in control.gcps[0]}
    for corner, place in zip(corners.tolist(), apply_affine(MAP, projected(corners)), strict=True):
        np.testing.assert_allclose(gcps[corner[0], corner[1]], place, atol=0.01)
    with rasterio.open(tmp_path / "out" / "registered.tif") as warped:
        count, _, _, middles = cv2.connectedComponentsWithStats((warped.read(1) > 100).astype(np.uint8))
        found = apply_affine(~MAP @ warped.transform, middles[1:] + 0.5)
    assert count == 1 + len(SQUARES)
    for square in projected(np.array(SQUARES, float)):
        assert np.linalg.norm(found - square, axis=1).min() < 0.5


def test_file_without_georeferencing_is_told_of_and_read_as_told(
    files: tuple[Path, Path], sample: Sample, tmp_path: Path
) -> None:
    amplitude = np.where(sample.sar.valid, np.exp(sample.sar.image), 0).astype(np.float32)
    decibel = np.where(sample.sar.valid, 20 * np.log10(np.maximum(amplitude, 1e-3)), -999).astype(np.float32)
    plain = write_tiff(tmp_path / "plain.tif", amplitude, crs=None, transform=None, nodata=0)
    assumed = geomatch("register", plain, files[1], "--json")
    assert "plain.tif: no georeferencing, taken as 10 m per pixel, heading 0°" in assumed.stderr
    assert any("no georeferencing" in note for note in json.loads(assumed.stdout)["notes"])
    # The same picture at half the size, its top to the west, decibels in the second of two bands.
    small = np.rot90(cv2.resize(decibel, (128, 128), interpolation=cv2.INTER_AREA)).copy()
    turned = write_tiff(tmp_path / "t.tif", np.stack([np.ones_like(small), small]), crs=None, transform=None)
    options = ("--gsd", "20", "--heading", "90", "--kind", "db", "--band", "2")
    told = geomatch("register", turned, files[1], *options, "--json")
    assert told.stderr == ""
    found = json.loads(told.stdout)
    assert found["registered"]
    corners = apply_affine(Affine(*found["transform"]), [(0.0, 128.0), (0, 0), (128, 0), (128, 128)])
    first = json.loads(assumed.stdout)
    whole = apply_affine(Affine(*first["transform"]), [(0.0, 0.0), (256, 0), (256, 256), (0, 256)])
    assert np.linalg.norm(corners - whole, axis=1).max() < 60


def test_scale_that_does_not_fit_asks_for_nothing_that_is_not_there(files: tuple[Path, Path]) -> None:
    done = geomatch("register", *files, "--gsd", "500")
    assert done.exit_code == 3
    assert "times those of the map" in done.stderr
    assert "Give the true --gsd" in done.stderr


def test_nothing_of_an_earlier_run_stays(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert geomatch("register", *files, "-o", out).exit_code == 0
    assert (out / "control.tif").exists()
    (out / "notes.txt").write_text("mine")
    done = geomatch("register", out / "registered.tif", files[1], "-o", out)
    assert done.exit_code == 2
    assert "registered.tif: would be overwritten" in done.stderr
    blank = np.full((256, 256), 3, np.float32)
    sar = write_tiff(tmp_path / "sar.tif", blank, crs=UTM11, transform=Affine(10, 0, 0, 0, -10, 0))
    assert geomatch("register", sar, files[1], "-o", out).exit_code == 0
    assert not json.loads((out / "registration.json").read_text())["registered"]
    assert {path.name for path in out.iterdir()} == {"registration.json", "notes.txt"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("sar.tif", "optical.tif", "--method", "magic"), 2, "unknown method 'magic'"),
        (("gone.tif", "optical.tif"), 3, "gone.tif"),
        (("sar.tif", "fake.tif"), 3, "fake.tif"),
        (("sar.tif", "plain.tif"), 3, "plain.tif"),
        (("sar.tif", "optical.tif", "--method", "loftr=fake.tif"), 3, "cannot be read as weights (no pickle"),
        (("sar.tif", "optical.tif", "--method", "hardnet=fake.tif"), 2, "fake.tif: is no .safetensors file"),
        (("sar.tif", "optical.tif", "--method", "sift@²"), 2, "'²' is no number of keypoints"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], code: int, said: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "fake.tif").write_bytes(b"not a GeoTIFF")
    write_tiff(tmp_path / "plain.tif", np.ones((64, 64), np.uint8), crs=None, transform=None)
    given = {"sar.tif": files[0], "optical.tif": files[1]}
    named = [given.get(word, tmp_path / word if word.endswith(".tif") and "=" not in word else word) for word in words]
    done = geomatch("register", *(str(word).replace("=fake", f"={tmp_path}/fake") for word in named))
    assert done.exit_code == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "crs", [UTM11, "+proj=tmerc +lat_0=34 +lon_0=-118.3 +k=0.9999 +x_0=1000 +ellps=GRS80 +units=m"]
)
def test_gdal_takes_the_options_whatever_the_crs(crs: str, tmp_path: Path, gdal: Gdal) -> None:
    sar = tmp_path / "s.tif"
    write_tiff(sar, np.ones((20, 30), np.float32))
    write_gcps(POINTS, CRS(crs), sar, tmp_path / "control.txt")
    gdal("gdal_translate", "--optfile", tmp_path / "control.txt", sar, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as file:
        gcps, found = file.gcps
    assert [(one.col, one.row, one.x, one.y) for one in gcps] == [(one.col, one.row, one.x, one.y) for one in POINTS]
    lonlat = [
        Transformer.from_crs(one, "OGC:CRS84", always_xy=True).transform(2000, 500) for one in (found.to_wkt(), crs)
    ]
    np.testing.assert_allclose(*lonlat, atol=1e-9)
