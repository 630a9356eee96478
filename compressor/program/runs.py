"""A program run as a yardstick: in its own precision, in float64, and with roundings put in; it must never judge.

Every run draws the same random numbers, so that a network that is random in evaluation can be compared with itself.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node
from torch.utils import _pytree as pytree

from compressor.program.agreement import Evidence, Outputs, leaves
from compressor.program.module import ProgramModule
from compressor.program.precision import default_type, writes_in_place
from compressor.program.program import Program

aten = torch.ops.aten

_AROUND_ONE = frozenset(
    {
        aten.sigmoid.default, aten.hardsigmoid.default, aten.tanh.default, aten.erf.default, aten.softplus.default,
        aten.log_sigmoid.default, aten.elu.default, aten.celu.default, aten.selu.default, aten.silu.default,
        aten.gelu.default, aten.mish.default, aten.hardswish.default,
    }
)  # fmt: skip
"""Functions that runtimes compute around 1/2 or 1: a result next to 0 holds the rounding of that, not of itself."""


@contextlib.contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """torch's random numbers from `seed` on; afterwards the caller's own go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Yardstick:
    """A program whose outputs others are compared with; it runs in evaluation mode and shares the program's tensors."""

    program: Program

    def own(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs in the program's own precision."""
        return self._run(self._own, inputs, None)

    def exact(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs in float64, by the same tensors."""
        return self._run(self._exact, inputs, torch.float64)

    def shaken(self, inputs: Sequence[Tensor], precision: torch.dtype = torch.float32) -> list[Tensor]:
        """The float64 outputs with one rounding of `precision`, of random sign, after each operator."""
        return self._run(_Shaken(self._exact, torch.finfo(precision).eps / 2).run, inputs, torch.float64)

    def evidence(self, inputs: Sequence[Tensor], other: Any, again: Callable[[], Outputs] | None = None) -> Evidence:
        """Those runs beside `other`: whatever another computation of the network made of the same inputs."""
        own = self.own(inputs)
        floating = [x.dtype for x in own if x.is_floating_point()]
        precision = max(floating, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)
        return Evidence(own, leaves(other), lambda: self.exact(inputs), lambda: self.shaken(inputs, precision), again)

    @cached_property
    def _own(self) -> ProgramModule:
        module = self.program.module
        if writes_in_place(module.graph):
            return module.clone().eval()
        return ProgramModule(module.tensors(), copy.deepcopy(module.graph)).eval()

    @cached_property
    def _exact(self) -> ProgramModule:
        return self.program.module.in_precision(torch.float64).eval()

    @staticmethod
    @torch.no_grad()
    def _run(run: Callable[..., Any], inputs: Sequence[Tensor], dtype: torch.dtype | None) -> list[Tensor]:
        given = [x.to(dtype) if dtype is not None and x.is_floating_point() else x for x in inputs]
        with seeded(), default_type(dtype or torch.get_default_dtype()):
            return leaves(run(*given))


class _Shaken(fx.Interpreter):
    """Runs a float64 graph and moves every floating result by one rounding, up or down at random."""

    def __init__(self, module: ProgramModule, rounding: float) -> None:
        super().__init__(module)
        self.rounding = rounding
        self.generator = torch.Generator().manual_seed(1)

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.op != "call_function":
            return result
        read = {_memory(x) for x in pytree.tree_leaves(self.fetch_args_kwargs_from_env(n)) if isinstance(x, Tensor)}
        return pytree.tree_map(lambda x: self._moved(x, n) if _is_made(x, read) else x, result)

    def _moved(self, value: Tensor, node: Node) -> Tensor:
        """Sums round by the size of their terms, which the largest result stands for; all else by its own."""
        size = value.abs()
        if node.target in _AROUND_ONE:
            size = size.clamp(min=1.0)
        elif torch.Tag.pointwise not in getattr(node.target, "tags", ()):
            finite = size[size.isfinite()]
            size = torch.full_like(size, float(finite.max()) if finite.numel() else 0.0)
        signs = torch.randint(0, 2, value.shape, generator=self.generator).to(value.dtype) * 2 - 1
        return value + self.rounding * size.nan_to_num(0.0, 0.0, 0.0) * signs


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_made(value: Any, read: set[int]) -> bool:
    """Whether an operator computed this floating value; a view of what it read is no new number."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0 and _memory(value) not in read
