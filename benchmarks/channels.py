"""Choices of the structural features, each by exhaustive correlation at 1/8 resolution.

Three harmonics of the orientation curve (geomatch.structure) against eight sampled orientations, as they were first
tried (no smoothing of the optical image, contrast equalised over the whole map) and with all else as in geomatch; and
geomatch's constants changed one at a time. Two tests, with Wilson's 95 % intervals: windows of 200 px of the validation
block of Los Angeles, found within 10 px; and OMBRIA, where the central 208 or 104 px of each SAR image ("before" pairs
with data throughout) are to find their own optical image among all. "To first" counts what a variant alone finds (+)
and what geomatch alone finds (-). Also the share of the variance of eight sampled orientations that three principal
components hold.

    python benchmarks/channels.py [--windows 300] [--pairs 240] [-o FILE]
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import common
import cv2
import gallery
import numpy as np
from common import LA_VAL, SarWindows
from numpy.typing import NDArray

from geomatch import structure
from geomatch.correlate import over, template
from geomatch.fusion import subpixel
from geomatch.images import OpticalStretch, SarRadiometry
from geomatch.raster import Patch, open_raster
from geomatch.structure import Dense

CELL_PX = gallery.CELL_PX
ORIENTATIONS = 8
WITHIN_PX = 10
PAIR_PX = 256
CENTRAL_PX = (208, 104)
ACROSS = 16  # images per row of the mosaic that OMBRIA's gallery is laid out in
MAX_NODATA = 0.02
NONE = 1e-3  # a Gaussian so narrow that it does nothing

Image = NDArray[np.float32]
_harmonics, _masked_blur = structure._harmonics, structure._masked_blur


# ---- variants


def sampled(image: Image) -> Image:
    """Eight sampled orientations |g| |cos(t - theta)|, from the harmonics, of which they are a function."""
    length, cosine, sine = _harmonics(image)
    angles = 2 * np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS
    squares = [length * (length + cosine * np.cos(angle) + sine * np.sin(angle)) / 2 for angle in angles]
    return np.stack([np.sqrt(np.maximum(square, 0)) for square in squares]).astype(np.float32)


def over_all(planes: Image, known: NDArray[np.bool_], sigma: float) -> Image:
    """In place of the local contrast: one over the whole image."""
    if sigma != structure.NEIGHBOURHOOD_CELLS:
        return _masked_blur(planes, known, sigma)
    mean = planes[:, known].mean(axis=1) if known.any() else np.zeros(len(planes))
    return np.broadcast_to(mean[:, None, None], planes.shape).astype(np.float32)


@dataclass(frozen=True)
class Variant:
    """One way to make features: what is set in geomatch.structure, for both modalities and for SAR alone."""

    name: str
    both: dict[str, Any] = field(default_factory=dict)
    sar: dict[str, Any] = field(default_factory=dict)

    def dense(self, image: Image, *, is_sar: bool) -> Dense:
        changes = self.both | (self.sar if is_sar else {})
        with gallery.setting(*((structure, name, value) for name, value in changes.items())):
            return structure.structure(image, np.ones(image.shape, bool), CELL_PX)


GLOBAL = {"_masked_blur": over_all}
EIGHT = {"_harmonics": sampled}
FIRST_TRIED = {"SMOOTH_PX": NONE, "POOL_CELLS": NONE, "BLUR_SHARE": 0.0, "CONTRAST_FLOOR": 0.3} | GLOBAL

VARIANTS = (
    Variant("geomatch: three harmonics"),
    Variant("eight orientations, else as geomatch", EIGHT),
    Variant("eight orientations as first tried", EIGHT | FIRST_TRIED, {"SMOOTH_PX": 2.0}),
    Variant("three harmonics, else as first tried", FIRST_TRIED, {"SMOOTH_PX": 2.0}),
    Variant("no smoothing", {"SMOOTH_PX": NONE}),
    Variant("smoothing 2 px", {"SMOOTH_PX": 2.0}),
    Variant("no pooling across cells", {"POOL_CELLS": NONE}),
    Variant("blur not removed", {"BLUR_SHARE": 0.0}),
    Variant("blur removed whole", {"BLUR_SHARE": 1.0}),
    Variant("contrast floor 0.3", {"CONTRAST_FLOOR": 0.3}),
    Variant("contrast floor 3", {"CONTRAST_FLOOR": 3.0}),
    Variant("contrast over the whole image", GLOBAL),
)


# ---- the two tests


@dataclass(frozen=True)
class City:
    """Windows of one SAR scene, to be found in one optical image."""

    optical: Image
    strips: list[Image]
    truth: NDArray[np.int64]

    @classmethod
    def load(cls, data: Path, count: int, seed: int) -> City:
        with open_raster(common.area_file(data, LA_VAL, common.BENCH / "gallery")) as raster:
            stretch = OpticalStretch.fit(raster)
            optical = stretch.grey(raster.read(0, 0, raster.width, raster.height, bands=stretch.bands))
        truth = common.random_corners(LA_VAL, gallery.SIZE_PX, count, seed)
        sar = SarWindows(data, LA_VAL)
        return cls(optical, [sar.strip(corner, gallery.SIZE_PX).image for corner in truth], truth)

    def found(self, variant: Variant) -> list[bool]:
        """Which windows are placed within 10 px."""
        whole = variant.dense(self.optical, is_sar=False)
        rms = usual_contrast(whole)
        places = [self._place(whole, rms, variant.dense(strip, is_sar=True)) for strip in self.strips]
        return [bool(np.hypot(*(place - true)) <= WITHIN_PX) for place, true in zip(places, self.truth, strict=True)]

    @staticmethod
    def _place(whole: Dense, rms: float, query: Dense) -> NDArray[np.float64]:
        window = template(query)
        if window is None:
            return np.full(2, np.inf)
        surface = over(window, whole, rms).astype(np.float64)
        row, col = (int(i) for i in np.unravel_index(surface.argmax(), surface.shape))
        return CELL_PX * (np.array([col, row]) + subpixel(surface, row, col))


@dataclass(frozen=True)
class Pairs:
    """SAR images, each to find its own optical image among all."""

    optical: list[Image]
    sar: list[Image]
    central_px: int

    @classmethod
    def load(cls, data: Path, count: int, central_px: int) -> Pairs:
        folder = data / "ombria"
        with (folder / "pairs.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["phase"] == "before"]
        names = [row["name"] for row in rows if float(row["nodata_fraction"]) < MAX_NODATA][:count]
        edge = (PAIR_PX - central_px) // 2
        part = np.s_[edge : edge + central_px, edge : edge + central_px]
        return cls(
            [stretched(picture(folder / "optical" / f"{name}.jpg")) for name in names],
            [log_amplitude(picture(folder / "sar" / f"{name}.jpg")[part]) for name in names],
            central_px,
        )

    def found(self, variant: Variant) -> list[bool]:
        """Which images find their own; the gallery lies side by side in one field."""
        mosaic, first = laid_out([variant.dense(image, is_sar=False) for image in self.optical])
        rms = usual_contrast(mosaic)
        return [
            self._best(mosaic, rms, variant.dense(image, is_sar=True), first) == i for i, image in enumerate(self.sar)
        ]

    def _best(self, mosaic: Dense, rms: float, query: Dense, first: list[tuple[int, int]]) -> int:
        window = template(query)
        if window is None:
            return -1
        surface = over(window, mosaic, rms)
        side = (PAIR_PX - self.central_px) // CELL_PX + 1
        return int(np.argmax([surface[row : row + side, col : col + side].max() for row, col in first]))


def laid_out(parts: list[Dense]) -> tuple[Dense, list[tuple[int, int]]]:
    """Equal parts side by side in one field, and the first cell (row, column) of each."""
    channels, side, _ = parts[0].values.shape
    down = -(-len(parts) // ACROSS)
    values = np.zeros((channels, down * side, ACROSS * side), np.float32)
    valid = np.zeros(values.shape[1:], bool)
    first = [(side * (i // ACROSS), side * (i % ACROSS)) for i in range(len(parts))]
    for part, (row, col) in zip(parts, first, strict=True):
        at = np.s_[row : row + side, col : col + side]
        values[:, *at], valid[at] = part.values, part.valid
    return Dense(values, valid), first


def usual_contrast(dense: Dense) -> float:
    """Root mean square per cell about the channels' means, so that the floor under flat places suits every variant."""
    return float(np.sqrt(dense.values[:, dense.valid].var(axis=1).sum()))


def picture(file: Path) -> Image:
    """Mean of a picture's bands."""
    pixels = cv2.imread(str(file), cv2.IMREAD_COLOR)
    assert pixels is not None, file
    return pixels.mean(axis=2).astype(np.float32)


def stretched(grey: Image) -> Image:
    low, high = np.percentile(grey, [1, 99])
    return np.clip((grey - low) / max(high - low, 1), 0, 1).astype(np.float32)


def log_amplitude(grey: Image) -> Image:
    radiometry = SarRadiometry("amplitude", (1,), (1.0,), "")
    patch = Patch(grey[None], np.ones(grey.shape, bool))
    return radiometry.relative_to(patch).log_amplitude(patch)


# ---- report


def variance_held(image: Image) -> dict[str, float]:
    """Share of the variance of eight sampled orientations, averaged to cells, in three principal components."""
    cells, _ = structure._pool(sampled(image), np.ones(image.shape, np.float32), CELL_PX)
    raw = cells.reshape(ORIENTATIONS, -1)
    unit = raw / np.maximum(np.linalg.norm(raw, axis=0), 1e-9)

    def held(values: Image) -> float:
        spread = np.linalg.eigvalsh(np.cov(values))
        return float(spread[-structure.CHANNELS :].sum() / spread.sum())

    return {"as they are": held(raw), "of unit length": held(unit)}


def evaluate(variant: Variant, tests: dict[str, Callable[[Variant], list[bool]]]) -> dict[str, Any]:
    done = {name: common.timed(test, variant) for name, test in tests.items()}
    return {"variant": variant.name} | {
        name: {"hits": took.value, "cpu_ms": 1000 * took.cpu_s / len(took.value)} for name, took in done.items()
    }


def row_of(result: dict[str, Any], first: dict[str, Any]) -> list[str]:
    cells = [result["variant"]]
    for test in [name for name in result if name != "variant"]:
        hits, usual = (np.array(side[test]["hits"]) for side in (result, first))
        cells += [common.share(hits), f"+{int((hits & ~usual).sum())} -{int((usual & ~hits).sum())}"]
    return [*cells, f"{result['city']['cpu_ms']:.0f}"]


def main() -> None:
    parser = common.parser(__doc__, windows=300)
    parser.add_argument("--pairs", type=int, default=240, help="of OMBRIA, default 240")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    city = City.load(data, given.windows, given.seed)
    pairs = {f"ombria_{size}": Pairs.load(data, given.pairs, size) for size in CENTRAL_PX}
    tests = {"city": city.found} | {name: test.found for name, test in pairs.items()}
    results = [evaluate(variant, tests) for variant in VARIANTS]
    columns = [
        "features",
        "LA within 10 px",
        "to first",
        *(column for size in CENTRAL_PX for column in (f"OMBRIA {size} px R@1", "to first")),
        "CPU ms, LA",
    ]
    title = f"Exhaustive correlation at 1/{CELL_PX}: {given.windows} windows of LA, {given.pairs} pairs of OMBRIA"
    common.show(title, columns, [row_of(result, results[0]) for result in results])
    held = {"optical": variance_held(city.optical), "SAR": variance_held(np.hstack(city.strips))}
    for modality, shares in held.items():
        print(
            f"{modality}: three components hold " + ", ".join(f"{value:.4f} {name}" for name, value in shares.items())
        )
    settings = [asdict(variant) for variant in VARIANTS]
    common.finish(given.output, {"results": results, "variance_held": held, "settings": repr(settings)})


if __name__ == "__main__":
    main()
