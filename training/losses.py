"""Dense offset cross-entropy: the inference step as a loss.

A SAR window is correlated over all offsets in the optical crops of the batch, exactly as ``geomatch.correlate`` does at
query time, and the true offset has to win against all others. Offsets within a cell of it are soft targets; or, where
pairs lie less exactly on each other than that, any one offset near it may win.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as nn

from geomatch.correlate import ENERGY_FLOOR

SOFT_CELLS = 0.6  # standard deviation of the target around the true offset
_TINY = 1e-6


@dataclass(frozen=True)
class Windows:
    """Features of SAR windows.

    Attributes:
        pair: [T] which pair of the batch each belongs to.
        values: [T x C x w x w].
        truth: [T x 2] column and row in the optical features of the same pair where its first cell belongs.
    """

    pair: Tensor
    values: Tensor
    truth: Tensor


def correlation(windows: Tensor, fields: Tensor) -> Tensor:
    """Zero-mean normalised cross-correlation of each window over each field, as ``geomatch.correlate.over``.

    Args:
        windows: [T x C x w x w].
        fields: [B x C x H x W].

    Returns:
        [T x B x H - w + 1 x W - w + 1], within [-1, 1].
    """
    with torch.autocast(windows.device.type, enabled=False):
        return _correlation(windows.float(), fields.float())


def _correlation(windows: Tensor, fields: Tensor) -> Tensor:
    size, (height, width) = windows.shape[-1], fields.shape[-2:]
    cells = size * size
    templates = windows - windows.mean(dim=(2, 3), keepdim=True)
    templates = templates / templates.square().sum(dim=(1, 2, 3), keepdim=True).clamp_min(_TINY).sqrt()
    # By FFT: circular correlation of a window within a field wraps only at offsets that are cut away.
    spectrum = torch.einsum(
        "tcyx,bcyx->tbyx",
        torch.fft.rfft2(templates, s=(height, width)).conj(),
        torch.fft.rfft2(fields, s=(height, width)),
    )
    cross = torch.fft.irfft2(spectrum, s=(height, width))[..., : height - size + 1, : width - size + 1]
    sums = nn.avg_pool2d(fields, size, 1) * cells
    energy = nn.avg_pool2d(fields.square().sum(dim=1, keepdim=True), size, 1)[:, 0] * cells
    variance = (energy - sums.square().sum(dim=1) / cells).clamp_min(0)
    usual = fields.square().sum(dim=1).mean().detach()
    length = (variance + _TINY).sqrt().clamp_min(ENERGY_FLOOR * (usual * cells).sqrt())
    correlated: Tensor = cross / length
    return correlated


def offset_target(truth: Tensor, pair: Tensor, shape: torch.Size, deviation: float = SOFT_CELLS) -> Tensor:
    """A distribution over [B x oh x ow] for each window, around its true offset in its own crop: [T x B * oh * ow]."""
    _, batch, rows, cols = shape
    across = torch.arange(cols, device=truth.device) - truth[:, :1]
    down = torch.arange(rows, device=truth.device) - truth[:, 1:]
    near = torch.exp(-(down.square()[:, :, None] + across.square()[:, None, :]) / (2 * deviation**2))
    near = near / near.sum(dim=(1, 2), keepdim=True).clamp_min(_TINY)
    target = truth.new_zeros(len(truth), batch, rows, cols)
    target[torch.arange(len(truth)), pair] = near
    return target.flatten(1)


def offset_loss(
    windows: Windows, fields: Tensor, temperature: Tensor, off_cells: float | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the offsets, and the share of windows whose best offset lies near the true one.

    Where the truth itself is off by an unknown error, a cross-entropy would ask for flat peaks. With ``off_cells`` the
    loss is the negative logarithm of the probability of the truth with that error marginalised, as MIL-NCE does for
    captions that lag (Miech et al. 2020, CVPR): one sharp peak anywhere near is as good as at the very place.

    Args:
        windows: of SAR images.
        fields: [B x C x H x W] optical features.
        temperature: the logarithm of what correlations are multiplied by.
        off_cells: deviation of that error; None where the truth is exact to SOFT_CELLS.

    Returns:
        The loss; and the share of best offsets within a cell of the true one, or within two deviations of its error.
    """
    surfaces = correlation(windows.values, fields)
    logits = surfaces.flatten(1) * temperature.exp()
    likely = nn.log_softmax(logits, dim=1)
    target = offset_target(windows.truth, windows.pair, surfaces.shape, off_cells or SOFT_CELLS)
    if off_cells is None:
        loss = -(target * likely).sum(dim=1).mean()
    else:
        loss = -torch.logsumexp(target.log() + likely, dim=1).mean()
    with torch.no_grad():
        rows, cols = surfaces.shape[-2:]
        best = logits.argmax(dim=1)
        at = torch.stack([best % cols, best // cols % rows], dim=1)
        own = best // (rows * cols) == windows.pair
        hit = own & ((at - windows.truth).abs().amax(dim=1) <= max(1.0, 2 * (off_cells or 0)))
    return loss, hit.float().mean()
