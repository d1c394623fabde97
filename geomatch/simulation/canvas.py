"""The rasters of a city while it is being drawn, and the few shapes that everything is drawn from.

Coordinates are metres from the map's upper left corner, x to the east and y to the south; angles are radians from x
towards y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.simulation.materials import Material

SUBPIXEL_BITS = 4
EVERYWHERE = (slice(None), slice(None))


@dataclass(frozen=True)
class Box:
    """A rectangle on the ground with a height: a building, a wing of one, a car, or, flat, a patch of material.

    ``pitch`` is the slope of a gabled roof whose ridge runs along u; 0 is a flat roof. ``height_m`` is the eaves'
    height.
    """

    x: float
    y: float
    half_u: float
    half_v: float
    angle: float
    material: Material
    variant: int
    height_m: float = 0.0
    pitch: float = 0.0


@dataclass(frozen=True)
class Footprint:
    """The pixels of a box: a window of the canvas, which of its pixels are inside, and the roof's height there."""

    window: tuple[slice, slice]
    inside: NDArray[np.bool_]
    top_m: NDArray[np.float32]


class Canvas:
    """Rasters [H, W] under construction: height, material, variant, and where it is still free to build."""

    def __init__(self, size_px: int, gsd_m: float) -> None:
        shape = (size_px, size_px)
        self.gsd_m = gsd_m
        self.size_px = size_px
        self.size_m = size_px * gsd_m
        self.height_m = np.zeros(shape, np.float32)
        self.material = np.zeros(shape, np.uint8)
        self.variant = np.zeros(shape, np.uint8)
        self.free = np.ones(shape, np.bool_)

    def window(self, x: float, y: float, reach_m: float) -> tuple[slice, slice]:
        """Return the window of pixels within ``reach_m`` of a point, cut at the map's edge (possibly empty)."""
        bounds = []
        for value in (y, x):
            low = max(int(np.floor((value - reach_m) / self.gsd_m)), 0)
            high = min(int(np.ceil((value + reach_m) / self.gsd_m)) + 1, self.size_px)
            bounds.append(slice(low, max(low, high)))
        return bounds[0], bounds[1]

    def offsets(
        self, window: tuple[slice, slice], x: float, y: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the offsets in metres from a point of a window's pixel centres, dx as a row and dy as a column."""
        rows, cols = window
        dx = (np.arange(cols.start, cols.stop, dtype=np.float32) + 0.5) * self.gsd_m - x
        dy = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * self.gsd_m - y
        return dx.astype(np.float32)[None, :], dy.astype(np.float32)[:, None]

    def material_at(self, x: float, y: float) -> Material | None:
        """Return the material at a point, None beyond the map's edge."""
        row, col = int(y // self.gsd_m), int(x // self.gsd_m)
        if not (0 <= row < self.size_px and 0 <= col < self.size_px):
            return None
        return Material(int(self.material[row, col]))

    def footprint(self, box: Box) -> Footprint:
        """Return the pixels whose centres are inside the box, and the height of its roof over them."""
        window = self.window(box.x, box.y, float(np.hypot(box.half_u, box.half_v)))
        dx, dy = self.offsets(window, box.x, box.y)
        cosine, sine = np.float32(np.cos(box.angle)), np.float32(np.sin(box.angle))
        u, v = np.abs(cosine * dx + sine * dy), np.abs(cosine * dy - sine * dx)
        inside = (u <= box.half_u) & (v <= box.half_v)
        top = np.float32(box.height_m) + np.float32(box.pitch) * np.maximum(np.float32(box.half_v) - v, 0)
        return Footprint(window, inside, top)

    def paint(self, box: Box) -> None:
        """Cover the free ground inside a box with its material, leaving it free to build on."""
        mark = self.footprint(box)
        ground = mark.inside & self.free[mark.window]
        self.material[mark.window][ground] = box.material
        self.variant[mark.window][ground] = box.variant

    def build(self, boxes: Sequence[Box], least_free: float = 0.7) -> bool:
        """Build the wings of one building where enough of its ground is free, cutting off what is not.

        Returns:
            Whether it was built.
        """
        marks = [self.footprint(box) for box in boxes]
        area = sum(int(mark.inside.sum()) for mark in marks)
        room = sum(int((mark.inside & self.free[mark.window]).sum()) for mark in marks)
        if area == 0 or room < least_free * area:
            return False
        grounds = [mark.inside & self.free[mark.window] for mark in marks]
        for box, mark, ground in zip(boxes, marks, grounds, strict=True):
            height = self.height_m[mark.window]
            height[ground] = np.maximum(height, mark.top_m)[ground]
            self.material[mark.window][ground] = box.material
            self.variant[mark.window][ground] = box.variant
            self.free[mark.window][ground] = False
        return True

    def place(self, box: Box) -> None:
        """Set a box on top of whatever is there: a car on asphalt, a chimney on a roof."""
        mark = self.footprint(box)
        self.height_m[mark.window][mark.inside] += np.float32(box.height_m)
        self.material[mark.window][mark.inside] = box.material
        self.variant[mark.window][mark.inside] = box.variant

    def tree(self, x: float, y: float, radius_m: float, height_m: float, variant: int) -> None:
        """Grow a dome of foliage over whatever is lower, but not over roofs, water or bridges, nor out of asphalt."""
        if self.material_at(x, y) in {None, Material.ASPHALT}:
            return
        window = self.window(x, y, radius_m)
        dx, dy = self.offsets(window, x, y)
        squared = (dx * dx + dy * dy) / np.float32(radius_m**2)
        height, material = self.height_m[window], self.material[window]
        crown = np.float32(height_m) * (np.float32(1.0) - np.float32(0.55) * squared)
        keeps = (material >= Material.ROOF_TILE) | (material == Material.WATER)
        grows = (squared <= 1.0) & (crown > height) & ~keeps
        height[grows] = crown[grows]
        material[grows] = Material.TREES
        self.variant[window][grows] = variant

    def stroke(
        self, lines: Sequence[NDArray[np.float64]], width_m: float, window: tuple[slice, slice] | None = None
    ) -> NDArray[np.bool_]:
        """Return the mask of polylines, each [N, 2] in metres, drawn with a width over the map or a window of it."""
        rows, cols = window or (slice(0, self.size_px), slice(0, self.size_px))
        mask = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint8)
        origin = (np.array([cols.start, rows.start]) + 0.5) * self.gsd_m
        scale = 2**SUBPIXEL_BITS / self.gsd_m
        points = [np.round((line - origin) * scale).astype(np.int32) for line in lines]
        thickness = max(round(width_m / self.gsd_m), 1)
        cv2.polylines(mask, points, isClosed=False, color=1, thickness=thickness, shift=SUBPIXEL_BITS)
        return mask.astype(np.bool_)

    def cover(
        self,
        mask: NDArray[np.bool_],
        material: Material,
        variant: int,
        *,
        height_m: float = 0.0,
        window: tuple[slice, slice] = EVERYWHERE,
    ) -> None:
        """Give the masked pixels of a window a material and a height, and take them from the ground to build on."""
        self.material[window][mask] = material
        self.variant[window][mask] = variant
        self.height_m[window][mask] = height_m
        self.free[window][mask] = False
