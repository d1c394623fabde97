"""Batches of crops: those that make no example are drawn again, but not for ever."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geomatch.errors import InputError
from geomatch.matching.samples import Sample
from geomatch.training.config import SimulatedConfig
from geomatch.training.local import streams
from geomatch.training.local.sources import CropConfig
from geomatch.training.local.streams import CropBatches, Example

DRAWN = CropConfig(simulated=SimulatedConfig(weight=1, size_px=256, draws=2), side_px=96, batch=3)


def test_crops_that_make_no_example_are_drawn_again() -> None:
    asked: list[int] = []

    def every_other(crops: Sample, rng: np.random.Generator) -> Example | None:
        del rng
        asked.append(len(asked))
        return {"number": np.array(asked[-1]), "grey": crops.optical.image} if asked[-1] % 2 else None

    batch = next(CropBatches(DRAWN, every_other, 1).drawn(np.random.default_rng(1)))
    assert batch["number"].tolist() == [1, 3, 5]
    assert batch["grey"].shape == (3, 96, 96)
    assert not torch.equal(batch["grey"][0], batch["grey"][1])


def test_sources_of_which_no_crop_makes_an_example_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "TRIES", 4)
    asked = []

    def never(crops: Sample, rng: np.random.Generator) -> None:
        asked.append((crops, rng))

    with pytest.raises(InputError, match="none of 4 crops of 96 px is whole"):
        next(CropBatches(DRAWN, never, 1).drawn(np.random.default_rng(1)))
    assert len(asked) == 4
