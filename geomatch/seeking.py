"""The attitude and the place of a strip together, where its heading or scale is not known.

Many attitudes are tried on features. Then the parts of the strip say where they fit, and the similarity on which they
agree says how it lies: by features for the best places, by the map's pixels for the best of those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from geomatch import hypotheses
from geomatch.agreement import SHIFTED_CELLS, agreed
from geomatch.attitude import Attitude
from geomatch.correlate import Template, around, template
from geomatch.fusion import DISTINCT_CELLS, NOWHERE
from geomatch.geo import apply_affine
from geomatch.hypotheses import Asked, Hypothesis
from geomatch.map_pixels import MapPixels
from geomatch.query import Query
from geomatch.refine import CONTESTED, FINE_WEIGHT, Refiner
from geomatch.strips import RawStrip, Strip
from geomatch.windows import cut_windows

if TYPE_CHECKING:
    from geomatch.tile_index import TileIndex

PART_PX = 96  # side of the parts that agree on a similarity
FINALISTS = 4  # places that are looked at as the strip's parts see them
SETTLED = 3  # of these at most whose attitude the pixels settle
HOPELESS = 0.8  # of the best place's weight: what is below is not looked at
WIDER = 1.1  # than half a step between attitudes is the first look at features
NARROWER = 0.4  # is each further one
MOVED_CELLS = 4  # by a turn, of the parts that are asked: those farther out wait until the turn is known better
BY_PIXELS = (0.044, 0.022)  # radians, and logarithms of the scale, to either side, one look after the other


class Parts(Protocol):
    """Parts of a strip that can say where on the map they fit.

    Attributes:
        middles_px: [N x 2] of the parts, in the strip.
        cell_px: map pixels from one offset to the next.
        grid_px: places that can be asked about are multiples of it.
    """

    middles_px: NDArray[np.float64]
    cell_px: int
    grid_px: int

    def surfaces(self, corner_px: NDArray[np.int64]) -> NDArray[np.float64]:
        """[N x s x s] correlation of every part at offsets around a place of the strip's first pixel."""
        ...


class FeatureParts:
    """Parts of a strip as an index's features see them; attributes as ``Parts``."""

    def __init__(self, strip: Strip, index: TileIndex) -> None:
        self.cell_px = self.grid_px = index.encoder.cell_px
        self._features = index.features
        side = PART_PX // self.cell_px
        dense = index.encoder.dense(strip.image[None], strip.valid, "sar")
        side = min(side, *dense.valid.shape)
        made = [
            (place, template(dense.crop(int(place[0]), int(place[1]), side, side)))
            for place in cut_windows(dense.valid, side)
        ]
        self._parts: list[tuple[NDArray[np.int64], Template]] = [(at, one) for at, one in made if one is not None]
        first = np.array([place for place, _ in self._parts], np.int64).reshape(-1, 2)
        self.middles_px = (first + side / 2) * self.cell_px

    def surfaces(self, corner_px: NDArray[np.int64]) -> NDArray[np.float64]:
        """As ``Parts``, MOVED_CELLS and SHIFTED_CELLS to either side."""
        corner = corner_px // self.cell_px
        cells = [(corner + place)[:, None] for place, _ in self._parts]
        radius = MOVED_CELLS + SHIFTED_CELLS
        asked = zip(self._parts, cells, strict=True)
        found = [around(one, self._features, col, row, radius)[0] for (_, one), (col, row) in asked]
        return np.array(found, np.float64)


@dataclass(frozen=True)
class Lie:
    """How a strip lies: the attitude, and where on the map a point of its file is."""

    attitude: Attitude
    point: NDArray[np.float64]
    at_px: NDArray[np.float64]


class Seeker:
    """Finds at which attitude, and where, strips look most like one map.

    Args:
        index: of the map.
        pixels: of the map, or None to go by features alone.
        exhaustive: correlate with the whole map at every attitude.
    """

    def __init__(self, index: TileIndex, pixels: MapPixels | None, *, exhaustive: bool) -> None:
        self._index = index
        self._pixels = pixels
        self._exhaustive = exhaustive

    @property
    def _cell_px(self) -> int:
        return self._index.encoder.cell_px

    def places(self, raw: RawStrip) -> list[Hypothesis]:
        """Places at the attitudes where they look most like the strip: the likeliest first, the others by score."""
        apart, tile_px = DISTINCT_CELLS * self._cell_px, self._index.manifest.tiles.size_px
        parts = raw.richest_parts(hypotheses.PROBE_PX, hypotheses.PROBES)

        def probe(part: RawStrip) -> Asked:
            return lambda attitude: Query.of(self._index, part.middle_at(attitude, tile_px))

        probes = [probe(part) for part in parts]
        attitudes = list(raw.tolerance.attitudes(self._index.encoder.steps))
        tried = hypotheses.try_attitudes(probes, attitudes, apart, exhaustive=self._exhaustive)
        hopeful = [one for one in tried[:FINALISTS] if one.weight >= HOPELESS * tried[0].weight]
        seen = (self._by_features(one, raw, parts[one.probe].middle) for one in hopeful)
        finalists = sorted(seen, key=lambda one: one.weight, reverse=True)
        close = [finalist for finalist in finalists if finalist.weight * CONTESTED >= finalists[0].weight]
        looked = sorted((self._looked_at(one, raw) for one in close), key=_together, reverse=True)
        likely = [one for one in looked[:SETTLED] if _together(one) * CONTESTED >= _together(looked[0])]
        final = sorted((self._by_pixels(one, raw) for one in likely), key=_together, reverse=True)
        rest = [*final[1:], *looked[len(likely) :], *finalists[len(close) :]]
        return [*final[:1], *hypotheses.distinct([*rest, *tried], apart)]

    def _by_features(self, one: Hypothesis, raw: RawStrip, point: NDArray[np.float64]) -> Hypothesis:
        """A place at the attitude on which its parts agree by features, at first those about the one that found it."""
        lie = Lie(one.attitude, point, one.center_px + raw.arm_px(one.attitude, point))
        turn_step, scale_step = raw.tolerance.spacing(self._index.encoder.steps)
        most = WIDER * max(np.radians(turn_step), scale_step) / 2
        while most > 0:
            strip = raw.near(point, MOVED_CELLS * self._cell_px / most).at(lie.attitude)
            lie = settled(lie, raw, strip, FeatureParts(strip, self._index), most)
            if most * raw.reach_px <= self._cell_px:
                break
            most *= NARROWER
        query = Query.of(self._index, raw.at(lie.attitude))
        poses = query.nearby(lie.at_px - raw.arm_px(lie.attitude, point)) if query.windows else NOWHERE
        if not len(poses):
            return replace(one, score=0.0)
        center = poses.corners_px[0] + query.strip.middle_px
        return replace(
            one, attitude=lie.attitude, center_px=center, score=float(poses.scores[0]), extent=lie.attitude.scale
        )

    def _by_pixels(self, one: Hypothesis, raw: RawStrip) -> Hypothesis:
        """A place at the attitude on which its parts agree by pixels, where that makes it look more like the map."""
        if self._pixels is None:
            return one
        lie = Lie(one.attitude, raw.middle, one.center_px)
        for most in BY_PIXELS:
            strip = raw.at(lie.attitude)
            parts = Refiner.of(strip, PART_PX, self._cell_px, self._pixels)
            lie = settled(lie, raw, strip, parts, most)
        moved = replace(one, attitude=lie.attitude, center_px=lie.at_px, extent=lie.attitude.scale)
        return max(one, self._looked_at(moved, raw), key=lambda tried: tried.look_weight)

    def _looked_at(self, one: Hypothesis, raw: RawStrip) -> Hypothesis:
        """A place with what the pixels say of it, where they put it."""
        strip = raw.at(one.attitude)
        refiner = Refiner.of(strip, self._index.manifest.tiles.size_px, self._cell_px, self._pixels)
        if refiner is None:
            return one
        look = refiner.at(one.center_px - strip.middle_px)
        return replace(one, center_px=look.corner_px + strip.middle_px, look=look)


def settled(lie: Lie, raw: RawStrip, strip: Strip, parts: Parts | None, most: float) -> Lie:
    """How the strip lies by what its parts agree on; as before where it has none.

    Args:
        lie: at which ``strip`` was made.
        raw: the strip in its file's own pixels.
        strip: it, or what of it is asked, on the map's pixel grid.
        parts: of ``strip``.
        most: radians, and logarithm of the scale, that it may turn to either side.
    """
    if parts is None or not len(parts.middles_px):
        return lie
    point_px = apply_affine(strip.from_file, lie.point)
    corner = np.rint((lie.at_px - point_px) / parts.grid_px).astype(np.int64) * parts.grid_px
    free = (raw.tolerance.turn_deg > 0, raw.tolerance.scale > 1)
    arms = parts.middles_px - point_px
    found = agreed(parts.surfaces(corner), arms, cell_px=parts.cell_px, ground=raw.ground, free=free, most=most)
    attitude = raw.tolerance.moved(lie.attitude, found.turn_deg, found.log_scale)
    return Lie(attitude, lie.point, corner + point_px + found.shift_px)


def _together(one: Hypothesis) -> float:
    """What features and pixels say of it."""
    return one.weight + FINE_WEIGHT * one.look_weight
