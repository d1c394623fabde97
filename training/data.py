"""Batches of examples, and the windows on which a run is validated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomatch.errors import UsageError
from geomatch.images import OpticalStretch, SarRadiometry
from geomatch.pairs import PairSource, PlacePairs, ScenePairs
from geomatch.planes import CELL_PX, planes
from geomatch.raster import open_raster
from geomatch.simulation.pairs import SimulatedPairs

from .augment import AugmentOptions, Example, make_example
from .config import DataConfig, SceneConfig, ValidationConfig
from .mining import MinedFile, mined_pairs
from .scenes import open_folder, open_scene, scene_boxes
from .streams import Batch, Stream

NAMES = tuple(field.name for field in fields(Example))
MAX_BLOCK_PX = 4096  # side of the part that a run is validated on


class Batches(Stream):
    """Endless random batches; each worker draws its own, and every epoch goes on where the one before it ended.

    Args:
        config: of the sources.
        seeds: of the batches.
        mined: file of confusable places, which may appear and change; where there is none, nothing is drawn from it.
    """

    def __init__(self, config: DataConfig, *seeds: int, mined: Path | None = None) -> None:
        super().__init__(*seeds)
        self._config = config
        self._mined = MinedFile(mined, len(config.scenes))

    def drawn(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Batches of examples by the sources' weights."""
        root = Path(self._config.root)
        opened = [open_scene(root, scene) for scene in self._config.scenes]
        sources: list[PairSource] = [
            *opened,
            *(open_folder(root, folder) for folder in self._config.folders),
            SimulatedPairs(self._config.simulated.size_px, self._config.simulated.draws),
        ]
        scenes, folders = self._config.scenes, self._config.folders
        weights = np.array([*(s.weight for s in scenes), *(f.weight for f in folders), self._config.simulated.weight])
        options = AugmentOptions(**self._config.augment)
        while True:
            hard = self._confusable(opened, rng, options)
            chosen = rng.choice(len(sources), size=self._config.batch - len(hard), p=weights / weights.sum())
            examples = [*(make_example(sources[i], rng, options) for i in chosen), *hard]
            yield {name: torch.from_numpy(np.stack([getattr(example, name) for example in examples])) for name in NAMES}

    def _confusable(self, scenes: list[ScenePairs], rng: np.random.Generator, options: AugmentOptions) -> list[Example]:
        """Examples of places and of what they are taken for, one after the other; none where none are known.

        The two of a pair share their geometry, windows included, since tiles that are turned or moved against each
        other are not confused; brightness, speckle and blanks are each one's own.
        """
        mined = self._mined.latest() if self._config.mining.share else []
        weights = np.array([s.weight * bool(found) for s, found in zip(self._config.scenes, mined, strict=False)])
        examples: list[Example] = []
        if not weights.sum():
            return examples
        for _ in range(mined_pairs(self._config)):
            number = int(rng.choice(len(weights), p=weights / weights.sum()))
            found = mined[number][int(rng.integers(len(mined[number])))]
            pose = int(rng.integers(1 << 32))
            for col, row in (found.place, found.other):
                source = PlacePairs(scenes[number], col, row)
                examples.append(make_example(source, rng, options, np.random.default_rng(pose)))
        return examples


class ValidationBlock:
    """Random windows of a scene's validation boxes, and the map that they are looked for in.

    Attributes:
        planes: [6 x h x w] of the map.
        windows: side in pixels -> ([N x 4 x s x s] planes, [N x 2] true first column and row in cells).
    """

    def __init__(self, root: Path, scene: SceneConfig, config: ValidationConfig, seed: int = 7) -> None:
        boxes = scene_boxes(root, scene, "val")
        col0, row0 = min(box.col0 for box in boxes), min(box.row0 for box in boxes)
        width = min(MAX_BLOCK_PX, max(box.col0 + box.width for box in boxes) - col0)
        height = min(MAX_BLOCK_PX, max(box.row0 + box.height for box in boxes) - row0)
        if max(config.sizes_px) > min(width, height):
            what = f"windows of {max(config.sizes_px)} px do not fit into the {width} × {height} px to validate on"
            raise UsageError(what, where=root / scene.optical, hint="set smaller validation.sizes_px")
        with open_raster(root / scene.optical) as raster:
            stretch = OpticalStretch.fit(raster)
            patch = raster.read(col0, row0, width, height, bands=stretch.bands)
            self.planes = torch.from_numpy(planes(stretch.bands_of(patch), patch.valid, "optical"))
        rng = np.random.default_rng(seed)
        self.windows: dict[int, tuple[Tensor, Tensor]] = {}
        with open_raster(root / scene.sar) as raster:
            radiometry = SarRadiometry.detect(raster)
            for size in config.sizes_px:
                made: list[NDArray[np.float32]] = []
                truth = []
                for _ in range(config.windows):
                    col, row = int(rng.integers(width - size + 1)), int(rng.integers(height - size + 1))
                    cut = raster.read(col0 + col, row0 + row, size, size, bands=radiometry.bands)
                    image = radiometry.relative_to(cut).log_amplitude(cut)
                    made.append(planes(image[None], cut.valid, "sar"))
                    truth.append((col / CELL_PX, row / CELL_PX))
                self.windows[size] = (torch.from_numpy(np.stack(made)), torch.tensor(truth))
