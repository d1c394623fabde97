"""``geomatch train reranker``: a graph network that orders what an index retrieves, and says when none of it is right.

Trained on retrieval results (``cache``), in which the place is missing as often as it is, and more often by leaving it
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch as GraphBatch
from torch_geometric.data import Data

from geomatch.config import read_config
from geomatch.console import Step
from geomatch.nets.reranker import RerankerNet
from geomatch.nets.shapes import Positions, RerankerShape
from geomatch.reranking.features import Nodes, graph_of

from ..config import TrainerConfig, one_of
from ..optimizers import SmallOptimizerConfig
from ..small import SmallJob, SmallTask
from ..streams import Stream
from .cache import Example, RetrievalConfig, changed, retrieved
from .losses import cross_entropy, margin_ranking

HELD_OUT_BATCH = 64


@dataclass
class RerankerDataConfig:
    """Graphs that are trained on.

    Attributes:
        root: folder that the paths are relative to.
        cache: folder for retrieval results, relative to the working directory.
        retrievals: windows, and the indexes that they are asked of.
        candidates: tiles retrieved for each.
        fewest: candidates of a graph, drawn between this and all.
        without: share of graphs that lose the place that they were to show.
        batch: graphs of a step.
        steps_per_epoch: batches that make an epoch.
        workers: processes that make batches.
    """

    root: str = "."
    cache: str = "bench/retrievals"
    retrievals: list[RetrievalConfig] = field(default_factory=list)
    candidates: int = 100
    fewest: int = 40
    without: float = 0.1
    batch: int = 32
    steps_per_epoch: int = 100
    workers: int = 0


@dataclass
class RerankerLossConfig:
    """What is asked of the scores.

    Attributes:
        cross_entropy: weight of it, over nodes and absence.
        ranking: weight of the margin ranking loss.
        margin: of that.
    """

    cross_entropy: float = 1.0
    ranking: float = 0.0
    margin: float = 1.0


@dataclass
class RerankerNetConfig:
    """The network, as of ``RerankerShape``."""

    width: int = 48
    layers: int = 4
    heads: int = 4
    near: int = 10
    alike: int = 5
    positions: str = "offsets"
    agreement: bool = True
    peaks: bool = False


@dataclass
class RerankerValidationConfig:
    """What the best epoch is chosen on.

    Attributes:
        scene: any name; empty for no validation.
        retrievals: windows, and the indexes that they are asked of.
        every_epochs: how often.
    """

    scene: str = ""
    retrievals: list[RetrievalConfig] = field(default_factory=list)
    every_epochs: int = 1


@dataclass
class RerankerConfig:
    """One training run of a re-ranker."""

    name: str = "graph"
    seed: int = 1
    data: RerankerDataConfig = field(default_factory=RerankerDataConfig)
    net: RerankerNetConfig = field(default_factory=RerankerNetConfig)
    loss: RerankerLossConfig = field(default_factory=RerankerLossConfig)
    optimizer: SmallOptimizerConfig = field(default_factory=SmallOptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    validation: RerankerValidationConfig = field(default_factory=RerankerValidationConfig)


def load_reranker_config(file: Path, overrides: Sequence[str] = ()) -> RerankerConfig:
    """A run from YAML and overrides; raises as ``geomatch.config.read_config``."""
    config = read_config(file, RerankerConfig, overrides, examples="configs/reranker")
    one_of(config.net.positions, get_args(Positions), "net.positions")
    return config


def shape_of(net: RerankerNetConfig) -> RerankerShape:
    """The network's."""
    return RerankerShape(**asdict(net))


def examples_of(
    config: RerankerConfig, plans: Sequence[RetrievalConfig], seed: int, progress: Step = lambda *_: None
) -> list[Example]:
    """Examples of all plans; see ``retrieved``."""
    data = config.data
    root, cache = Path(data.root), Path(data.cache)
    made = [retrieved(plan, root=root, cache=cache, k=data.candidates, seed=seed, progress=progress) for plan in plans]
    return [one for examples in made for one in examples if len(one.candidates) > 1]


def graph(example: Example, shape: RerankerShape) -> Data:
    """The graph of an example, with which of its nodes are ``right``."""
    made = graph_of(Nodes.of(example.candidates), shape)
    made.right = torch.from_numpy(example.right)
    return made


class Graphs(Stream):
    """Endless batches of graphs."""

    def __init__(self, config: RerankerConfig, *seeds: int) -> None:
        super().__init__(*seeds)
        self._config = config

    def drawn(self, rng: np.random.Generator) -> Iterator[Any]:
        """Batches of examples, each changed a little."""
        config, shape = self._config, shape_of(self._config.net)
        examples = examples_of(config, config.data.retrievals, config.seed)
        while True:
            chosen = rng.integers(len(examples), size=config.data.batch)
            drawn = [changed(examples[i], rng, fewest=config.data.fewest, without=config.data.without) for i in chosen]
            yield GraphBatch.from_data_list([graph(one, shape) for one in drawn])


class RerankerTask(SmallTask[RerankerConfig]):
    """The loss of a batch of graphs, and minus that of the ones that are held out."""

    net: RerankerNet

    def __init__(self, config: RerankerConfig, total_steps: int) -> None:
        super().__init__(config, total_steps)
        self.net = RerankerNet(shape_of(config.net))
        self._held_out: list[Data] | None = None

    def training_step(self, batch: GraphBatch, number: int) -> Tensor:
        """One batch of graphs."""
        del number
        total = self._loss(batch)
        self.log("loss", total, batch_size=batch.num_graphs)
        return total

    def validated(self) -> float:
        """Minus the cross-entropy of the graphs that are held out."""
        if self._held_out is None:
            config = self._config
            examples = examples_of(config, config.validation.retrievals, config.seed)
            self._held_out = [graph(one, self.net.shape) for one in examples]
        self.net.eval()
        losses, first = [], []
        with torch.no_grad():
            for start in range(0, len(self._held_out), HELD_OUT_BATCH):
                batch = GraphBatch.from_data_list(self._held_out[start : start + HELD_OUT_BATCH]).to(self.device)
                nodes, absent = self.net(batch)
                losses += [float(cross_entropy(nodes, absent, batch.right, batch.batch))] * batch.num_graphs
                first += [bool(one.right[of.argmax()]) for one, of in _by_graph(batch, nodes)]
        self.net.train()
        self.log("val_first", float(np.mean(first)))
        return -float(np.mean(losses))

    def _loss(self, batch: GraphBatch) -> Tensor:
        asked = self._config.loss
        nodes, absent = self.net(batch)
        total = asked.cross_entropy * cross_entropy(nodes, absent, batch.right, batch.batch)
        if asked.ranking:
            ranking = margin_ranking(nodes, batch.right, batch.batch, batch.num_graphs, asked.margin)
            total = total + asked.ranking * ranking
        return total


def _by_graph(batch: GraphBatch, nodes: Tensor) -> Iterator[tuple[Data, Tensor]]:
    for number, one in enumerate(batch.to_data_list()):
        yield one, nodes[batch.ptr[number] : batch.ptr[number + 1]]


def train_reranker(config: RerankerConfig, output: Path, progress: Step = lambda stage, done, total: None) -> Path:
    """Train as a configuration says; as ``SmallJob.train``. What is retrieved first is kept in the cache."""
    examples_of(config, [*config.data.retrievals, *config.validation.retrievals], config.seed, progress)
    return JOB.train(config, output, progress, {"candidates": config.data.candidates})


def _batches(config: RerankerConfig, seeds: tuple[int, ...]) -> Graphs:
    return Graphs(config, *seeds)


JOB = SmallJob(load_reranker_config, RerankerTask, _batches, "reranker", half=True)
