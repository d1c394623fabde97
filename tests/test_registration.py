"""Two files of one place fixed on each other, and what is written of it, against GDAL's own tools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from drawing import write_tiff
from numpy.typing import NDArray
from programs import geomatch
from pyproj import CRS

from geomatch.errors import InputError, OutputError, UsageError
from geomatch.gcps import write_gcps
from geomatch.geo import apply_affine
from geomatch.location import TiePoint
from geomatch.matching.methods import method
from geomatch.matching.samples import Sample, Warp, samples
from geomatch.registration import register_pair
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
    return next(samples(SimulatedPairs(640, 4), 1, Warp(6, (1.03, 1.08), 10), size_px=256, seed=3))


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
        assert 0 < found.ellipse.semi_minor_m <= found.ellipse.semi_major_m < 30
        assert len(found.gcps) == found.fit.inliers.sum()  # type: ignore[union-attr]


def test_everything_is_written_and_gdal_warps_to_the_same_place(
    files: tuple[Path, Path], sample: Sample, tmp_path: Path, gdal: object
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
    assert made == pictures | {"control.points", "control.tif", "control.txt", "registered.tif", "registration.json"}
    # A bright square in a copy of the file, warped by GDAL from the points, lies where the transform says.
    run = gdal
    marked = write_tiff(tmp_path / "marked.tif", _square(), crs=None, transform=None)
    options = (tmp_path / "out" / "control.txt").read_text().split()
    run("gdal_translate", "-q", *options, marked, tmp_path / "told.tif")  # type: ignore[operator]
    run("gdalwarp", "-q", "-order", "1", "-tr", "5", "5", "-r", "near", tmp_path / "told.tif", tmp_path / "w.tif")  # type: ignore[operator]
    with rasterio.open(tmp_path / "w.tif") as warped:
        rows, cols = np.nonzero(warped.read(1) > 100)
        middle = warped.transform @ (cols.mean() + 0.5, rows.mean() + 0.5)
    expected = placed @ (130.0, 90.0)
    assert np.hypot(*np.subtract(middle, expected)) < 10  # a pixel of the map


def _square() -> NDArray[np.uint8]:
    image = np.zeros((256, 256), np.uint8)
    image[80:100, 120:140] = 255
    return image


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


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("sar.tif", "optical.tif", "--method", "magic"), 2, "unknown method 'magic'"),
        (("gone.tif", "optical.tif"), 3, "gone.tif"),
        (("sar.tif", "fake.tif"), 3, "fake.tif"),
        (("sar.tif", "plain.tif"), 3, "plain.tif"),
        (("sar.tif", "optical.tif", "--method", "loftr=fake.tif"), 3, "cannot be read as weights"),
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
