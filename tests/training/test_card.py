"""A card tells what the run's own configuration and the benchmark's own figures say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geomatch.errors import InputError
from geomatch.training.card import write_card
from geomatch.training.config import (
    DataConfig,
    EncoderConfig,
    FolderConfig,
    SceneConfig,
    SimulatedConfig,
    TrainerConfig,
)
from geomatch.weights import Weights

CONFIG = EncoderConfig(
    name="mine",
    data=DataConfig(
        scenes=[SceneConfig("a/optical.tif", "a/sar.tif", "split.csv", "harbour", weight=0.5)],
        folders=[FolderConfig("o", "s", validation_share=0.2)],
        simulated=SimulatedConfig(weight=0.3),
        batch=12,
        steps_per_epoch=7,
    ),
    trainer=TrainerConfig(max_epochs=3),
)
RESULT = {
    "case": "plain-200",
    "encoder": "mine",
    "textured": 47,
    "success_px_textured": {"10": 0.9574},
    "success_px_textured_ci": {"10": [0.8573, 0.9885]},
    "recall_textured": {"1": 0.8511, "100": 1.0},
}


def test_card_tells_data_training_and_figures(tmp_path: Path, weights_file: Path) -> None:
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps({"results": [RESULT]}))
    weights = Weights.find(str(weights_file))
    write_card(CONFIG, weights, [figures], tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    for told in (
        weights.sha256,
        "harbour",
        "split.csv",
        "20%",
        "21 steps of 12 pairs",
        "## Limits",
        "# card",
        "simulated",
    ):
        assert told in text
    assert "| plain-200 | mine | 47 | 0.957 [0.857, 0.989] | 0.851 | 1.000 |" in text


@pytest.mark.parametrize("content", ["", "[]", '{"results": [{"case": "x"}]}'])
def test_figures_that_are_none_are_refused(content: str, tmp_path: Path, weights_file: Path) -> None:
    figures = tmp_path / "figures.json"
    figures.write_text(content)
    with pytest.raises(InputError, match=r"figures\.json.*holds no figures"):
        write_card(CONFIG, Weights.find(str(weights_file)), [figures], tmp_path / "card.md")
    assert not (tmp_path / "card.md").exists()
