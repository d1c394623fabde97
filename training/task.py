"""The run itself: what lightning repeats, and what it keeps."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from geomatch.nets.encoder import EncoderNet
from geomatch.nets.shapes import EncoderShape
from geomatch.weights import Weights

from .config import EncoderConfig
from .data import Batch, ValidationBlock, scene_named
from .losses import Windows, correlation, offset_loss

FOUND_CELLS = 1.25  # 10 px
SCORE = "val_score"
_CHUNK = 10


class EncoderTask(pl.LightningModule):
    """Dense offset cross-entropy on two sizes of window."""

    def __init__(self, config: EncoderConfig, total_steps: int) -> None:
        super().__init__()
        self._config = config
        self._total_steps = total_steps
        net = Weights.find(config.start).net() if config.start else EncoderNet(EncoderShape(**asdict(config.net)))
        self.net = net.train()
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's own hints
        self.temperatures = nn.Parameter(torch.full((2,), math.log(config.loss.temperature)))
        self._block: ValidationBlock | None = None

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """One batch of pairs."""
        del number
        optical = self.net(batch["optical"], "optical")
        total: Tensor = optical.new_zeros(())
        for i, (name, weight) in enumerate((("large", 1.0), ("small", self._config.loss.small_weight))):
            planes, truth = batch[name], batch[f"{name}_at"]
            pairs, count = planes.shape[:2]
            if not count:
                continue
            pair = torch.arange(pairs, device=planes.device).repeat_interleave(count)
            windows = Windows(pair, self.net(planes.flatten(0, 1), "sar"), truth.flatten(0, 1))
            loss, hits = offset_loss(windows, optical, self.temperatures[i])
            total = total + weight * loss
            self.log(f"loss_{name}", loss)
            self.log(f"hits_{name}", hits)
        self.log("loss", total)
        return total

    def configure_optimizers(self) -> Any:
        """AdamW, decay on matrices only."""
        o = self._config.optimizer
        matrices = [p for p in self.parameters() if p.ndim > 1]
        others = [p for p in self.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": o.weight_decay}, {"params": others, "weight_decay": 0.0}], lr=o.lr
        )

        def factor(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, o.warmup_steps))
            return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self._total_steps))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_end(self) -> None:
        """Share of validation windows found by correlation with the whole block; in the last epoch in any case."""
        v, epochs = self._config.validation, self.current_epoch + 1
        ends = epochs == self._config.trainer.max_epochs or self.trainer.should_stop
        if not v.scene or (epochs % v.every_epochs and not ends):
            return
        if self._block is None:
            scene = scene_named(self._config.data, v.scene)
            self._block = ValidationBlock(Path(self._config.data.root), scene, v)
        shares = found_share(self.net, self._block)
        for size, share in shares.items():
            self.log(f"val_{size}", share)
        self.log(SCORE, sum(shares.values()) / len(shares))


@torch.inference_mode()
def found_share(net: EncoderNet, block: ValidationBlock) -> dict[int, float]:
    """Share of windows whose highest correlation lies within 10 px of the true place, by window size."""
    training = net.training
    net.eval()
    device = next(net.parameters()).device
    field = net(block.planes[None].to(device), "optical")
    shares = {}
    for size, (sar, truth) in block.windows.items():
        found = 0
        for first in range(0, len(sar), _CHUNK):
            features = net(sar[first : first + _CHUNK].to(device), "sar")
            surface = correlation(features, field)[:, 0]
            best = surface.flatten(1).argmax(dim=1).cpu()
            at = torch.stack([best % surface.shape[-1], best // surface.shape[-1]], dim=1)
            error = (at - truth[first : first + _CHUNK]).square().sum(dim=1).sqrt()
            found += int((error <= FOUND_CELLS).sum())
        shares[size] = found / len(sar)
    net.train(training)
    return shares
