"""Where training pairs come from: co-registered scenes, read by windows at random positions, and folders of patches.

A source draws a co-registered pair of optical bands and SAR amplitude at one place. It knows which pixels may be used:
those of its split, at a distance from any other. What cannot teach anything is drawn again: crops with more nodata than
MAX_NODATA, and crops where the map shows open water or nothing (``geomatch.texture.is_textured``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.errors import InputError
from geomatch.geo import pixel_between
from geomatch.images import OpticalStretch, SarRadiometry, log_of
from geomatch.raster import Raster, open_raster
from geomatch.splits import Box
from geomatch.texture import is_textured
from geomatch.tiles import TILE_PX

MAX_NODATA = 0.02
BLACK, BLANK_PX = 3, 9  # as JPEG leaves it; side of the smallest area that counts as fill
MAX_OFF_PX = 0.5  # between the grids of two scenes
JITTER_PX = 32  # of a crop around a place that is asked for
_TRIES = 1000


@dataclass(frozen=True)
class Pair:
    """Two images of one place, pixel on pixel.

    Attributes:
        optical: [B x H x W] in [0, 1], B 1 or 3.
        sar: [P x H x W] amplitude over its median, per polarisation; zero where there is none.
        valid: [H x W] known in both.
    """

    optical: NDArray[np.float32]
    sar: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def query(self, part: slice) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A square of the SAR image as a query's, [1 x s x s] relative to its own medians, and what of it is known."""
        bands, valid = self.sar[:, part, part], self.valid[part, part]
        medians = [float(np.median(lit)) if (lit := band[band > 0]).size else 1.0 for band in bands]
        relative = [band / np.float32(median) for band, median in zip(bands, medians, strict=True)]
        return log_of(relative, valid)[None], valid


@dataclass(frozen=True)
class Placed:
    """A pair, and the first column and row of the scene that it shows."""

    pair: Pair
    col: int
    row: int


class PairSource(Protocol):
    """Draws pairs."""

    def draw(self, rng: np.random.Generator, side_px: int) -> Pair:
        """A pair of ``side_px`` × ``side_px`` px, or of the largest square below it that the source has."""
        ...


class ScenePairs:
    """Two co-registered rasters on one grid, read by windows.

    Args:
        optical, sar: GeoTIFFs on one grid.
        boxes: parts that may be used; a crop lies within their union. Default the whole scene.
    """

    def __init__(
        self, optical: str | os.PathLike[str], sar: str | os.PathLike[str], boxes: Sequence[Box] | None = None
    ) -> None:
        self._optical: Raster = open_raster(optical)
        self._sar: Raster = open_raster(sar)
        size = (self._optical.width, self._optical.height)
        if size != (self._sar.width, self._sar.height):
            raise InputError(
                f"{self._sar.width} × {self._sar.height} px beside an optical image of {size[0]} × {size[1]} px",
                where=self._sar.path,
                hint="bring both to one grid first, for example with gdalwarp -te -ts",
            )
        self._check_same_grid()
        self._boxes = list(boxes) if boxes is not None else [Box(0, 0, *size)]
        self._allowed = np.zeros((-(-size[1] // _COARSE), -(-size[0] // _COARSE)), bool)
        for box in self._boxes:
            if min(box.col0, box.row0) < 0 or box.col0 + box.width > size[0] or box.row0 + box.height > size[1]:
                raise InputError(f"{box} leaves its {size[0]} × {size[1]} px", where=self._optical.path)
            rows = slice(-(-box.row0 // _COARSE), (box.row0 + box.height) // _COARSE)
            cols = slice(-(-box.col0 // _COARSE), (box.col0 + box.width) // _COARSE)
            self._allowed[rows, cols] = True
        if not self._allowed.any() or min(min(box.width, box.height) for box in self._boxes) < 1:
            what = f"no room for training in its boxes {self._boxes}" if self._boxes else "no boxes, so no room"
            raise InputError(what, where=self._optical.path, hint="use larger boxes or a smaller holdout")
        # One cell less than the largest square, which would fit at one place only.
        self._largest = _COARSE * max(1, _largest_square(self._allowed) - 1)
        areas = np.array([box.width * box.height for box in self._boxes], float)
        self._shares = areas / areas.sum()
        self._stretch = OpticalStretch.fit(self._optical)
        self._radiometry = SarRadiometry.detect(self._sar)

    def _check_same_grid(self) -> None:
        """Raise if the pixels of the two, where both say so, do not lie at the same places."""
        ours, theirs = self._optical.grid, self._sar.grid
        if ours is None or theirs is None:
            return
        try:
            off = float(np.abs(pixel_between(theirs, ours, theirs.corners_px) - ours.corners_px).max())
        except InputError:  # no place in the other's CRS
            off = np.inf
        if off > MAX_OFF_PX:
            raise InputError(
                f"not on the grid of {self._optical.path}, " + (f"{off:.3g} px off" if off < np.inf else "far off"),
                where=self._sar.path,
                hint="bring both to one grid first, for example with gdalwarp -t_srs -te -ts",
            )

    def draw(self, rng: np.random.Generator, side_px: int) -> Pair:
        """A pair whose middle is uniform over the boxes, as far as it lies within them."""
        return self.find(rng, side_px).pair

    def find(self, rng: np.random.Generator, side_px: int) -> Placed:
        """Such a pair, and where it lies."""
        side_px = min(side_px, self._largest)
        for _ in range(_TRIES):
            box = self._boxes[int(rng.choice(len(self._boxes), p=self._shares))]
            col = box.col0 + int(rng.integers(box.width)) - side_px // 2
            row = box.row0 + int(rng.integers(box.height)) - side_px // 2
            if not self._within(col, row, side_px):
                continue
            pair = self._read(col, row, side_px)
            if pair.valid.mean() >= 1 - MAX_NODATA and is_textured(pair.optical.mean(axis=0), pair.valid):
                return Placed(pair, col, row)
        raise InputError(
            f"no place of {side_px} × {side_px} px with data and texture",
            where=self._optical.path,
            hint="use smaller crops or larger scenes",
        )

    def draw_at(self, rng: np.random.Generator, side_px: int, col: int, row: int) -> Pair:
        """A pair around a place, its middle up to JITTER_PX from it; what it shows is not asked.

        Where the boxes leave no room for it the middle is the place itself, and then it is smaller, down to a tile.

        Raises:
            InputError: the place is not in the boxes, or too near to their edge for a tile.
        """
        shift = rng.integers(-JITTER_PX, JITTER_PX, size=2, endpoint=True).tolist()
        for side in range(min(side_px, self._largest), min(side_px, TILE_PX) - 1, -_COARSE):
            for right, down in (shift, (0, 0)):
                first = (col + right - side // 2, row + down - side // 2)
                if self._within(*first, side):
                    return self._read(*first, side)
        what = f"no room for a crop around column {col}, row {row} in its boxes"
        raise InputError(what, where=self._optical.path, hint="name a place further within them")

    def _within(self, col: int, row: int, side: int) -> bool:
        """Whether a square lies in the union of the boxes."""
        first_col, first_row = col // _COARSE, row // _COARSE
        last_col, last_row = -(-(col + side) // _COARSE), -(-(row + side) // _COARSE)
        if first_col < 0 or first_row < 0:
            return False
        within = self._allowed[first_row:last_row, first_col:last_col]
        return within.shape == (last_row - first_row, last_col - first_col) and bool(within.all())

    def _read(self, col: int, row: int, side: int) -> Pair:
        optical = self._optical.read(col, row, side, side, bands=self._stretch.bands)
        sar = self._sar.read(col, row, side, side, bands=self._radiometry.bands)
        amplitude = np.stack(self._radiometry.relative(sar)).astype(np.float32)
        return Pair(self._stretch.bands_of(optical), amplitude, optical.valid & self._radiometry.lit(sar))


@dataclass(frozen=True)
class PlacePairs:
    """One place of a scene as a source."""

    scene: ScenePairs
    col: int
    row: int

    def draw(self, rng: np.random.Generator, side_px: int) -> Pair:
        """A pair around it."""
        return self.scene.draw_at(rng, side_px, self.col, self.row)


@dataclass(frozen=True)
class PatchNames:
    """One named pair of patch files."""

    optical: Path
    sar: Path


class FolderPairs:
    """Co-registered patches in image files of one size each, the pixels of each file stretched by themselves.

    Args:
        names: the pairs.
    """

    def __init__(self, names: Sequence[PatchNames]) -> None:
        if not names:
            raise InputError("no pairs of patches", hint="name folders whose files have the same names")
        self._names = list(names)
        self._kept: dict[int, Pair] = {}

    @classmethod
    def of(cls, optical: Path, sar: Path, names: Sequence[str] | None = None) -> FolderPairs:
        """Files of the same stem in two folders; of all stems, or of those given."""
        ours, theirs = _files(optical), _files(sar)
        stems = sorted(ours.keys() & theirs.keys()) if names is None else list(names)
        if not stems:
            raise InputError("no pairs of patches", where=optical, hint=f"give them the names that they have in {sar}")
        for folder, files in ((optical, ours), (sar, theirs)):
            if missing := [stem for stem in stems if stem not in files]:
                what = f"no patch {missing[0]!r}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
                raise InputError(what, where=folder, hint="add them, or take their names out of the list")
        return cls([PatchNames(ours[stem], theirs[stem]) for stem in stems])

    def draw(self, rng: np.random.Generator, side_px: int) -> Pair:
        """A random patch, at a random place within it."""
        for _ in range(_TRIES):
            pair = self.patch(int(rng.integers(len(self._names))))
            height, width = pair.valid.shape
            side = min(side_px, height, width)
            row, col = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            part = np.s_[row : row + side, col : col + side]
            cut = Pair(pair.optical[:, *part], pair.sar[:, *part], pair.valid[part])
            if cut.valid.mean() >= 1 - MAX_NODATA and is_textured(cut.optical.mean(axis=0), cut.valid):
                return cut
        raise InputError("no patch with data and texture", where=self._names[0].optical.parent)

    def patch(self, number: int) -> Pair:
        """A whole patch."""
        if number not in self._kept:
            name = self._names[number]
            optical, sar = (_image(file) for file in (name.optical, name.sar))
            if optical.shape != sar.shape:
                (height, width), (tall, wide) = optical.shape[1:], sar.shape[1:]
                what = f"{wide} × {tall} px beside an optical patch of {width} × {height} px"
                raise InputError(what, where=name.sar, hint="bring both to one size first")
            valid = ~(_blank(optical) | _blank(sar))
            low, high = np.percentile(optical[:, valid], [1, 99], axis=1) if valid.any() else np.zeros((2, 3))
            unit = np.clip((optical - low[:, None, None]) / np.maximum(high - low, 1)[:, None, None], 0, 1)
            grey = sar.mean(axis=0)
            median = float(np.median(grey[grey > 0])) if (grey > 0).any() else 1.0
            self._kept[number] = Pair(
                (unit * valid).astype(np.float32), (grey / median * valid)[None].astype(np.float32), valid
            )
        return self._kept[number]

    def __len__(self) -> int:
        """How many patches."""
        return len(self._names)


def _largest_square(mask: NDArray[np.bool_]) -> int:
    """Side of the largest square of true cells; one of side n is four of side n - 1."""
    side = 0
    while mask.any():
        side += 1
        mask = mask[1:, 1:] & mask[1:, :-1] & mask[:-1, 1:] & mask[:-1, :-1]
    return side


def _files(folder: Path) -> dict[str, Path]:
    """Files of a folder by their stems."""
    try:
        return {file.stem: file for file in sorted(folder.iterdir()) if file.is_file()}
    except OSError as error:
        raise InputError(f"cannot be read as a folder ({error.strerror})", where=folder) from error


def _blank(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Wide areas of black, which are fill; a black pixel among others may be water."""
    black = (image.max(axis=0) <= BLACK).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(black, cv2.MORPH_OPEN, np.ones((BLANK_PX, BLANK_PX), np.uint8)) > 0)


def _image(file: Path) -> NDArray[np.float32]:
    """An image file as [3 x H x W]."""
    image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise InputError("cannot be read as an image", where=file)
    return np.moveaxis(image, -1, 0).astype(np.float32)


_COARSE = 32  # pixels of the mask that says which parts may be used
