"""The learned encoder: what the network is shown, and the network behind the ``Encoder`` interface.

The network sees an image at 1/4 resolution as orientation channels (``geomatch.structure``, in which the modalities
already look alike) and as the image itself in the units of its radiometry, so that nothing depends on how a map is cut
into blocks.
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch import defaults
from geomatch import structure as structural
from geomatch.attitude import Steps
from geomatch.backends import Runner, load_runner
from geomatch.encoder import ALONE, StructuralEncoder
from geomatch.nets.shapes import EncoderShape, Modality
from geomatch.structure import CHANNELS, Dense, cells_known, reach_px, structure
from geomatch.weights import Weights

VERSION = 1  # raised whenever the same image gives other planes
PLANE_PX = 4  # side of a cell of the network's input
CELL_PX = 8  # and of its output
LEARNED_SHARE = 0.8  # of the learned features' length in the joined ones
STANDARD = {"optical": (0.4, 0.25), "sar": (0.1, 0.5)}  # usual mean and deviation: stretched bands, ln amplitude
MAX_DEVIATION = 4.0
STEPS = Steps(10.0, 1.21)  # training shows such turns and scales (benchmarks/proposals.py)
BANDS = {"optical": 3, "sar": 1}


def planes(image: NDArray[np.float32], valid: NDArray[np.bool_], modality: str) -> NDArray[np.float32]:
    """The network's input.

    Args:
        image: [B x H x W] optical bands in [0, 1], B 1 or 3, or one band of SAR log amplitude.
        valid: [H x W] known pixels.
        modality: "optical" or "sar".

    Returns:
        [3 + 3 x h x w] for optical and [3 + 1 x h x w] for SAR at 1/4 resolution, h = ceil(H / 8) * 2; zero where
        nothing is known.
    """
    below, right = -valid.shape[0] % CELL_PX, -valid.shape[1] % CELL_PX
    if below or right:
        image = np.stack([cv2.copyMakeBorder(b, 0, below, 0, right, cv2.BORDER_REPLICATE) for b in image])
        valid = np.pad(valid, ((0, below), (0, right)))
    grey = image[0] if len(image) == 1 else image.mean(axis=0, dtype=np.float32)
    oriented = structure(grey, valid, PLANE_PX).values
    size = (valid.shape[1] // PLANE_PX, valid.shape[0] // PLANE_PX)

    def shrink(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), dtype=np.float32)

    if valid.all():
        share = np.ones((size[1], size[0]), np.float32)
        small = np.stack([shrink(band) for band in image])
    else:
        share = shrink(valid.astype(np.float32))
        small = np.stack([shrink(np.where(valid, band, np.float32(0))) for band in image])
        small /= np.maximum(share, np.float32(1e-6))
    middle, spread = STANDARD[modality]
    standard = np.clip((small - middle) / spread, -MAX_DEVIATION, MAX_DEVIATION) * (share > 0.5)
    if len(standard) != BANDS[modality]:
        standard = np.repeat(standard[:1], BANDS[modality], axis=0)
    return np.concatenate([oriented, standard.astype(np.float32)])


class LearnedEncoder:
    """A trained network: image -> planes -> features.

    Args:
        weights: of the network.
        run: what runs it.
    """

    cell_px = CELL_PX
    steps = STEPS

    def __init__(self, weights: Weights[EncoderShape], run: Runner) -> None:
        self.name = weights.name + ALONE
        self.weights = weights
        self._run = run

    @classmethod
    def of(cls, name: str, backend: str = defaults.BACKEND) -> LearnedEncoder:
        """With weights as ``Weights.find`` and a backend as ``load_runner`` takes them."""
        weights = Weights.find(name)
        return cls(weights, load_runner(weights.net(), backend))

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

    def dense(self, image: NDArray[np.float32], valid: NDArray[np.bool_], modality: Modality) -> Dense:
        """[B x H x W] -> [channels x ceil(H / 8) x ceil(W / 8)]."""
        features = self._run(planes(image, valid, modality), modality)
        known = cells_known(valid, CELL_PX)
        return Dense(features * known, known)


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
        self.name = learned.weights.name
        self.channels = learned.channels + StructuralEncoder.channels
        self.halo_px = max(learned.halo_px, StructuralEncoder.halo_px)

    def fingerprint(self) -> str:
        """Of both, and of how they are weighed."""
        parts = (self._learned.fingerprint(), self._structural.fingerprint(), float(self._share))
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def dense(self, image: NDArray[np.float32], valid: NDArray[np.bool_], modality: Modality) -> Dense:
        """[B x H x W] -> [channels x ceil(H / 8) x ceil(W / 8)]."""
        learned = self._learned.dense(image, valid, modality)
        structural = self._structural.dense(image, valid, modality)
        known = learned.valid & structural.valid
        return Dense(np.concatenate([self._share * learned.values, structural.values]) * known, known)


def plane_count(modality: str) -> int:
    """How many planes ``planes`` gives."""
    return CHANNELS + BANDS[modality]
