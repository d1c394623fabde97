"""The learned encoder: a network behind the ``Encoder`` interface, and its features beside the structural ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from geomatch import defaults
from geomatch import structure as structural
from geomatch.attitude import Steps
from geomatch.backends import Runner, check_backend, load_runner
from geomatch.encoder import ALONE, Part, StructuralEncoder
from geomatch.nets.shapes import EncoderShape, Modality
from geomatch.pixel_features import STRUCTURAL, LearnedPixels, PixelFeatures
from geomatch.planes import CELL_PX, PLANE_PX, VERSION, planes
from geomatch.structure import Dense, Gradients, cells_known, grey, reach_px
from geomatch.weights import Weights

LEARNED_SHARE = 0.8  # of the learned features' length in the joined ones
STEPS = Steps(10.0, 1.21)  # training shows such turns and scales (benchmarks/proposals.py)


class LearnedEncoder:
    """A trained network: image -> planes -> features.

    Args:
        weights: of the network.
        run: what runs it.
        pixels: as of ``Encoder``.
    """

    cell_px = CELL_PX
    steps = STEPS

    def __init__(
        self, weights: Weights[EncoderShape], run: Runner, pixels: Sequence[PixelFeatures] = STRUCTURAL
    ) -> None:
        self.name = weights.name + ALONE
        self.weights, self.pixels = weights, pixels
        self._run = run

    @classmethod
    def of(cls, name: str, backend: str = defaults.BACKEND) -> LearnedEncoder:
        """With weights as ``Weights.find`` and a backend as ``load_runner`` takes them.

        The network is not loaded before there is something to run it on: an index is opened and searched without it.
        """
        weights = Weights.find(name)
        check_backend(backend)

        @cache
        def runner() -> Runner:
            return load_runner(weights, backend)

        def run(planes: NDArray[np.float32], modality: Modality) -> NDArray[np.float32]:
            return runner()(planes, modality)

        return cls(weights, run, (*STRUCTURAL, LearnedPixels(backend=backend)))

    @property
    def channels(self) -> int:
        """Features per cell."""
        return self.weights.shape.channels

    @property
    def halo_px(self) -> int:
        """The reach of the planes and that of the network's convolutions, in whole cells."""
        return -(-(reach_px(PLANE_PX) + self.weights.shape.reach_px) // CELL_PX) * CELL_PX

    def fingerprint(self) -> str:
        """The sha256 of the weights and of the recipe of their input."""
        return hashlib.sha256(f"{self.weights.sha256} {VERSION} {structural.VERSION}".encode()).hexdigest()

    def dense(
        self, image: NDArray[np.float32], valid: NDArray[np.bool_], modality: Modality, part: Part | None = None
    ) -> Dense:
        """[B x H x W] -> [channels x ceil(H / 8) x ceil(W / 8)], or a part of it."""
        return self.of_planes(planes(image, valid, modality), cells_known(valid, CELL_PX), modality, part)

    def of_planes(
        self, shown: NDArray[np.float32], known: NDArray[np.bool_], modality: Modality, part: Part | None = None
    ) -> Dense:
        """``dense`` of an image whose planes and known cells are there."""
        col0, row0, width, height = part or (0, 0, *known.shape[::-1])
        reach = -(-self.weights.shape.reach_px // CELL_PX)  # the margin of a block is for what makes the planes too
        left, top = max(0, col0 - reach), max(0, row0 - reach)
        rows, cols = slice(top, row0 + height + reach), slice(left, col0 + width + reach)
        seen = np.ascontiguousarray(shown[:, _planes_of(rows), _planes_of(cols)])
        features = Dense(self._run(seen, modality), known[rows, cols]).crop(col0 - left, row0 - top, width, height)
        return Dense(features.values * features.valid, features.valid)


class JoinedEncoder:
    """Learned features beside structural ones: their correlations add up, weighed by ``share``.

    The two err in different places: the learned ones are sharper where the land is like that of their training, the
    structural ones do not depend on any.

    Args:
        learned: one of the two.
        share: length of the learned features; the structural ones, which are shorter, are kept as they are.
    """

    cell_px = CELL_PX
    steps = STEPS

    def __init__(self, learned: LearnedEncoder, share: float = LEARNED_SHARE) -> None:
        self._learned, self._structural = learned, StructuralEncoder()
        self._share = np.float32(share)
        self.name, self.pixels = learned.weights.name, learned.pixels
        self.channels = learned.channels + StructuralEncoder.channels
        self.halo_px = max(learned.halo_px, StructuralEncoder.halo_px)

    def fingerprint(self) -> str:
        """Of both, and of how they are weighed."""
        parts = (self._learned.fingerprint(), self._structural.fingerprint(), float(self._share))
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def dense(
        self, image: NDArray[np.float32], valid: NDArray[np.bool_], modality: Modality, part: Part | None = None
    ) -> Dense:
        """[B x H x W] -> [channels x ceil(H / 8) x ceil(W / 8)], or a part of it."""
        gradients = Gradients.of(grey(image), valid)
        shown, structural = planes(image, valid, modality, gradients), gradients.structure(CELL_PX)
        del image, gradients  # of all pixels: the network needs the room
        learned = self._learned.of_planes(shown, cells_known(valid, CELL_PX), modality, part)
        if part is not None:
            structural = structural.crop(*part)
        known = learned.valid & structural.valid
        return Dense(np.concatenate([self._share * learned.values, structural.values]) * known, known)


def _planes_of(cells: slice) -> slice:
    """The cells of the network's input under some of its output."""
    return slice(cells.start * (CELL_PX // PLANE_PX), cells.stop * (CELL_PX // PLANE_PX))
