"""Networks with group norms whose groups are wider than a channel, for tests; it must never hold assertions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.program import InputSpec
from tests.axes.tracing import Wrapped

IMAGE = InputSpec("x", (None, 3, 6, 6))
TIME = InputSpec("t", (None, 5))

Network: TypeAlias = "tuple[Callable[[], nn.Module], tuple[InputSpec, ...]]"


def conv(n_in: int, n_out: int, size: int = 3, **given: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, size, padding=size // 2, **given)


def of(forward: Callable[..., Tensor], *inputs: InputSpec, **layers: nn.Module | nn.Parameter) -> Network:
    return lambda: Wrapped(forward, copy.deepcopy(layers)), inputs or (IMAGE,)


class Attended(nn.Module):
    """A norm over maps, attention over their positions, and back: what diffusers has in its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = conv(3, 16), nn.GroupNorm(4, 16)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.last = conv(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        n, c, h, w = x.shape
        tokens = self.norm(x).view(n, c, h * w).transpose(1, 2)
        q, k, v = (layer(tokens).view(n, -1, 2, 8).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, -1, 16)
        return self.last(x + self.out(mixed).transpose(1, 2).reshape(n, c, h, w))


class Skips(nn.Module):
    """A norm over two maps beside each other: the fifth of its groups of 5 lies over the border at 24."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 24), conv(24, 16)
        self.norm_a, self.norm_both = nn.GroupNorm(12, 24), nn.GroupNorm(8, 40)
        self.last = conv(40, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.silu(self.norm_a(a)))
        return self.last(F.silu(self.norm_both(torch.cat([a, b], 1))))


class Blocks(nn.Module):
    """Two residual blocks of a U-Net with a time embedding: added, or as scale and shift."""

    def __init__(self, *, is_scale: bool) -> None:
        super().__init__()
        self.is_scale = is_scale
        self.first, self.time = conv(3, 16), nn.Linear(5, 24 if is_scale else 12)
        self.norm1, self.conv1 = nn.GroupNorm(8, 16), conv(16, 12)
        self.norm2, self.conv2 = nn.GroupNorm(4, 12), conv(12, 16)
        self.last_norm, self.last = nn.GroupNorm(4, 16), conv(16, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = self.first(x)
        h, time = self.conv1(F.silu(self.norm1(x))), self.time(F.silu(t))[:, :, None, None]
        if self.is_scale:
            scale, shift = time.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + time)
        return self.last(F.silu(self.last_norm(x + self.conv2(F.silu(h)))))


class Frozen(nn.Module):
    """A norm whose scale and shift are no parameters: a removed group is its shift behind it, and no 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(3, 12), conv(12, 2)
        self.register_buffer("scale", torch.linspace(0.5, 2, 12))
        self.register_buffer("shift", torch.linspace(-1, 1, 12))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.group_norm(self.first(x), 4, self.scale.to(x), self.shift.to(x)))


def _chain(net: Wrapped, x: Tensor) -> Tensor:
    for layer in net.children():
        x = layer(x)
    return x


def chain(*layers: nn.Module, x: InputSpec = IMAGE) -> Network:
    return of(_chain, x, **{f"layer{i}": layer for i, layer in enumerate(layers)})


NETWORKS: dict[str, Network] = {
    "plain": chain(conv(3, 12), nn.GroupNorm(4, 12), nn.SiLU(), conv(12, 8), nn.ReLU(), conv(8, 2)),
    "residual": of(
        lambda net, x: net.last(net.n2((y := net.a(x)) + net.b(net.n1(y).relu()))),
        a=conv(3, 12), b=conv(12, 12), n1=nn.GroupNorm(6, 12), n2=nn.GroupNorm(6, 12), last=conv(12, 2),
    ),
    "two group counts on one stream": of(
        lambda net, x: net.last(net.n2((y := net.a(x)) + net.b(net.n1(y).relu()))),
        a=conv(3, 24), b=conv(24, 24), n1=nn.GroupNorm(12, 24), n2=nn.GroupNorm(8, 24), last=conv(24, 2),
    ),
    "concatenation": (Skips, (IMAGE,)),
    "time added": (lambda: Blocks(is_scale=False), (IMAGE, TIME)),
    "time as scale and shift": (lambda: Blocks(is_scale=True), (IMAGE, TIME)),
    "attention": (Attended, (IMAGE,)),
    "one norm at two places": of(
        lambda net, x: net.last(net.norm(net.b(net.norm(net.a(x)).relu()))),
        a=conv(3, 12), b=conv(12, 12), norm=nn.GroupNorm(4, 12), last=conv(12, 2),
    ),
    "depthwise": chain(
        conv(3, 12), nn.GroupNorm(4, 12), nn.ReLU(), conv(12, 12, groups=12), nn.GroupNorm(6, 12), conv(12, 2)
    ),
    "grouped": chain(conv(3, 12), nn.ReLU(), conv(12, 12, groups=2), nn.GroupNorm(4, 12), conv(12, 2)),
    "no scale": chain(conv(3, 12), nn.GroupNorm(4, 12, affine=False), nn.ReLU(), conv(12, 2)),
    "no scale, and nothing is 0": chain(conv(3, 12), nn.Sigmoid(), nn.GroupNorm(4, 12, affine=False), conv(12, 2)),
    "no scale, then a sum": of(
        lambda net, x: net.norm(net.first(x)).sum(1, keepdim=True), first=conv(3, 12),
        norm=nn.GroupNorm(4, 12, affine=False),
    ),
    "frozen scale": (Frozen, (IMAGE,)),
    "behind a gate": chain(conv(3, 12), nn.Sigmoid(), nn.GroupNorm(4, 12), conv(12, 2)),
    "transposed": chain(nn.ConvTranspose2d(3, 12, 2, stride=2), nn.GroupNorm(4, 12), nn.GELU(), conv(12, 2)),
    "pooled to a vector": of(
        lambda net, x: net.last(net.norm(net.first(x).mean((2, 3)))),
        first=conv(3, 12), norm=nn.GroupNorm(4, 12), last=nn.Linear(12, 2),
    ),
    "1-D": chain(
        nn.Conv1d(3, 12, 3), nn.GroupNorm(4, 12), nn.ReLU(), nn.Conv1d(12, 2, 1), x=InputSpec("x", (None, 3, 9))
    ),
    "3-D": chain(
        nn.Conv3d(3, 12, 3), nn.GroupNorm(4, 12), nn.ReLU(), nn.Conv3d(12, 2, 1), x=InputSpec("x", (None, 3, 4, 4, 4))
    ),
    "groups of one channel": chain(conv(3, 12), nn.GroupNorm(12, 12), nn.ReLU(), conv(12, 2)),
}  # fmt: skip
"""Each has more than one unit of whole groups."""

PINNED: dict[str, tuple[Network, str, str]] = {
    "one group": (
        chain(conv(3, 12), nn.GroupNorm(1, 12), conv(12, 2)), "layer0.weight",
        "normalised over 12 channels each (--through-norm)",
    ),
    "groups that are tied to one": (
        of(
            lambda net, x: net.last(net.n2((y := net.a(x)) + net.b(net.n1(y)))),
            a=conv(3, 12), b=conv(12, 12), n1=nn.GroupNorm(2, 12), n2=nn.GroupNorm(3, 12), last=conv(12, 2),
        ),
        "a.weight", "the 2 groups that this is normalised in are tied to one unit (--through-norm)",
    ),
    "groups of a convolution as well": (
        chain(conv(3, 12), nn.ReLU(), conv(12, 12, groups=4), nn.GroupNorm(4, 12), conv(12, 2)), "layer2.weight",
        "the 4 groups that this is normalised in are tied to one unit (--through-norm)",
    ),
    "no epsilon": (
        chain(conv(3, 12), nn.GroupNorm(4, 12, eps=0.0), conv(12, 2)), "layer0.weight",
        "a removed group has a variance of 0, and nothing is added to it",
    ),
    "a group with a channel of an input": (
        of(
            lambda net, x: net.last(net.norm(torch.cat([x, net.a(x)], 1))),
            a=conv(3, 5), norm=nn.GroupNorm(2, 8), last=conv(8, 2),
        ),
        "a.weight", "input of the network",
    ),
}  # fmt: skip
"""Where a layer is one unit, or what is left would not be finite: with a weight and why its first filter stays."""
