"""The first operator at which an imported program leaves the file it came from; it must never run that file itself.

Every operator is given what the runtime gave to its node, so that no rounding adds up and no near-tie spreads: one that
was imported wrongly differs alone. If none does, the program is right, however far apart the outputs are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.fx import Node
from torch.utils import _pytree as pytree

from compressor.errors import innermost_line
from compressor.program import Program, default_type
from compressor.program.agreement import Agreement, Evidence, judge, leaves

_LIMIT = 1e-5
_ROUNDING = float(torch.finfo(torch.float32).eps) / 2


@dataclass(frozen=True)
class Trace:
    """Where a node's value is in the file: its name there, and the node that computes it."""

    value: str
    operator: str


@dataclass(frozen=True)
class Difference:
    """A value that differs from that in the file, though it was computed from the same."""

    trace: Trace
    agreement: Agreement


class _FoundError(Exception):
    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.trace.operator)
        self.difference = difference


@torch.no_grad()
def first_difference(
    program: Program,
    traces: Mapping[str, tuple[Trace, ...]],
    inputs: Sequence[Tensor],
    values: Mapping[str, np.ndarray],
    outputs: Sequence[str],
) -> Difference | None:
    """The first value that differs; None if none does.

    `traces` are by the program's nodes: first what a node computes, then other names of it. `values` are those of the
    file by name, computed from `inputs`, and `outputs` the names of its outputs among them.
    """
    try:
        found = leaves(_Forced(program, traces, values).run(*inputs))
    except _FoundError as stop:
        return stop.difference
    for own, name in zip(found, outputs, strict=True):
        agreement = compared(own, values[name])
        if not agreement.passed:
            return Difference(Trace(name, f"the output {name}"), agreement)
    return None


def compared(own: Tensor, value: np.ndarray, exact: Any = None) -> Agreement:
    """One value beside that of the file: its type, its shape, its numbers."""
    (other,) = leaves(value)
    if not _is_like(own, value):
        return _fault(f"{described(own)} here, {described(other)} there")
    if bool(((own == other) | ((own != own) & (other != other))).all()):  # numbers, or NaN on both sides
        return Agreement(0.0, 0.0, _LIMIT)
    return judge([Evidence([own], [other], exact, None if exact is None else lambda: [_shaken(exact()[0])])], _LIMIT)


def _is_like(own: Tensor, value: np.ndarray) -> bool:
    (other,) = leaves(value)
    return (own.dtype, own.shape) == (other.dtype, other.shape)


def _fault(text: str) -> Agreement:
    return Agreement(float("inf"), float("inf"), _LIMIT, fault=text)


def described(tensor: Tensor) -> str:
    """`float32 2x10`: what kind of tensor it is."""
    sizes = "x".join(map(str, tensor.shape)) or "of one element"
    return f"{str(tensor.dtype).removeprefix('torch.')} {sizes}"


def _shaken(exact: Tensor) -> Tensor:
    """One rounding away: of the number itself, or of the 1 that runtimes compute a small one around."""
    return exact + _ROUNDING * exact.abs().clamp(min=1.0)


class _Forced(fx.Interpreter):
    """Runs a program, and gives every node that is in the file what its operands are there."""

    def __init__(
        self, program: Program, traces: Mapping[str, tuple[Trace, ...]], values: Mapping[str, np.ndarray]
    ) -> None:
        super().__init__(program.module)
        self._traces, self._values = traces, values

    def run_node(self, n: Node) -> Any:
        traces = [trace for trace in self._traces.get(n.name, ()) if trace.value in self._values]
        try:
            result = super().run_node(n)
        except Exception as error:  # torch raises anything from IndexError to its own C++ errors here
            if not traces:
                raise
            raise _FoundError(Difference(traces[0], _fault(f"torch cannot run it: {innermost_line(error)}"))) from error
        if not traces or not isinstance(result, Tensor):
            return result
        exact = (lambda: [self._exact(n)]) if n.op == "call_function" and result.is_floating_point() else None
        for trace in traces:
            value = self._values[trace.value]
            agreement = compared(result, value, exact)
            if not agreement.passed and not (_is_like(result, value) and self._reads_nan(n)):
                raise _FoundError(Difference(trace, agreement))
            (result,), exact = leaves(value), None  # another name of it must have the very same numbers
        return result

    def _reads_nan(self, node: Node) -> bool:
        """Whether an operand holds a NaN, of which ONNX does not say what a maximum or a sign is."""
        operands = pytree.tree_leaves(self.fetch_args_kwargs_from_env(node))
        return any(isinstance(x, Tensor) and x.is_floating_point() and bool(x.isnan().any()) for x in operands)

    def _exact(self, node: Node) -> Tensor:
        """The node's result in float64."""
        args, kwargs = pytree.tree_map(_widened, self.fetch_args_kwargs_from_env(node))
        with default_type(torch.float64):
            return node.target(*args, **kwargs)  # type: ignore[operator]


def _widened(part: Any) -> Any:
    if isinstance(part, torch.dtype):
        return torch.float64 if part.is_floating_point else part
    return part.double() if isinstance(part, Tensor) and part.is_floating_point() else part
