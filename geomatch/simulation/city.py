"""A procedural city: heights and materials on a north-up grid, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.simulation.canvas import Canvas
from geomatch.simulation.districts import Districts, draw_districts
from geomatch.simulation.layouts import LAYOUTS
from geomatch.simulation.nature import draw_ground, draw_water, draw_woods
from geomatch.simulation.site import Site
from geomatch.simulation.streets import Block, draw_avenues, draw_streets

CRS = "EPSG:32633"
SMALLEST_PX = 256
LARGEST_PX = 8192


@dataclass(frozen=True)
class City:
    """A place: rasters [H, W] on a north-up grid. The ground is flat, at height 0.

    Attributes:
        height_m: height above ground, float32.
        material: codes of :class:`geomatch.simulation.materials.Material`, uint8.
        variant: what tells objects of one material apart, uint8; picks the colour and, apart from it, the backscatter.
        transform: pixel corner (col, row) to ``crs``, in metres.
        crs: a projected CRS in metres.
        seed: what the city was drawn from; its textures are drawn from it too.
    """

    height_m: NDArray[np.float32]
    material: NDArray[np.uint8]
    variant: NDArray[np.uint8]
    transform: Affine
    crs: str
    seed: int

    def __post_init__(self) -> None:
        if not self.height_m.shape == self.material.shape == self.variant.shape:
            raise ValueError("height, material and variant have different shapes")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height_m.shape[0], self.height_m.shape[1]

    @property
    def gsd_m(self) -> float:
        """Ground sample distance in metres."""
        return float(self.transform.a)


def make_city(size_px: int, *, gsd_m: float = 0.5, seed: int = 1) -> City:
    """Draw a square city of ``size_px`` pixels a side.

    Ground and water come first, then avenues, then the streets of each district, then its blocks, then woods on what is
    left.

    Raises:
        UsageError: for a size or ground sample distance out of range.
    """
    if not SMALLEST_PX <= size_px <= LARGEST_PX:
        raise UsageError(
            f"a city of {size_px} px cannot be drawn", where="size_px", hint=f"choose {SMALLEST_PX} to {LARGEST_PX} px"
        )
    if not 0.1 <= gsd_m <= 2.0:
        raise UsageError(
            f"a pixel of {gsd_m} m cannot show streets and houses", where="gsd_m", hint="choose 0.1 to 2 m"
        )
    rng = np.random.default_rng(seed)
    canvas = Canvas(size_px, gsd_m)
    draw_ground(canvas, rng)
    draw_water(canvas, rng)
    districts = draw_districts(rng, size_px, gsd_m)
    draw_avenues(canvas, districts, rng)
    _build(canvas, districts, draw_streets(canvas, districts, rng), rng)
    draw_woods(canvas, rng)
    east, north = rng.uniform(320_000, 680_000), rng.uniform(5_200_000, 5_800_000)
    transform = Affine(gsd_m, 0.0, float(round(east)), 0.0, -gsd_m, float(round(north)))
    return City(canvas.height_m, canvas.material, canvas.variant, transform, CRS, seed)


def _build(canvas: Canvas, districts: Districts, blocks: list[Block], rng: np.random.Generator) -> None:
    """Build up every block whose middle is on the map and in the district that it belongs to."""
    for block in blocks:
        row, col = int(block.y // canvas.gsd_m), int(block.x // canvas.gsd_m)
        on_map = 0 <= row < canvas.size_px and 0 <= col < canvas.size_px
        if on_map and districts.labels[row, col] == block.district.code:
            LAYOUTS[block.district.style](Site(canvas, block, rng))
