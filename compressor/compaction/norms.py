"""Means and normalisations that lost positions, written out with the divisor they had; it must never decide what goes.

Exact (`WalkOptions.through_norm`): C0 positions before, C left, all removed ones 0. With u = x / sqrt(C0), summed over
what is left,

    mean = Σ u / C0        (of u)
    var  = Σ u·(u − mean)  = Σ (x − mean_x)² / C0 + (C0 − C) / C0 · mean_x²   (of x, over all C0)

Three properties decide for this form. A removed position contributes 0 to every sum, so no constant depends on C and
the result can be pruned again by the plain rules for sums. The zeros make var at least (C0 − C) / C0 · mean_x², so the
relative error stays below C0 / (C0 − C) roundings (Σ x² / C0 − mean² squares the operands first and is worse). And
dividing by sqrt(C0) first keeps half precision from overflowing in the sums.

A norm without a mean needs none of that: x / sqrt(Σ x² / C0 + eps) is the norm over C positions with eps · C0/C, times
sqrt(C0/C), which its weight takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from compressor.axes import Ids, Keep, UnitMap, Value
from compressor.compaction.slicing import Sizes, rewrites
from compressor.errors import ModelError
from compressor.program import Program, arguments, families, layer_name, set_argument

aten = torch.ops.aten

_TAKE_MEANS = families.FEATURE_NORMS | families.GROUP_NORM | families.MEAN


def rescaled_norms(program: Program, units: UnitMap, keep: Keep) -> tuple[str, ...]:
    """Names of the means and normalisations whose divisor shrinks under `keep`: the result will not equal the masked
    model there. Empty unless the walk was told to rescale. Shapes: keep (n_units,)"""
    if units.walk.options.through_norm != "rescale":
        return ()
    sizes = Sizes(units, keep)
    nodes = (node for node in program.module.graph.nodes if node.op == "call_function")
    return tuple(_name(node) for node in nodes if _lost(node, sizes))


def _name(node: Node) -> str:
    weight = arguments(node).get("weight")
    return layer_name(str(weight.target)) if isinstance(weight, Node) else node.meta.get("where") or node.name


def _lost(node: Node, sizes: Sizes) -> tuple[int, ...]:
    """Dimensions that a mean or a variance is taken over and that get shorter."""
    if node.target not in _TAKE_MEANS:
        return ()
    bound = arguments(node)
    source = sizes.value(bound["input"] if "input" in bound else bound["self"])
    assert isinstance(source, Value)
    if node.target in families.FEATURE_NORMS:
        over: Sequence[int] = range(source.rank - len(bound["normalized_shape"]), source.rank)
    elif node.target in families.GROUP_NORM:
        per_group = sizes.kept(source, 1).reshape(bound["num_groups"], -1)
        over = [1] if (per_group != per_group[:, :1]).any() else []
    else:
        over = [source.normal_dim(dim) for dim in bound.get("dim") or range(source.rank)]
    return tuple(dim for dim in over if not sizes.kept(source, dim).all())


def _writer(node: Node) -> Callable[..., Node]:
    """Makes calls in front of `node`, at its place in the user's source."""

    def write(target: Any, *args: Any, **kwargs: Any) -> Node:
        with node.graph.inserting_before(node):
            new = node.graph.call_function(target, args, kwargs)
        new.meta = {"where": node.meta.get("where", "")}
        return new

    return write


def _become(node: Node, last: Node) -> None:
    """Let `node` be the call that `last` is, so that its name and its readers stay."""
    node.target, node.args, node.kwargs = last.target, last.args, last.kwargs
    node.graph.erase_node(last)


@rewrites(families.FEATURE_NORMS)
def _layer_norm(node: Node, sizes: Sizes) -> None:
    dims = _lost(node, sizes)
    if not dims:
        return
    value, bound, write = sizes.value(node), arguments(node), _writer(node)
    assert isinstance(value, Value)
    n = len(bound["normalized_shape"])
    if sizes.options.through_norm == "rescale":
        set_argument(node, "normalized_shape", list(sizes.of(value)[-n:]))
        return
    over = list(range(value.rank - n, value.rank))
    centred = node.target in families.LAYER_NORM
    if not centred and bound["weight"] is not None and bound["eps"] is not None:
        share = math.prod(value.sizes[-n:]) / math.prod(sizes.of(value)[-n:])
        set_argument(node, "normalized_shape", list(sizes.of(value)[-n:]))
        set_argument(node, "eps", float(bound["eps"]) * share)
        set_argument(node, "weight", write(aten.mul.Tensor, bound["weight"], share**0.5))
        return
    eps: Any = bound["eps"]
    result = _standardised(write, bound["input"], over, math.prod(value.sizes[-n:]), eps, centred)
    _become(node, _scaled(write, result, bound["weight"], bound.get("bias")))


def _standardised(
    write: Callable[..., Node], x: Node, dims: list[int], n_dense: int, eps: float, centred: bool = True
) -> Node:
    """(x − mean) / sqrt(var + eps) over `dims` as if `n_dense` positions were there; x / sqrt(mean of x² + eps) if not
    `centred`."""
    u = write(aten.mul.Tensor, x, n_dense**-0.5)
    away = u
    if centred:
        total = write(aten.sum.dim_IntList, u, dims, True)
        away = write(aten.sub.Tensor, u, write(aten.div.Tensor, total, float(n_dense)))
    variance = write(aten.sum.dim_IntList, write(aten.mul.Tensor, u, away), dims, True)
    inverse = write(aten.rsqrt.default, write(aten.add.Tensor, variance, eps))
    return write(aten.mul.Tensor, away, write(aten.mul.Tensor, inverse, n_dense**0.5))


def _scaled(write: Callable[..., Node], x: Node, weight: Node | None, bias: Node | None) -> Node:
    if weight is not None:
        x = write(aten.mul.Tensor, x, weight)
    return x if bias is None else write(aten.add.Tensor, x, bias)


def _check_widths(node: Node, widths: Ids) -> None:
    """Groups that stay are equally wide: a group norm has no other form. Shapes: widths (groups,)"""
    found = np.unique(widths[widths > 0])
    if len(found) > 1:
        raise ModelError(
            f"{_name(node)}: its groups would be {', '.join(map(str, found))} channels wide after removal, and it has"
            " only one width for all; this is a bug in an axis rule, please report the model\nnothing was written"
        )


@rewrites(families.GROUP_NORM)
def _group_norm(node: Node, sizes: Sizes) -> None:
    """Whole groups go and leave the others as they are; else all of them lose the same offsets."""
    bound, write = arguments(node), _writer(node)
    value, source = sizes.value(node), sizes.value(bound["input"])
    assert isinstance(value, Value) and isinstance(source, Value)
    groups, left, lost = bound["num_groups"], sizes.of(source), _lost(node, sizes)
    widths = sizes.kept(source, 1).reshape(groups, -1).sum(1)
    _check_widths(node, widths)
    if not lost:
        set_argument(node, "num_groups", int((widths > 0).sum()))
        return
    if sizes.options.through_norm == "rescale":
        return
    grouped = write(aten.reshape.default, bound["input"], [-1, groups, left[1] // groups, *left[2:]])
    n_dense = math.prod(source.sizes[1:]) // groups
    over = list(range(2, source.rank + 1))
    standardised = _standardised(write, grouped, over, n_dense, bound["eps"])
    flat = write(aten.reshape.default, standardised, [-1, left[1], *left[2:]])
    shape = [left[1], *(1 for _ in left[2:])]
    scales = [bound[name] and write(aten.reshape.default, bound[name], shape) for name in ("weight", "bias")]
    _become(node, _scaled(write, flat, *scales))


def _root_mean_square(mean: Node) -> tuple[Node, Node, Node] | None:
    """Of x / sqrt(mean(x²) + eps) · weight the addition of eps, the product with the weight and the weight, where
    `mean` is that mean over the last dimension and the weight comes from parameters alone; None for any other mean."""
    bound = arguments(mean)
    if not bound.get("keepdim") or not isinstance(square := bound["self"], Node):
        return None
    add, x = _only_reader(mean), square.args[0] if square.args else None
    is_square = families.operator_name(square.target) == "pow" and square.args[1:] == (2,)
    if add is None or not is_square or add.target not in families.ADD or add.kwargs:
        return None
    inverse = _only_reader(add)
    product = _only_reader(inverse) if inverse is not None else None
    if inverse is None or families.operator_name(inverse.target) != "rsqrt" or product is None:
        return None
    scaled = product
    while (after := _only_reader(scaled)) is not None and after.target in families.CASTS:
        scaled = after
    if product.target not in families.MUL or x not in product.args or after is None or after.target not in families.MUL:
        return None
    weight = next((arg for arg in after.args if arg is not scaled), None)
    is_number = isinstance(add.args[1], (int, float)) and add.args[0] is mean
    return (add, after, weight) if is_number and isinstance(weight, Node) and _is_learned(weight) else None


def _only_reader(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_learned(node: Node) -> bool:
    """Whether a value is the same for every input."""
    waiting = [node]
    while waiting:
        now = waiting.pop()
        if now.op == "placeholder":
            return False
        waiting += now.all_input_nodes
    return True


def _plainly(add: Node, scale: Node, weight: Node, share: float) -> None:
    """A norm without a mean over what is left, as a norm of that width: weight · √(C0/C), eps · C0/C."""
    add.args = (add.args[0], float(add.args[1]) * share)  # type: ignore[arg-type]
    scale.replace_input_with(weight, _writer(scale)(aten.mul.Tensor, weight, share**0.5))


@rewrites(families.MEAN)
def _mean(node: Node, sizes: Sizes) -> None:
    """The sum over what is left, divided by what was there; the mean over the other dimensions stays one."""
    dims = _lost(node, sizes)
    if not dims or sizes.options.through_norm == "rescale":
        return
    bound, write = arguments(node), _writer(node)
    source = sizes.value(bound["self"])
    assert isinstance(source, Value)
    n_dense = float(math.prod(source.sizes[dim] for dim in dims))
    left = sizes.of(source)
    if (norm := _root_mean_square(node)) is not None and len(dims) == 1 and dims[0] == source.rank - 1:
        _plainly(*norm, n_dense / left[dims[0]])
        return
    over = [source.normal_dim(dim) for dim in bound.get("dim") or range(source.rank)]
    kind = {"dtype": bound["dtype"]} if bound["dtype"] is not None else {}
    if set(dims) == set(over):
        total = write(aten.sum.dim_IntList, bound["self"], over, bound.get("keepdim", False), **kind)
        _become(node, write(aten.div.Tensor, total, n_dense))
    else:
        total = write(aten.sum.dim_IntList, bound["self"], list(dims), True, **kind)
        set_argument(node, "self", write(aten.div.Tensor, total, n_dense))
