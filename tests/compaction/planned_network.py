"""The network of a random plan; it must never hold a weight that is not exact in float64.

Every value is a small integer or a short binary fraction, so the order of additions cannot show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.program import InputSpec, Program, capture
from tests.compaction.random_networks import INPUT, Feature, Op, Plan


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
