"""Hard negatives mined across a map: places that the network takes for each other, as an index would return them.

From time to time SAR windows of random places of a scene are looked up among the optical tiles of all of them, and for
each the best tile that is not its own is kept. Batches then show such places side by side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geomatch.errors import InputError
from geomatch.files import published
from geomatch.nets.resnet import GlobalNet
from geomatch.nets.shapes import EncoderShape
from geomatch.pairs import JITTER_PX, Placed, ScenePairs
from geomatch.planes import CELL_PX, PLANE_PX, planes
from geomatch.structure import reach_px
from geomatch.tiles import TILE_PX

from .config import DataConfig
from .network import Net, evaluated
from .pooled import cut_planes, pooled

MARGIN_PX = 96  # around tiles of a network that sees no more than those; leaves room for crops
_IMAGES = 8  # at a time
_STREAM = 0x6D696E65  # apart from the streams of the batches


@dataclass(frozen=True)
class Confusion:
    """A place whose SAR window is most like the map at another.

    Attributes:
        place, other: column and row of the scene where the middle of the tile lies.
        score: cosine of the two vectors.
    """

    place: tuple[int, int]
    other: tuple[int, int]
    score: float


Mined = list[list[Confusion]]  # of each scene of a configuration


def mined_pairs(config: DataConfig) -> int:
    """How many pairs of confusable places a batch shows."""
    return round(config.mining.share * config.batch / 2)


def mining_rng(seed: int, epoch: int, scene: int) -> np.random.Generator:
    """What decides the places of an epoch; no generator of the run."""
    return np.random.default_rng([_STREAM, seed, epoch, scene])


def mine_scene(net: Net, scene: ScenePairs, rng: np.random.Generator, count: int, apart_px: int) -> list[Confusion]:
    """The confusions among random places of a scene.

    Args:
        net: whose vectors are compared, pooled as an index pools them.
        scene: whose boxes the tiles and their surroundings lie in.
        rng: of the places.
        count: of places.
        apart_px: as of ``confusions``.

    Returns:
        None where the boxes hold no tile with room for crops around it.
    """
    side = TILE_PX + 2 * _margin_px(net)
    places, optical, sar = [], [], []
    for first in range(0, count, _IMAGES):
        shown = [scene.find(rng, side) for _ in range(min(_IMAGES, count - first))]
        start = (shown[0].pair.valid.shape[0] - TILE_PX) // 2 // CELL_PX * CELL_PX
        if start < JITTER_PX:
            return []
        places += [(placed.col + start + TILE_PX // 2, placed.row + start + TILE_PX // 2) for placed in shown]
        of_map, of_windows = _vectors(net, shown, start)
        optical.append(of_map)
        sar.append(of_windows)
    return confusions(places, torch.cat(sar), torch.cat(optical), apart_px) if places else []


def confusions(places: Sequence[tuple[int, int]], sar: Tensor, optical: Tensor, apart_px: int) -> list[Confusion]:
    """For each place the one whose optical vector is most like its SAR vector.

    Args:
        places: N of them, column and row.
        sar, optical: [N x D], of length one.
        apart_px: least distance of the two along columns or along rows; TILE_PX for tiles that do not overlap.

    Returns:
        In the order of the places, without those that all others are too near to.
    """
    at = torch.tensor(places)
    apart = (at[:, None] - at[None]).abs().amax(dim=2) >= max(apart_px, 1)
    scores, others = (sar @ optical.T).masked_fill(~apart, -torch.inf).max(dim=1)
    return [
        Confusion(places[i], places[int(others[i])], float(scores[i]))
        for i in apart.any(dim=1).nonzero()[:, 0].tolist()
    ]


def write_mined(file: Path, mined: Mined, epoch: int) -> None:
    """Write the confusions of all scenes, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    content = {"epoch": epoch, "tile_px": TILE_PX, "scenes": [[asdict(one) for one in scene] for scene in mined]}
    with published(file) as part:
        part.write_text(json.dumps(content))


def read_mined(file: Path, scenes: int) -> Mined:
    """The confusions that ``write_mined`` wrote, of so many scenes.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is damaged or of another number of scenes.
    """
    text = file.read_bytes()
    try:
        found = json.loads(text)["scenes"]
        mined = [[_confusion(**one) for one in scene] for scene in found]
    except (KeyError, TypeError, ValueError) as error:
        hint = "remove it; it is mined again"
        raise InputError(f"holds no confusable places ({error!r})", where=file, hint=hint) from error
    if len(mined) != scenes:
        what = f"holds confusable places of {len(mined)} scenes, not of {scenes}"
        raise InputError(what, where=file, hint="remove it; it is mined again")
    return mined


class MinedFile:
    """A file of confusions that appears and is replaced while it is read.

    Args:
        file: it, or none.
        scenes: how many it is of.
    """

    def __init__(self, file: Path | None, scenes: int) -> None:
        self._file, self._scenes = file, scenes
        self._kept: Mined = []
        self._mtime_ns: int | None = None

    def latest(self) -> Mined:
        """What it holds now; nothing as long as it is not there.

        Raises:
            InputError: as ``read_mined``.
        """
        if self._file is None:
            return self._kept
        try:
            mtime_ns = self._file.stat().st_mtime_ns
            if mtime_ns != self._mtime_ns:
                self._kept, self._mtime_ns = read_mined(self._file, self._scenes), mtime_ns
        except FileNotFoundError:
            pass
        return self._kept


def _confusion(place: Sequence[int], other: Sequence[int], score: float) -> Confusion:
    """A confusion as JSON has it."""
    (col, row), (other_col, other_row) = place, other
    return Confusion((int(col), int(row)), (int(other_col), int(other_row)), float(score))


def _margin_px(net: Net) -> int:
    """What of a tile's surroundings its vector may depend on, in whole cells."""
    if not isinstance(net.shape, EncoderShape):
        return MARGIN_PX
    return -(-(reach_px(PLANE_PX) + net.shape.reach_px) // CELL_PX) * CELL_PX


def _vectors(net: Net, shown: Sequence[Placed], start: int) -> tuple[Tensor, Tensor]:
    """[N x D] of the tiles at (start, start) in their surroundings, and of their SAR windows alone."""
    pairs, part = [placed.pair for placed in shown], slice(start, start + TILE_PX)
    maps = torch.from_numpy(np.stack([planes(pair.optical, pair.valid, "optical") for pair in pairs]))
    windows = torch.from_numpy(np.stack([planes(*pair.query(part), "sar") for pair in pairs]))
    at_px = torch.full((len(pairs), 2), float(start))
    with evaluated(net) as device:
        if isinstance(net, GlobalNet):
            maps = cut_planes(maps, torch.arange(len(pairs)), at_px, TILE_PX)
            return net(maps.to(device), "optical").cpu(), net(windows.to(device), "sar").cpu()
        optical = pooled(net(maps.to(device), "optical"), at_px.to(device), TILE_PX)
        sar = pooled(net(windows.to(device), "sar"), torch.zeros_like(at_px, device=device), TILE_PX)
        return optical.cpu(), sar.cpu()
