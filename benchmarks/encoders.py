"""Encoders side by side, end to end, on the validation block of Los Angeles and on spoilt versions of it.

Every case is a map, a SAR scene and a way to cut windows; every encoder builds its index of the map and locates the
same windows. Prints the share of textured windows that are placed within 10 px with Wilson's 95 % interval, and the
recall of the vectors alone (a tile that overlaps by half). Where the first encoder and the structural one, which
learned nothing, agree within 3 px on a place that is 10 to 50 px from the truth, it is map and scene that lie apart
there; how often that is so is printed too. Cases that are complete in bench/encoders/ are not run again unless an
encoder, the windows or geomatch's code have changed.

    python benchmarks/encoders.py [--windows 500] [--encoders la3 la3:alone structural] [--cases plain-200] [-o FILE]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np
import rasterio
from common import LA_VAL, Bar, finish, show
from numpy.typing import NDArray

from geomatch import defaults
from geomatch.encoder import ALONE, load_encoder
from geomatch.evaluation import predict, score
from geomatch.index.build import BuildOptions, build_index
from geomatch.locator import Locator
from geomatch.raster import open_raster
from geomatch.sampling import WindowOptions

FOLDER = Path("bench/encoders")
ENCODERS = (defaults.ENCODER, defaults.ENCODER + ALONE, common.STRUCTURAL)  # the first is judged
LOOKS = 4

Pixels = NDArray[Any]  # [B x H x W]


def as_is(pixels: Pixels) -> Pixels:
    return pixels


def halved(pixels: Pixels) -> Pixels:
    """At twice the ground sample distance."""
    size = (pixels.shape[2] // 2, pixels.shape[1] // 2)
    return np.stack([cv2.resize(band, size, interpolation=cv2.INTER_AREA) for band in pixels])


def equalised(pixels: Pixels) -> Pixels:
    return np.stack([cv2.equalizeHist(band) for band in pixels])


def one_band(pixels: Pixels) -> Pixels:
    return pixels[1:2]


def speckled(pixels: Pixels) -> Pixels:
    """Amplitude under gamma speckle of four looks."""
    rng = np.random.default_rng(4)
    return (pixels * np.sqrt(rng.gamma(LOOKS, 1 / LOOKS, pixels.shape))).astype(np.float32)


def decibels(pixels: Pixels) -> Pixels:
    return (20 * np.log10(np.maximum(pixels, 0.5) / 1000)).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """What is asked of what.

    Attributes:
        name: of the case.
        size: side of the windows, pixels.
        optical, sar: what is done to the pixels of map and scene.
        jpeg: quality of the map's file.
        rotate, scale: as of ``WindowOptions``; neither is told.
        least: bar on the textured windows placed within 10 px.
    """

    name: str
    size: int = 200
    optical: Callable[[Pixels], Pixels] = as_is
    sar: Callable[[Pixels], Pixels] = as_is
    jpeg: int = 95
    rotate: float = 0.0
    scale: float = 0.0
    least: float = 0.93


CASES = (
    Case("plain-200", least=0.98),
    Case("plain-400", size=400, least=0.995),
    Case("plain-104", size=104, least=0.70),
    Case("20-m", optical=halved, sar=halved),
    Case("jpeg-50", jpeg=50),
    Case("equalised", optical=equalised),
    Case("one-band", optical=one_band),
    Case("4-looks", sar=speckled),
    Case("decibels", sar=decibels),
    Case("6-degrees", rotate=6),
    Case("10-percent", scale=10),
)


def files_of(case: Case, data: Path) -> tuple[Path, Path]:
    """The case's map and SAR scene, written once."""
    pixels, place = common.read_area(data, LA_VAL)
    with open_raster(data / LA_VAL.scene / "sar.tif") as raster:
        sar = raster.read(LA_VAL.col0, LA_VAL.row0, LA_VAL.width, LA_VAL.height).data
    made = []
    for kind, image, change in (("map", pixels, case.optical), ("sar", sar, case.sar)):
        file = FOLDER / f"{kind}-{change.__name__}{f'-{case.jpeg}' if kind == 'map' else ''}.tif"
        made.append(file)
        if not file.is_file():
            write(file, change(image), place, LA_VAL.width, case.jpeg if kind == "map" else None)
    return made[0], made[1]


def write(file: Path, pixels: Pixels, place: dict[str, Any], width: int, jpeg: int | None) -> None:
    """A GeoTIFF of pixels that cover what ``width`` columns of ``place`` cover."""
    bands, tall, wide = pixels.shape
    transform = place["transform"] @ rasterio.Affine.scale(width / wide)
    coding: dict[str, Any] = {"compress": "deflate"}
    if jpeg is not None:
        coding = {"compress": "jpeg", "jpeg_quality": jpeg, "interleave": "pixel"}
        coding |= {"photometric": "ycbcr" if bands == 3 else "minisblack"}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part.tif")
    size = {"width": wide, "height": tall, "count": bands, "dtype": pixels.dtype}
    tiling = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(
        part, "w", driver="GTiff", crs=place["crs"], transform=transform, **size, **tiling, **coding
    ) as out:
        out.write(pixels)
    part.rename(file)


def measured(case: Case, name: str, data: Path, windows: int, seed: int) -> dict[str, Any]:
    """The scores of an encoder on a case, from the last run where that still holds."""
    encoder = load_encoder(name)
    options = WindowOptions(windows, case.size, seed=seed, rotate=case.rotate, scale_percent=case.scale)
    code = common.code_hash(Path(__file__))
    key = hashlib.sha256(repr((case.name, encoder.fingerprint(), options, code)).encode()).hexdigest()[:12]
    file = FOLDER / f"{case.name}-{Path(name).stem}-{key}.json"
    if not file.is_file():
        map_file, sar = files_of(case, data)
        index = FOLDER / f"{map_file.stem}-{encoder.fingerprint()[:12]}.gmi"
        if not index.exists():
            build_index(map_file, index, BuildOptions(encoder=name))
        made = list(predict(Locator.open(index), sar, options))
        places = [(m.truth_px, m.found_px, m.textured) for m in made]
        file.write_text(json.dumps({"scores": score(made), "places": places}))
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def row_of(case: Case, name: str, found: dict[str, Any]) -> list[str]:
    scores = found["scores"]
    low, high = scores["success_px_textured_ci"]["10"]
    recall = scores["recall_textured"]
    return [
        case.name,
        name,
        f"{scores['textured']} of {scores['windows']}",
        f"{scores['success_px_textured']['10']:.3f} [{low:.3f}, {high:.3f}]",
        f"{scores['success_px_textured']['5']:.3f}",
        f"{recall['1']:.3f}",
        f"{recall['100']:.3f}",
        f"{scores['located_wrong']} of {scores['located']}",
        f"{1000 * scores['cpu_s_per_query']:.0f}",
    ]


def apart(case: Case, first: dict[str, Any], structural: dict[str, Any]) -> dict[str, Any]:
    """What ``common.tell_apart`` says of the first encoder."""
    aside, hits = [], []
    for (truth, ours, textured), (_, theirs, _) in zip(first["places"], structural["places"], strict=True):
        if textured:
            aside.append(common.lie_apart(truth, ours, theirs))
            hits.append(ours is not None and float(np.hypot(*np.subtract(ours, truth))) <= common.RIGHT_PX)
    return common.tell_apart(case.name, hits, aside)


def bars_of(case: Case, shares: Sequence[tuple[str, float]]) -> list[Bar]:
    """The first encoder's bar, and that none of the others passes it."""
    (first, share), *others = shares
    best = max((other for _, other in others), default=share)
    return [
        Bar(f"{case.name}, {first}", share, case.least),
        Bar(f"{case.name}, {first}, over the others", share - best, 0),
    ]


def main() -> None:
    parser = common.parser(__doc__, windows=500)
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    parser.add_argument("--cases", nargs="+", default=[case.name for case in CASES])
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows: list[list[str]] = []
    results: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for case in (case for case in CASES if case.name in given.cases):
        all_found = {name: measured(case, name, data, given.windows, given.seed) for name in given.encoders}
        for name, found in all_found.items():
            rows.append(row_of(case, name, found))
            results.append({"case": case.name, "encoder": name, **found["scores"]})
        if common.STRUCTURAL in all_found:
            first = results[-len(given.encoders)]
            first |= apart(case, all_found[given.encoders[0]], all_found[common.STRUCTURAL])
        latest = results[-len(given.encoders) :]
        bars += bars_of(case, [(result["encoder"], result["success_px_textured"]["10"]) for result in latest])
    columns = ("case", "encoder", "textured", "within 10 px", "5 px", "R@1", "R@100", "wrong/located", "CPU ms")
    show("Encoders on the Los Angeles validation block", columns, rows)
    finish(given.output, results, bars)


if __name__ == "__main__":
    main()
