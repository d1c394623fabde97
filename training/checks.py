"""What a configuration says that cannot be, found out before anything is trained."""

from __future__ import annotations

from geomatch.errors import UsageError
from geomatch.nets.resnet import KINDS, POOLINGS

from . import alignment, pooled
from .augment import LARGE_PX, AugmentOptions
from .config import DataConfig, EncoderConfig, one_of
from .mining import mined_pairs
from .network import FORMS, INPUTS


def check_objective(config: EncoderConfig) -> None:
    """Raise on a network or losses that are unknown or contradict each other.

    Raises:
        UsageError: one of those.
    """
    n, loss = config.net, config.loss
    one_of(n.form, FORMS, "net.form")
    one_of(n.inputs, INPUTS, "net.inputs")
    one_of(n.layers, KINDS, "net.layers")
    one_of(n.pooling, POOLINGS, "net.pooling")
    one_of(loss.pooled, ("none", *pooled.METHODS), "loss.pooled")
    one_of(config.alignment.method, ("none", *alignment.METHODS), "alignment.method")
    options = AugmentOptions(**config.data.augment)
    windows = config.data.batch * options.large
    if not loss.dense and loss.pooled == "none":
        hint = "set loss.dense above 0, or loss.pooled"
        raise UsageError("no loss is on: alignment alone holds no pairs together", where="loss", hint=hint)
    if n.form == "global" and (loss.dense or loss.projection or config.start):
        hint = "set loss.dense=0, loss.projection=0 and no start"
        raise UsageError("the global form has no dense features, projection or weights to begin with", hint=hint)
    if n.form == "global" and config.validation.scene and LARGE_PX not in config.validation.sizes_px:
        hint = f"add {LARGE_PX} to validation.sizes_px"
        raise UsageError(f"the global form is validated on windows of {LARGE_PX} px", hint=hint)
    if (loss.pooled != "none" or config.alignment.method != "none") and windows < 2:
        hint = "set data.augment.large and data.batch"
        raise UsageError(f"pooled vectors are of windows of {LARGE_PX} px, and of two or more", hint=hint)
    if loss.reranker and (n.form == "global" or windows < 2):
        hint = "take the dense form, and set data.augment.large and data.batch"
        raise UsageError(f"a re-ranker is trained on dense features of windows of {LARGE_PX} px", hint=hint)
    check_mining(config.data)
    if loss.pooled == "cross-batch" and loss.memory < windows:
        raise UsageError(f"a memory of {loss.memory} windows is less than a batch of {windows}", where="loss.memory")


def check_mining(data: DataConfig) -> None:
    """Raise on mining that is on and cannot be.

    Raises:
        UsageError: it cannot.
    """
    m, where = data.mining, "data.mining"
    if not m.share:
        return
    if not 0 < m.share <= 1 or not mined_pairs(data):
        hint = "give a share of 0 to 1 that makes two or more of data.batch"
        raise UsageError(f"a share of {m.share:g} of {data.batch} pairs is not possible", where=where, hint=hint)
    if m.every_epochs < 1 or m.places < 2:
        raise UsageError("no epochs or places", where=where, hint="set every_epochs to 1, places to 2 or more")
    if not any(scene.weight for scene in data.scenes):
        raise UsageError("no scenes to look for places in", where=where, hint="name data.scenes, or set share=0")
