"""From a SAR strip to its place on the map: encode, search, correlate, refine, answer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomatch import defaults, hypotheses
from geomatch.answer import Answers, Judged
from geomatch.attitude import TOLD
from geomatch.errors import InputError
from geomatch.fusion import DISTINCT_CELLS, NOWHERE, Poses
from geomatch.gdal import set_block_cache
from geomatch.hypotheses import Hypothesis
from geomatch.location import Location
from geomatch.map_pixels import MapPixels
from geomatch.near import Near
from geomatch.query import Query
from geomatch.refine import CONTESTED, FINE_WEIGHT, Refined, Refiner
from geomatch.seeking import Seeker
from geomatch.strip_files import StripOptions, read_strip
from geomatch.strips import RawStrip, Strip
from geomatch.sway import find_sway
from geomatch.texture import unusable
from geomatch.threads import one_thread
from geomatch.tile_index import TileIndex

RETRIEVED_TILES = 600
CONTENDERS = 32
LEVEL = 0.95  # of the best place's score: a place that has it is looked at even if another is certain, as of a map that
# shows a place twice
BLOCK_CACHE = 256 << 20  # bytes of the map's decoded blocks; a block of a JPEG GeoTIFF costs as much as a correlation


@dataclass(frozen=True)
class Trace:
    """An answer with what led to it, for evaluation.

    Attributes:
        location: the answer.
        strip: as it was answered, at the attitude that was found where it was not known.
        retrieved: poses in the order of the vector search, map pixels; none where it was not used.
        judged: the best place and the signs by which it was judged, or None where there was none.
    """

    location: Location
    strip: Strip
    retrieved: Poses
    judged: Judged | None = None

    @property
    def found_px(self) -> tuple[float, float] | None:
        """Map pixels of the strip's middle at the best place, whatever the answer's status; None without a place."""
        if self.judged is None:
            return None
        x, y = self.judged.corner_px + self.strip.middle_px
        return float(x), float(y)


class Clock:
    """Wall seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as (part of) a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 6)


class Locator:
    """Answers where strips were taken on one map. Keep it open for many: it holds the index and the map's file.

    Args:
        index: of the map.
        pixels: of the map, or None to answer at the accuracy of a cell.
        notes: told with every answer, such as why there are no pixels.
        exhaustive: correlate with the whole map rather than with what the vectors retrieve; slower.
    """

    def __init__(
        self, index: TileIndex, pixels: MapPixels | None, *, notes: tuple[str, ...] = (), exhaustive: bool = False
    ) -> None:
        self.index = index
        self.pixels = pixels
        self.exhaustive = exhaustive
        self._notes = notes
        self._seeker = Seeker(index, pixels, exhaustive=exhaustive)

    @classmethod
    def open(
        cls,
        index: str | os.PathLike[str],
        *,
        map_path: str | os.PathLike[str] | None = None,
        exhaustive: bool = False,
        near: Near | None = None,
        backend: str = defaults.BACKEND,
    ) -> Locator:
        """Open an index, and the map that it was built from where that is still there.

        Args:
            index: the directory, or the address of a collection that it was published to, ``milvus://...``.
            map_path: where the map is now, if it was moved; then it must be there. Of several rasters, their folder.
            exhaustive: correlate with the whole map.
            near: where the middles of all strips lie; no place outside is looked at.
            backend: what runs the network of the index's encoder.

        Raises:
            IndexFormatError: the index cannot be used.
            InputError: ``map_path`` is not the index's map.
            UsageError: ``near`` does not touch the map, or an address is malformed or its client not installed.
        """
        set_block_cache(BLOCK_CACHE)
        opened = TileIndex.open(index, backend)
        notes = []
        if near is not None:
            opened = opened.near(near)
            notes.append(f"no place farther than {near} was looked at")
        try:
            raster = opened.open_map(map_path)
        except InputError as error:
            if map_path is not None:
                raise
            notes.append(f"{error.what} ({error.where}); the answer stands at the accuracy of a cell")
            return cls(opened, None, notes=tuple(notes), exhaustive=exhaustive)
        pixels = MapPixels(raster, opened.manifest.origin_px, opened.manifest.stretch, opened.encoder.pixels)
        return cls(opened, pixels, notes=tuple(notes), exhaustive=exhaustive)

    def locate(self, strip: str | os.PathLike[str], options: StripOptions | None = None) -> Location:
        """Find where a SAR strip was taken.

        Args:
            strip: a GeoTIFF; its scale and heading are used, its position is not.
            options: what to assume of a file without georeferencing, and how to read its numbers.

        Raises:
            InputError: the file cannot be used at all; one that shows nothing to match is answered "unusable".
        """
        return self.follow(strip, options).location

    def follow(self, strip: str | os.PathLike[str], options: StripOptions | None = None) -> Trace:
        """As ``locate``, with what led to the answer."""
        clock = Clock()
        with clock.stage("read"):
            raw = read_strip(strip, self.index.grid, options)
        return self.find(raw, clock)

    def find(self, raw: RawStrip, clock: Clock | None = None) -> Trace:
        """Find a strip that is in its file's own pixels, and its heading and scale where they are not known."""
        clock = clock or Clock()
        with clock.stage("read"):
            strip = raw.at()
        with one_thread():
            if raw.tolerance.known or _shows_nothing(strip):
                return self._trace(strip, clock)
            with clock.stage("attitudes"):
                tried = self._seeker.places(raw)
            return self._trace(raw.at(tried[0].attitude) if tried else strip, clock, tried)

    def trace(self, strip: Strip, clock: Clock | None = None) -> Trace:
        """Find a strip that is already on the map's pixel grid, and keep what led to the answer."""
        with one_thread():
            return self._trace(strip, clock or Clock())

    def _trace(self, strip: Strip, clock: Clock, rivals: Sequence[Hypothesis] = ()) -> Trace:
        answers = Answers(self.index, strip, self._notes, clock.seconds)
        if reason := _shows_nothing(strip):
            return Trace(answers.nowhere("unusable", reason), strip, NOWHERE)
        with clock.stage("encode"):
            query = Query.of(self.index, strip)
        if not query.windows:
            return Trace(answers.nowhere("unusable", "no part of the strip shows structure"), strip, NOWHERE)
        retrieved = NOWHERE
        if query.tiled and not self.exhaustive:
            with clock.stage("search"):
                retrieved = query.retrieve(RETRIEVED_TILES)
        with clock.stage("correlate"):
            found = query.verify(_with_first(rivals, retrieved, query)) if len(retrieved) else query.scan()
        if not len(found):
            reason = "no place on the map resembles the strip, or the strip is larger than the map"
            return Trace(answers.nowhere("absent", reason), strip, retrieved)
        with clock.stage("refine"):
            tile_px, cell_px = self.index.manifest.tiles.size_px, self.index.encoder.cell_px
            refiner = Refiner.of(strip, tile_px, cell_px, self.pixels)
            found, supports, look = _look_closer(found, refiner)
            places = _among_rivals(rivals, found, query)
            if rivals or refiner is None:  # places at other attitudes have no pixels to compare
                judged = Judged.of(places, places.scores, query.cells, look)
            else:
                judged = Judged.of(places, supports, query.cells, look, by_chance=FINE_WEIGHT * refiner.chance)
            sway = None
            if self.pixels is not None and judged.accuracy == "pixel":
                sway = find_sway(strip, judged.corner_px, self.pixels, cell_px)
        return Trace(answers.placed(query.windows, judged, sway), strip, retrieved, judged)


def _shows_nothing(strip: Strip) -> str | None:
    return unusable(strip.image, strip.valid)


def _look_closer(found: Poses, refiner: Refiner | None) -> tuple[Poses, NDArray[np.float64], Refined | None]:
    """The places, the best first, what speaks for each, and what the best one's pixels say.

    Where several come close, the pixels choose between them; of a place that was not looked at they are taken to say
    what they say of a wrong one.
    """
    if refiner is None:
        return found, found.scores, None
    contested = int((found.scores * CONTESTED >= found.scores[0]).sum())
    looks: list[Refined] = []
    level = int((found.scores >= LEVEL * found.scores[0]).sum())
    for number, corner in enumerate(found.corners_px[: min(CONTENDERS, contested)]):
        looks.append(refiner.at(corner))
        if looks[-1].certain and number + 1 >= level:
            break
    heights = np.full(len(found), refiner.chance)
    heights[: len(looks)] = [look.height for look in looks]
    supports = found.scores + FINE_WEIGHT * heights
    best = int(supports[: len(looks)].argmax())
    order = [best, *(i for i in range(len(found)) if i != best)]
    return Poses(found.corners_px[order], found.scores[order]), supports[order], looks[best]


def _with_first(rivals: Sequence[Hypothesis], retrieved: Poses, query: Query) -> Poses:
    """The place at which the attitude was found, then the retrieved ones; the vectors may miss it."""
    corners = [rival.center_px - query.strip.middle_px for rival in rivals[:1]]
    scores = retrieved.scores[: len(corners)]
    return Poses(np.vstack([*corners, retrieved.corners_px]), np.append(scores, retrieved.scores))


def _among_rivals(rivals: Sequence[Hypothesis], found: Poses, query: Query) -> Poses:
    """The chosen place, and as the others the best of all attitudes: it was chosen among all of them."""
    if not rivals:
        return found
    middle, apart = query.strip.middle_px, DISTINCT_CELLS * query.index.encoder.cell_px
    own = [
        Hypothesis(TOLD, corner + middle, float(score))
        for corner, score in zip(found.corners_px, found.scores, strict=True)
    ]
    others = hypotheses.distinct([*own[1:], *rivals], apart)
    others = [rival for rival in others if np.abs(rival.center_px - own[0].center_px).max() >= apart]
    kept = [own[0], *others]
    return Poses(np.array([rival.center_px for rival in kept]) - middle, np.array([rival.score for rival in kept]))
