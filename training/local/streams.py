"""Batches of examples that are made of crops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geomatch.errors import InputError
from geomatch.matching.samples import Sample

from ..streams import Batch, Stream
from .sources import CropConfig, CropSource

Example = dict[str, NDArray[Any]]
MakeExample = Callable[[Sample, np.random.Generator], Example | None]

TRIES = 1000  # crops in a row that make no example


class CropBatches(Stream):
    """Endless random batches.

    Args:
        config: of the crops.
        make: of crops an example, or None where they show too little.
        seeds: of the batches.
    """

    def __init__(self, config: CropConfig, make: MakeExample, *seeds: int) -> None:
        super().__init__(*seeds)
        self._config, self._make = config, make

    def drawn(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Batches of examples."""
        source = CropSource(self._config)
        while True:
            examples = [self._example(source, rng) for _ in range(self._config.batch)]
            yield {name: torch.from_numpy(np.stack([one[name] for one in examples])) for name in examples[0]}

    def _example(self, source: CropSource, rng: np.random.Generator) -> Example:
        """Of the first crops that show enough.

        Raises:
            InputError: none of TRIES did.
        """
        for _ in range(TRIES):
            made = self._make(source.draw(rng), rng)
            if made is not None:
                return made
        what = f"none of {TRIES} crops of {self._config.side_px} px is whole and shows enough to learn from"
        raise InputError(what, where=self._config.root, hint="take a smaller data.side_px, or other data")
