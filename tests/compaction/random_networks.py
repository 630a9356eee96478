"""Random networks on which masked and compact must agree to the last bit, as a hypothesis strategy.

It must never hold a weight that is not exact in float64: every value is a small integer or a short binary fraction,
and a plan that could outgrow 2**50 gets a clamp, so that the order of additions cannot show.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from compressor.program import InputSpec, Program, capture

MAX_BITS = 32
"""Integer and fraction bits that a planned value may need before it is bounded; one operator adds up to sixteen."""

INPUT = (3, 8)
"""Channels and side of the input."""


@dataclass(frozen=True)
class Op:
    """One step: `name` picks the function, `inputs` the values it reads, `p` its numbers."""

    name: str
    inputs: tuple[int, ...]
    p: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Feature:
    """What is known of a planned value (N, channels, side, side): how many bits it may need."""

    channels: int
    side: int
    bits: float


@dataclass(frozen=True)
class Plan:
    """Steps, the values they make (0 is the input), and how the network ends."""

    ops: tuple[Op, ...] = ()
    features: tuple[Feature, ...] = (Feature(*INPUT, 2.0),)
    head: str = "map"
    seed: int = 0


@dataclass
class Builder:
    """A plan while it is drawn."""

    random: random.Random
    ops: list[Op] = field(default_factory=list)
    features: list[Feature] = field(default_factory=lambda: [Feature(*INPUT, 2.0)])

    def add(self, name: str, inputs: tuple[int, ...], p: tuple[Any, ...], made: Feature) -> int:
        self.ops.append(Op(name, inputs, p))
        self.features.append(made)
        if made.bits > MAX_BITS:
            return self.add("bound", (len(self.features) - 1,), (), replace(made, bits=3.0))
        return len(self.features) - 1

    def pick(self, *values: Any) -> Any:
        return self.random.choice(values)

    def step(self) -> None:
        """One more operator on a recent value."""
        last = len(self.features) - 1
        at = self.random.randint(max(0, last - 3), last)
        name = self.pick(*PLANNERS)
        PLANNERS[name](self, at, self.features[at])


def _conv(b: Builder, at: int, x: Feature) -> None:
    out = b.pick(2, 3, 4, 6, 8)
    kernel, stride = b.pick(1, 3), b.pick(1, 1, 2)
    stride = stride if x.side > 2 else 1
    kind = b.pick("plain", "grouped", "depthwise")
    groups = {"plain": 1, "depthwise": x.channels}.get(kind, 2)
    if x.channels % groups or out % groups:
        groups = 1
    if kind == "depthwise":
        out, groups = x.channels * b.pick(1, 2), x.channels
    b.add("conv", (at,), (out, kernel, stride, groups, b.pick(True, False)), Feature(out, x.side // stride, x.bits + 8))


def _transposed(b: Builder, at: int, x: Feature) -> None:
    out = b.pick(2, 4)
    groups = b.pick(1, 2) if x.channels % 2 == 0 else 1
    if x.side <= 4:
        b.add("transposed", (at,), (out, groups, b.pick(True, False)), Feature(out, x.side * 2, x.bits + 8))


def _pointwise(b: Builder, at: int, x: Feature) -> None:
    name = b.pick("relu", "relu6", "leaky", "abs", "plus", "minus", "square", "dropout", "prelu", "scale", "shift")
    grows = {"leaky": 1, "plus": 1, "minus": 1, "square": x.bits, "prelu": 1, "scale": 2, "shift": 2}.get(name, 0)
    if x.bits + grows < 48:
        b.add(name, (at,), (), replace(x, bits=x.bits + grows))


def _batch_norm(b: Builder, at: int, x: Feature) -> None:
    b.add("batch_norm", (at,), (b.pick(True, True, False),), replace(x, bits=x.bits + 8))


def _pool(b: Builder, at: int, x: Feature) -> None:
    kind = b.pick("max", "average", "adaptive")
    if x.side >= 4:
        b.add("pool", (at,), (kind,), replace(x, side=x.side // 2, bits=x.bits + 2))


def _combine(b: Builder, at: int, x: Feature) -> None:
    """Residual addition, maximum, product, concatenation, stacking with another value that fits."""
    how = b.pick("add", "add", "maximum", "mul", "cat", "stack", "sub")
    fits = [
        i
        for i, other in enumerate(b.features)
        if other.side == x.side and (how == "cat" or other.channels == x.channels) and (how != "cat" or i != at)
    ]
    if not fits:
        return
    other = b.random.choice(fits)
    bits = x.bits + b.features[other].bits if how == "mul" else max(x.bits, b.features[other].bits) + 1
    channels = x.channels + b.features[other].channels if how == "cat" else x.channels
    if bits < 48 and channels <= 16:
        b.add(how, (at, other), (), Feature(channels, x.side, bits))


def _residual(b: Builder, at: int, x: Feature) -> None:
    made = b.add("conv", (at,), (x.channels, 3, 1, 1, False), replace(x, bits=x.bits + 8))
    b.add("add", (at, made), (), replace(x, bits=max(x.bits, b.features[made].bits) + 1))


def _padded_shortcut(b: Builder, at: int, x: Feature) -> None:
    before, after, fill = b.pick(0, 1, 2), b.pick(1, 2), b.pick(0.0, 0.0, 3.0)
    if x.side < 4 or x.channels > 8:
        return
    channels, side = x.channels + before + after, x.side // 2
    short = b.add("pad", (at,), (before, after, fill), Feature(channels, side, x.bits + 1))
    made = b.add("conv", (at,), (channels, 3, 2, 1, False), Feature(channels, side, x.bits + 8))
    b.add("add", (short, made), (), Feature(channels, side, max(b.features[short].bits, b.features[made].bits) + 1))


def _parts(b: Builder, at: int, x: Feature) -> None:
    """A split or slices, whose parts go on alone, are added, or are concatenated in another order."""
    if x.channels < 2:
        return
    how = b.pick(*("chunk", "split", "slice", "narrow", "unbind") * 3, "strided")
    then = b.pick("first", "last", "swap", "swap", "gate")
    cut = x.channels // 2 if how in ("chunk", "unbind", "strided") else b.random.randint(1, x.channels - 1)
    if x.channels % 2 and (how in ("chunk", "unbind", "strided") or then == "gate"):
        return
    cut = x.channels // 2 if then == "gate" else cut
    channels = {"first": cut, "last": x.channels - cut, "swap": x.channels, "gate": cut}[then]
    if 2 * x.bits < 48 or then != "gate":
        b.add("parts", (at,), (how, cut, then), Feature(channels, x.side, x.bits * (2 if then == "gate" else 1)))


def _move(b: Builder, at: int, x: Feature) -> None:
    groups = next((g for g in b.random.sample((2, 3, 4), 3) if x.channels % g == 0 and x.channels > g), 0)
    kinds = ("shuffle", "channel_shuffle", "flip", "channels_last", "unshuffle", "pixel_shuffle", "repeat")
    name = b.pick(*kinds * 2, "roll")
    if name in ("shuffle", "channel_shuffle") and groups:
        b.add(name, (at,), (groups,), x)
    elif name in ("flip", "roll"):
        b.add(name, (at,), (), x)
    elif name == "channels_last":
        out = b.pick(2, 3, 4)
        b.add(name, (at,), (out,), Feature(out, x.side, x.bits + 8))
    elif name == "unshuffle" and x.side >= 4 and x.channels <= 4:
        b.add(name, (at,), (), Feature(4 * x.channels, x.side // 2, x.bits))
    elif name == "pixel_shuffle" and x.side <= 4 and x.channels % 4 == 0 and x.channels > 4:
        b.add(name, (at,), (), Feature(x.channels // 4, 2 * x.side, x.bits))
    elif name == "repeat" and x.channels <= 6:
        b.add(name, (at,), (b.pick("repeat", "interleave"),), Feature(2 * x.channels, x.side, x.bits))


def _shared(b: Builder, at: int, x: Feature) -> None:
    """One convolution used twice, on its own output or on two values."""
    b.add("shared", (at,), (b.pick("chain", "both"),), replace(x, bits=x.bits + 16))


def _gate(b: Builder, at: int, x: Feature) -> None:
    """Channel gate (squeeze and excite), spatial gate of one channel, or a sum, mean or maximum over channels."""
    kind = b.pick(*("channel", "spatial", "sum", "norm1") * 2, "mean", "amax")
    if kind == "mean" and x.channels & (x.channels - 1):
        return
    b.add("gate", (at,), (kind,), replace(x, bits=2 * x.bits + 8 if kind != "spatial" else x.bits + 4))


def _attention(b: Builder, at: int, x: Feature) -> None:
    """Products of a value with itself over channels or over positions, without the softmax."""
    b.add("attention", (at,), (b.pick("channels", "positions", "einsum"),), replace(x, bits=14.0))


PLANNERS: dict[str, Callable[[Builder, int, Feature], None]] = {
    "conv": _conv,
    "conv again": _conv,
    "batch_norm": _batch_norm,
    "pointwise": _pointwise,
    "pool": _pool,
    "combine": _combine,
    "residual": _residual,
    "padded_shortcut": _padded_shortcut,
    "parts": _parts,
    "move": _move,
    "shared": _shared,
    "gate": _gate,
    "attention": _attention,
    "transposed": _transposed,
}

HEADS = ("view", "reshape", "flatten", "mean", "sum", "view", "flatten", "map", "pair", "dict")


def random_plan(seed: int, n_steps: int) -> Plan:
    """A first convolution, `n_steps` random steps, and an end; fewer steps of one seed are a prefix of more."""
    builder = Builder(random.Random(seed))
    head = builder.pick(*HEADS)
    _conv(builder, 0, builder.features[0])
    for _ in range(n_steps):
        builder.step()
    return Plan(tuple(builder.ops), tuple(builder.features), head, seed)


def plans(max_steps: int = 10) -> st.SearchStrategy[Plan]:
    """Random plans. Drawing every choice from hypothesis itself was tried: in 150 plans no concatenation came up."""
    return st.builds(random_plan, st.integers(0, 2**32), st.integers(1, max_steps))


class Net(nn.Module):
    """The network of a plan; its weights are small integers, its batch norm divides by powers of two."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.random = torch.Generator().manual_seed(plan.seed)
        self.parts = nn.ModuleList(self._layer(op, [plan.features[i] for i in op.inputs]) for op in plan.ops)
        last = plan.features[-1]
        flat = last.channels if plan.head in ("mean", "sum") else last.channels * last.side**2
        self.classify = nn.Linear(flat, 3)
        self.double()
        for parameter in self.parameters():
            self._fill(parameter, -1, 2)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                self._normalise(module)

    def _fill(self, tensor: Tensor, low: int, high: int) -> None:
        with torch.no_grad():
            tensor.copy_(torch.randint(low, high, tensor.shape, generator=self.random))

    def _normalise(self, norm: nn.BatchNorm2d) -> None:
        """var + eps is 1, 4 or 16, and weights are multiples of 4: what comes out are integers."""
        assert norm.running_mean is not None and norm.running_var is not None
        self._fill(norm.running_mean, -3, 4)
        self._fill(norm.running_var, 0, 3)
        with torch.no_grad():
            norm.running_var.copy_(4**norm.running_var - norm.eps)
            if norm.affine:
                norm.weight.mul_(4)
                norm.bias.mul_(3)

    def _layer(self, op: Op, inputs: list[Feature]) -> nn.Module:
        x = inputs[0]
        if op.name == "conv":
            out, kernel, stride, groups, bias = op.p
            return nn.Conv2d(x.channels, out, kernel, stride, kernel // 2, groups=groups, bias=bias)
        if op.name == "transposed":
            out, groups, bias = op.p
            return nn.ConvTranspose2d(x.channels, out, 2, 2, groups=groups, bias=bias)
        if op.name == "batch_norm":
            return nn.BatchNorm2d(x.channels, eps=1.0, affine=op.p[0])
        if op.name == "prelu":
            return nn.PReLU(x.channels)
        if op.name in ("scale", "shift"):
            return _Bare(x.channels)
        if op.name == "channels_last":
            return nn.Linear(x.channels, op.p[0])
        if op.name == "shared":
            return nn.Conv2d(x.channels, x.channels, 3, 1, 1)
        if op.name == "gate" and op.p[0] in ("channel", "spatial"):
            return nn.Conv2d(x.channels, x.channels if op.p[0] == "channel" else 1, 1)
        return nn.Dropout() if op.name == "dropout" else nn.Identity()

    def forward(self, x: Tensor) -> Any:
        values = [x]
        for op, part in zip(self.plan.ops, self.parts, strict=True):
            values.append(FUNCTIONS[op.name](part, op.p, *(values[i] for i in op.inputs)))
        return self._end(values[-1], values)

    def _end(self, x: Tensor, values: list[Tensor]) -> Any:
        """What leaves the network; the flatten has its sizes written into the code, as many networks do."""
        last = self.plan.features[-1]
        flat = last.channels * last.side**2
        if self.plan.head in ("map", "pair", "dict"):
            outputs = {"map": x, "pair": (x, values[-2]), "dict": {"out": x, "total": x.sum((2, 3))}}
            return outputs[self.plan.head]
        forms: dict[str, Callable[[], Tensor]] = {
            "view": lambda: x.contiguous().view(-1, flat),
            "reshape": lambda: x.reshape(x.shape[0], -1),
            "flatten": lambda: x.flatten(1),
            "mean": lambda: x.mean((2, 3)),
            "sum": lambda: x.sum((2, 3)),
        }
        return self.classify(forms[self.plan.head]())


class _Bare(nn.Module):
    """A parameter that only arithmetic reads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))


def _take_parts(how: str, cut: int, x: Tensor) -> tuple[Tensor, Tensor]:
    if how == "chunk":
        first, second = x.chunk(2, 1)
    elif how == "split":
        first, second = x.split((cut, x.shape[1] - cut), 1)
    elif how == "slice":
        first, second = x[:, :cut], x[:, cut:]
    elif how == "narrow":
        first, second = x.narrow(1, 0, cut), x.narrow(1, cut, x.shape[1] - cut)
    elif how == "unbind":
        first, second = x.unflatten(1, (2, cut)).unbind(1)
    else:
        first, second = x[:, ::2], x[:, 1::2]
    return first, second


def _parts_of(part: nn.Module, p: tuple[Any, ...], x: Tensor) -> Tensor:
    how, cut, then = p
    first, second = _take_parts(how, cut, x)
    if then == "swap":
        return torch.cat((F.max_pool2d(second, 3, 1, 1), first), 1)
    return {"first": first, "last": second}[then] if then != "gate" else first * F.hardtanh(second)


def _shuffled(part: nn.Module, p: tuple[Any, ...], x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    return x.view(n, p[0], channels // p[0], height, width).transpose(1, 2).reshape(n, channels, height, width)


def _gated(part: nn.Module, p: tuple[Any, ...], x: Tensor) -> Tensor:
    if p[0] == "channel":
        return x * part(x.sum((2, 3), keepdim=True)).clamp(0, 1)
    if p[0] == "spatial":
        return x * part(x).clamp(0, 1)
    reduced = {
        "sum": lambda: x.sum(1, keepdim=True),
        "mean": lambda: x.mean(1, keepdim=True),
        "amax": lambda: x.amax(1, keepdim=True),
        "norm1": lambda: torch.linalg.vector_norm(x, 1, dim=1, keepdim=True),
    }
    return x * reduced[p[0]]()


def _attended(part: nn.Module, p: tuple[Any, ...], x: Tensor) -> Tensor:
    tokens = _bounded(x).flatten(2)  # (N, C, T)
    if p[0] == "channels":
        made = (tokens @ tokens.transpose(1, 2)) @ tokens
    elif p[0] == "positions":
        made = tokens @ (tokens.transpose(1, 2) @ tokens)
    else:
        made = torch.einsum("nct,nkt->nck", tokens, tokens) @ tokens
    return made.reshape(x.shape)


def _bounded(x: Tensor) -> Tensor:
    return x.clamp(-4, 4).round()


def _shared_twice(part: nn.Module, p: tuple[Any, ...], x: Tensor) -> Tensor:
    return part(F.relu(part(x))) if p[0] == "chain" else part(x) + part(F.relu(x))


def _pooled(part: nn.Module, p: tuple[Any, ...], x: Tensor) -> Tensor:
    if p[0] == "max":
        return F.max_pool2d(x, 2)
    return F.avg_pool2d(x, 2) if p[0] == "average" else F.adaptive_avg_pool2d(x, x.shape[-1] // 2)


def _applied(part: nn.Module, p: tuple[Any, ...], x: Tensor) -> Tensor:
    return part(x)


def _plain(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda part, p, *values: function(*values)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("conv", "transposed", "batch_norm", "prelu", "dropout"), _applied),
    "bound": _plain(_bounded),
    "relu": _plain(F.relu),
    "relu6": _plain(F.relu6),
    "leaky": lambda part, p, x: F.leaky_relu(x, 0.5),
    "abs": _plain(torch.abs),
    "plus": _plain(lambda x: x + 3),
    "minus": _plain(lambda x: 2 - x),
    "square": _plain(lambda x: x**2),
    "scale": lambda part, p, x: x * part.scale,
    "shift": lambda part, p, x: x + part.scale,
    "pool": _pooled,
    "add": _plain(torch.add),
    "sub": _plain(torch.sub),
    "maximum": _plain(torch.maximum),
    "mul": _plain(torch.mul),
    "cat": _plain(lambda x, y: torch.cat((x, y), 1)),
    "stack": _plain(lambda x, y: torch.stack((x, y), 2).sum(2)),
    "pad": lambda part, p, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, p[0], p[1]), value=p[2]),
    "parts": _parts_of,
    "shuffle": _shuffled,
    "channel_shuffle": lambda part, p, x: F.channel_shuffle(x, p[0]),
    "flip": _plain(lambda x: x.flip(1)),
    "roll": _plain(lambda x: x.roll(1, 1)),
    "channels_last": lambda part, p, x: part(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "unshuffle": _plain(lambda x: F.pixel_unshuffle(x, 2)),
    "pixel_shuffle": _plain(lambda x: F.pixel_shuffle(x, 2)),
    "repeat": lambda part, p, x: x.repeat(1, 2, 1, 1) if p[0] == "repeat" else x.repeat_interleave(2, 1),
    "shared": _shared_twice,
    "gate": _gated,
    "attention": _attended,
}


def build(plan: Plan) -> Program:
    """The program of a plan, in float64."""
    channels, side = INPUT
    return capture(Net(plan), [InputSpec("x", (None, channels, side, side), "float64")])
