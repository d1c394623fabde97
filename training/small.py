"""What the jobs of small networks share: the optimizer, validation after epochs, and weights at the end."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import lightning.pytorch as pl
from torch import nn

from geomatch.console import Step
from geomatch.errors import UsageError
from geomatch.files import published
from geomatch.weights import SUFFIX, save_weights

from .config import TrainerConfig
from .jobs import SCORE, Job, load_checkpoint, run_job
from .optimizers import SmallOptimizerConfig, make_optimizer
from .streams import Stream, StreamData


class Validation(Protocol):
    """Of a run: the scene whose validation boxes are looked at, none for no validation, and how often."""

    scene: str
    every_epochs: int


class Steps(Protocol):
    """Of a run's data: batches that make an epoch, and processes that make them."""

    steps_per_epoch: int
    workers: int


class SmallConfig(Protocol):
    """What the configurations of all of them have."""

    name: str
    seed: int
    optimizer: SmallOptimizerConfig
    trainer: TrainerConfig

    @property
    def data(self) -> Steps: ...  # noqa: D102

    @property
    def validation(self) -> Validation: ...  # noqa: D102


C = TypeVar("C", bound=SmallConfig)
N = TypeVar("N", bound=nn.Module)


class SmallTask(pl.LightningModule, Generic[C]):
    """The loss of a batch, and a score on what is held out."""

    net: nn.Module

    def __init__(self, config: C, total_steps: int) -> None:
        super().__init__()
        self._config, self._total_steps = config, total_steps

    @abstractmethod
    def validated(self) -> float:
        """The score, higher is better."""

    def configure_optimizers(self) -> Any:
        """As configured."""
        return make_optimizer(self._config.optimizer, self.parameters(), self._total_steps)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """By the norm of all gradients, where that is configured."""
        if self._config.optimizer.clip:
            self.clip_gradients(optimizer, self._config.optimizer.clip, "norm")

    def on_train_epoch_end(self) -> None:
        """Validate; in the last epoch in any case."""
        v, epochs = self._config.validation, self.current_epoch + 1
        ends = epochs == self._config.trainer.max_epochs or self.trainer.should_stop
        if v.scene and (ends or not epochs % v.every_epochs):
            self.log(SCORE, self.validated())


def at_rest(net: N) -> N:
    """A copy of a network that is being trained, as matching uses it: in evaluation mode, on the processor."""
    return copy.deepcopy(net).cpu().eval()


@dataclass(frozen=True)
class SmallJob(Generic[C]):
    """A kind of run.

    Attributes:
        load: reads its configuration again.
        task: of a configuration and the steps of the whole run.
        batches: of a configuration and seeds.
        file: name of its weights.
        half: whether they are written in half precision.
    """

    load: Callable[[Path], C]
    task: Callable[[C, int], SmallTask[C]]
    batches: Callable[[C, tuple[int, ...]], Stream]
    file: str
    half: bool = False

    def train(self, config: C, output: Path, progress: Step, about: Mapping[str, object] | None = None) -> Path:
        """Train; a run that is in ``output`` goes on from its last checkpoint.

        Args:
            config: of the run.
            output: its folder.
            progress: told the steps done.
            about: what the weights' file says beside the run's name and seed.

        Returns:
            The weights' file.

        Raises:
            UsageError, InputError, OutputError: as ``run_job``.
            UsageError: it came to weights that are no numbers.
        """
        total = config.data.steps_per_epoch * config.trainer.max_epochs
        job = Job(
            config,
            self.load,
            lambda: self.task(config, total),
            lambda: StreamData(lambda seeds, _: self.batches(config, seeds), config.data.workers, config.seed),
            config.data.steps_per_epoch,
            validated=bool(config.validation.scene),
        )
        chosen = run_job(job, output, progress)
        task = self.task(config, 1)
        task.load_state_dict(load_checkpoint(chosen)["state_dict"])
        if not all(bool(values.isfinite().all()) for values in task.net.state_dict().values()):
            hint = "lower optimizer.lr, or set optimizer.clip, and train into another folder"
            raise UsageError("its weights have become infinite or no numbers", where=output, hint=hint)
        file = output / f"{self.file}{SUFFIX}"
        with published(file) as part:
            save_weights(
                task.net, part, {"run": config.name, "seed": str(config.seed), **(about or {})}, half=self.half
            )
        return file
