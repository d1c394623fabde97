"""Which backend encodes this very map fastest: a short trial on pieces of it, before a build that is long.

Only a build on this machine tries. Workers of a scheduler may run on other machines than the one that plans, so there
``auto`` is what ``geomatch.backends.usual`` says. Either way the name is settled before anything is made, and goes to
the workers with the options, so that all of them use the same; a build that goes on takes the one that it began with.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from geomatch import backends
from geomatch.encoder import ALONE, StructuralEncoder, load_encoder
from geomatch.learned import LearnedEncoder
from geomatch.planes import CELL_PX
from geomatch.raster import Patch
from geomatch.structure import Dense
from geomatch.threads import one_thread
from geomatch.tiles import starts, tile_vectors
from geomatch.weights import Weights

from .job import BuildJob

LEAST_MPX = 64  # of a map; on less, a trial takes as long as another backend may save
PIECE_PX = 512
PIECES = 4
PLACES = 5  # along each side of the map, at which pieces are looked for
LEAST_KNOWN = 0.9  # share of a piece's pixels
LEAST_COSINE = 0.999  # of tiles' vectors with those of torch in float32
CLEARLY = 1.15  # times as fast as the usual one: so that chance decides nothing, and a repeat gives the same index

log = logging.getLogger("geomatch")


@dataclass(frozen=True)
class Trial:
    """How a backend did.

    Attributes:
        mpx_per_cpu_s: of learned features.
        cosine: the least of its tiles' vectors with those of torch in float32.
    """

    mpx_per_cpu_s: float
    cosine: float

    def __str__(self) -> str:
        return f"{self.mpx_per_cpu_s:.1f}" if self.cosine >= LEAST_COSINE else f"inexact at cosine {self.cosine:.4f}"


def settled(job: BuildJob, *, here: bool, has_begun: Callable[[BuildJob], bool] = lambda job: False) -> BuildJob:
    """The same build with the backend that ``auto`` comes to; says which one that is.

    Args:
        job: the build.
        here: it is made on this machine, where a trial tells something.
        has_begun: whether parts of a build with its backend are there, with which it goes on.
    """
    if job.options.backend != backends.AUTO or backend_of(job) is None:
        return job
    usual, megapixels = backends.usual(), job.window.width * job.window.height / 1e6
    for name in (usual, *backends.installed()):
        if has_begun(replace(job, options=replace(job.options, backend=name))):
            log.debug("backend %s: the build goes on with it", name)
            return _with(job, name)
    if reason := _not_tried(megapixels, here):
        log.debug("backend %s: not tried against others, %s", usual, reason)
        return _with(job, usual)
    pieces = _pieces(job)
    if not pieces:
        log.debug("backend %s: not tried against others, the map has too many holes", usual)
        return _with(job, usual)
    trials = _tried(job, pieces)
    best = _best(trials, usual)
    others = (f"{name} {trial}" for name, trial in trials.items() if name != best)
    log.info("backend %s: %s Mpx/CPU s (%s)", best, trials[best], ", ".join(others))
    return _with(job, best)


def backend_of(job: BuildJob) -> str | None:
    """What runs the encoder's network; None where it has none."""
    return None if job.options.encoder == StructuralEncoder.name else job.options.backend


def _not_tried(megapixels: float, here: bool) -> str:
    """Why there is no trial, if there is none."""
    if not here:
        return "for a scheduler's workers may run elsewhere"
    if backends.on_gpu():
        return "for there is a GPU"
    if len(backends.installed()) == 1:
        return "for there is no other"
    return f"for {megapixels:.0f} Mpx are fewer than {LEAST_MPX}" if megapixels < LEAST_MPX else ""


def _with(job: BuildJob, backend: str) -> BuildJob:
    options = replace(job.options, backend=backend)
    return replace(job, options=options, encoder=load_encoder(options.encoder, backend))


def _best(trials: Mapping[str, Trial], usual: str) -> str:
    """The usual one, unless it is inexact or another one clearly faster."""
    speeds = {name: trial.mpx_per_cpu_s for name, trial in trials.items() if trial.cosine >= LEAST_COSINE}
    fastest = max(speeds, key=speeds.__getitem__, default=usual)
    return usual if speeds.get(usual, 0.0) * CLEARLY >= speeds.get(fastest, 0.0) else fastest


def _pieces(job: BuildJob) -> list[Patch]:
    """Pieces of the map, spread over it in an order that is always the same; none where it is mostly empty."""
    window = job.window
    left, top = (
        np.linspace(0, max(0, side - PIECE_PX), PLACES).astype(int).tolist() for side in (window.width, window.height)
    )
    corners = [(left[i % PLACES], top[i // PLACES]) for i in np.random.default_rng(0).permutation(PLACES**2).tolist()]
    side_px = min(PIECE_PX, window.width), min(PIECE_PX, window.height)
    seen = (
        job.raster.read(window.col0 + col, window.row0 + row, *side_px, bands=job.stretch.bands) for col, row in corners
    )
    return list(islice((patch for patch in seen if patch.valid.mean() >= LEAST_KNOWN), PIECES))


def _tried(job: BuildJob, pieces: Sequence[Patch]) -> dict[str, Trial]:
    """Each installed backend on the pieces, turn by turn; the first piece also warms them up."""
    weights = Weights.find(job.options.encoder.removesuffix(ALONE))

    def encoder(backend: str, *, exact: bool = False) -> LearnedEncoder:
        return LearnedEncoder(weights, backends.load_runner(weights, backend, exact=exact))

    truth, contenders = encoder("torch", exact=True), {name: encoder(name) for name in backends.installed()}
    images = [(job.stretch.bands_of(piece), piece.valid) for piece in pieces]
    took, cosines = dict.fromkeys(contenders, 0.0), dict.fromkeys(contenders, 1.0)
    with one_thread():
        for contender in contenders.values():
            contender.dense(*images[0], "optical")  # what takes time once does not count
        for image in images:
            expected = _vectors(truth.dense(*image, "optical"), job.options.tile_px)
            for name, contender in contenders.items():
                began = time.process_time()
                dense = contender.dense(*image, "optical")
                took[name] += time.process_time() - began
                cosines[name] = min(cosines[name], _least_cosine(_vectors(dense, job.options.tile_px), expected))
    megapixels = sum(valid.size for _, valid in images) / 1e6
    return {name: Trial(megapixels / max(took[name], 1e-9), cosines[name]) for name in contenders}


def _vectors(dense: Dense, tile_px: int) -> NDArray[np.float32]:
    """[N x D] of the tiles of a piece."""
    height, width = (side * CELL_PX for side in dense.valid.shape)
    size_px = min(tile_px, height, width)
    cols, rows = (starts(side, size_px, max(1, size_px // 4)) for side in (width, height))
    vectors = tile_vectors(dense, cols, rows, size_px, CELL_PX).vectors
    return vectors.reshape(-1, vectors.shape[-1])


def _least_cosine(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Of vectors of length one, or zero where there is nothing to show."""
    shown = (expected != 0).any(axis=1)
    return float((found * expected)[shown].sum(axis=1).min(initial=1.0))
