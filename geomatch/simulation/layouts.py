"""How a block is built up: one function for each style of district, drawing on the canvas in the block's own frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from geomatch.simulation.districts import Style
from geomatch.simulation.materials import Material
from geomatch.simulation.site import Site


@dataclass(frozen=True)
class Frontage:
    """One side of a closed block: along u or along v, at which side, and how its houses look. Lengths are metres."""

    along_u: bool
    side: float
    half_length: float
    offset: float
    depth: float
    height_m: float
    pitched: bool

    def at(self, along: float, inward: float) -> tuple[float, float]:
        """Return (u, v) of a point a distance along the side and inward from the street."""
        away = self.side * (self.offset - inward)
        return (along, away) if self.along_u else (away, along)


def perimeter(site: Site) -> None:
    """Closed blocks: houses shoulder to shoulder around a courtyard; now and then a square instead."""
    rng, block = site.rng, site.block
    site.yard(Material.PAVEMENT if rng.random() < 0.5 else Material.GRASS)
    if rng.random() < 0.07:
        site.trees(60.0)
        return
    height, depth, pitched = float(rng.uniform(12.0, 22.0)), float(rng.uniform(10.0, 14.0)), bool(rng.random() < 0.45)
    for side in (-1.0, 1.0):
        _front(site, Frontage(True, side, block.half_u, block.half_v, depth, height, pitched))
        _front(site, Frontage(False, side, block.half_v - depth, block.half_u, depth, height, pitched))
    site.trees(12.0, 9.0)
    site.street_trees(11.0)


def _front(site: Site, front: Frontage) -> None:
    """Build one side of a closed block, with gaps now and then, and wings into the courtyard that make an L or a T."""
    rng = site.rng
    turn = 0.0 if front.along_u else np.pi / 2
    roof, pitch = (Material.ROOF_TILE, 0.45) if front.pitched else (Material.ROOF_FLAT, 0.0)
    start = -front.half_length
    while start < front.half_length - 4.0:
        width = min(float(rng.uniform(11.0, 26.0)), front.half_length - start)
        middle, start = start + width / 2, start + width
        if rng.random() < 0.08:
            continue
        height = max(front.height_m + float(rng.normal(0, 2.5)), 6.0)
        u, v = front.at(middle, front.depth / 2)
        house = site.box(u, v, width / 2, front.depth / 2, roof, height_m=height, pitch=pitch, turn=turn)
        wings = [house]
        if rng.random() < 0.3:
            u, v = front.at(middle + float(rng.uniform(-0.25, 0.25)) * width, 1.4 * front.depth)
            wings.append(site.box(u, v, width / 4, front.depth / 2, roof, height_m=height - 3.0, turn=turn))
        if site.canvas.build(wings, 0.5) and not front.pitched:
            site.roof_gear(house)


def towers(site: Site) -> None:
    """Slabs and point towers in green, with parking between them."""
    rng, block = site.rng, site.block
    site.yard(Material.GRASS)
    site.parking(float(rng.uniform(-0.4, 0.4)) * block.half_u, 0.75 * block.half_v, 0.4 * block.half_u, 11.0)
    for _ in range(int(rng.integers(2, 6))):
        u, v = rng.uniform(-0.75, 0.75, 2) * (block.half_u, block.half_v)
        slab = rng.random() < 0.6
        half_u, half_v = (rng.uniform(18.0, 38.0), rng.uniform(5.5, 8.0)) if slab else rng.uniform(9.0, 14.0, 2)
        height = float(rng.uniform(14.0, 30.0) if slab else rng.uniform(28.0, 60.0))
        turn = float(rng.choice([0.0, np.pi / 2]))
        house = site.box(
            float(u), float(v), float(half_u), float(half_v), Material.ROOF_FLAT, height_m=height, turn=turn
        )
        if site.canvas.build([house], 0.95):
            site.roof_gear(house)
    site.trees(45.0)


def terraces(site: Site) -> None:
    """Two rows of terraced houses back to back, their gardens between."""
    rng, block = site.rng, site.block
    site.yard(Material.GRASS)
    for side in (-1.0, 1.0):
        setback, depth = float(rng.uniform(3.0, 7.0)), float(rng.uniform(8.0, 11.0))
        start = -block.half_u + 2.0
        while start < block.half_u - 12.0:
            width = min(float(rng.uniform(22.0, 60.0)), block.half_u - start)
            v = side * (block.half_v - setback - depth / 2 - float(rng.uniform(0.0, 3.0)))
            roof, pitch = (Material.ROOF_TILE, 0.6) if rng.random() < 0.8 else (Material.ROOF_FLAT, 0.0)
            height = float(rng.uniform(5.0, 9.0))
            row = site.box(start + width / 2, v, width / 2, depth / 2, roof, height_m=height, pitch=pitch)
            site.canvas.build([row])
            start += width + float(rng.uniform(3.0, 14.0))
    site.trees(30.0, 9.0)
    site.street_trees(9.0)


def houses(site: Site) -> None:
    """Detached houses on parcels along both sides of the block, with drives, garages and garden trees."""
    rng, block = site.rng, site.block
    site.yard(Material.GRASS)
    for side in (-1.0, 1.0):
        start = -block.half_u
        while start < block.half_u - 12.0:
            parcel = float(rng.uniform(15.0, 26.0))
            if rng.random() < 0.9:
                _house(site, start + parcel / 2, side)
            start += parcel
    site.trees(28.0, 10.0)


def _house(site: Site, u: float, side: float) -> None:
    """Build a house, turned a little against the street and with a wing or not, its drive and perhaps a garage."""
    rng, front = site.rng, site.block.half_v
    half_u, half_v = (float(rng.uniform(*half)) for half in ((4.5, 7.5), (3.8, 5.5)))
    v = side * (front - half_v - float(rng.uniform(4.0, 9.0)))
    turn = float(rng.normal(0, 0.05)) + float(rng.choice([0.0, np.pi / 2], p=[0.7, 0.3]))
    height, pitch = float(rng.uniform(3.5, 6.5)), float(rng.uniform(0.4, 0.9))
    house = site.box(u, v, half_u, half_v, Material.ROOF_TILE, height_m=height, pitch=pitch, turn=turn)
    wings = [house]
    if rng.random() < 0.4:
        wing = site.box(u + 2.0, v - side * 3.0, 0.8 * half_u, 0.6 * half_v, Material.ROOF_TILE, variant=house.variant)
        wings.append(replace(wing, angle=house.angle + np.pi / 2, height_m=height, pitch=pitch))
    site.canvas.build(wings, 0.9)
    beside = u + half_u + 2.5
    site.canvas.paint(site.box(beside, side * (front - 5.0), 1.7, 5.0, Material.PAVEMENT))
    if rng.random() < 0.5:
        garage = site.box(beside, side * (front - 10.0), 1.8, 3.0, Material.ROOF_FLAT, height_m=2.6)
        site.canvas.build([garage], 0.95)


def industry(site: Site) -> None:
    """Halls on paved yards, with parking and stacks of containers."""
    rng, block = site.rng, site.block
    site.yard(Material.PAVEMENT if rng.random() < 0.6 else Material.ASPHALT)
    site.parking(0.6 * block.half_u * float(rng.choice([-1.0, 1.0])), 0.7 * block.half_v, 0.3 * block.half_u, 12.0)
    for _ in range(int(rng.integers(2, 6))):
        u, v = rng.uniform(-0.7, 0.7, 2) * (block.half_u, block.half_v)
        half_u, half_v = rng.uniform(14.0, 48.0), rng.uniform(10.0, 26.0)
        roof = Material.ROOF_METAL if rng.random() < 0.6 else Material.ROOF_FLAT
        hall = site.box(
            float(u), float(v), float(half_u), float(half_v), roof, height_m=float(rng.uniform(6.0, 13.0)), pitch=0.08
        )
        if site.canvas.build([hall], 0.9):
            site.roof_gear(hall)
    for _ in range(int(rng.integers(0, 12))):
        u, v = rng.uniform(-0.9, 0.9, 2) * (block.half_u, block.half_v)
        stack = float(rng.choice([2.6, 5.2]))
        site.canvas.build([site.box(float(u), float(v), 6.1, 1.3, Material.METAL, height_m=stack)], 0.95)
    site.trees(3.0)


def park(site: Site) -> None:
    """Lawns with trees in clumps, now and then a playing field."""
    rng, block = site.rng, site.block
    if rng.random() < 0.3:
        site.canvas.paint(site.box(0.0, 0.0, 26.0, 16.0, Material.SOIL))
    site.trees(float(rng.uniform(20.0, 110.0)), 16.0)
    for _ in range(int(rng.integers(0, 4))):
        u, v = rng.uniform(-0.8, 0.8, 2) * (block.half_u, block.half_v)
        for du, dv in rng.normal(0, 9.0, (int(rng.integers(8, 26)), 2)):
            site.tree(float(u + du), float(v + dv), float(rng.uniform(6.0, 15.0)))


def fields(site: Site) -> None:
    """Fields of one crop each, some with a hedge, seldom a farm."""
    rng, block = site.rng, site.block
    site.yard(Material.CROPS if rng.random() < 0.75 else Material.SOIL)
    if rng.random() < 0.35:
        for u in np.arange(-block.half_u, block.half_u, 3.0):
            if rng.random() < 0.75:
                site.tree(float(u), block.half_v + 1.0, float(rng.uniform(3.0, 7.0)))
    if rng.random() < 0.15:
        for u in (-14.0, 12.0):
            barn = site.box(
                u, 0.0, 6.0, float(rng.uniform(8.0, 14.0)), Material.ROOF_TILE, height_m=5.0, pitch=0.5, turn=0.1
            )
            site.canvas.build([barn])


LAYOUTS: dict[Style, Callable[[Site], None]] = {
    Style.PERIMETER: perimeter,
    Style.TOWERS: towers,
    Style.TERRACES: terraces,
    Style.HOUSES: houses,
    Style.INDUSTRY: industry,
    Style.PARK: park,
    Style.FIELDS: fields,
}
