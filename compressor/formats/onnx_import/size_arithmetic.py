"""What operators do to integer arrays that depend on the batch: the shape arithmetic that exporters write into a graph.

It must never hold how they work on tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.pointwise import DTYPES, cast
from compressor.formats.onnx_import.reduce import reduction
from compressor.formats.onnx_import.table import Op, imports_sizes
from compressor.formats.onnx_import.values import Size, Sizes, Value, combined, entries_of, of_entries, value_at

_python: Any = operator
_torch: Any = torch
"""Both say nothing about the arguments of some of their functions."""


def _is_negative(number: Any) -> bool:
    """Whether it is below 0 at a trial: the smallest batch is among them, and one larger than any that is used."""
    n_trials = len(number.values) if isinstance(number, Size) else 1
    return any(value_at(number, trial) < 0 for trial in range(n_trials))


def _cut_quotient(a: Any, b: Any) -> Any:
    """a / b cut towards zero, as ONNX divides integers; Python floors."""
    floored = combined(_python.floordiv, a, b)
    if not (_is_negative(a) or _is_negative(b)):
        return floored
    ceiled = combined(operator.mul, combined(_python.floordiv, combined(operator.mul, a, -1), b), -1)
    alike = combined(operator.ge, combined(operator.mul, a, b), 0)
    return combined(_torch.sym_ite, alike, floored, ceiled)


def _cut_remainder(a: Any, b: Any) -> Any:
    """What is left of a after that quotient: it has the sign of a."""
    return combined(operator.sub, a, combined(operator.mul, _cut_quotient(a, b), b))


def _magnitude(a: Any) -> Any:
    return combined(_torch.sym_max, a, combined(operator.mul, a, -1))


def _operation(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: combined(function, a, b)


_ON_SIZES: dict[str, Callable[[Any, Any], Any]] = {
    "Add": _operation(operator.add), "Sub": _operation(operator.sub), "Mul": _operation(operator.mul),
    "Div": _cut_quotient, "Mod": _operation(operator.mod), "Min": _operation(_torch.sym_min),
    "Max": _operation(_torch.sym_max),
}  # fmt: skip


@imports_sizes(*_ON_SIZES)
def size_arithmetic(ctx: Emitter, op: Op) -> Value:
    """The same on integers, by nodes that compute it for every batch."""
    function = _cut_remainder if op.get("fmod", 0) else _ON_SIZES[op.kind]
    found = entries_of(op.needed(0))
    for value in op.inputs[1:]:
        assert value is not None
        found = np.frompyfunc(function, 2, 1)(found, entries_of(value))
    return of_entries(found, op.outputs[0], op.needed(0).dtype)


_ALONE: dict[str, Callable[[Any], Any]] = {"Neg": lambda a: combined(operator.mul, a, -1), "Abs": _magnitude}


@imports_sizes(*_ALONE)
def size_alone(ctx: Emitter, op: Op) -> Value:
    """The same on integers."""
    found = np.frompyfunc(_ALONE[op.kind], 1, 1)(entries_of(op.needed(0)))
    return of_entries(found, op.outputs[0], op.needed(0).dtype)


@imports_sizes("Clip")
def size_clip(ctx: Emitter, op: Op) -> Value:
    """The entries between two bounds."""
    found = entries_of(op.needed(0))
    for position, kind in ((1, "Max"), (2, "Min")):
        bound = op.given(position)
        found = found if bound is None else np.frompyfunc(_ON_SIZES[kind], 2, 1)(found, entries_of(bound))
    return of_entries(found, op.outputs[0], op.needed(0).dtype)


_SIZE_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "Equal": operator.eq, "Greater": operator.gt, "GreaterOrEqual": operator.ge, "Less": operator.lt,
    "LessOrEqual": operator.le,
}  # fmt: skip


@imports_sizes(*_SIZE_COMPARISONS)
def size_comparison(ctx: Emitter, op: Op) -> Value:
    """The answer where it is the same at every batch, otherwise a node that gives it."""
    function = np.frompyfunc(_operation(_SIZE_COMPARISONS[op.kind]), 2, 1)
    return of_entries(function(entries_of(op.needed(0)), entries_of(op.needed(1))), op.outputs[0], torch.bool)


@imports_sizes("Where")
def size_choice(ctx: Emitter, op: Op) -> Value:
    """Entries of one or the other."""
    condition, x, y = (entries_of(op.needed(i)) for i in range(3))
    return of_entries(np.frompyfunc(_chosen, 3, 1)(condition, x, y), op.outputs[0], op.needed(1).dtype)


def _chosen(condition: Any, a: Any, b: Any) -> Any:
    return combined(_torch.sym_ite, condition, a, b) if isinstance(condition, Size) else (a if condition else b)


@imports_sizes("Cast", "Identity")
def size_cast(ctx: Emitter, op: Op) -> Value:
    """Sizes stay whole numbers, as floats too; a cast of or to truth values makes a tensor of them."""
    x = op.needed(0)
    if not isinstance(x, Sizes) or op.kind == "Identity":
        return x
    dtype = DTYPES.get(op.get("to"))
    if x.dtype != torch.bool and dtype in (torch.int64, torch.int32, torch.float32, torch.float64):
        return Sizes(x.entries, dtype)
    return cast(ctx, Op(op.kind, op.name, (ctx.tensor_of(x),), op.outputs, op.attributes, op.opset))


@imports_sizes("Floor", "Ceil", "Round")
def size_rounding(ctx: Emitter, op: Op) -> Value:
    """Nothing: they are whole."""
    return op.needed(0)


_REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "ReduceProd": _ON_SIZES["Mul"], "ReduceSum": _ON_SIZES["Add"], "ReduceMin": _ON_SIZES["Min"],
    "ReduceMax": _ON_SIZES["Max"],
}  # fmt: skip


@imports_sizes(*_REDUCTIONS)
def size_reduction(ctx: Emitter, op: Op) -> Value:
    """The product, sum or extremum of a vector's entries; of more dimensions on a tensor of them."""
    x = op.needed(0)
    entries = entries_of(x)
    if entries.ndim != 1 or (not op.axes() and op.get("noop_with_empty_axes", 0)):
        return reduction(ctx, op)  # type: ignore[return-value]
    total = np.frompyfunc(_REDUCTIONS[op.kind], 2, 1).reduce(entries)
    return of_entries([total] if op.get("keepdims", 1) else total, op.outputs[0], x.dtype)
