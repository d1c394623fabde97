"""Which speckle filter: windows of Los Angeles with speckle added, filtered in several ways, located by geomatch.

    python benchmarks/speckle.py [--windows 200] [-o bench/speckle.json]

The scene has few looks left to lose, so gamma speckle of 4 looks and of 1 look is multiplied on top of it. Each filter
works on power, before the logarithm, in the place of ``geomatch.images.multilook``. Prints success within 10 px.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
from common import LA_VAL, STRUCTURAL, data_or_skip, finish, parser, share, show
from numpy.typing import NDArray

from geomatch import images
from geomatch.geo import footprint
from geomatch.images import SarRadiometry
from geomatch.index.build import BuildOptions, build_index
from geomatch.locator import Locator
from geomatch.raster import Patch, open_raster
from geomatch.strips import strip_of

SIZE_PX = 200
RIGHT_PX = 10.0
LOOKS = (None, 4, 1)

Power = NDArray[np.float32]


def lee(power: Power) -> Power:
    """Lee 1980, "Digital image enhancement and noise filtering by use of local statistics": 5 × 5 px, four looks."""
    mean = cv2.blur(power, (5, 5))
    variance = np.maximum(cv2.blur(power**2, (5, 5)) - mean**2, 1e-12)
    signal = np.maximum(variance - mean**2 / 4, 0) / (1 + 1 / 4)
    return np.asarray(mean + signal / variance * (power - mean), dtype=np.float32)


FILTERS: dict[str, Callable[[Power], Any]] = {
    "none": lambda power: power,
    "mean of 3 × 3 *": lambda power: cv2.blur(power, (3, 3)),
    "mean of 5 × 5": lambda power: cv2.blur(power, (5, 5)),
    "Gaussian, 1 px": lambda power: cv2.GaussianBlur(power, (0, 0), 1.0),
    "Lee, 5 × 5": lee,
}


def main() -> None:
    options = parser(__doc__, windows=200).parse_args()
    data = data_or_skip(options.data)
    cv2.setNumThreads(1)
    scene = data / LA_VAL.scene
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "la.gmi"
        with open_raster(scene / "optical.tif", need_grid=True) as raster:
            assert raster.grid is not None
            block = raster.grid.window(LA_VAL.col0, LA_VAL.row0, LA_VAL.width, LA_VAL.height)
        options = BuildOptions(bbox=footprint(block).bounds, encoder=STRUCTURAL)
        build_index(scene / "optical.tif", index, options)
        locator = Locator.open(index)
        results = {
            f"{name}, {looks or 'no'} looks added": _success(locator, scene / "sar.tif", chosen, looks, options)
            for looks in LOOKS
            for name, chosen in FILTERS.items()
        }
    show("Success within 10 px", ("filter and speckle", "share"), [(k, share(v)) for k, v in results.items()])
    finish(options.output, {name: float(np.mean(hits)) for name, hits in results.items()})


def _success(
    locator: Locator, sar: Path, chosen: Callable[[Power], Any], looks: int | None, options: Any
) -> list[bool]:
    """Which of the same windows, with the same speckle, are found."""
    places = np.random.default_rng(options.seed)
    noise = np.random.default_rng(options.seed + 1)

    def filtered(amplitude: NDArray[Any], valid: NDArray[np.bool_]) -> Power:
        del valid  # the windows are whole
        return np.sqrt(np.maximum(chosen(np.square(amplitude).astype(np.float32)), 0))

    hits = []
    with open_raster(sar) as raster, patch.object(images, "multilook", filtered):
        radiometry = SarRadiometry.detect(raster)
        for _ in range(options.windows):
            col, row = places.integers(0, (LA_VAL.width - SIZE_PX, LA_VAL.height - SIZE_PX))
            cut = raster.read(LA_VAL.col0 + int(col), LA_VAL.row0 + int(row), SIZE_PX, SIZE_PX)
            values = cut.data.astype(np.float32)
            if looks is not None:
                values *= np.sqrt(noise.gamma(looks, 1 / looks, values.shape)).astype(np.float32)
            speckled = Patch(values, cut.valid)
            trace = locator.trace(strip_of(speckled, np.eye(2), radiometry.relative_to(speckled)))
            hits.append(trace.judged is not None and np.hypot(*(trace.judged.corner_px - (col, row))) <= RIGHT_PX)
    return hits


if __name__ == "__main__":
    main()
