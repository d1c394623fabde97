"""The bones of a TIFF read without GDAL: what a file declares, before anything allocates or decodes it.

GDAL trusts what a header says: a file of 244 bytes can make it allocate 638 MB, and a cut-off file opens without a
word. This module walks the directories (main image, overviews, masks) with ``struct`` and compares what they declare
with the limits and with the bytes that are there. Source of the layout: TIFF 6.0 (Adobe 1992) and BigTIFF.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from geomatch.errors import InputError, LimitError, UsageError

MAX_DIRECTORIES = 256
MAX_ENTRIES = 65_535

UNCOMPRESSED = 1
SUBSAMPLED_COLOR = 6  # photometric YCbCr: fewer bytes than samples
PLANAR = 2

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, PLANAR_CONFIG = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 322, 323, 324, 325

_BASE_TAGS = {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR_CONFIG}
_BLOCK_TAGS = {STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_COUNTS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS}
_UNSIGNED = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}  # TIFF field type -> numpy; other types hold none of the tags read

Tags = dict[int, NDArray[np.uint64]]


@dataclass(frozen=True)
class Limits:
    """How much a raster may ask for; a user lets a larger file in by GEOMATCH_MAX_PIXELS and so on, see ``from_env``.

    Attributes:
        max_pixels: width × height of a raster.
        max_read_bytes: one read, decoded.
        max_block_bytes: one internal tile or strip, decoded; GDAL holds it whole.
    """

    max_pixels: int = 40_000_000_000
    max_read_bytes: int = 2 << 30
    max_block_bytes: int = 256 << 20

    def check(self, name: str, asked: int, what: str, where: object, hint: str) -> None:
        """Raise LimitError when ``asked`` is more than the limit called ``name``."""
        allowed: int = getattr(self, name)
        if asked > allowed:
            raise LimitError(
                f"{what} takes {asked:,}, the limit is {allowed:,}",
                where=where,
                hint=f"{hint}, or, if you trust the file, set {_variable(name)}={asked}",
            )

    @classmethod
    def from_env(cls) -> Limits:
        """The defaults, or what GEOMATCH_MAX_PIXELS, GEOMATCH_MAX_READ_BYTES and GEOMATCH_MAX_BLOCK_BYTES say.

        Raises:
            UsageError: a variable that is no positive whole number.
        """
        given = {
            field.name: os.environ[_variable(field.name)]
            for field in fields(cls)
            if _variable(field.name) in os.environ
        }
        for name, value in given.items():
            if not value.isdecimal() or int(value) == 0:
                raise UsageError(f"{value!r} is no positive whole number", where=_variable(name), hint="unset it")
        return cls(**{name: int(value) for name, value in given.items()})


DEFAULT_LIMITS = Limits()


def _variable(name: str) -> str:
    return f"GEOMATCH_{name.upper()}"


@dataclass(frozen=True)
class Directory:
    """One image of the file: the raster itself, an overview or a mask.

    Attributes:
        width: columns, pixels.
        height: rows, pixels.
        block_bytes: one tile or strip, decoded, as GDAL holds it.
        offsets: [N] where each block starts, bytes; 0 for a block that was never written.
        stored: [N] bytes that each block takes in the file.
    """

    width: int
    height: int
    block_bytes: int
    offsets: NDArray[np.uint64]
    stored: NDArray[np.uint64]


def check_tiff(path: Path, limits: Limits) -> None:
    """Refuse a file that is no TIFF, is cut off, or declares more than the limits allow.

    Args:
        path: a local regular file.
        limits: what it may ask for.

    Raises:
        InputError: not a TIFF, damaged or truncated.
        LimitError: it declares too many pixels or too large a block.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        for directory in _directories(file, size, path):
            _check_directory(directory, size, path, limits)


def _check_directory(directory: Directory, size: int, path: Path, limits: Limits) -> None:
    pixels = directory.width * directory.height
    if pixels == 0:
        raise InputError(f"the image is {directory.width} × {directory.height} pixels", where=path, hint=_EXPORT)
    limits.check(
        "max_pixels", pixels, f"a raster of {directory.width} × {directory.height} pixels", path, "cut it into parts"
    )
    retile = f"retile it with gdal_translate -co TILED=YES -co COMPRESS=DEFLATE {path.name} tiled.tif"
    limits.check("max_block_bytes", directory.block_bytes, "an internal block, in bytes,", path, retile)
    start = np.minimum(directory.offsets, size)
    beyond = (directory.offsets > size) | (directory.stored > size - start)
    if (beyond & (directory.offsets > 0)).any():
        raise _truncated(path, size)


_EXPORT = "export the raster again"


def _truncated(path: Path, size: int) -> InputError:
    return InputError(
        f"the TIFF is truncated or damaged: it points beyond its {size:,} bytes",
        where=path,
        hint="copy or download the file again and compare its size",
    )


@dataclass(frozen=True)
class _Layout:
    """How numbers are laid out: byte order, and the wider fields of BigTIFF."""

    order: str
    big: bool

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.big else "H")

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.big else "I")

    @property
    def entry(self) -> str:
        return self.order + ("HHQ8s" if self.big else "HHI4s")


def _unpack(file: BinaryIO, pattern: str) -> tuple[int, ...]:
    return struct.unpack(pattern, file.read(struct.calcsize(pattern)))


def _directories(file: BinaryIO, size: int, path: Path) -> Iterator[Directory]:
    layout, offset = _header(file, size, path)
    seen: set[int] = set()
    while offset:
        if offset in seen or offset >= size or len(seen) >= MAX_DIRECTORIES:
            raise _truncated(path, size)
        seen.add(offset)
        try:
            tags, offset = _tags(file, offset, layout, size)
            directory = _directory(tags)
        except (struct.error, KeyError, ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
            raise _truncated(path, size) from error
        yield directory
    if not seen:
        raise _truncated(path, size)


def _header(file: BinaryIO, size: int, path: Path) -> tuple[_Layout, int]:
    magic = file.read(4)
    order = {b"II": "<", b"MM": ">"}.get(magic[:2])
    version = struct.unpack(order + "H", magic[2:])[0] if order and len(magic) == 4 else 0
    if order is None or version not in (42, 43):
        what = "the file is empty" if size == 0 else "not a TIFF"
        raise InputError(what, where=path, hint="geomatch reads GeoTIFF; convert with gdal_translate IN OUT.tif")
    layout = _Layout(order, version == 43)
    try:
        if layout.big:
            _unpack(file, order + "HH")
        return layout, _unpack(file, layout.offset)[0]
    except struct.error as error:
        raise _truncated(path, size) from error


def _tags(file: BinaryIO, offset: int, layout: _Layout, size: int) -> tuple[Tags, int]:
    """The tags that matter of the directory at ``offset``, and the offset of the next directory."""
    file.seek(offset)
    entries = [
        struct.unpack(layout.entry, file.read(struct.calcsize(layout.entry)))
        for _ in range(min(_unpack(file, layout.count)[0], MAX_ENTRIES))
    ]
    following = _unpack(file, layout.offset)[0]
    tags: Tags = {}
    for tag, kind, count, value in entries:
        if tag not in _BASE_TAGS | _BLOCK_TAGS or kind not in _UNSIGNED:
            continue
        dtype = np.dtype(layout.order + _UNSIGNED[kind])
        length = count * dtype.itemsize
        inline = length <= len(value)
        stored = value if inline else _read_at(file, struct.unpack(layout.offset, value)[0], length, size)
        tags[tag] = np.frombuffer(stored, dtype=dtype, count=count).astype(np.uint64)
    return tags, following


def _read_at(file: BinaryIO, offset: int, length: int, size: int) -> bytes:
    if offset > size or length > size - offset:
        raise ValueError("values beyond the end of the file")
    file.seek(offset)
    return file.read(length)


def _directory(tags: Tags) -> Directory:
    width, height = int(tags[WIDTH][0]), int(tags[HEIGHT][0])
    planar = _first(tags, PLANAR_CONFIG, 1) == PLANAR
    planes, samples = (_first(tags, SAMPLES, 1), 1) if planar else (1, _first(tags, SAMPLES, 1))
    bits = _first(tags, BITS, 1)
    plain = _first(tags, COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED
    tiled = TILE_OFFSETS in tags
    block_width = int(tags[TILE_WIDTH][0]) if tiled else width
    block_height = int(tags[TILE_HEIGHT][0]) if tiled else min(_first(tags, ROWS_PER_STRIP, height), height)
    down = -(-height // block_height)
    offsets = tags[TILE_OFFSETS if tiled else STRIP_OFFSETS]
    stored = tags.get(TILE_COUNTS if tiled else STRIP_COUNTS, np.zeros_like(offsets))
    if len(offsets) < -(-width // block_width) * down * planes or len(stored) != len(offsets):
        raise ValueError("fewer blocks than the image needs")
    # GDAL reads an uncompressed single strip row by row and never holds it whole; bits it unpacks into bytes.
    held_rows = 1 if plain and not tiled and len(offsets) == 1 else block_height
    held = held_rows * block_width * samples * -(-bits // 8)
    if plain and _first(tags, PHOTOMETRIC, 1) != SUBSAMPLED_COLOR:
        rows = np.full(len(offsets), block_height, dtype=np.uint64)
        if not tiled:
            rows[down - 1 :: down] = height - (down - 1) * block_height
        stored = rows * np.uint64(-(-block_width * samples * bits // 8))
    return Directory(width, height, held, offsets, stored)


def _first(tags: Tags, tag: int, default: int) -> int:
    return int(tags[tag][0]) if tag in tags else default
