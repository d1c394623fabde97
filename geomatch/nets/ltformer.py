"""LTFormer: a light pyramid transformer that describes a patch of either modality by one vector.

Zhang et al. 2023, "A Light-weight Transformer-based Self-supervised Matching Network for Heterogeneous Images"; the
blocks are those of PVTv2 (Wang et al. 2022, "PVT v2: Improved baselines with pyramid vision transformer"): overlapping
patch embedding, attention to a spatially reduced copy of the tokens, and a depth-wise convolution within the MLP.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from geomatch.nets.shapes import LTFormerShape


class Embedding(nn.Module):
    """An image as tokens of overlapping patches."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, image: Tensor) -> tuple[Tensor, int]:
        """[B x C x H x W] -> tokens [B x h w x D], and w."""
        planes = self.project(image)
        return self.norm(planes.flatten(2).transpose(1, 2)), planes.shape[3]


def as_planes(tokens: Tensor, columns: int) -> Tensor:
    """Tokens [B x h w x D] where they lie: [B x D x h x w]."""
    batch, _, width = tokens.shape
    return tokens.transpose(1, 2).reshape(batch, width, -1, columns)


class ReducedAttention(nn.Module):
    """Attention of all tokens to the tokens of an image ``reduction`` times smaller."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.merge = nn.Linear(width, width)
        self.reduce = nn.Conv2d(width, width, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(width) if reduction > 1 else None

    def forward(self, tokens: Tensor, columns: int) -> Tensor:
        """[B x N x D] -> [B x N x D]."""
        seen = tokens
        if self.reduce is not None and self.norm is not None:
            planes = as_planes(tokens, columns)
            seen = self.norm(self.reduce(planes).flatten(2).transpose(1, 2))
        key, value = self._split(self.key_value(seen)).chunk(2, dim=-1)
        mixed = functional.scaled_dot_product_attention(self._split(self.query(tokens)), key, value)
        merged: Tensor = self.merge(mixed.transpose(1, 2).flatten(2))
        return merged

    def _split(self, tokens: Tensor) -> Tensor:
        """[B x N x D] -> [B x heads x N x D / heads]."""
        batch, count, _ = tokens.shape
        return tokens.reshape(batch, count, self.heads, -1).transpose(1, 2)


class ConvolvedMlp(nn.Module):
    """Two linear layers with a depth-wise 3 x 3 convolution between them."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        hidden = width * expansion
        self.expand = nn.Linear(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)
        self.shrink = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor, columns: int) -> Tensor:
        """[B x N x D] -> [B x N x D]."""
        planes = as_planes(self.expand(tokens), columns)
        shrunk: Tensor = self.shrink(functional.gelu(self.depthwise(planes).flatten(2).transpose(1, 2)))
        return shrunk


class Block(nn.Module):
    """Attention and MLP, each on normalised tokens and beside them."""

    def __init__(self, width: int, heads: int, reduction: int, expansion: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = ReducedAttention(width, heads, reduction)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = ConvolvedMlp(width, expansion)

    def forward(self, tokens: Tensor, columns: int) -> Tensor:
        """[B x N x D] -> [B x N x D]."""
        tokens = tokens + self.attention(self.norm_attention(tokens), columns)
        mixed: Tensor = tokens + self.mlp(self.norm_mlp(tokens), columns)
        return mixed


class Stage(nn.Module):
    """An embedding and blocks at its resolution."""

    def __init__(self, inputs: int, shape: LTFormerShape, number: int) -> None:
        super().__init__()
        width = shape.widths[number]
        kernel, stride = (7, 4) if number == 0 else (3, 2)
        self.embed = Embedding(inputs, width, kernel, stride)
        heads, reduction, expansion = (of[number] for of in (shape.heads, shape.reductions, shape.expansions))
        self.blocks = nn.ModuleList(Block(width, heads, reduction, expansion) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        """[B x C x H x W] -> [B x D x h x w]."""
        tokens, columns = self.embed(image)
        for block in self.blocks:
            tokens = block(tokens, columns)
        return as_planes(self.norm(tokens), columns)


class LTFormer(nn.Module):
    """Describes patches; both modalities go through the same weights."""

    def __init__(self, shape: LTFormerShape) -> None:
        super().__init__()
        self.shape = shape
        inputs = (1, *shape.widths)
        self.stages = nn.Sequential(*(Stage(inputs[number], shape, number) for number in range(len(shape.widths))))
        last = shape.widths[-1]
        self.head = nn.Identity() if shape.vector == last else nn.Linear(last, shape.vector)
        self.apply(_initialise)

    def forward(self, patches: Tensor) -> Tensor:
        """patches: [B x 1 x s x s], each standardised by itself -> [B x D] vectors of length one."""
        tokens = self.stages(patches).flatten(2).mean(dim=2)
        return functional.normalize(self.head(tokens), dim=1)


def _initialise(module: nn.Module) -> None:
    """As PVTv2 begins: truncated normal for linear layers, He's for convolutions."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
