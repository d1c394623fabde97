"""Endless batches, made in worker processes that say what is wrong with the data instead of dying of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from geomatch.errors import GeomatchError
from geomatch.gdal import set_block_cache

Batch = dict[str, Tensor]
BLOCK_CACHE = 1 << 30  # bytes per worker


class Stream(IterableDataset[Batch]):
    """Endless random batches; each worker draws its own, and every epoch goes on where the one before it ended.

    Args:
        seeds: of the batches.
    """

    def __init__(self, *seeds: int) -> None:
        self._seeds = seeds
        self._stream: Iterator[Batch] | None = None

    @abstractmethod
    def drawn(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Batches without end."""

    def __iter__(self) -> Iterator[Batch]:
        if self._stream is None:
            self._stream = self._told()
        return self._stream

    def _told(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        set_block_cache(BLOCK_CACHE)
        worker = get_worker_info()
        try:
            yield from self.drawn(np.random.default_rng([*self._seeds, worker.id if worker else 0]))
        except GeomatchError as error:
            if worker is None:
                raise
            # Torch would send on no more than its text and traceback; ``StreamData`` raises it.
            yield error  # type: ignore[misc]


class StreamData(pl.LightningDataModule):
    """The batches of a run.

    Args:
        make: a stream of the seeds and the folder of the run that it is given.
        workers: processes that make batches; none for this one.
        seed: of the run.
    """

    def __init__(self, make: Callable[[tuple[int, ...], Path], Stream], workers: int, seed: int) -> None:
        super().__init__()
        self._make, self._workers, self._seed = make, workers, seed

    def train_dataloader(self) -> Any:
        """Batches are made in worker processes; a resumed run goes on with others than it began with."""
        assert self.trainer is not None, "lightning attaches it"
        seeds = (self._seed, self.trainer.global_step, self.trainer.global_rank)
        stream = self._make(seeds, Path(self.trainer.default_root_dir))
        cv2.setNumThreads(1)  # a second run in one process hung: its worker waited for threads that a fork leaves out
        workers = self._workers
        return DataLoader(stream, batch_size=None, num_workers=workers, persistent_workers=workers > 0)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """A worker's error is raised where it is seen."""
        del dataloader_idx
        if isinstance(batch, GeomatchError):
            raise batch
        return batch
