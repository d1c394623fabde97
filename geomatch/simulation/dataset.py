"""A simulated city on disk: the orthophoto, a SAR scene, strips of unknown position, and the truth about them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geomatch.errors import OutputError, UsageError
from geomatch.files import published, writing
from geomatch.geo import Grid, as_crs, ground_jacobian
from geomatch.simulation.backscatter import Scene
from geomatch.simulation.city import City, make_city
from geomatch.simulation.geotiff import write_geotiff
from geomatch.simulation.optical import Camera, render_optical
from geomatch.simulation.sar import Frame, Radar, render_north_up, render_sar
from geomatch.simulation.strips import Flight, draw_frame, draw_sway

Georeference = Literal["drifted", "none"]

SCENE_HEADING_DEG = 192.0  # a descending orbit, from grid north
SWAY_STEP = 25  # rows from one whose place is told to the next
LOW_DRIFT_M, HIGH_DRIFT_M = 300.0, 2000.0


@dataclass(frozen=True)
class StripTruth:
    """The truth about one strip, as it stands in ``truth.json``.

    Attributes:
        file: name of the strip's file.
        transform: six numbers (a, b, c, d, e, f), pixel corner (col, row) to ``crs``, x = a col + b row + c and
            y = d col + e row + f.
        center: the strip's centre in ``crs``.
        crs: the map's CRS.
        heading_deg: direction of the image's up at its centre, clockwise from true north, as ``geomatch locate
            --heading`` takes it.
        gsd_m: ground sample distance in metres of ``crs``.
        look: side of the heading that the radar looks to.
        looks: number of looks of the speckle.
        incidence_deg: incidence angle.
        drift_m: how far the georeference in the file is from the truth, (east, north); None without a georeference.
        sway_px: of every SWAY_STEP-th row (row, across, along): its pixels lie by so many columns and rows from where
            ``transform`` puts them; empty for a steady flight.
    """

    file: str
    transform: tuple[float, float, float, float, float, float]
    center: tuple[float, float]
    crs: str
    heading_deg: float
    gsd_m: float
    look: str
    looks: float
    incidence_deg: float
    drift_m: tuple[float, float] | None
    sway_px: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class SimulatedCity:
    """Where everything was written, and the truth about the strips."""

    folder: Path
    truth: tuple[StripTruth, ...]

    @property
    def ortho(self) -> Path:
        """The orthophoto."""
        return self.folder / "ortho.tif"

    @property
    def sar(self) -> Path:
        """The SAR scene of the whole map."""
        return self.folder / "sar.tif"

    @property
    def strips(self) -> tuple[Path, ...]:
        """The strips, in the order of their truth."""
        return tuple(self.folder / strip.file for strip in self.truth)

    @property
    def truth_file(self) -> Path:
        """The truth, as JSON."""
        return self.folder / "truth.json"


def simulate_city(
    output_dir: Path | str,
    *,
    size_px: int = 4096,
    seed: int = 1,
    strips: int = 6,
    gsd_m: float = 0.5,
    flight: Flight | None = None,
    radar: Radar | None = None,
    camera: Camera | None = None,
    georeference: Georeference = "drifted",
) -> SimulatedCity:
    """Draw a city and write ``ortho.tif``, ``sar.tif``, ``strip_01.tif`` and on, and ``truth.json`` into a new folder.

    ``ortho.tif`` is RGB uint8; ``sar.tif`` is the whole scene on the same north-up grid, seen from one heading; strips
    are in the radar's own geometry. SAR values are linear amplitude, float32. With ``georeference="drifted"`` a strip
    carries its true heading and scale but is displaced by 300 to 2000 m in a random direction, as a drone without
    satellite navigation would report it; with ``"none"`` it carries none. Either way heading, clockwise from true
    north, and ground sample distance are in its tags. The folder appears complete or not at all.

    Raises:
        UsageError: for arguments out of range.
        OutputError: when the folder exists and is not empty, or cannot be written, or the disk is full.
    """
    flight, radar = flight or Flight(), radar or Radar()
    _check(strips, georeference, radar)
    folder, drifted = Path(output_dir), georeference == "drifted"
    with _appearing(folder) as draft:
        city = make_city(size_px, gsd_m=gsd_m, seed=seed)
        rng = np.random.default_rng((seed, 0x57E))
        frames = [draw_frame(city, flight, rng) for _ in range(strips)]
        sways = [draw_sway(flight, rng) if flight.sway_percent else None for _ in frames]
        write_geotiff(draft / "ortho.tif", render_optical(city, camera), city.transform, city.crs, overviews=True)
        scene = Scene.of(city)
        scene_heading_deg = _write_scene(draft / "sar.tif", scene, city, radar, rng)
        truth = [
            _write_strip(
                draft / f"strip_{number:02d}.tif", scene, frame, radar, rng, crs=city.crs, drifted=drifted, sway=sway
            )
            for number, (frame, sway) in enumerate(zip(frames, sways, strict=True), start=1)
        ]
        _write_truth(draft / "truth.json", city, radar, scene_heading_deg, truth)
    return SimulatedCity(folder, tuple(truth))


def _check(strips: int, georeference: str, radar: Radar) -> None:
    """Raise UsageError for arguments out of range."""
    if strips < 0:
        raise UsageError("the number of strips is negative", where="strips", hint="0 writes none")
    if not np.isfinite(radar.looks):
        raise UsageError("files are not written without speckle", where="looks", hint="give a finite number of looks")
    if georeference not in ("drifted", "none"):
        raise UsageError(f"georeference {georeference!r} is unknown", where="georeference", hint='"drifted" or "none"')


def _true_heading_deg(frame: Frame, crs: str) -> float:
    """Direction of a frame's up at its centre, degrees clockwise from true north, in [0, 360)."""
    down = ground_jacobian(Grid(as_crs(crs), frame.transform, frame.width, frame.height))[:, 1]
    return float(np.rad2deg(np.arctan2(-down[0], -down[1])) % 360.0)


def _write_scene(path: Path, scene: Scene, city: City, radar: Radar, rng: np.random.Generator) -> float:
    """Render and write the whole map as one SAR scene; return its heading, clockwise from true north."""
    power = render_north_up(scene, city.transform, city.shape, radar, rng, heading_deg=SCENE_HEADING_DEG)
    rows, cols = city.shape
    x, y = city.transform @ (cols / 2, rows / 2)
    heading_deg = _true_heading_deg(Frame.centred((x, y), SCENE_HEADING_DEG, city.gsd_m, cols, rows), city.crs)
    tags = {
        "heading_deg": f"{heading_deg:.6f}",
        "look": radar.look.value,
        "incidence_deg": f"{radar.incidence_deg}",
        "unit": "amplitude",
    }
    write_geotiff(path, np.sqrt(power), city.transform, city.crs, tags=tags, overviews=True)
    return heading_deg


def _write_strip(
    path: Path,
    scene: Scene,
    frame: Frame,
    radar: Radar,
    rng: np.random.Generator,
    *,
    crs: str,
    drifted: bool,
    sway: NDArray[np.float64] | None,
) -> StripTruth:
    """Render and write one strip; return the truth about it."""
    amplitude = np.sqrt(render_sar(scene, frame, radar, rng, sway))
    distance, direction = rng.uniform(LOW_DRIFT_M, HIGH_DRIFT_M), rng.uniform(0.0, 2 * np.pi)
    drift = (round(float(distance * np.sin(direction)), 2), round(float(distance * np.cos(direction)), 2))
    heading_deg = _true_heading_deg(frame, crs)
    tags = {
        "heading_deg": f"{heading_deg:.6f}",
        "gsd_m": f"{frame.gsd_m:.6f}",
        "look": radar.look.value,
        "incidence_deg": f"{radar.incidence_deg}",
        "unit": "amplitude",
    }
    if drifted:
        write_geotiff(path, amplitude, Affine.translation(*drift) @ frame.transform, crs, tags=tags)
    else:
        write_geotiff(path, amplitude, None, None, tags=tags)
    t = frame.transform
    return StripTruth(
        file=path.name,
        transform=(t.a, t.b, t.c, t.d, t.e, t.f),
        center=frame.centre,
        crs=crs,
        heading_deg=heading_deg,
        gsd_m=frame.gsd_m,
        look=radar.look.value,
        looks=radar.looks,
        incidence_deg=radar.incidence_deg,
        drift_m=drift if drifted else None,
        sway_px=() if sway is None else tuple(_told(row, *sway[row].tolist()) for row in _sway_rows(len(sway))),
    )


def _sway_rows(height: int) -> list[int]:
    return [*range(0, height - 1, SWAY_STEP), height - 1]


def _told(row: int, across: float, along: float) -> tuple[float, float, float]:
    return float(row), round(across, 3), round(along, 3)


def _write_truth(path: Path, city: City, radar: Radar, scene_heading_deg: float, truth: list[StripTruth]) -> None:
    """Write what is true: the map, how its SAR scene was flown, and every strip's pose; headings from true north."""
    rows, cols = city.shape
    t = city.transform
    place = {
        "file": "ortho.tif",
        "crs": city.crs,
        "transform": (t.a, t.b, t.c, t.d, t.e, t.f),
        "width": cols,
        "height": rows,
        "gsd_m": city.gsd_m,
        "seed": city.seed,
    }
    scene = {"file": "sar.tif", "heading_deg": scene_heading_deg, **asdict(radar), "look": radar.look.value}
    document = {"map": place, "sar": scene, "strips": [asdict(strip) for strip in truth]}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Yield a draft that becomes ``folder``, which may be there already if it is empty; see ``published``."""
    with writing(folder):
        empty = _is_empty_folder(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
    with published(folder, directory=True, overwrite=empty) as draft:
        yield draft
        _is_empty_folder(folder)  # someone else may have put something into it


def _is_empty_folder(folder: Path) -> bool:
    """Whether there is an empty folder, rather than nothing; OutputError if there is anything else."""
    if not os.path.lexists(folder):
        return False
    if not folder.is_dir() or any(folder.iterdir()):
        raise OutputError("there is something here already", where=folder, hint="name a new or empty folder")
    return True
