"""N of every M consecutive weights as the thing to choose: patterns such as `2:4`; it must never share a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.asking.pattern import Pattern
from compressor.axes import Keep
from compressor.cost import weight_prices
from compressor.errors import PatternError, UsageError
from compressor.program import CONTRACTIONS, Layer, Program
from compressor.sparsity.choice import Choice, Selection
from compressor.sparsity.misfits import refuse_or_note
from compressor.sparsity.scores import random_scores
from compressor.typed_torch import from_numpy
from compressor.units import format_ratio


def window_selector(
    program: Program, layers: Sequence[Layer], scoped: set[str], kept: set[str], choice: Choice, pattern: Pattern
) -> WindowSelector:
    """The selector over the weights of convolutions and linear layers whose input channels M divides.

    Raises:  PatternError if M divides those of none, or not those of a layer that the scope names.
    """
    assert pattern.window is not None
    parameters = program.parameters
    price = weight_prices(program)
    parts: dict[str, WindowPart] = {}
    misfits: list[tuple[str, str]] = []
    for layer in layers:
        if layer.kind not in CONTRACTIONS or layer.name not in scoped - kept or layer.weight not in parameters:
            continue
        assert layer.in_dim is not None
        n_channels = parameters[layer.weight].shape[layer.in_dim]
        if n_channels % pattern.window[1]:
            needs = f"{pattern.text} needs input channels divisible by {pattern.window[1]}, got {n_channels}"
            misfits.append((layer.name, needs))
            continue
        earlier = parts[layer.weight].price if layer.weight in parts and choice.asked.of == "macs" else 0.0
        each = earlier + price.get(layer.node, 0.0) if choice.asked.of == "macs" else 1.0
        parts[layer.weight] = WindowPart(layer.in_dim, each)
    notes = refuse_or_note(misfits, choice)
    if not parts:
        raise PatternError(f"--pattern {pattern.text}: no layer in scope has input channels it fits")
    dense = sum(part.price * parameters[name].numel() for name, part in parts.items())
    return WindowSelector(parts, pattern.window, dense, choice, notes)


@dataclass(frozen=True)
class WindowPart:
    """A weight with the dimension that its windows lie along and the price of one element."""

    in_dim: int
    price: float


@dataclass(frozen=True)
class WindowSelector:
    """N:M along the input channels, for every filter and kernel position by itself; the ratio is M/N by construction.

    `dense` counts the weights that the pattern fits, so that asked = got; the report counts the whole network.
    """

    parts: Mapping[str, WindowPart]
    window: tuple[int, int]
    dense: float
    choice: Choice
    notes: tuple[str, ...] = ()

    def select(
        self, tensors: Mapping[str, Tensor], ratio: float, masks: Mapping[str, Tensor] | None = None
    ) -> Selection:
        n, m = self.window
        if abs(ratio - m / n) > 1e-6 * ratio:
            raise UsageError(
                f"--ratio {format_ratio(ratio)}: {n}:{m} means {format_ratio(m / n)} of the layers it fits; "
                "leave --ratio out"
            )
        before = masks or {}
        chosen: dict[str, Tensor] = {}
        for position, (name, part) in enumerate(self.parts.items()):
            magnitudes = self._magnitudes(tensors[name], position)
            mask = before.get(name)
            if mask is not None:
                magnitudes = magnitudes.masked_fill(~mask.to(magnitudes.device), -1.0)
            keep = keep_windows(magnitudes, part.in_dim, n, m)
            chosen[name] = keep if mask is None else keep & mask.to(keep.device)
        return Selection(chosen, self.dense, self.kept_cost({**before, **chosen}, None), None)

    def kept_cost(self, masks: Mapping[str, Tensor], keep: Keep | None) -> float:
        cut = sum(part.price * int((~masks[name]).sum()) for name, part in self.parts.items() if name in masks)
        return self.dense - cut

    def _magnitudes(self, tensor: Tensor, position: int) -> Tensor:
        if self.choice.asked.rates == "random":
            noise = random_scores(tensor.numel(), self.choice.asked.seed + position)
            return from_numpy(noise).reshape(tensor.shape).to(tensor.device)
        return tensor.detach().abs()


def keep_windows(magnitudes: Tensor, dim: int, n: int, m: int) -> Tensor:
    """The n largest of every m consecutive entries along `dim`, True = keep; of equal ones the first.

    It is the Euclidean projection onto N:M sparse tensors.

    Shapes:  magnitudes (..., k * m, ...) -> the same
    """
    moved: Any = magnitudes.movedim(dim, -1)
    windows: Tensor = moved.unflatten(-1, (-1, m))
    if (n, m) == (2, 4):
        keep = _two_of_four(windows)
    else:
        order = torch.sort(windows, dim=-1, descending=True, stable=True).indices
        keep = torch.zeros(windows.shape, dtype=torch.bool, device=windows.device)
        keep.scatter_(-1, order[..., :n], True)
    return keep.flatten(-2).movedim(-1, dim).contiguous()


def _two_of_four(windows: Tensor) -> Tensor:
    """The same by comparisons: sorting rows of four takes ten times as long. An entry stays when fewer than two of
    its window beat it; of equal ones the first wins."""
    a, b, c, d = windows.unbind(-1)
    ab, ac, ad, bc, bd, cd = a >= b, a >= c, a >= d, b >= c, b >= d, c >= d
    one = torch.uint8
    wins = (
        ab.to(one) + ac + ad,
        (~ab).to(one) + bc + bd,
        (~ac).to(one) + ~bc + cd,
        (~ad).to(one) + ~bd + ~cd,
    )
    return torch.stack([count >= 2 for count in wins], dim=-1)
