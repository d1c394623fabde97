"""From a SAR strip to its place on the map: encode, search, correlate, refine, answer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from geomatch import fusion
from geomatch.answer import FINE_WEIGHT, Answers, Judged, Looked
from geomatch.correlate import template
from geomatch.errors import InputError
from geomatch.fusion import Poses, Window
from geomatch.location import Location
from geomatch.refine import MapPixels, Refiner
from geomatch.strips import Strip, StripOptions, cut_windows, load_strip
from geomatch.structure import Dense
from geomatch.texture import unusable
from geomatch.threads import one_thread
from geomatch.tile_index import TileIndex
from geomatch.tiles import starts, tile_vectors

RETRIEVED_TILES = 600  # of a single window; the windows of a strip share them, but for a least number
MIN_RETRIEVED_TILES = 200
CONTESTED = 1.2  # peak ratio up to which the fine correlation decides between the best places
CONTENDERS = 8
ALONE = 1.4  # peak ratio beyond which the next best place need not be looked at


@dataclass(frozen=True)
class Trace:
    """An answer with what led to it, for evaluation.

    Attributes:
        location: the answer.
        retrieved: poses in the order of the vector search, map pixels; none where it was not used.
        judged: the best place and the signs by which it was judged, or None where there was none.
    """

    location: Location
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
    ) -> Locator:
        """Open an index, and the map that it was built from where that is still there.

        Args:
            index: the directory.
            map_path: where the map is now, if it was moved; then it must be there.
            exhaustive: correlate with the whole map.

        Raises:
            IndexFormatError: the index cannot be used.
            InputError: ``map_path`` is not the index's map.
        """
        opened = TileIndex.open(index)
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
            loaded = load_strip(strip, self.index.grid, options)
        return self.trace(loaded, clock).location

    def trace(self, strip: Strip, clock: Clock | None = None) -> Trace:
        """Find a strip that is already on the map's pixel grid, and keep what led to the answer."""
        with one_thread():
            return self._trace(strip, clock or Clock())

    def _trace(self, strip: Strip, clock: Clock) -> Trace:
        answers = Answers(self.index, strip, self._notes, clock.seconds)
        if reason := unusable(strip.image, strip.valid, strip.area_px):
            return Trace(answers.nowhere("unusable", reason), NO_POSES)
        with clock.stage("encode"):
            dense, windows = self._encode(strip)
        if not windows:
            return Trace(answers.nowhere("unusable", "no part of the strip shows structure"), NO_POSES)
        retrieved = NO_POSES
        if windows[0].template.mask.shape == (self._tile_cells,) * 2 and not self.exhaustive:
            with clock.stage("search"):
                retrieved = self._retrieve(dense, windows)
        with clock.stage("correlate"):
            found = self._correlate(retrieved, windows)
        if not len(found):
            reason = "no place on the map resembles the strip, or the strip is larger than the map"
            return Trace(answers.nowhere("absent", reason), retrieved)
        with clock.stage("refine"):
            judged = Judged.of(_look_closer(found, self._refiner(strip, windows)))
        return Trace(answers.placed(windows, judged), retrieved, judged)

    @property
    def _tile_cells(self) -> int:
        return self.index.manifest.tiles.size_px // self.index.encoder.cell_px

    def _encode(self, strip: Strip) -> tuple[Dense, list[Window]]:
        """The strip's features, and its windows that show anything; a strip smaller than a tile is one window."""
        dense = self.index.encoder.dense(strip.image[None], strip.valid, "sar")
        size = self._tile_cells
        places = cut_windows(dense.valid, size)
        parts = [(place, dense.crop(int(place[0]), int(place[1]), size, size)) for place in places]
        if min(dense.valid.shape) < size:
            parts = [(np.zeros(2, np.int64), dense)]
        made = [(place, template(part)) for place, part in parts]
        return dense, [Window(place, ready) for place, ready in made if ready is not None]

    def _retrieve(self, dense: Dense, windows: Sequence[Window]) -> Poses:
        tile, cell, size = self.index.manifest.tiles, self.index.encoder.cell_px, self._tile_cells
        first = np.zeros(1, np.int32)
        vectors = [
            tile_vectors(dense.crop(col, row, size, size), first, first, tile.size_px, cell).vectors[0]
            for col, row in (window.cell.tolist() for window in windows)
        ]
        count = max(MIN_RETRIEVED_TILES, RETRIEVED_TILES // len(windows))
        hits = self.index.search(np.concatenate(vectors), count)
        return fusion.vote(hits, np.array([window.cell for window in windows]) * cell, tile.stride_px)

    def _correlate(self, retrieved: Poses, windows: Sequence[Window]) -> Poses:
        field, cell = self.index.features, self.index.encoder.cell_px
        if len(retrieved):
            return fusion.verify(retrieved, windows, field, bin_px=self.index.manifest.tiles.stride_px, cell_px=cell)
        return fusion.scan(windows, field.whole(), field.rms, cell_px=cell)

    def _refiner(self, strip: Strip, windows: Sequence[Window]) -> Refiner | None:
        """What looks at the pixels of windows, or None where there is nothing to look at."""
        if self.pixels is None:
            return None
        size = self.index.manifest.tiles.size_px
        height, width = strip.image.shape
        if min(height, width) < size:  # one window for the correlation, several for the pixels
            rows, cols = starts(height, min(size, height), size), starts(width, min(size, width), size)
            first = np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2).astype(np.int64)
        else:
            first = np.array([window.cell for window in windows]) * self.index.encoder.cell_px
        refiner = Refiner(strip, first, size, self.pixels)
        return refiner if refiner.cells else None


NO_POSES = Poses(np.empty((0, 2)), np.empty(0))


def _look_closer(found: Poses, refiner: Refiner | None) -> Looked:
    """Look at the best places pixel by pixel; where several come close, the pixels choose between them."""
    if refiner is None:
        return Looked(found, ())
    contested = int((found.scores * CONTESTED >= found.scores[0]).sum())
    close = 2 if (found.scores * ALONE >= found.scores[0]).sum() > 1 else 1
    looks = [refiner.at(corner) for corner in found.corners_px[: min(CONTENDERS, max(close, contested))]]
    total = found.scores[: len(looks)] + FINE_WEIGHT * np.array([look.peak for look in looks])
    best = int(total[: max(1, contested)].argmax())
    order = [best, *(i for i in range(len(found)) if i != best)]
    return Looked(Poses(found.corners_px[order], found.scores[order]), tuple(looks[i] for i in order if i < len(looks)))
