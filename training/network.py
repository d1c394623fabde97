"""The network of a run: its form, what it begins with, and which of its inputs it sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from geomatch.extras import needs_extra
from geomatch.nets.encoder import EncoderNet
from geomatch.nets.resnet import GlobalNet
from geomatch.nets.shapes import EncoderShape, GlobalShape, RerankerShape
from geomatch.structure import CHANNELS
from geomatch.weights import Weights

from .config import EncoderConfig

if TYPE_CHECKING:
    from .reranker.joint import GraphLoss

Net = EncoderNet | GlobalNet

FORMS = ("dense", "global")
INPUTS = {"both": slice(0, 0), "structure": slice(CHANNELS, None), "image": slice(0, CHANNELS)}  # planes left out


def make_net(config: EncoderConfig) -> Net:
    """The network of a configuration, in training mode."""
    n = config.net
    net: Net
    if n.form == "global":
        net = GlobalNet(GlobalShape(n.width, n.layers, n.vector, n.pooling, shared_norm=n.shared_norm))
    elif config.start:
        net = Weights.find(config.start).net()
    else:
        net = EncoderNet(EncoderShape(n.channels, n.stem, n.width, n.blocks, shared_norm=n.shared_norm))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's own hints
    _leave_out(net, INPUTS[n.inputs])
    return net.train()


def make_graph_loss(config: EncoderConfig) -> GraphLoss | None:
    """The re-ranker that is trained with the encoder; None where none is.

    Raises:
        UsageError: torch-geometric is not installed.
    """
    if not config.loss.reranker:
        return None
    with needs_extra("graph", "training a re-ranker"):
        from .reranker.joint import GraphLoss
    return GraphLoss(RerankerShape())


@contextmanager
def evaluated(net: nn.Module) -> Iterator[torch.device]:
    """The network in evaluation mode, and where it runs."""
    training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            yield next(net.parameters()).device
    finally:
        net.train(training)


def _leave_out(net: Net, planes: slice) -> None:
    """Make the weights of some input planes zero for good: they have no gradient, and decay leaves zero where it is."""
    for stem in net.stems.values():
        weight = cast(nn.Conv2d, stem.conv).weight
        kept = torch.ones_like(weight)
        kept[:, planes] = 0
        if not kept.all():
            weight.data.mul_(kept)
            weight.register_hook(partial(_masked, kept))  # type: ignore[no-untyped-call]  # missing in torch's own hints


def _masked(kept: Tensor, gradient: Tensor) -> Tensor:
    return gradient * kept.to(gradient.device)
