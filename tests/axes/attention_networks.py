"""Small networks with attention and normalisations, as people write them, and the cut that tests compare.

They are random in all their parameters, so that nothing agrees by symmetry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.asking import WalkOptions
from compressor.axes import Keep, UnitMap, find_units
from compressor.compaction import slice_program
from compressor.program import InputSpec, Program, capture
from compressor.sparsity import apply_masks, mask_units
from tests.compaction.exactness import leaves

WIDTH, HEADS = 24, 4


class PackedAttention(nn.Module):
    """timm's: one linear layer for queries, keys and values, split as (3, heads, head width)."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        query, key, value = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(n, t, d))


class SixHeads(nn.Module):
    """Six heads of six features, each part with a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(36, 36) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y(x).unflatten(-1, (6, 6)).transpose(1, 2) for y in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Sequential):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class VitBlock(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = nn.LayerNorm(WIDTH), attention, nn.LayerNorm(WIDTH), Mlp()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Patches, class token, position embedding, pre-norm blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position = nn.Parameter(torch.zeros(1, 17, WIDTH))
        self.blocks = nn.Sequential(*(VitBlock(PackedAttention()) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class WindowAttention(nn.Module):
    """Swin's: products written out, a bias per head from a table, a scaled query."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.table = nn.Parameter(torch.zeros(2 * tokens, HEADS))
        places = torch.arange(tokens)
        self.register_buffer("index", (places[:, None] - places[None] + tokens).flatten())

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0] * (d // HEADS) ** -0.5, qkv[1], qkv[2]
        bias = self.table[self.index].view(t, t, HEADS).permute(2, 0, 1).contiguous()
        weights = (query @ key.transpose(-2, -1) + bias.unsqueeze(0)).softmax(-1)
        return self.proj((weights @ value).transpose(1, 2).reshape(n, t, d))


class Swin(nn.Module):
    """Shifted windows, then patch merging: four neighbours side by side, normalised together."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 2, 2)
        self.norm1, self.attn = nn.LayerNorm(WIDTH), WindowAttention(16)
        self.norm2, self.mlp = nn.LayerNorm(WIDTH), Mlp()
        self.merge_norm, self.reduction = nn.LayerNorm(4 * WIDTH), nn.Linear(4 * WIDTH, 2 * WIDTH, bias=False)
        self.norm, self.head = nn.LayerNorm(2 * WIDTH), nn.Linear(2 * WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        shifted = torch.roll(self.norm1(x), (-2, -2), (1, 2))
        windows = shifted.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        back = self.attn(windows).view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        x = x + torch.roll(back, (2, 2), (1, 2))
        x = x + self.mlp(self.norm2(x))
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        x = self.reduction(self.merge_norm(torch.cat(parts, -1)))
        return self.head(self.norm(x).mean((1, 2)))


class ConvNext(nn.Module):
    """Depthwise convolution, channels-last norm and MLP, layer scale; a channels-first norm at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 2, 2)
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.norm, self.mlp = nn.LayerNorm(WIDTH), Mlp()
        self.gamma = nn.Parameter(torch.zeros(WIDTH))
        self.last, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + (self.gamma * self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        x = F.layer_norm(x.permute(0, 2, 3, 1), (WIDTH,), self.last.weight, self.last.bias).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class Llama(nn.Module):
    """Grouped queries, rotary positions, RMS norms: torch's and one written out, a gated MLP."""

    def __init__(self, *, repeat: bool = True, kv_heads: int = 2, heads: int = HEADS) -> None:
        super().__init__()
        self.repeat, self.kv_heads, self.heads, self.head_width = repeat, kv_heads, heads, 6
        self.embedding = nn.Embedding(11, WIDTH)
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH), nn.Parameter(torch.zeros(WIDTH))
        self.q = nn.Linear(WIDTH, heads * 6, bias=False)
        self.k, self.v = nn.Linear(WIDTH, kv_heads * 6, bias=False), nn.Linear(WIDTH, kv_heads * 6, bias=False)
        self.o = nn.Linear(heads * 6, WIDTH, bias=False)
        self.gate, self.up = nn.Linear(WIDTH, 32, bias=False), nn.Linear(WIDTH, 32, bias=False)
        self.down, self.head = nn.Linear(32, WIDTH, bias=False), nn.Linear(WIDTH, 11, bias=False)
        angles = torch.arange(7.0)[:, None] / 10 ** torch.arange(3.0)
        self.register_buffer("cos", torch.cat([angles, angles], -1).cos())
        self.register_buffer("sin", torch.cat([angles, angles], -1).sin())

    def _rotate(self, x: Tensor) -> Tensor:
        return x * self.cos + torch.cat([-x[..., 3:], x[..., :3]], -1) * self.sin

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        n, t, _ = x.shape
        y = self.norm1(x)
        query = self._rotate(self.q(y).view(n, t, self.heads, 6).transpose(1, 2))
        key = self._rotate(self.k(y).view(n, t, self.kv_heads, 6).transpose(1, 2))
        value = self.v(y).view(n, t, self.kv_heads, 6).transpose(1, 2)
        if self.repeat:
            times = self.heads // self.kv_heads
            key, value = (
                part[:, :, None].expand(n, self.kv_heads, times, t, 6).reshape(n, self.heads, t, 6)
                for part in (key, value)
            )
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=not self.repeat)
        x = x + self.o(out.transpose(1, 2).reshape(n, t, self.heads * 6))
        y = self.norm2 * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))


class Bert(nn.Module):
    """Summed embeddings, post-norm, separate projections, an attention mask as second input, dictionary out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(13, WIDTH), nn.Embedding(8, WIDTH)
        self.norm0, self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, eps=1e-12) for _ in range(3))
        self.query, self.key, self.value, self.dense = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.mlp, self.pooler, self.head = Mlp(), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.dropout = nn.Dropout(0.1)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        places = torch.arange(8, device=ids.device)
        x = self.norm0(self.words(ids) + self.places(places))
        query, key, value = (
            layer(x).view(x.shape[0], -1, HEADS, WIDTH // HEADS).permute(0, 2, 1, 3)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5 + (1 - mask[:, None, None]) * -1e4
        context = (self.dropout(scores.softmax(-1)) @ value).permute(0, 2, 1, 3).contiguous()
        x = self.norm1(x + self.dense(context.view(x.shape[0], -1, WIDTH)))
        x = self.norm2(x + self.mlp(x))
        return {"logits": self.head(torch.tanh(self.pooler(x[:, 0]))), "hidden": self.head(x)}


class GroupNorms(nn.Module):
    """Groups of three channels, of one, of all; a residual connection between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 12, 3, padding=1), nn.GroupNorm(4, 12)
        self.conv2, self.norm2 = nn.Conv2d(12, 12, 3, padding=1), nn.GroupNorm(12, 12)
        self.conv3, self.norm3 = nn.Conv2d(12, 10, 3, padding=1), nn.GroupNorm(1, 10)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = x + F.relu(self.norm2(self.conv2(x)))
        return self.head(F.relu(self.norm3(self.conv3(x))).mean((2, 3)))


class TorchAttention(nn.Module):
    """`nn.MultiheadAttention` both ways: fused, and with weights, which it averages over the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(7, WIDTH)
        self.fused = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.weighted = nn.MultiheadAttention(WIDTH, HEADS)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        x = x + self.fused(x, x, x, need_weights=False)[0]
        y = x.transpose(0, 1)
        return self.head(x + self.weighted(y, y, y)[0].transpose(0, 1))


class ChannelShuffle(nn.Module):
    """A split of channels that is no head, in front of an attention over what it shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTH, 4, 4)
        self.attn, self.head = PackedAttention(), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h * w).transpose(1, 2)
        return self.head((x + self.attn(x)).mean(1))


IMAGE = (InputSpec("x", (None, 3, 16, 16)),)
IDS = InputSpec("ids", (None, 7), "int64", 11)
NETWORKS: dict[str, tuple[type[nn.Module] | Any, tuple[InputSpec, ...]]] = {
    "vit": (Vit, IMAGE),
    "swin": (Swin, IMAGE),
    "convnext": (ConvNext, IMAGE),
    "llama": (Llama, (IDS,)),
    "bert": (Bert, (InputSpec("ids", (None, 8), "int64", 13), InputSpec("mask", (None, 8)))),
    "group norms": (GroupNorms, IMAGE),
}


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with every parameter drawn anew."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * (0.3 if parameter.dim() > 1 else 1.0))
    return model


def program_of(model: nn.Module, inputs: tuple[InputSpec, ...]) -> Program:
    """The program of a randomised model in float64."""
    return capture(randomise(model).double(), inputs)


def network(name: str) -> Program:
    make, inputs = NETWORKS[name]
    return program_of(make(), inputs)


def random_keep(units: UnitMap, seed: int = 0, rate: float = 0.4) -> Keep:
    """A random choice that leaves at least one unit of every width."""
    random = np.random.default_rng(seed)
    keep = random.random(units.n_units) >= rate
    for _, members in units.widths:
        if not keep[members].any():
            keep[random.choice(members)] = True
    return keep


def masked_and_compact(program: Program, options: WalkOptions, seed: int = 0) -> tuple[Program, Program, UnitMap, Keep]:
    """A random share of all units cut, by zeros and physically."""
    units = find_units(program, options)
    keep = random_keep(units, seed)
    masked = program.clone().replace(masks=mask_units(program.module, units, keep))
    apply_masks(masked.module, masked.masks)
    return masked, slice_program(masked, units, keep), units, keep


@torch.no_grad()
def difference(a: Program, b: Program) -> float:
    """Largest |a − b| over the largest |a|, at batch 1 and 3."""
    worst = 0.0
    for batch in (1, 3):
        inputs = a.example_inputs(batch, seed=batch)
        inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
        for left, right in zip(leaves(a.module(*inputs)), leaves(b.module(*inputs)), strict=True):
            worst = max(worst, float((left - right).abs().max() / left.abs().max()))
    return worst


def names_of(units: UnitMap, unit: int) -> set[str]:
    """Tensors that the unit has a slice of."""
    return {name for name, _ in units.slices[unit]}
