"""Plans of random networks on which masked and compact must agree to the last bit, as a hypothesis strategy.

A plan that could outgrow float64 gets a clamp; it must never hold tensors.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

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
