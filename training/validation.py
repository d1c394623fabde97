"""What a run is judged by: windows looked up in the whole validation block, by correlation and by vectors.

By vectors, a tile of the block is the right one if its corner lies within half a stride and 4 px of the window's in
both axes. They are compared as they are trained, without the PCA that an index fits to its map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geomatch.nets.encoder import EncoderNet
from geomatch.nets.resnet import GlobalNet
from geomatch.planes import CELL_PX, PLANE_PX
from geomatch.structure import Dense
from geomatch.tiles import TileGrid, tile_vectors

from .augment import LARGE_PX
from .data import ValidationBlock
from .losses import correlation
from .network import evaluated
from .pooled import pooled

FOUND_CELLS = 1.25  # 10 px
RANKS = (1, 10, 100)
MARGIN_PX = 4
_CHUNK, _ROWS, _IMAGES = 10, 4, 64  # windows, rows of tiles and images at a time

Tiles = Iterator[tuple[Tensor, Tensor]]  # [N x 2] corners in pixels, [N x D] vectors
Encode = Callable[[Tensor], Tensor]


def map_features(net: EncoderNet, block: ValidationBlock) -> Tensor:
    """Dense features of the block's map: [1 x C x h x w]."""
    with evaluated(net) as device:
        field: Tensor = net(block.planes[None].to(device), "optical")
        return field


def found_share(net: EncoderNet, block: ValidationBlock, field: Tensor | None = None) -> dict[int, float]:
    """Share of windows whose highest correlation lies within 10 px of the true place, by window size."""
    field = map_features(net, block) if field is None else field
    shares = {}
    with evaluated(net) as device:
        for size, (sar, truth) in block.windows.items():
            found = 0
            for first in range(0, len(sar), _CHUNK):
                features = net(sar[first : first + _CHUNK].to(device), "sar")
                surface = correlation(features, field)[:, 0]
                best = surface.flatten(1).argmax(dim=1).cpu()
                at = torch.stack([best % surface.shape[-1], best // surface.shape[-1]], dim=1)
                error = (at - truth[first : first + _CHUNK]).square().sum(dim=1).sqrt()
                found += int((error <= FOUND_CELLS).sum())
            shares[size] = found / len(sar)
    return shares


def dense_recall(
    net: EncoderNet, block: ValidationBlock, field: Tensor, head: nn.Module, stride_px: int
) -> dict[str, float]:
    """Recall of the large windows by their pooled features."""
    sar, truth = block.windows[LARGE_PX]
    with evaluated(net) as device:

        def encode(planes: Tensor) -> Tensor:
            origin = torch.zeros(len(planes), 2, device=device)
            vectors: Tensor = head(pooled(net(planes.to(device), "sar"), origin, LARGE_PX))
            return vectors

        tiles = pooled_tiles(field[0], head, LARGE_PX, stride_px)
        return _named(recalls(tiles, encoded(sar, encode), truth * CELL_PX, stride_px))


def global_recall(net: GlobalNet, block: ValidationBlock, stride_px: int) -> dict[str, float]:
    """Recall of the large windows by vectors of whole windows."""
    sar, truth = block.windows[LARGE_PX]
    with evaluated(net) as device:
        tiles = whole_tiles(block.planes, lambda planes: net(planes.to(device), "optical"), LARGE_PX, stride_px)
        queries = encoded(sar, lambda planes: net(planes.to(device), "sar"))
        return _named(recalls(tiles, queries, truth * CELL_PX, stride_px))


def _named(ranks: dict[int, float]) -> dict[str, float]:
    return {f"val_r{rank}": share for rank, share in ranks.items()}


def recalls(tiles: Tiles, queries: Tensor, truth_px: Tensor, stride_px: int) -> dict[int, float]:
    """Share of queries that have a right tile among the first, by how many.

    Args:
        tiles: some at a time.
        queries: [M x D].
        truth_px: [M x 2] their corners.
        stride_px: of the tiles.
    """
    scores = queries.new_full((len(queries), 0), 0.0)
    right = torch.zeros(len(queries), 0, dtype=torch.bool)
    for corners, vectors in tiles:
        near = (corners[None] - truth_px[:, None]).abs().amax(dim=2) <= stride_px / 2 + MARGIN_PX
        scores, right = torch.cat([scores, queries @ vectors.T], dim=1), torch.cat([right, near], dim=1)
        scores, kept = scores.topk(min(RANKS[-1], scores.shape[1]), dim=1)
        right = right.gather(1, kept)
    return {rank: float(right[:, :rank].any(dim=1).float().mean()) for rank in RANKS}


def pooled_tiles(field: Tensor, head: Encode, size_px: int, stride_px: int) -> Tiles:
    """Tiles of dense features of a map, [C x h x w]."""
    values = field.cpu().numpy()
    known = np.ones(values.shape[1:], bool)
    grid = TileGrid(values.shape[2] * CELL_PX, values.shape[1] * CELL_PX, size_px, stride_px)
    for first in range(0, len(grid.row_starts), _ROWS):
        rows = grid.row_starts[first : first + _ROWS]
        top, bottom = int(rows[0]) // CELL_PX, -(-(int(rows[-1]) + size_px) // CELL_PX)
        part = Dense(values[:, top:bottom], known[top:bottom])
        found = tile_vectors(part, grid.col_starts, rows - np.int32(top * CELL_PX), size_px, CELL_PX)
        vectors = torch.from_numpy(found.vectors.reshape(-1, found.vectors.shape[2]))
        yield _corners(grid.col_starts, rows), head(vectors.to(field.device)).cpu()


def whole_tiles(planes: Tensor, encode: Encode, size_px: int, stride_px: int) -> Tiles:
    """Tiles of a map's planes, [P x h x w], each encoded alone."""
    grid = TileGrid(planes.shape[2] * PLANE_PX, planes.shape[1] * PLANE_PX, size_px, stride_px)
    corners, side = _corners(grid.col_starts, grid.row_starts), size_px // PLANE_PX
    for part in torch.split(corners, _IMAGES):
        at = (part / PLANE_PX).round().int().tolist()
        yield part, encode(torch.stack([planes[:, row : row + side, col : col + side] for col, row in at])).cpu()


def encoded(windows: Tensor, encode: Encode) -> Tensor:
    """Vectors of windows, [M x P x s x s], some at a time."""
    return torch.cat([encode(part).cpu() for part in torch.split(windows, _IMAGES)])


def _corners(cols: NDArray[np.int32], rows: NDArray[np.int32]) -> Tensor:
    """[R * K x 2] column and row of the crossings."""
    return torch.from_numpy(np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2).astype(np.float32))
