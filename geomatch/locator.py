"""From a SAR strip to its place on the map: encode, search, correlate, refine, answer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geomatch import defaults, hypotheses
from geomatch.answer import Answers, Judged
from geomatch.attitude import TOLD, Attitude
from geomatch.errors import InputError
from geomatch.fusion import DISTINCT_CELLS, Poses
from geomatch.gdal import set_block_cache
from geomatch.hypotheses import Asked, Hypothesis
from geomatch.location import Location
from geomatch.query import Query, fills_no_tile
from geomatch.refine import MapPixels, Refined, Refiner
from geomatch.strips import RawStrip, Strip, StripOptions, read_strip
from geomatch.structure import cells_known
from geomatch.texture import unusable
from geomatch.threads import one_thread
from geomatch.tile_index import TileIndex
from geomatch.tiles import starts
from geomatch.windows import cut_windows

RETRIEVED_TILES = 600
CONTESTED = 1.4  # peak ratio up to which the fine correlation decides between the best places (benchmarks/places.py)
CONTENDERS = 32
BLOCK_CACHE = 256 << 20  # bytes of the map's decoded blocks; a block of a JPEG GeoTIFF costs as much as a correlation
FINE_WEIGHT = 1.5  # of the pixels' correlation against the features'; a false place's spreads half as much


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

    @classmethod
    def open(
        cls,
        index: str | os.PathLike[str],
        *,
        map_path: str | os.PathLike[str] | None = None,
        exhaustive: bool = False,
        backend: str = defaults.BACKEND,
    ) -> Locator:
        """Open an index, and the map that it was built from where that is still there.

        Args:
            index: the directory.
            map_path: where the map is now, if it was moved; then it must be there.
            exhaustive: correlate with the whole map.
            backend: what runs the network of the index's encoder.

        Raises:
            IndexFormatError: the index cannot be used.
            InputError: ``map_path`` is not the index's map.
        """
        set_block_cache(BLOCK_CACHE)
        opened = TileIndex.open(index, backend)
        source = opened.manifest.source
        try:
            raster = opened.open_map(map_path)
        except InputError as error:
            if map_path is not None:
                raise
            note = f"{error.what} ({error.where}); the answer stands at the accuracy of a cell"
            return cls(opened, None, notes=(note,), exhaustive=exhaustive)
        pixels = MapPixels(raster, (source.col0, source.row0), opened.manifest.stretch)
        return cls(opened, pixels, exhaustive=exhaustive)

    def locate(self, strip: str | os.PathLike[str], options: StripOptions | None = None) -> Location:
        """Find where a SAR strip was taken.

        Args:
            strip: a GeoTIFF; its scale and heading are used, its position is not.
            options: what to assume of a file without georeferencing, and how to read its numbers.

        Raises:
            InputError: the file cannot be used at all; one that shows nothing to match is answered "unusable".
        """
        clock = Clock()
        with clock.stage("read"):
            raw = read_strip(strip, self.index.grid, options)
        return self.find(raw, clock).location

    def find(self, raw: RawStrip, clock: Clock | None = None) -> Trace:
        """Find a strip that is in its file's own pixels, and its heading and scale where they are not known."""
        clock = clock or Clock()
        with clock.stage("read"):
            strip = raw.at()
        with one_thread():
            if raw.tolerance.known or _shows_nothing(strip):
                return self._trace(strip, clock)
            with clock.stage("attitudes"):
                tried = self._try_attitudes(raw)
            return self._trace(raw.at(tried[0].attitude) if tried else strip, clock, tried)

    def trace(self, strip: Strip, clock: Clock | None = None) -> Trace:
        """Find a strip that is already on the map's pixel grid, and keep what led to the answer."""
        with one_thread():
            return self._trace(strip, clock or Clock())

    def _trace(self, strip: Strip, clock: Clock, rivals: Sequence[Hypothesis] = ()) -> Trace:
        answers = Answers(self.index, strip, self._notes, clock.seconds)
        if reason := _shows_nothing(strip):
            return Trace(answers.nowhere("unusable", reason), strip, NO_POSES)
        with clock.stage("encode"):
            query = Query.of(self.index, strip)
        if not query.windows:
            return Trace(answers.nowhere("unusable", "no part of the strip shows structure"), strip, NO_POSES)
        retrieved = NO_POSES
        if query.tiled and not self.exhaustive:
            with clock.stage("search"):
                retrieved = query.retrieve(RETRIEVED_TILES)
        with clock.stage("correlate"):
            found = query.verify(_with_first(rivals, retrieved, query)) if len(retrieved) else query.scan()
        if not len(found):
            reason = "no place on the map resembles the strip, or the strip is larger than the map"
            return Trace(answers.nowhere("absent", reason), strip, retrieved)
        with clock.stage("refine"):
            found, look = _look_closer(found, self._refiner(strip))
            judged = Judged.of(_among_rivals(rivals, found, query), look)
        return Trace(answers.placed(query.windows, judged), strip, retrieved, judged)

    def _try_attitudes(self, raw: RawStrip) -> list[Hypothesis]:
        """Places at the attitudes where they look most like the strip: the likeliest first, the others by score."""
        cell = self.index.encoder.cell_px
        apart = DISTINCT_CELLS * cell

        def ask(strip: RawStrip) -> Asked:
            return lambda attitude: Query.of(self.index, strip.at(attitude))

        def look_at(attitude: Attitude, center_px: NDArray[np.float64]) -> Hypothesis:
            return self._looked_at(Hypothesis(attitude, center_px, 0.0), raw.at(attitude))

        part = ask(raw.richest_part(hypotheses.PART_PX))
        tried = hypotheses.try_attitudes(part, raw.tolerance, apart, exhaustive=self.exhaustive)
        finalists = hypotheses.correct(tried, ask(raw), raw.tolerance, raw.reach_px, cell)
        if self.pixels is not None:
            close = [finalist for finalist in finalists if finalist.weight * CONTESTED >= finalists[0].weight]
            looked = [replace(look_at(one.attitude, one.center_px), score=one.score) for one in close]
            looked.sort(key=lambda one: one.weight + FINE_WEIGHT * one.look_weight, reverse=True)
            finalists = looked + finalists[len(close) :]
            if looked and looked[0].look is not None:
                finalists[0] = hypotheses.polish(looked[0], look_at, raw.tolerance)
        return [*finalists[:1], *hypotheses.distinct([*finalists[1:], *tried], apart)]

    def _looked_at(self, hypothesis: Hypothesis, strip: Strip) -> Hypothesis:
        """A hypothesis with what the pixels say of it, at the place where they put it."""
        refiner = self._refiner(strip)
        if refiner is None:
            return hypothesis
        look = refiner.at(hypothesis.center_px - strip.middle_px)
        return replace(hypothesis, center_px=look.corner_px + strip.middle_px, look=look)

    def _refiner(self, strip: Strip) -> Refiner | None:
        """What looks at the pixels of windows, or None where there is nothing to look at."""
        if self.pixels is None:
            return None
        size, cell = self.index.manifest.tiles.size_px, self.index.encoder.cell_px
        if fills_no_tile(strip, size, cell):  # one window for the correlation, several for the pixels
            height, width = strip.image.shape
            rows, cols = starts(height, min(size, height), size), starts(width, min(size, width), size)
            first = np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2).astype(np.int64)
        else:
            first = cut_windows(cells_known(strip.valid, cell), size // cell) * cell
        refiner = Refiner(strip, first, size, self.pixels)
        return refiner if refiner.cells else None


NO_POSES = Poses(np.empty((0, 2)), np.empty(0))


def _shows_nothing(strip: Strip) -> str | None:
    return unusable(strip.image, strip.valid, strip.area_px)


def _look_closer(found: Poses, refiner: Refiner | None) -> tuple[Poses, Refined | None]:
    """The places, the best first, and what its pixels say; where several come close, the pixels choose between them."""
    if refiner is None:
        return found, None
    contested = int((found.scores * CONTESTED >= found.scores[0]).sum())
    looks: list[Refined] = []
    for corner in found.corners_px[: min(CONTENDERS, contested)]:
        looks.append(refiner.at(corner))
        if looks[-1].certain:
            break
    best = int(np.argmax([_together(score, look) for score, look in zip(found.scores, looks, strict=False)]))
    order = [best, *(i for i in range(len(found)) if i != best)]
    return Poses(found.corners_px[order], found.scores[order]), looks[best]


def _together(score: float, look: Refined | None) -> float:
    """What features and pixels say of a place."""
    return score + FINE_WEIGHT * (look.peak if look else 0.0)


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
