"""What indexes retrieve for random windows of SAR scenes, kept on disk: the examples of a re-ranker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomatch.console import Step
from geomatch.errors import InputError, UsageError
from geomatch.files import published, sha256_of, writing
from geomatch.hidden import hidden_windows
from geomatch.manifest import MANIFEST
from geomatch.metrics import OVERLAP, overlap
from geomatch.query import Query
from geomatch.reranking.candidates import Candidates, retrieve_candidates
from geomatch.sampling import WindowOptions
from geomatch.threads import one_thread
from geomatch.tile_index import TileIndex


@dataclass
class RetrievalConfig:
    """Windows of a scene asked of one index.

    Attributes:
        index: directory that ``geomatch index build`` wrote; windows are of its tiles' size.
        sar: scene that shows the map.
        windows: of it.
        elsewhere: scene that does not show the map, or none.
        elsewhere_windows: of that.
        looks: of speckle that is multiplied in, one after the other, 0 for none.
        bbox: part of the map that windows are from, left, bottom, right, top in its CRS, or none.
    """

    index: str = ""
    sar: str = ""
    windows: int = 1000
    elsewhere: str = ""
    elsewhere_windows: int = 0
    looks: list[float] = field(default_factory=lambda: [0.0])
    bbox: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Example:
    """What was retrieved for a window, and which of it shows its place.

    Attributes:
        candidates: best first.
        right: [k]; none of them where the window is off the map, or its place was not retrieved.
    """

    candidates: Candidates
    right: NDArray[np.bool_]


def retrieved(config: RetrievalConfig, *, root: Path, k: int, seed: int, cache: Path, progress: Step) -> list[Example]:
    """Examples of a configuration, from the cache where they are in it.

    Args:
        config: which windows, of what.
        root: folder that its paths are relative to.
        k: tiles retrieved for each.
        seed: of the windows.
        cache: folder of examples.
        progress: told the windows done.

    Raises:
        UsageError: nothing is named.
        IndexFormatError, InputError: the index or a scene cannot be used.
        OutputError: the cache cannot be written.
    """
    if not config.index or not config.sar:
        raise UsageError("names no index or no scene", where="data.retrievals", hint="set both index and sar")
    manifest = root / config.index / MANIFEST
    key = [asdict(config), k, seed, sha256_of(manifest) if manifest.is_file() else ""]
    file = cache / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.npz"
    if not file.is_file():
        index = TileIndex.open(root / config.index)
        found = list(_ask(index, config, root=root, k=k, seed=seed, progress=progress))
        with writing(cache):
            cache.mkdir(parents=True, exist_ok=True)
        _write(found, file)
    return _read(file)


def _ask(
    index: TileIndex, config: RetrievalConfig, *, root: Path, k: int, seed: int, progress: Step
) -> Iterator[Example]:
    plans = [(config.sar, True, config.windows), (config.elsewhere, False, config.elsewhere_windows)]
    size, looks = index.manifest.tiles.size_px, config.looks or [0.0]
    bbox = (config.bbox[0], config.bbox[1], config.bbox[2], config.bbox[3]) if config.bbox else None
    for sar, on_map, count in plans:
        for number, of_looks in enumerate(looks):
            share = count // len(looks)
            if not share or not sar:
                continue
            options = WindowOptions(share, size, (seed + number), bbox=bbox if on_map else None, looks=of_looks or None)
            name = f"windows of {Path(sar).parent.name}"
            told = partial(progress, name)
            for window in hidden_windows(index, root / sar, options, on_map=on_map, progress=told):
                strip = window.raw.at()
                with one_thread():
                    query = Query.of(index, strip)
                    if not query.windows or not query.tiled:
                        continue
                    found = retrieve_candidates(index, query.vectors[0], k, query.windows[0].template)
                truth = None if window.truth is None else window.truth.center_px - strip.middle_px
                yield Example(found, right_of(found, truth))


def right_of(candidates: Candidates, corner_px: NDArray[np.float64] | None) -> NDArray[np.bool_]:
    """Which candidates overlap a place of a tile's size by OVERLAP: [2] its first pixel, or None off the map."""
    if corner_px is None:
        return np.zeros(len(candidates), bool)
    size = (candidates.size_px, candidates.size_px)
    return np.asarray(overlap(candidates.corners_px - corner_px, size) >= OVERLAP)


def _write(examples: Sequence[Example], file: Path) -> None:
    """All in one file; fewer candidates than of others are padded."""
    most = max((len(one.candidates) for one in examples), default=0)
    columns: dict[str, Any] = {"count": np.array([len(one.candidates) for one in examples])}
    names = [entry.name for entry in fields(Candidates) if entry.name not in ("query", "size_px")]
    for name in names:
        columns[name] = np.stack([_padded(getattr(one.candidates, name), most) for one in examples])
    columns["query"] = np.stack([one.candidates.query for one in examples])
    columns["size_px"] = np.array([one.candidates.size_px for one in examples])
    columns["right"] = np.stack([_padded(one.right, most) for one in examples])
    columns["vectors"] = columns["vectors"].astype(np.float16)
    with published(file) as part, part.open("wb") as out:
        np.savez(out, **columns)


def _padded(values: NDArray[Any], most: int) -> NDArray[Any]:
    return np.pad(values, [(0, most - len(values)), *[(0, 0)] * (values.ndim - 1)])


def _read(file: Path) -> list[Example]:
    try:
        with np.load(file) as kept:
            columns = {name: kept[name] for name in kept.files}
    except (OSError, ValueError, KeyError) as error:
        hint = "remove it, and it is made again"
        raise InputError(f"is no cache of examples ({error})", where=file, hint=hint) from error
    examples = []
    for i, count in enumerate(columns["count"].tolist()):
        one = Candidates(
            scores=columns["scores"][i, :count],
            corners_px=columns["corners_px"][i, :count],
            query=columns["query"][i],
            vectors=columns["vectors"][i, :count].astype(np.float32),
            agreement=columns["agreement"][i, :count],
            size_px=int(columns["size_px"][i]),
            peaks=columns["peaks"][i, :count],
        )
        examples.append(Example(one, columns["right"][i, :count]))
    return examples


def changed(example: Example, rng: np.random.Generator, *, fewest: int, without: float) -> Example:
    """An example as it might have been: mirrored or turned, fewer retrieved, or its place not retrieved at all.

    Args:
        example: as it was retrieved.
        rng: of the change.
        fewest: candidates that stay.
        without: share of examples that lose all candidates that are right.
    """
    found, keep = example.candidates, np.ones(len(example.candidates), bool)
    if example.right.any() and not example.right.all() and rng.random() < without:
        keep = ~example.right
    most = int(keep.sum())
    keep &= np.cumsum(keep) <= rng.integers(min(fewest, most), most + 1)
    corners, agreement = found.corners_px[keep], found.agreement[keep]
    if rng.random() < 0.5:
        corners, agreement = corners[:, ::-1], agreement.transpose(0, 2, 1)
    for axis in (0, 1):
        if rng.random() < 0.5:
            sign = np.where(np.arange(2) == axis, -1, 1)
            corners, agreement = corners * sign, np.flip(agreement, axis=2 - axis)
    made = replace(
        found,
        scores=found.scores[keep],
        corners_px=np.ascontiguousarray(corners, np.int32),
        vectors=found.vectors[keep],
        agreement=np.ascontiguousarray(agreement),
        peaks=None if found.peaks is None else found.peaks[keep],
    )
    return Example(made, example.right[keep])
