"""What operators do to integer arrays that depend on the batch: the shape arithmetic that exporters write into a graph.

It must never hold how they work on tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from compressor.errors import ModelError
from compressor.formats.onnx_import.emitter import Emitter
from compressor.formats.onnx_import.pointwise import DTYPES, cast
from compressor.formats.onnx_import.table import Op, imports_sizes
from compressor.formats.onnx_import.values import Size, Sizes, Value, entries_of, of_entries

_ON_SIZES: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.floordiv, "Mod": operator.mod,
}  # fmt: skip


@imports_sizes(*_ON_SIZES)
def size_arithmetic(ctx: Emitter, op: Op) -> Value:
    """The same on integers; sizes are not negative, so a cut division is a floored one."""
    function = np.frompyfunc(_ON_SIZES[op.kind], 2, 1)
    return of_entries(function(entries_of(op.needed(0)), entries_of(op.needed(1))), op.outputs[0])


_SIZE_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "Equal": operator.eq, "Greater": operator.gt, "GreaterOrEqual": operator.ge, "Less": operator.lt,
    "LessOrEqual": operator.le,
}  # fmt: skip
_MIRRORED: dict[str, Callable[[Any, Any], Any]] = {
    "Greater": operator.lt,
    "GreaterOrEqual": operator.le,
    "Less": operator.gt,
    "LessOrEqual": operator.ge,
}


@imports_sizes(*_SIZE_COMPARISONS)
def size_comparison(ctx: Emitter, op: Op) -> Value:
    """An answer that is the same at every batch."""
    function = _SIZE_COMPARISONS[op.kind]
    mirrored = _MIRRORED.get(op.kind, function)

    def answer(a: Any, b: Any) -> bool:
        if isinstance(a, Size):
            return a.compared(function, b)
        return b.compared(mirrored, a) if isinstance(b, Size) else bool(function(a, b))

    found = np.frompyfunc(answer, 2, 1)(entries_of(op.needed(0)), entries_of(op.needed(1)))
    return of_entries(found, op.outputs[0], torch.bool)


@imports_sizes("Where")
def size_choice(ctx: Emitter, op: Op) -> Value:
    """Entries of one or the other."""
    condition, x, y = (entries_of(op.needed(i)) for i in range(3))
    return of_entries(np.frompyfunc(lambda c, a, b: a if c else b, 3, 1)(condition, x, y), op.outputs[0])


@imports_sizes("Min", "Max")
def size_extremum(ctx: Emitter, op: Op) -> Value:
    """The smaller or larger entry, where that is the same one at every batch."""
    wanted = operator.lt if op.kind == "Min" else operator.gt

    def better(a: Any, b: Any) -> Any:
        if isinstance(a, Size):
            return a if a.compared(wanted, b) else b
        return (b if b.compared(wanted, a) else a) if isinstance(b, Size) else (a if wanted(a, b) else b)

    found = entries_of(op.needed(0))
    for value in op.inputs[1:]:
        assert value is not None
        found = np.frompyfunc(better, 2, 1)(found, entries_of(value))
    return of_entries(found, op.outputs[0])


@imports_sizes("Cast", "Identity")
def size_cast(ctx: Emitter, op: Op) -> Value:
    """Sizes stay integers; a cast to a float makes a tensor of them."""
    x = op.needed(0)
    if op.kind == "Cast" and DTYPES.get(op.get("to")) not in (torch.int64, torch.int32):
        return cast(ctx, Op(op.kind, op.name, (ctx.tensor_of(x),), op.outputs, op.attributes, op.opset))
    return Sizes(x.entries) if isinstance(x, Sizes) else x


@imports_sizes("ReduceProd", "ReduceSum")
def size_reduction(ctx: Emitter, op: Op) -> Value:
    """The product or sum of all entries along one dimension."""
    entries = entries_of(op.needed(0))
    function = np.multiply if op.kind == "ReduceProd" else np.add
    if entries.ndim != 1:
        raise ModelError("multiplies sizes of several dimensions")
    total = function.reduce(entries)
    return of_entries([total] if op.get("keepdims", 1) else total, op.outputs[0])
