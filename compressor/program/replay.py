"""A graph run operator by operator, with foreign decisions and roundings put in; it must never judge what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node
from torch.utils import _pytree as pytree

from compressor.program.decisions import Kind, bound, compared, decides, decision, kind_of, redecided
from compressor.program.module import ProgramModule

aten = torch.ops.aten

_AROUND_ONE = frozenset(
    {
        aten.sigmoid.default, aten.hardsigmoid.default, aten.tanh.default, aten.erf.default, aten.softplus.default,
        aten.log_sigmoid.default, aten.elu.default, aten.celu.default, aten.selu.default, aten.silu.default,
        aten.gelu.default, aten.mish.default, aten.hardswish.default,
    }
)  # fmt: skip
"""Functions that runtimes compute around 1/2 or 1: a result next to 0 holds the rounding of that, not of itself."""


@dataclass(frozen=True)
class Decided:
    """What an operator chose, drew or rounded to, and what kind of decision that was."""

    kind: Kind
    value: Tensor


class Replay(fx.Interpreter):
    """Runs a graph operator by operator, with foreign decisions and a rounding after each operator put in.

    `best` holds what each foreign decision was chosen from, `taken` what it chose.
    """

    def __init__(
        self, module: ProgramModule, decided: Mapping[str, Tensor] | None = None, rounding: float = 0.0
    ) -> None:
        super().__init__(module)
        self.rounding = rounding
        self.foreign = decided or {}
        self.decided: dict[str, Decided] = {}
        self.best: dict[str, Tensor] = {}
        self.taken: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(1)

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.op != "call_function":
            return result
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if (kind := kind_of(n)) is not None and decides(kind, n, given := bound(n, args, kwargs)):
            return self._decided(n, kind, given, result)
        if not self.rounding:
            return result
        read = {_memory(x) for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        return pytree.tree_map(lambda x: self._rounded(x, n) if _is_made(x, read) else x, result)

    def _decided(self, node: Node, kind: Kind, given: Mapping[str, Any], result: Any) -> Any:
        own = decision(result)
        self.decided[node.name] = Decided(kind, own)
        foreign = self.foreign.get(node.name)
        if foreign is None or foreign.shape != own.shape:
            return result
        self.best[node.name], self.taken[node.name] = compared(kind, node, given, result, foreign)
        return redecided(kind, given, result, foreign)

    def _rounded(self, value: Tensor, node: Node) -> Tensor:
        """Sums round by the size of their terms, which the largest result stands for; all else by its own."""
        size = value.abs()
        if node.target in _AROUND_ONE:
            size = size.clamp(min=1.0)
        elif torch.Tag.pointwise not in getattr(node.target, "tags", ()):
            finite = size[size.isfinite()]
            size = torch.full_like(size, float(finite.max()) if finite.numel() else 0.0)
        signs = torch.randint(0, 2, value.shape, generator=self._generator).to(value.dtype) * 2 - 1
        return value + self.rounding * size.nan_to_num(0.0, 0.0, 0.0) * signs


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_made(value: Any, read: set[int]) -> bool:
    """Whether an operator computed this floating value; a view of what it read is no new number."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0 and _memory(value) not in read
