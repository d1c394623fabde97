"""The run itself: what lightning repeats, and what it keeps."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from geomatch.nets.resnet import GlobalNet
from geomatch.nets.shapes import GlobalShape
from geomatch.pairs import JITTER_PX
from geomatch.planes import CELL_PX
from geomatch.tiles import STRIDE_PX, vector_size

from . import alignment, pooled
from .augment import LARGE_PX, AugmentOptions, widest_px
from .config import EncoderConfig
from .data import ValidationBlock
from .jobs import MINED, SCORE
from .losses import Windows, offset_loss
from .mining import mine_scene, mining_rng, write_mined
from .network import Net, make_graph_loss, make_net
from .scenes import open_scene, scene_named
from .streams import Batch
from .validation import dense_recall, found_share, global_recall, map_features


class EncoderTask(pl.LightningModule):
    """The losses of a batch, by the form of the network.

    Dense features are correlated over all offsets, and pooled to vectors; the global form has vectors alone.
    """

    def __init__(self, config: EncoderConfig, total_steps: int) -> None:
        super().__init__()
        self._config = config
        self._total_steps = total_steps
        self.net = make_net(config)
        start = torch.full((2,), math.log(config.loss.temperature))
        self.temperatures = nn.Parameter(start, requires_grad=config.loss.dense > 0)
        self.averaged = AveragedModel(self.net, avg_fn=self._average, use_buffers=True).requires_grad_(False)
        shape = self.net.shape
        inputs = shape.vector if isinstance(shape, GlobalShape) else vector_size(shape.channels, LARGE_PX)
        self.head = pooled.Head(inputs, config.loss.projection)
        self.averaged_head = (
            AveragedModel(self.head, avg_fn=self._average).requires_grad_(False) if config.loss.projection else None
        )
        self.pooled_loss = pooled.make_pooled_loss(config.loss, self.head.outputs)
        self.alignment = alignment.make_alignment(config.alignment, self.head.outputs)
        self.graph = make_graph_loss(config)
        self._block: ValidationBlock | None = None

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """One batch of pairs."""
        del number
        total, vectors = self._whole_vectors(batch) if isinstance(self.net, GlobalNet) else self._dense_loss(batch)
        if vectors is not None:
            total = total + self._vector_loss(vectors)
        self.log("loss", total)
        return total

    def _dense_loss(self, batch: Batch) -> tuple[Tensor, pooled.Vectors | None]:
        """The weighted offset loss, and vectors of the large windows where something is asked of them."""
        weight = self._config.loss.dense
        optical = self.net(batch["optical"], "optical")
        total: Tensor = optical.new_zeros(())
        vectors = None
        for i, (name, share) in enumerate((("large", 1.0), ("small", self._config.loss.small_weight))):
            asked = name == "large" and (self.pooled_loss is not None or self.alignment is not None)
            ranked = name == "large" and self.graph is not None
            if not batch[name].shape[1] or not (weight or asked or ranked):
                continue
            pair, truth = _places(batch, name)
            windows = Windows(pair, self.net(batch[name].flatten(0, 1), "sar"), truth)
            if weight:
                loss, hits = offset_loss(windows, optical, self.temperatures[i])
                total = total + weight * share * loss
                self.log(f"loss_{name}", loss)
                self.log(f"hits_{name}", hits)
            if asked:
                vectors = self._pooled_vectors(windows, optical)
            if ranked:
                total = total + self._ranking_loss(windows, optical)
        return total, vectors

    def _ranking_loss(self, windows: Windows, fields: Tensor) -> Tensor:
        """What the re-ranker makes of what windows retrieve from the batch."""
        assert self.graph is not None, "asked for"
        with torch.autocast(fields.device.type, enabled=False):
            windows = Windows(windows.pair, windows.values.float(), windows.truth)
            loss: Tensor = self.graph(windows, fields.float(), LARGE_PX)
        self.log("loss_reranker", loss)
        return self._config.loss.reranker * loss

    def _pooled_vectors(self, windows: Windows, fields: Tensor) -> pooled.Vectors:
        """Dense features pooled as an index pools them."""
        at_px = windows.truth * CELL_PX
        with torch.autocast(fields.device.type, enabled=False):
            sar = pooled.pooled(windows.values, torch.zeros_like(at_px), LARGE_PX)
            optical = pooled.pooled(fields[windows.pair], at_px, LARGE_PX)
            return pooled.Vectors(self.head(optical), self.head(sar), windows.pair, at_px, LARGE_PX)

    def _whole_vectors(self, batch: Batch) -> tuple[Tensor, pooled.Vectors]:
        """No loss, and vectors of windows that are encoded one by one."""
        pair, truth = _places(batch, "large")
        at_px = truth * CELL_PX
        optical = self.net(pooled.cut_planes(batch["optical"], pair, at_px, LARGE_PX), "optical")
        sar = self.net(batch["large"].flatten(0, 1), "sar")
        return sar.new_zeros(()), pooled.Vectors(optical, sar, pair, at_px, LARGE_PX)

    def _vector_loss(self, vectors: pooled.Vectors) -> Tensor:
        """What is asked of pooled vectors: that pairs are near, and that the modalities lie alike."""
        total = vectors.sar.new_zeros(())
        with torch.autocast(vectors.sar.device.type, enabled=False):
            if self.pooled_loss is not None:
                loss = self.pooled_loss(vectors)
                total = total + self._config.loss.pooled_weight * loss
                self.log("loss_pooled", loss)
            if self.alignment is not None:
                loss = self.alignment(vectors.optical, vectors.sar)
                total = total + loss
                self.log("loss_alignment", loss)
        return total

    def _average(self, kept: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """Exponential moving average whose memory grows with the run, so that the start is soon forgotten."""
        decay = min(self._config.optimizer.averaging, (1 + float(count)) / (10 + float(count)))
        return current + decay * (kept - current)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Take the step into the average."""
        self.averaged.update_parameters(self.net)
        if self.averaged_head is not None:
            self.averaged_head.update_parameters(self.head)

    @property
    def kept_net(self) -> Net:
        """The averaged network: what is validated and kept."""
        return cast(Net, self.averaged.module)

    def configure_optimizers(self) -> Any:
        """AdamW, decay on matrices only; a critic has an optimiser of its own."""
        o = self._config.optimizer
        parts = (self.head, self.pooled_loss, self.alignment, self.graph)
        others_of = [part for part in parts if part is not None]
        every = [*self.net.parameters(), self.temperatures, *(p for part in others_of for p in part.parameters())]
        trained = [p for p in every if p.requires_grad]
        matrices = [p for p in trained if p.ndim > 1]
        others = [p for p in trained if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": o.weight_decay}, {"params": others, "weight_decay": 0.0}], lr=o.lr
        )

        def factor(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, o.warmup_steps))
            return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self._total_steps))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_end(self) -> None:
        """Validate, and look for confusable places."""
        self._validate()
        m = self._config.data.mining
        if m.share and not (self.current_epoch + 1) % m.every_epochs and self.trainer.is_global_zero:
            self.log("confusable", float(self.mine(Path(self.trainer.default_root_dir) / MINED)))

    def mine(self, file: Path) -> int:
        """Write the places of each scene that the averaged network takes for each other, and return how many.

        Crops around two of them show nothing in common, since a negative must not show the place itself.
        """
        data, epoch = self._config.data, self.current_epoch + 1
        apart_px = widest_px(AugmentOptions(**data.augment)) + 2 * JITTER_PX
        mined = []
        for number, scene in enumerate(data.scenes):
            rng = mining_rng(self._config.seed, epoch, number)
            places = data.mining.places if scene.weight else 0
            mined.append(mine_scene(self.kept_net, open_scene(Path(data.root), scene), rng, places, apart_px))
        write_mined(file, mined, epoch)
        return sum(len(found) for found in mined)

    def _validate(self) -> None:
        """Look the validation windows up in the whole block; in the last epoch in any case."""
        v, epochs = self._config.validation, self.current_epoch + 1
        ends = epochs == self._config.trainer.max_epochs or self.trainer.should_stop
        if not v.scene or (epochs % v.every_epochs and not ends):
            return
        if self._block is None:
            scene = scene_named(self._config.data.scenes, v.scene)
            self._block = ValidationBlock(Path(self._config.data.root), scene, v)
        whole = isinstance(self.kept_net, GlobalNet)  # thousands of tiles: in the precision of the training
        with self.trainer.precision_plugin.forward_context() if whole else nullcontext():
            figures = self.validated(self._block)
        for name, value in figures.items():
            self.log(name, value)

    def validated(self, block: ValidationBlock) -> dict[str, float]:
        """Shares found by correlation, by size, and recall by vectors; the score is the mean of the former.

        The global form, which cannot be correlated, is scored by its recall at one.
        """
        net, stride = self.kept_net, self._config.validation.stride_px or STRIDE_PX
        if isinstance(net, GlobalNet):
            ranks = global_recall(net, block, self._config.validation.stride_px or 2 * STRIDE_PX)
            return ranks | {SCORE: ranks["val_r1"]}
        field = map_features(net, block)
        shares = found_share(net, block, field)
        figures = {f"val_{size}": share for size, share in shares.items()}
        if LARGE_PX in block.windows:
            head = self.head if self.averaged_head is None else self.averaged_head.module
            figures |= dense_recall(net, block, field, head, stride)
        return figures | {SCORE: sum(shares.values()) / len(shares)}


def _places(batch: Batch, name: str) -> tuple[Tensor, Tensor]:
    """[T] pair and [T x 2] place of each of a batch's windows."""
    pairs, count = batch[name].shape[:2]
    pair = torch.arange(pairs, device=batch[name].device).repeat_interleave(count)
    return pair, batch[f"{name}_at"].flatten(0, 1)
