"""Windows of a georeferenced SAR scene as a locator gets them, their position hidden, and where they really are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geomatch.geo import ground_jacobian, linear_part, linear_to_map, pixel_between
from geomatch.images import SarRadiometry
from geomatch.raster import open_raster
from geomatch.sampling import WindowOptions, window_cuts
from geomatch.strips import RawStrip
from geomatch.tile_index import TileIndex

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Truth:
    """Where a window was cut.

    Attributes:
        center_px: [2] its centre, pixels of the index's map.
        raw: the window as it lies there.
    """

    center_px: NDArray[np.float64]
    raw: RawStrip


@dataclass(frozen=True)
class Hidden:
    """A window.

    Attributes:
        raw: as it is asked.
        truth: where it is; None off the map.
    """

    raw: RawStrip
    truth: Truth | None


def hidden_windows(
    index: TileIndex,
    sar: str | os.PathLike[str],
    options: WindowOptions,
    *,
    on_map: bool = True,
    progress: Progress = lambda done, total: None,
) -> Iterator[Hidden]:
    """Random windows of a SAR scene.

    Args:
        index: of the map.
        sar: a georeferenced scene.
        options: which windows.
        on_map: whether the scene shows the map; if not, windows come from all of it and have no true place.
        progress: called with the windows done and the total.

    Raises:
        InputError: the scene cannot be used, or too few windows of it lie in the map and hold data.
    """
    with open_raster(sar, need_grid=True) as raster:
        assert raster.grid is not None, "opened with need_grid"
        radiometry = SarRadiometry.detect(raster)
        ground = ground_jacobian(index.grid)
        cuts = list(window_cuts(raster, raster.grid, index, options, on_map=on_map))
        for done, cut in enumerate(cuts):
            progress(done, len(cuts))
            patch = cut.read(raster, radiometry)
            if options.looks is not None:
                patch = radiometry.speckled(patch, options.looks, np.random.default_rng((options.seed, done)))
            window = raster.grid.window(cut.col, cut.row, cut.width, cut.height)
            linear = linear_to_map(window, index.grid)
            told = options.told
            raw = RawStrip.of(patch, linear, radiometry.relative_to(patch), ground=ground, tolerance=told)
            center_px = pixel_between(window, index.grid, window.center_px)
            lies = replace(raw, linear=linear @ linear_part(cut.to_scene))
            yield Hidden(raw, Truth(center_px, lies) if on_map else None)
        progress(len(cuts), len(cuts))
