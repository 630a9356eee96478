"""The one walk over a graph that labels every value; it must never hold a rule for an operator.

Shapes are known beforehand, so nothing is computed but labels. An operator without a rule pins everything that
reaches it and is counted: never a guess.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch.fx import Node
from torch.fx.node import map_arg

from compressor.asking import WalkOptions
from compressor.axes import (
    rules_contract,
    rules_distance,
    rules_move,
    rules_norm,
    rules_place,
    rules_pointwise,
    rules_recurrent,
    rules_reduce,
)
from compressor.axes.heads import find_channel_splits, find_head_splits
from compressor.axes.ids import Components, Ids, IdSpace
from compressor.axes.labels import Label, Value, Walked
from compressor.axes.table import RULES, Context, values_in
from compressor.narrowing import is_row
from compressor.program import Program, TensorShape, arguments, families
from compressor.program.spec import InputSpec

RULE_MODULES = (
    rules_contract, rules_distance, rules_recurrent, rules_move, rules_place, rules_norm, rules_pointwise, rules_reduce,
)  # fmt: skip


@dataclass(frozen=True)
class Walk:
    """Labels of every value by node name, ids of every tensor axis, and the resolved components.

    `axes` maps (tensor name, dimension) to ids, one per index. `unknown` counts operators without a rule; `heads` holds
    the ids that stand for whole attention heads, `unequal` pairs of widths of which a cut must not leave as many,
    `choices` what is chosen among, and how many are.
    """

    values: Mapping[str, Walked]
    axes: Mapping[tuple[str, int], Ids]
    components: Components
    unknown: Mapping[str, int]
    options: WalkOptions = field(default_factory=WalkOptions)
    heads: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    unequal: tuple[tuple[Ids, Ids], ...] = ()
    choices: tuple[tuple[Ids, int], ...] = ()


def walk(program: Program, options: WalkOptions | None = None) -> Walk:
    """Label the whole graph once.

    Raises:  ModelError if the graph does not fit its tensors.
    """
    shapes = program.shapes
    chosen = options or WalkOptions()
    splits = find_head_splits(program) if chosen.keep_heads else {}
    channels = find_channel_splits(program)
    ctx = Context(IdSpace(), None, options=chosen, head_splits=splits, channel_splits=channels)
    parameters, kernels = program.parameters, _kernels(program)
    values: dict[str, Walked] = {}
    axes: dict[tuple[str, int], Ids] = {}
    given = iter(program.inputs)
    for node in program.module.graph.nodes:
        ctx.node, ctx.out = node.name, shapes.get(node.name)
        if node.op == "placeholder":
            values[node.name] = _input(ctx, next(given))
        elif node.op == "get_attr":
            name = str(node.target)
            values[node.name] = _tensor(ctx, name, axes, masked=name in parameters, is_kernel=name in kernels)
        elif node.op == "call_function":
            values[node.name] = _apply(ctx, node, values)
        else:
            map_arg(node.args, lambda n: ctx.pin_values(values[n.name], "output of the network"))
    heads = np.concatenate([np.zeros(0, dtype=np.int64), *(ids.ravel() for ids in ctx.heads)])
    unequal, choices = tuple(ctx.unequal), tuple(ctx.choices)
    return Walk(values, axes, ctx.resolve(), dict(ctx.unknown), chosen, heads, unequal, choices)


def _input(ctx: Context, spec: InputSpec) -> Value:
    """Channels (dimension 1, or the features of a matrix) carry pinned ids, so that their readers know the reason."""
    sizes = ctx.out.sizes
    why = "it comes from an input of the network"
    if len(sizes) < 2 or not spec.torch_dtype.is_floating_point or sizes[1] == 1:
        return Value(sizes, why=why)
    ids = ctx.pinned_ids(sizes[1], "input of the network")
    return Value(sizes, (Label((1,), ids, False),), why=why)


def _kernels(program: Program) -> set[str]:
    """Tensors that a convolution has for its weight, or that its weight is made of element by element.

    Their windows may not go, and that has to be known before a network reads them flat (spectral norm does).
    """
    found: set[str] = set()
    for node in program.module.graph.nodes:
        if node.target not in families.CONVOLUTIONS and node.target not in families.TRANSPOSED_CONVOLUTIONS:
            continue
        weight = arguments(node)["weight"]
        sizes, waiting = program.shapes.get(weight.name), [weight]
        while waiting:
            source = waiting.pop()
            if source.op == "get_attr" and program.shapes.get(source.name) == sizes:
                found.add(str(source.target))
            elif source.op == "call_function" and families.works_by_element(source.target):
                waiting.extend(source.all_input_nodes)
    return found


def _tensor(
    ctx: Context, name: str, axes: dict[tuple[str, int], Ids], *, masked: bool, is_kernel: bool = False
) -> Value:
    """Fresh ids for each axis of a parameter or buffer; an axis of one index has nothing to remove.

    Masks cut parameters only: what a buffer holds at a removed position is still there in the masked model.
    """
    sizes = ctx.out.sizes
    labels: list[Label] = []
    for dim, size in enumerate(sizes):
        ids = axes.get((name, dim))
        if ids is None:
            if is_kernel and dim > 1:
                ids = ctx.pinned_ids(size, "kernel window")
            else:
                ids = ctx.ids.new(size) if size > 1 else ctx.pinned_ids(size, "the only index")
            axes[name, dim] = ids
        if size > 1:
            labels.append(Label((dim,), ids, masked))
    return Value(sizes, tuple(labels))


def _apply(ctx: Context, node: Node, values: Mapping[str, Walked]) -> Walked:
    walked: Any = values  # map_arg is typed for nodes only
    bound: dict[str, Any] = map_arg(arguments(node), lambda n: walked[n.name])
    if node.target is operator.getitem:
        return bound["self"][bound["index"]]
    if not _has_tensor(ctx.out):
        return ctx.out
    found = RULES.get(node.target)
    if found is None and families.is_pointwise(node.target) and isinstance(ctx.out, TensorShape):
        found = rules_pointwise.pointwise
    if found is not None:
        return _placed(ctx, node, _told(found(ctx, node, bound), bound), bound)
    return _unknown(ctx, node, bound)


def _placed(ctx: Context, node: Node, walked: Walked, bound: dict[str, Any]) -> Walked:
    """The result of a rule, told what its numbers are positions among, if they are those of its one operand that has
    such. What reads them in another way sees how many there are, or which: there all stay."""
    read = [value for value in values_in(bound) if value.places is not None]
    if not read or node.target in families.LOOKS_UP:
        return walked
    if len(read) == 1 and node.target in families.SAME_NUMBERS:
        return _with_places(walked, read[0].places)
    for value in read:
        ctx.pin_values(value, f"their numbers are read by {families.operator_name(node.target)}")
    return walked


def _with_places(walked: Walked, places: Ids | None) -> Walked:
    if isinstance(walked, tuple):
        return tuple(_with_places(part, places) for part in walked)
    return replace(walked, places=places) if isinstance(walked, Value) else walked


def _told(walked: Walked, bound: dict[str, Any]) -> Walked:
    """The result of a rule; where nothing of it has labels, with what is told of its operands."""
    if isinstance(walked, tuple):
        return tuple(_told(part, bound) for part in walked)
    if not isinstance(walked, Value) or walked.labels or walked.why:
        return walked
    why = next((value.why for value in values_in(bound) if value.why), "")
    return replace(walked, why=why) if why else walked


def _unknown(ctx: Context, node: Node, bound: dict[str, Any]) -> Walked:
    if any(value.labels or value.places is not None for value in values_in(bound)):
        ctx.unknown[str(node.target)] = ctx.unknown.get(str(node.target), 0) + 1
        ctx.pin_values(bound, f"no axis rule for {node.target}")
    return _bare(ctx.out, f"no axis rule for {node.target}")


def _bare(shape: Any, why: str) -> Walked:
    if isinstance(shape, TensorShape):
        return Value(shape.sizes, why=why)
    return tuple(_bare(part, why) for part in shape) if is_row(shape) else shape


def _has_tensor(shape: Any) -> bool:
    if is_row(shape):
        return any(_has_tensor(part) for part in shape)
    return isinstance(shape, TensorShape)
