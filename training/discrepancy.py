"""How far apart the modalities' embeddings lie: optimal transport between tile vectors of a scene's validation boxes.

Sets of vectors differ by chance too, and by the places that they show. So the distance between the two modalities is
given beside that between random halves of one modality, and for that comparison it is taken between halves as well,
of different places: what the former has more is the gap between the modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import ot
import torch
from numpy.typing import NDArray

from geomatch.backends import load_runner
from geomatch.console import Step
from geomatch.errors import UsageError
from geomatch.extras import needs_extra
from geomatch.files import check_target, writing
from geomatch.learned import LearnedEncoder
from geomatch.nets.encoder import EncoderNet
from geomatch.nets.shapes import EncoderShape
from geomatch.outputs import output_file
from geomatch.pairs import Pair, ScenePairs
from geomatch.planes import CELL_PX
from geomatch.plots import DPI, SIZE_INCHES, STYLES
from geomatch.structure import Dense
from geomatch.tiles import TILE_PX, tile_vectors
from geomatch.weights import SUFFIX, Weights, save_weights

from .config import EncoderConfig
from .scenes import scene_boxes, scene_named

UNTRAINED = "untrained"
PICTURE = "embeddings.png"
LEAST_PAIRS = 8
SPLITS = 10  # random halves that are averaged
PROJECTIONS = 500
LINKED = 30  # pairs that the picture joins by lines
_ITERATIONS = 1_000_000  # more than exact transport of some thousand vectors takes

Vectors = NDArray[np.float32]  # [N x D]


@dataclass(frozen=True)
class Distances:
    """Between two sets of vectors, as far as vectors of length one can be: 2.

    Attributes:
        sliced: sliced Wasserstein-2 distance (Bonneel et al. 2015), the root mean square over random directions.
        w1, w2: exact Wasserstein-1 and -2 distances with equal weights.
    """

    sliced: float
    w1: float
    w2: float

    @classmethod
    def between(cls, one: Vectors, other: Vectors, seed: int = 0) -> Distances:
        """Of two sets, [N x D] and [M x D]."""
        one, other = one.astype(np.float64), other.astype(np.float64)
        squared = np.maximum(ot.dist(one, other), 0)
        return cls(
            float(ot.sliced_wasserstein_distance(one, other, n_projections=PROJECTIONS, seed=seed)),
            float(ot.emd2([], [], np.sqrt(squared), numItermax=_ITERATIONS)),
            float(np.sqrt(max(ot.emd2([], [], squared, numItermax=_ITERATIONS), 0.0))),
        )

    @classmethod
    def mean(cls, several: Sequence[Distances]) -> Distances:
        """Their mean."""
        return cls(*np.mean([(found.sliced, found.w1, found.w2) for found in several], axis=0).tolist())


@dataclass(frozen=True)
class Discrepancy:
    """Between the modalities' vectors of the same windows.

    Attributes:
        weights: whose vectors.
        pairs: how many of each.
        same_places: distances between all optical and all SAR vectors.
        other_places: between the optical ones of one half of the places and the SAR ones of the other half.
        within: between the halves of one modality, the mean of both: the floor of ``other_places``.
        cosine_pairs, cosine_others: mean cosine of optical and SAR vectors of one place, and of different places.
    """

    weights: str
    pairs: int
    same_places: Distances
    other_places: Distances
    within: Distances
    cosine_pairs: float
    cosine_others: float


def measure_discrepancy(
    config: EncoderConfig, weights: Sequence[str], output: Path, progress: Step, *, pairs: int = 300, seed: int = 0
) -> list[Discrepancy]:
    """Measure the discrepancy of each of the weights on the same windows, and draw ``embeddings.png``.

    Windows lie in the validation boxes of ``config.validation.scene``; they and their surroundings show something
    (``training.pairs``).

    Args:
        config: of a run; its ``net`` is that of "untrained".
        weights: names, paths, or "untrained" for a network that has learned nothing.
        output: folder of the picture.
        progress: told how many of the weights are done.
        pairs: windows of each modality.
        seed: of the windows, the halves, the directions and the untrained network.

    Raises:
        UsageError: too few pairs, no validation scene, unknown weights, or something that is not installed.
        InputError: the scene or the weights cannot be used.
        OutputError: the picture cannot be written.
    """
    if pairs < LEAST_PAIRS:
        raise UsageError(f"{pairs} pairs are too few", where="--pairs", hint=f"take {LEAST_PAIRS} or more")
    check_target(output, directory=True)
    encoders = [_encoder(config, name, seed) for name in weights]
    windows = validation_pairs(config, pairs, max(encoder.halo_px for encoder in encoders), seed)
    found, drawn = [], []
    for done, (name, encoder) in enumerate(zip(weights, encoders, strict=True)):
        progress("embedding", done, len(weights))
        optical, sar = embed(encoder, windows)
        found.append(discrepancy_of(name, optical, sar, seed))
        drawn.append((Path(name).stem if name.endswith(".safetensors") else name, optical, sar))
    progress("embedding", len(weights), len(weights))
    with writing(output):
        output.mkdir(exist_ok=True)
    draw_embeddings(drawn, output / PICTURE)
    return found


def validation_pairs(config: EncoderConfig, count: int, margin_px: int, seed: int) -> list[Pair]:
    """Windows of the validation scene in both modalities: tiles with a margin, or as much of it as the boxes allow.

    Raises:
        UsageError: the configuration names no validation scene, or its boxes hold no tile.
        InputError: the scene cannot be used.
    """
    if not config.validation.scene:
        hint = "name one of data.scenes in validation.scene"
        raise UsageError("the configuration has no scene to validate on", where="validation.scene", hint=hint)
    root, scene = Path(config.data.root), scene_named(config.data.scenes, config.validation.scene)
    source = ScenePairs(root / scene.optical, root / scene.sar, scene_boxes(root, scene, "val"))
    rng = np.random.default_rng(seed)
    windows = [source.draw(rng, TILE_PX + 2 * margin_px) for _ in range(count)]
    if (side := windows[0].valid.shape[0]) < TILE_PX:
        what = f"the boxes to validate on hold squares of {side} px at most"
        raise UsageError(what, where=root / scene.optical, hint=f"tiles have {TILE_PX} px; use larger boxes")
    return windows


def embed(encoder: LearnedEncoder, windows: Sequence[Pair]) -> tuple[Vectors, Vectors]:
    """Vectors of the tiles in the middle of windows, optical and SAR, two times [N x D].

    As in use: the map's features know what surrounds a tile, a query ends where it ends.
    """
    optical, sar = [], []
    for pair in windows:
        start = (pair.valid.shape[0] - TILE_PX) // 2 // CELL_PX * CELL_PX
        cells = TILE_PX // CELL_PX
        whole = encoder.dense(pair.optical, pair.valid, "optical")
        optical.append(_vector(whole.crop(start // CELL_PX, start // CELL_PX, cells, cells)))
        image, valid = pair.query(slice(start, start + TILE_PX))
        sar.append(_vector(encoder.dense(image, valid, "sar")))
    return np.stack(optical), np.stack(sar)


def discrepancy_of(name: str, optical: Vectors, sar: Vectors, seed: int = 0) -> Discrepancy:
    """The discrepancy of two sets of vectors, row by row of the same places."""
    rng = np.random.default_rng(seed)
    across, within = [], []
    for number in range(SPLITS):
        one, other = np.array_split(rng.permutation(len(optical))[: len(optical) // 2 * 2], 2)
        across.append(Distances.between(optical[one], sar[other], seed + number))
        within += [Distances.between(kind[one], kind[other], seed + number) for kind in (optical, sar)]
    cosines = _unit(optical) @ _unit(sar).T
    others = (cosines.sum() - np.trace(cosines)) / (cosines.size - len(cosines))
    return Discrepancy(
        weights=name,
        pairs=len(optical),
        same_places=Distances.between(optical, sar, seed),
        other_places=Distances.mean(across),
        within=Distances.mean(within),
        cosine_pairs=float(np.trace(cosines) / len(cosines)),
        cosine_others=float(others),
    )


def table(found: Sequence[Discrepancy]) -> str:
    """The discrepancies as text, a line for each of the weights and kind of distance."""
    lines = [f"{'weights':<24}{'distance':<10}{'same places':>12}{'other places':>14}{'one modality':>14}{'gap':>9}"]
    for one in found:
        for kind in ("sliced", "w1", "w2"):
            same, other, floor = (getattr(of, kind) for of in (one.same_places, one.other_places, one.within))
            lines.append(
                f"{one.weights[-23:]:<24}{kind:<10}{same:>12.4f}{other:>14.4f}{floor:>14.4f}{other - floor:>9.4f}"
            )
        lines.append(
            f"{one.weights[-23:]:<24}cosine of {one.pairs} pairs {one.cosine_pairs:.4f}, "
            f"of windows of different places {one.cosine_others:.4f}"
        )
    return "\n".join(lines)


def draw_embeddings(embeddings: Sequence[tuple[str, Vectors, Vectors]], target: Path) -> None:
    """Both modalities' vectors on their two principal axes, a panel for each (name, optical, SAR).

    Lines join the vectors of some places.

    Raises:
        UsageError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    with needs_extra("report", "drawing plots"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(SIZE_INCHES[0] * len(embeddings), SIZE_INCHES[1]), layout="constrained")
    panels = figure.subplots(1, len(embeddings), squeeze=False)[0]
    for axes, (name, optical, sar) in zip(panels, embeddings, strict=True):
        places, share = principal_plane(np.concatenate([optical, sar]))
        one, other = places[: len(optical)], places[len(optical) :]
        for start, end in zip(one[:LINKED], other[:LINKED], strict=True):
            axes.plot(*np.stack([start, end], axis=1), "-", color="0.7", linewidth=0.7, zorder=1)
        for points, label, marker, (color, _) in zip((one, other), ("optical", "SAR"), "o^", STYLES, strict=False):
            axes.plot(*points.T, marker, color=color, markersize=3, label=f"{label} (n = {len(points)})", zorder=2)
        axes.set_title(name, fontsize="medium")
        axes.set(xlabel=f"first axis, {share[0]:.0%} of the variance", ylabel=f"second axis, {share[1]:.0%}")
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize="small")
    with output_file(target) as file:
        figure.savefig(file, format="png", dpi=DPI)


def principal_plane(vectors: Vectors) -> tuple[Vectors, NDArray[np.float64]]:
    """[N x D] -> places on the two axes of most variance, [N x 2], and the share of the variance on each, [2]."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    share = np.square(scale[:2]) / max(float(np.square(scale).sum()), 1e-12)
    return (left[:, :2] * scale[:2]).astype(np.float32), share


def _encoder(config: EncoderConfig, name: str, seed: int) -> LearnedEncoder:
    if name != UNTRAINED:
        return LearnedEncoder.of(name)
    n = config.net
    shape = EncoderShape(n.channels, n.stem, n.width, n.blocks, shared_norm=n.shared_norm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = EncoderNet(shape).eval()
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{UNTRAINED}{SUFFIX}"
        save_weights(net, file, {})
        found = Weights.find(str(file))
        return LearnedEncoder(replace(found, name=UNTRAINED), load_runner(found))


def _vector(dense: Dense) -> Vectors:
    first = np.zeros(1, np.int32)
    vector: Vectors = tile_vectors(dense, first, first, TILE_PX, CELL_PX).vectors[0, 0]
    return vector


def _unit(vectors: Vectors) -> NDArray[np.float64]:
    long = vectors.astype(np.float64)
    return np.asarray(long / np.maximum(np.linalg.norm(long, axis=1, keepdims=True), 1e-12))
