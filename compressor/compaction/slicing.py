"""Removal of units: smaller tensors and rewritten shape arguments; it must never decide what goes.

A pass in the strict sense: program in, new program out. What every value must measure afterwards follows from its
labels, and the new graph is checked against that, node by node, before it is returned.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Node

from compressor.axes import Keep, UnitMap, Value, Walked
from compressor.compaction.removed import LayerChange
from compressor.errors import ModelError
from compressor.program import (
    Program,
    ProgramModule,
    TensorShape,
    arguments,
    families,
    find_layers,
    of_same_kind,
    set_argument,
)
from compressor.program.family import Family, Group, OperatorTable

aten = torch.ops.aten


class Sizes:
    """How long each dimension of each value will be."""

    def __init__(self, units: UnitMap, keep: Keep) -> None:
        self._units, self._keep = units, keep
        self.options = units.walk.options

    def kept(self, value: Value, dim: int) -> Keep:
        """Which positions along a dimension stay. Shapes: -> (size,)"""
        return self._units.kept_positions(self._keep, value, dim)

    def of(self, value: Value) -> tuple[int, ...]:
        return tuple(int(self.kept(value, dim).sum()) for dim in range(value.rank))

    def value(self, node: Any) -> Walked:
        return self._units.walk.values[node.name]


def slice_program(program: Program, units: UnitMap, keep: Keep, *, shapes_only: bool = False) -> Program:
    """The program without the units that `keep` drops; masks and tensors are cut, the graph is rewritten. With
    `shapes_only` matrices and kernels have no data: to be counted, never to be run.

    Shapes:  keep (n_units,)
    Raises:  ModelError if an operator's arguments cannot be rewritten (a bug in an axis rule; nothing is guessed).
    """
    sizes = Sizes(units, keep)
    graph = copy.deepcopy(program.module.graph)
    for node in list(graph.nodes):
        rewrite = REWRITES.get(node.target) if node.op == "call_function" else None
        if rewrite is not None:
            rewrite(node, sizes)
    source = program.module.tensors()
    if shapes_only:
        source = {name: _without_data(tensor) if tensor.dim() > 1 else tensor for name, tensor in source.items()}
    module = ProgramModule({name: _sliced(name, tensor, units, keep) for name, tensor in source.items()}, graph)
    cut = program.replace(module=module, masks=dict(_cut_masks(program.masks, units, keep)))
    _check_sizes(cut, sizes, units)
    return cut.replace(record=replace(program.record, **_kept_positions(program, units, keep)))


def layer_changes(before: Program, after: Program) -> tuple[LayerChange, ...]:
    """Every layer whose weight became smaller; () is the new shape of one that is gone."""
    new = after.module.tensors()
    changes = []
    for layer in find_layers(before):
        old_shape = tuple(before.module.tensors()[layer.weight].shape)
        new_shape = tuple(new[layer.weight].shape) if layer.weight in new else ()
        if old_shape != new_shape:
            changes.append(LayerChange(layer.name, old_shape, new_shape))
    return tuple(changes)


def cut_tensor(name: str, tensor: Tensor, units: UnitMap, keep: Keep) -> Tensor:
    """What is left of a tensor of that name. Shapes: keep (n_units,)"""
    left = tensor.detach()
    for dim in range(tensor.dim()):
        if (name, dim) in units.axes:
            kept = units.kept_along(keep, name, dim)
            if not kept.all():
                left = left.index_select(dim, torch.from_numpy(np.flatnonzero(kept)).to(tensor.device))
    return left if left.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr() else left.clone()


def _cut_masks(masks: Mapping[str, Tensor], units: UnitMap, keep: Keep) -> Iterator[tuple[str, Tensor]]:
    """What is left of each mask that still cuts something, one after another."""
    for name in masks:
        left = cut_tensor(name, masks[name], units, keep)
        if not left.all():
            yield name, left


def _without_data(tensor: Tensor) -> Tensor:
    return of_same_kind(torch.empty_like(tensor, device="meta"), tensor)


def _sliced(name: str, tensor: Tensor, units: UnitMap, keep: Keep) -> Tensor:
    return of_same_kind(cut_tensor(name, tensor, units, keep), tensor)


def _kept_positions(program: Program, units: UnitMap, keep: Keep) -> dict[str, Any]:
    """Original sizes and kept positions per parameter axis, seen from the first dense program."""
    shapes = dict(program.record.dense_shapes)
    kept_by_name = {name: dict(axes) for name, axes in program.record.kept.items()}
    for name, parameter in program.module.named_parameters():
        for dim in range(parameter.dim()):
            kept = units.kept_along(keep, name, dim)
            if kept.all():
                continue
            shapes.setdefault(name, list(parameter.shape))
            before = program.record.kept_along(name, dim, len(kept))
            kept_by_name.setdefault(name, {})[str(dim)] = [before[i] for i in np.flatnonzero(kept)]
    return {"dense_shapes": shapes, "kept": kept_by_name}


def _check_sizes(program: Program, sizes: Sizes, units: UnitMap) -> None:
    """Every value must measure what its labels say: the proof that rules and rewrites agree."""
    for name, shape in program.shapes.items():
        _check_size(name, shape, units.walk.values.get(name), sizes)


def _check_size(name: str, shape: Any, value: Walked, sizes: Sizes) -> None:
    if isinstance(shape, tuple) and isinstance(value, tuple):
        for part, part_value in zip(shape, value, strict=True):
            _check_size(name, part, part_value, sizes)
    elif isinstance(shape, TensorShape) and isinstance(value, Value) and shape.sizes != sizes.of(value):
        raise ModelError(
            f"{name}: measures {shape.sizes} after removal where {sizes.of(value)} was planned; this is a bug in the"
            " axis rule of its operator, please report the model\nnothing was written"
        )


Rewrite: TypeAlias = Callable[[Node, Sizes], None]
REWRITES: OperatorTable[Rewrite] = OperatorTable("a rewrite")


def rewrites(*operators: Family | Group | OpOverload) -> Callable[[Rewrite], Rewrite]:
    """Register how an operator's shape-bearing arguments follow a removal. Raises: ValueError as `axes.rule`."""
    return REWRITES.register(*operators)


def _bound(node: Node) -> Mapping[str, Any]:
    return arguments(node)


@rewrites(families.VIEW, families.RESHAPE, families.EXPAND, families.FILLED, families.UNFILLED)
def _sizes_argument(node: Node, sizes: Sizes) -> None:
    """Constant sizes become the new ones; one that is computed from the batch becomes -1 if it changes, or its share
    where a dimension is stretched to it or another size is inferred already."""
    name = "shape" if node.target in families.RESHAPE else "size"
    value = sizes.value(node)
    assert isinstance(value, Value)
    wanted, given = sizes.of(value), list(_bound(node)[name])
    for dim, size in enumerate(given):
        if isinstance(size, int):
            given[dim] = wanted[dim] if size != -1 else -1
        elif wanted[dim] != value.sizes[dim] and (node.target in families.EXPAND or -1 in _bound(node)[name]):
            given[dim] = _share_of(size, wanted[dim], value.sizes[dim], node)
        elif wanted[dim] != value.sizes[dim]:
            given[dim] = -1
    if given.count(-1) > 1 and "expand" not in node.name:
        raise ModelError(f"{node.name}: two sizes would have to be inferred after removal; keep this layer with --keep")
    set_argument(node, name, given)


@rewrites(families.UNFLATTEN)
def _unflatten(node: Node, sizes: Sizes) -> None:
    value, bound = sizes.value(node), _bound(node)
    assert isinstance(value, Value)
    first = bound["dim"] % (value.rank - len(bound["sizes"]) + 1)
    wanted = sizes.of(value)
    new = [wanted[first + i] if isinstance(s, int) and s != -1 else s for i, s in enumerate(bound["sizes"])]
    set_argument(node, "sizes", new)


@rewrites(families.SPLIT)
def _split(node: Node, sizes: Sizes) -> None:
    """Whatever the operator was, it becomes a split at the new boundaries, if any part changes."""
    parts, bound = sizes.value(node), _bound(node)
    source = sizes.value(bound["self"])
    assert isinstance(parts, tuple) and isinstance(source, Value)
    dim = source.normal_dim(bound["dim"])
    new = [sizes.of(part)[dim] for part in parts if isinstance(part, Value)]
    if new != [part.sizes[dim] for part in parts if isinstance(part, Value)]:
        node.target = aten.split_with_sizes.default
        node.args, node.kwargs = (bound["self"], new, dim), {}


@rewrites(families.REPEAT)
def _repeat(node: Node, sizes: Sizes) -> None:
    """A size of 1 is repeated as often as there are positions left; all others as often as before."""
    value, bound = sizes.value(node), _bound(node)
    assert isinstance(value, Value)
    name = "repeats" if "repeats" in bound else "dims"
    source, times = sizes.value(bound["self"]), list(bound[name])
    assert isinstance(source, Value)
    for i in range(1, min(len(times), value.rank) + 1):  # both are counted from the last dimension
        is_one = i > source.rank or source.sizes[-i] == 1
        kept = sizes.kept(value, value.rank - i)
        if is_one and not kept.all() and isinstance(times[-i], int):
            times[-i] = int(kept.sum())
    set_argument(node, name, times)


@rewrites(families.ONE_HOT)
def _one_hot(node: Node, sizes: Sizes) -> None:
    value = sizes.value(node)
    assert isinstance(value, Value)
    set_argument(node, "num_classes", sizes.of(value)[-1])


@rewrites(families.SLICE)
def _slice(node: Node, sizes: Sizes) -> None:
    bound = _bound(node)
    source = sizes.value(bound["self"])
    assert isinstance(source, Value)
    dim = source.normal_dim(bound["dim"])
    kept = sizes.kept(source, dim)
    if not kept.all():
        start, stop, _ = slice(bound["start"], bound["end"], 1).indices(len(kept))
        set_argument(node, "start", int(kept[:start].sum()))
        set_argument(node, "end", int(kept[:stop].sum()))


@rewrites(families.NARROW)
def _narrow(node: Node, sizes: Sizes) -> None:
    bound = _bound(node)
    source = sizes.value(bound["self"])
    assert isinstance(source, Value)
    kept = sizes.kept(source, source.normal_dim(bound["dim"]))
    if not kept.all():
        start = bound["start"] % len(kept)
        set_argument(node, "start", int(kept[:start].sum()))
        set_argument(node, "length", int(kept[start : start + bound["length"]].sum()))


@rewrites(families.SELECT)
def _select(node: Node, sizes: Sizes) -> None:
    """The position that is taken stays; those before it may go."""
    bound = _bound(node)
    source = sizes.value(bound["self"])
    assert isinstance(source, Value)
    kept = sizes.kept(source, source.normal_dim(bound["dim"]))
    if not kept.all():
        set_argument(node, "index", int(kept[: bound["index"] % len(kept)].sum()))


@rewrites(families.CONVOLUTIONS, families.TRANSPOSED_CONVOLUTIONS)
def _groups(node: Node, sizes: Sizes) -> None:
    """A depthwise convolution has as many groups as channels, even if the batch decides both; others keep theirs."""
    bound = _bound(node)
    weight, source, given = sizes.value(bound["weight"]), sizes.value(bound["input"]), bound["groups"]
    assert isinstance(weight, Value) and isinstance(source, Value)
    groups: Any = sizes.value(given) if isinstance(given, Node) else given
    if groups == 1 or not families.is_depthwise(node.target, weight.sizes, groups):
        return
    dim = source.rank - (weight.rank - 1)
    kept = sizes.kept(source, dim)
    if isinstance(given, int):
        set_argument(node, "groups", int(kept.sum()))
    elif not kept.all():
        set_argument(node, "groups", _share_of(given, int(kept.sum()), len(kept), node))


def _share_of(number: Node, kept: int, of: int, reader: Node) -> Node:
    """`kept / of` of a number that depends on the batch, as new nodes in front of its reader."""
    divisor = math.gcd(kept, of)
    with reader.graph.inserting_before(reader):
        times = reader.graph.call_function(operator.mul, (number, kept // divisor))
        share = reader.graph.call_function(operator.floordiv, (times, of // divisor))
    times.meta["where"] = share.meta["where"] = reader.meta.get("where", "")
    return share


@rewrites(families.PAD)
def _pad(node: Node, sizes: Sizes) -> None:
    """Padding of a labelled dimension shrinks with the padded channels that go."""
    value, bound = sizes.value(node), _bound(node)
    assert isinstance(value, Value)
    amounts = list(bound["pad"])
    for pair in range(len(amounts) // 2):
        dim = value.rank - 1 - pair
        before, after = amounts[2 * pair], amounts[2 * pair + 1]
        kept = sizes.kept(value, dim)
        if not kept.all() and (before or after):
            amounts[2 * pair] = int(kept[:before].sum())
            amounts[2 * pair + 1] = int(kept[len(kept) - after :].sum())
    set_argument(node, "pad", amounts)


@rewrites(families.SQUEEZE, families.SQUEEZE_DIMS)
def _squeeze(node: Node, sizes: Sizes) -> None:
    """One that shrinks to 1 must not vanish too; all others may, as a batch of one sample does in the masked model."""
    bound = _bound(node)
    source = sizes.value(bound["self"])
    assert isinstance(source, Value)
    given = bound.get("dim", range(source.rank))
    dims = sorted({source.normal_dim(dim) for dim in (given if isinstance(given, (list, range)) else [given])})
    stay = [dim for dim in dims if sizes.kept(source, dim).all()]
    if stay != dims:
        node.target = aten.squeeze.dims
        node.args, node.kwargs = (bound["self"], stay), {}
