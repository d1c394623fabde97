"""Crops for local matching: of the same sources as the encoder's pairs, as detectors and descriptors see them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.matching.samples import Sample, Warp, needed_px
from geomatch.matching.side import Side
from geomatch.pairs import Pair, PairSource, ScenePairs
from geomatch.simulation.pairs import SimulatedPairs

from ..config import FolderConfig, SceneConfig, SimulatedConfig
from ..limits import check_numbers, check_range
from ..scenes import open_folder, open_scene, scene_boxes

LEAST_PX = 32  # side of a crop
MOST_PROJECTIVE = 0.5  # beyond it a corner lies at infinity


@dataclass
class PhotometryConfig:
    """What may differ between two views of a place, apart from the modality.

    Attributes:
        inverted: share of optical crops whose grey is inverted.
        gamma: natural logarithm of the exponent of either image's grey, uniform to both sides.
        speckled: share of SAR crops with gamma speckle of 2, 4 or 8 looks added.
        blurred: share of either that are blurred a little.
    """

    inverted: float = 0.3
    gamma: float = 0.4
    speckled: float = 0.3
    blurred: float = 0.2


@dataclass
class CropConfig:
    """Where crops come from.

    Attributes:
        root: folder that the paths are relative to.
        scenes, folders, simulated: as of the encoder's ``DataConfig``.
        side_px: of a crop; patches of a folder may be smaller.
        scale, turn_deg, shift_px, projective: how far the SAR crop is from the optical one
            (``geomatch.matching.samples.Warp``).
        batch: examples of a step.
        steps_per_epoch: batches that make an epoch.
        workers: processes that make examples.
        photometry: of either crop.
    """

    root: str = "."
    scenes: list[SceneConfig] = field(default_factory=list)
    folders: list[FolderConfig] = field(default_factory=list)
    simulated: SimulatedConfig = field(default_factory=SimulatedConfig)
    side_px: int = 256
    scale: tuple[float, float] = (0.9, 1.15)
    turn_deg: float = 15.0
    shift_px: float = 8.0
    projective: float = 0.0
    batch: int = 16
    steps_per_epoch: int = 50
    workers: int = 1
    photometry: PhotometryConfig = field(default_factory=PhotometryConfig)

    def check(self) -> None:
        """Raise a UsageError for what cannot be drawn."""
        least = {"side_px": LEAST_PX, "turn_deg": 0, "shift_px": 0, "projective": 0}
        check_numbers(self, least, within="data.")
        check_range("data.scale", self.scale, "[0.9, 1.15]")
        if self.projective >= MOST_PROJECTIVE:
            hint = f"take less than {MOST_PROJECTIVE:g}"
            raise UsageError(f"{self.projective:g} is not possible", where="data.projective", hint=hint)


class CropSource:
    """Draws crops from all sources of a configuration.

    Raises:
        UsageError: it names none.
        InputError: one cannot be used.
    """

    def __init__(self, config: CropConfig) -> None:
        root = Path(config.root)
        self._sources: list[PairSource] = [
            *(open_scene(root, scene) for scene in config.scenes),
            *(open_folder(root, folder) for folder in config.folders),
        ]
        weights = [*(scene.weight for scene in config.scenes), *(folder.weight for folder in config.folders)]
        if config.simulated.weight:
            self._sources.append(SimulatedPairs(config.simulated.size_px, config.simulated.draws))
            weights.append(config.simulated.weight)
        if not sum(weights):
            hint = "set data.scenes, data.folders or data.simulated.weight"
            raise UsageError("neither scenes nor folders of pairs are named", hint=hint)
        self._shares = np.array(weights) / sum(weights)
        self._config = config

    def draw(self, rng: np.random.Generator) -> Sample:
        """Crops of one place, disturbed against each other."""
        source = self._sources[int(rng.choice(len(self._sources), p=self._shares))]
        return disturbed(source.draw(rng, _needed_px(self._config)), rng, self._config)


def held_out(config: CropConfig, scene: SceneConfig, count: int, seed: int) -> list[Sample]:
    """Crops of the validation boxes of a scene, disturbed as in training but with their photometry as it is."""
    root, rng = Path(config.root), np.random.default_rng(seed)
    source = ScenePairs(root / scene.optical, root / scene.sar, scene_boxes(root, scene, "val"))
    return [disturbed(source.draw(rng, _needed_px(config)), rng, config, plain=True) for _ in range(count)]


def disturbed(pair: Pair, rng: np.random.Generator, config: CropConfig, *, plain: bool = False) -> Sample:
    """A pair whose SAR image is turned, scaled and moved about its middle, both in their own photometry."""
    side = min(pair.valid.shape[0], config.side_px)
    made = Sample.of(pair, _warp_of(config).draw(rng, side), side)
    if plain:
        return made
    optical = replace(made.optical, image=_optical(made.optical.image, rng, config.photometry))
    return replace(made, optical=optical, sar=replace(made.sar, image=_radar(made.sar, rng, config.photometry)))


def _needed_px(config: CropConfig) -> int:
    return needed_px(_warp_of(config), config.side_px)


def _warp_of(config: CropConfig) -> Warp:
    return Warp(config.turn_deg, config.scale, config.shift_px, config.projective)


def _optical(grey: NDArray[np.float32], rng: np.random.Generator, p: PhotometryConfig) -> NDArray[np.float32]:
    grey = np.asarray(np.clip(grey, 0, 1) ** np.exp(rng.uniform(-p.gamma, p.gamma)), np.float32)
    if rng.random() < p.inverted:
        grey = np.float32(1) - grey
    return _blurred(grey, rng, p)


def _radar(side: Side, rng: np.random.Generator, p: PhotometryConfig) -> NDArray[np.float32]:
    """Of its grey, as all that is trained here sees it: a factor on log amplitude is gone from that."""
    sar = side.image
    if rng.random() < p.speckled:
        looks = float(rng.choice((2, 4, 8)))
        sar = sar + np.log(rng.standard_gamma(looks, sar.shape, np.float32) / np.float32(looks)) / 2
    grey = replace(side, image=sar).bytes.astype(np.float32) / np.float32(255)
    return _blurred(np.asarray(grey ** np.exp(rng.uniform(-p.gamma, p.gamma)), np.float32), rng, p)


def _blurred(image: NDArray[np.float32], rng: np.random.Generator, p: PhotometryConfig) -> NDArray[np.float32]:
    if rng.random() >= p.blurred:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 1.2))), np.float32)
