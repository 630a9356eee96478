"""A graph run operator by operator, with foreign decisions and roundings put in; it must never judge what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node
from torch.utils import _pytree as pytree

from compressor.program import families
from compressor.program.decisions import Kind, bound, compared, decides, decision, fitted, kind_of, redecided, saturated
from compressor.program.module import ProgramModule


@dataclass(frozen=True)
class Decided:
    """What an operator chose, drew or rounded to, and what kind of decision that was; the operand if it saturates."""

    kind: Kind
    value: Tensor
    operand: Tensor | None = None


def as_foreign(decided: Mapping[str, Decided]) -> dict[str, Tensor]:
    """What one graph decided, as foreign decisions for another one, by the names of the operators."""
    operands = {operand_of(name): part.operand for name, part in decided.items() if part.operand is not None}
    return {name: part.value for name, part in decided.items()} | operands


def operand_of(name: str) -> str:
    """Where the operand of a saturated operator stands among foreign decisions."""
    return f"the operand of {name}"


class Replay(fx.Interpreter):
    """Runs a graph operator by operator, with foreign decisions and a rounding after each operator put in.

    `decided` holds what the graph decides itself. `best` holds what each foreign decision was chosen from, `taken` what
    it chose; beside the result of a saturated operator its operand, under the name that `operand_of` gives.
    """

    def __init__(
        self, module: ProgramModule, foreign: Mapping[str, Tensor] | None = None, rounding: float = 0.0
    ) -> None:
        super().__init__(module)
        self.rounding = rounding
        self.foreign = foreign or {}
        self._saturated = saturated(list(module.graph.nodes))
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
        if self.rounding:
            read = {_memory(x) for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)}

            def rounded(x: Any) -> Any:
                return self._rounded(x, n.target, args) if _is_made(x, read) else x

            result = pytree.tree_map(rounded, result)
        return self._taken_over(n, args[0], result) if n.name in self._saturated else result

    def _decided(self, node: Node, kind: Kind, given: Mapping[str, Any], result: Any) -> Any:
        own = decision(result)
        self.decided[node.name] = Decided(kind, own)
        foreign = self.foreign.get(node.name)
        foreign = None if foreign is None else fitted(kind, given, result, foreign)
        if foreign is None:
            return result
        self.best[node.name], self.taken[node.name] = compared(kind, node, given, result, foreign)
        return redecided(kind, given, result, foreign)

    def _taken_over(self, node: Node, operand: Tensor, result: Tensor) -> Tensor:
        """The foreign result of a saturated operator, if there is one, and its operand."""
        self.decided[node.name] = Decided("saturation", result, operand)
        names = (node.name, operand_of(node.name))
        foreign = [self.foreign.get(name) for name in names]
        if any(value is None or value.shape != result.shape for value in foreign):
            return result
        for name, own in zip(names, (result, operand), strict=True):
            self.best[name], self.taken[name] = own, self.foreign[name]
        return self.foreign[node.name].to(result.dtype)

    def _rounded(self, value: Tensor, target: Any, args: Sequence[Any]) -> Tensor:
        """Sums round by the size of their terms, which the largest result stands for; most else by its own."""
        size = value.abs()
        if target in families.AROUND_ONE:
            size = size.clamp(min=1.0)
        elif target in families.GATED:
            size = torch.maximum(size, args[0].abs())
        elif target in families.SUMS:
            finite = size[size.isfinite()]
            size = torch.full_like(size, float(finite.max()) if finite.numel() else 0.0)
        signs = torch.randint(0, 2, value.shape, generator=self._generator).to(value.dtype) * 2 - 1
        return value + self.rounding * size.nan_to_num(0.0, 0.0, 0.0) * signs


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_made(value: Any, read: set[int]) -> bool:
    """Whether an operator computed this floating value; a view of what it read is no new number."""
    return isinstance(value, Tensor) and value.is_floating_point() and _memory(value) not in read
