"""The manifest of an index: what it is and what it was made from, as JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from affine import Affine

from geomatch.errors import IndexFormatError, InputError
from geomatch.geo import Grid, as_crs, six
from geomatch.images import OpticalStretch

FORMAT_VERSION = 1
MANIFEST, TILES, VECTORS, FEATURES = "manifest.json", "tiles.parquet", "vectors.faiss", "features.tif"

REBUILD = "build the index again with geomatch index build"


def part_names(count: int) -> list[str]:
    """Names of ``count`` files that hold the vectors: vectors.faiss, vectors-2.faiss and so on."""
    first, dot, suffix = VECTORS.partition(".")
    return [VECTORS, *(f"{first}-{number}{dot}{suffix}" for number in range(2, count + 1))]


def is_index_file(name: str) -> bool:
    """Whether a file of that name may lie in an index."""
    stem, suffix = VECTORS.split(".")
    return name in (MANIFEST, TILES, FEATURES) or re.fullmatch(rf"{stem}(-\d+)?\.{suffix}", name) is not None


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} is {count!r}")


@dataclass(frozen=True)
class EncoderRecord:
    """Which encoder made the features.

    Attributes:
        name: as ``geomatch.encoder.load_encoder`` takes it.
        sha256: its fingerprint.
        channels: features per cell.
        cell_px: side of a cell, pixels.
        backend: that ran its network; None where it has none.
    """

    name: str
    sha256: str
    channels: int
    cell_px: int
    backend: str | None = None

    def __post_init__(self) -> None:
        _check_counts(channels=self.channels, cell_px=self.cell_px)


@dataclass(frozen=True)
class TileRecord:
    """How the map was cut.

    Attributes:
        size_px: side of a tile.
        stride_px: from one tile to the next.
        count: tiles kept.
        vectors: FAISS factory string of the search structure.
    """

    size_px: int
    stride_px: int
    count: int
    vectors: str

    def __post_init__(self) -> None:
        _check_counts(size_px=self.size_px, stride_px=self.stride_px, count=self.count)


@dataclass(frozen=True)
class SourceRecord:
    """A raster of the orthomosaic, and the part of the orthomosaic that is indexed.

    Attributes:
        path: absolute, when the index was built.
        relative_path: from the index directory.
        size_bytes, mtime_ns, sha256: what identifies its content.
        col0, row0: first pixel of the indexed window in the orthomosaic, so the same of all rasters.
        scale: sides of the pixels that are indexed, in those of the orthomosaic; ``col0`` and ``row0`` count these.
    """

    path: str
    relative_path: str
    size_bytes: int
    mtime_ns: int
    sha256: str
    col0: int
    row0: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale is {self.scale}")


@dataclass(frozen=True)
class FileRecord:
    """A file of the index: its size and sha256."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All that an index says about itself.

    Attributes:
        geomatch_version: that built it.
        encoder, tiles: see their types.
        sources: the rasters of the orthomosaic, the one that counts first.
        grid: where the indexed window lies, at the map's resolution.
        stretch: the map's radiometry.
        feature_rms: root mean square of the valid features per cell.
        files: the other files of the directory by name.

    Raises:
        ValueError: a number that cannot be, files other than those of an index, or no source or such as differ in what
            part is indexed.
    """

    geomatch_version: str
    encoder: EncoderRecord
    tiles: TileRecord
    sources: tuple[SourceRecord, ...]
    grid: Grid
    stretch: OpticalStretch
    feature_rms: float
    files: Mapping[str, FileRecord]

    def __post_init__(self) -> None:
        if set(self.files) != {TILES, FEATURES, *self.vector_parts}:
            raise ValueError(f"the files are {', '.join(map(str, self.files)) or 'none'}")
        if not (math.isfinite(self.feature_rms) and self.feature_rms >= 0):
            raise ValueError(f"feature_rms is {self.feature_rms}")
        if len({(source.col0, source.row0, source.scale) for source in self.sources}) != 1:
            raise ValueError(f"{len(self.sources)} sources, of not one part")

    @property
    def origin_px(self) -> tuple[int, int]:
        """First column and row of the indexed window, in pixels of the orthomosaic at ``scale``."""
        return self.sources[0].col0, self.sources[0].row0

    @property
    def scale(self) -> float:
        """Sides of the pixels that are indexed, in those of the orthomosaic."""
        return self.sources[0].scale

    @property
    def vector_parts(self) -> list[str]:
        """Names of the files of the vectors, in their order."""
        return part_names(max(1, len(self.files) - 2))

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the feature grid."""
        cell = self.encoder.cell_px
        return -(-self.grid.height // cell), -(-self.grid.width // cell)

    def to_json(self) -> str:
        """The text of ``manifest.json``; the same index gives the same text."""
        grid = {
            "crs": self.grid.crs.to_wkt(),
            "transform": list(six(self.grid.transform)),
            "width": self.grid.width,
            "height": self.grid.height,
        }
        return json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "geomatch_version": self.geomatch_version,
                "encoder": asdict(self.encoder),
                "tiles": asdict(self.tiles),
                "sources": [asdict(source) for source in self.sources],
                "grid": grid,
                "stretch": self.stretch.to_dict(),
                "feature_rms": self.feature_rms,
                "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
            },
            indent=1,
        )

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of the index in ``folder``.

        Raises:
            IndexFormatError: there is none, it cannot be understood, or it is of another format version.
        """
        file = folder / MANIFEST
        if not folder.exists():
            raise IndexFormatError("there is no such index", where=folder, hint="build it with geomatch index build")
        try:
            values = json.loads(file.read_text())
        except (FileNotFoundError, NotADirectoryError) as error:
            hint = "give the directory that geomatch index build wrote"
            raise IndexFormatError("not an index, it has no manifest.json", where=folder, hint=hint) from error
        except (OSError, ValueError, RecursionError) as error:
            raise IndexFormatError(f"cannot be read ({error})", where=file, hint=REBUILD) from error
        version = values.get("format_version") if isinstance(values, dict) else None
        if version != FORMAT_VERSION:
            newer = isinstance(version, int) and version > FORMAT_VERSION
            hint = "install a newer geomatch" if newer else REBUILD
            raise IndexFormatError(
                f"has format version {version}, this geomatch reads {FORMAT_VERSION}", where=file, hint=hint
            )
        try:
            return cls._from_dict(values)
        except (KeyError, TypeError, ValueError, AttributeError, InputError, IndexFormatError) as error:
            raise IndexFormatError(f"is damaged ({error})", where=file, hint=REBUILD) from error

    @classmethod
    def _from_dict(cls, values: Mapping[str, Any]) -> Manifest:
        grid = values["grid"]
        return cls(
            geomatch_version=str(values["geomatch_version"]),
            encoder=EncoderRecord(**values["encoder"]),
            tiles=TileRecord(**values["tiles"]),
            sources=tuple(SourceRecord(**source) for source in values["sources"]),
            grid=Grid(as_crs(grid["crs"]), Affine(*grid["transform"]), int(grid["width"]), int(grid["height"])),
            stretch=OpticalStretch.from_dict(values["stretch"]),
            feature_rms=float(values["feature_rms"]),
            files={name: FileRecord(**entry) for name, entry in values["files"].items()},
        )
