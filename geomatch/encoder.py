"""Encoders turn an image into dense features in which SAR and optical look alike; everything downstream is the same.

A new encoder is one class with the members of ``Encoder`` and one line in ``load_encoder``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geomatch import defaults, structure
from geomatch.attitude import Steps
from geomatch.nets.shapes import Modality
from geomatch.pixel_features import STRUCTURAL, PixelFeatures
from geomatch.structure import Dense

ALONE = ":alone"
Part = tuple[int, int, int, int]  # first column and row of cells, columns, rows


class Encoder(Protocol):
    """Image to dense features.

    Attributes:
        name: what the index remembers it by.
        channels: features per cell.
        cell_px: side of a cell, pixels.
        halo_px: margin that a block needs so that its features do not depend on the blocking.
        steps: between the attitudes at which a strip of unknown heading or scale is tried.
        pixels: features by which a place that was found is looked at more closely.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def channels(self) -> int: ...  # noqa: D102
    @property
    def cell_px(self) -> int: ...  # noqa: D102
    @property
    def halo_px(self) -> int: ...  # noqa: D102
    @property
    def steps(self) -> Steps: ...  # noqa: D102
    @property
    def pixels(self) -> Sequence[PixelFeatures]: ...  # noqa: D102

    def fingerprint(self) -> str:
        """A sha256 over all that decides the features: two encoders with the same one are the same."""
        ...

    def dense(
        self, image: NDArray[np.float32], valid: NDArray[np.bool_], modality: Modality, part: Part | None = None
    ) -> Dense:
        """Features of an image.

        Args:
            image: [B x H x W], optical bands in [0, 1] or one band of SAR log amplitude.
            valid: [H x W] known pixels.
            modality: which of the two it is.
            part: the cells that are wanted, default all; what decides no feature of theirs need not be computed.

        Returns:
            [channels x ceil(H / cell_px) x ceil(W / cell_px)] or the part of it, components within [-1, 1].
        """
        ...


class StructuralEncoder:
    """Orientation channels without any training (``geomatch.structure``), the same for both modalities."""

    name = "structural"
    channels = structure.CHANNELS
    cell_px = 8
    halo_px = -(-structure.reach_px(8) // 8) * 8
    steps = Steps(4.0, 1.1)  # benchmarks/proposals.py
    pixels = STRUCTURAL

    def fingerprint(self) -> str:
        """The sha256 of the recipe: its version, which changes with the code's results, and its constants."""
        recipe = {name: value for name, value in vars(structure).items() if name.isupper() and name[0] != "_"}
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()

    def dense(
        self, image: NDArray[np.float32], valid: NDArray[np.bool_], modality: Modality, part: Part | None = None
    ) -> Dense:
        """Features of the mean of the bands: [B x H x W] -> [3 x ceil(H / 8) x ceil(W / 8)], or a part of it."""
        del modality  # the channels are the same for both
        found = structure.structure(structure.grey(image), valid, self.cell_px)
        return found if part is None else found.crop(*part)


def load_encoder(name: str, backend: str = defaults.BACKEND) -> Encoder:
    """The encoder of that name.

    Args:
        name: "structural"; the name of weights or the path of a .safetensors file for learned features beside the
            structural ones; the same with ":alone" for the learned ones alone.
        backend: what runs the network, see ``geomatch.backends``.

    Raises:
        UsageError: there are no such weights, or no such backend.
        InputError: the file of the weights cannot be used.
    """
    from geomatch.backends import check_backend

    check_backend(backend)
    if name == StructuralEncoder.name:
        return StructuralEncoder()
    from geomatch.learned import JoinedEncoder, LearnedEncoder

    learned = LearnedEncoder.of(name.removesuffix(ALONE), backend)
    return learned if name.endswith(ALONE) else JoinedEncoder(learned)
