"""Exported graph -> the one form that everything else may rely on; it must never change what the network computes.

After it: no in-place operator whose effect can be seen elsewhere or in the next call, no guards or no-op copies, one
name per tied tensor, an explicit `scale` for attention (its default depends on the head width, which pruning changes),
reshapes instead of views, and a short source location at `node.meta["where"]`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx import Node

from compressor.errors import ModelError
from compressor.program import families
from compressor.program.arguments import arguments, set_argument
from compressor.program.memory import views_of
from compressor.program.mutation import write_slices_out
from compressor.program.purity import shield, unshield, written_tensors
from compressor.typed_torch import Overload, is_overload
from compressor.users_code import innermost_line

aten = torch.ops.aten

_python: Any = operator
_torch: Any = torch
"""Both say nothing about the arguments of some of their functions."""

_CHECKS = (
    "_assert_scalar",
    "_assert_tensor_metadata",
    "_assert_async",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
)
_NOT_THE_USERS = ("/torch/", "/compressor/program/")
SIZE_ARITHMETIC: frozenset[Callable[..., Any]] = frozenset(
    {
        operator.getitem, operator.add, operator.sub, operator.mul, _python.floordiv, _python.truediv,
        operator.mod, _python.pow, operator.neg, operator.eq, operator.ne, operator.lt, operator.le, operator.gt,
        operator.ge, _python.and_, _python.or_, operator.pos, operator.abs, _torch.sym_max, _torch.sym_min,
        _torch.sym_int, _torch.sym_float, _torch.sym_not, _torch.sym_ite,
    }
)  # fmt: skip
"""Everything outside ATen that a program's graph may call: integer arithmetic on sizes and taking apart tuples."""


class Normalised(NamedTuple):
    """The graph, the further names of tied tensors, and the tensors that the network wrote, with the user's line."""

    graph: fx.Graph
    aliases: dict[str, str]
    written: dict[str, str]


def normalise(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> Normalised:
    """The normalised graph (edited in place) and what was learned on the way.

    Raises:  ModelError on a node that is no operator of torch's (a higher-order call, a module).
    """
    _remove_checks(graph)
    _keep_where(graph)
    _refuse_foreign_operators(graph)
    _remove_no_ops(graph)
    written = written_tensors(graph)
    copies = shield(graph)
    write_slices_out(graph, _functional_form, views_of)
    _make_functional(graph)
    unshield(graph, copies)
    _views_to_reshapes(graph)
    _pin_attention_scale(graph)
    _pin_norm_epsilon(graph)
    _remove_unread(graph)
    aliases = _merge_tied(graph, tensors)
    graph.lint()
    return Normalised(graph, aliases, written)


def _remove_checks(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        is_guard = node.op == "call_module" and str(node.target).startswith("_guards_fn")
        if is_guard or families.operator_name(node.target) in _CHECKS:
            graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and node.target in SIZE_ARITHMETIC:
            graph.erase_node(node)


def _keep_where(graph: fx.Graph) -> None:
    for node in graph.nodes:
        where = users_line(node.meta.get("stack_trace") or "")
        node.meta["where"] = where


def users_line(stack_trace: str) -> str:
    """`net.py:12 x = self.conv(x)`: the innermost frame that is the user's and not torch's; "" if there is none."""
    return innermost_line(stack_trace, lambda file: not any(part in file.replace("\\", "/") for part in _NOT_THE_USERS))


def _refuse_foreign_operators(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.op == "call_module" or (node.op == "call_function" and not _is_known(node)):
            where = node.meta.get("where") or node.name
            raise ModelError(f"{where}: {node.target} is not an operator that works on tensors; it cannot be analysed")


def _is_known(node: Node) -> bool:
    """A user's own operator is let in too: it can be analysed and pruned around, though no checkpoint can hold it."""
    return is_overload(node.target) or node.target in SIZE_ARITHMETIC


def foreign_operators(graph: fx.Graph) -> tuple[str, ...]:
    """Operators outside ATen, which no checkpoint can hold."""
    targets = (node.target for node in graph.nodes)
    return tuple(dict.fromkeys(str(target) for target in targets if is_overload(target) and target.namespace != "aten"))


def _make_functional(graph: fx.Graph) -> None:
    """`relu_(x)` -> `relu(x)`, later readers of x redirected; left alone where a view of x is read afterwards."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        functional = _functional_form(node)
        if functional is None:
            continue
        written = node.args[0]
        if not isinstance(written, Node) or _view_is_read_later(written, node, order):
            continue
        with graph.inserting_after(node):
            new = graph.call_function(functional, node.args, node.kwargs)
        new.meta = dict(node.meta)
        order[new] = order[node]
        node.replace_all_uses_with(new)
        for user in list(written.users):
            if user is not new and user is not node and order[user] > order[node]:
                user.replace_input_with(written, new)
        graph.erase_node(node)


def _functional_form(node: Node) -> Overload | None:
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return None
    packet, overload = schema.name.removeprefix("aten::"), schema.overload_name or "default"
    if not packet.endswith("_") or packet.startswith("_") or not schema.arguments[0].alias_info:
        return None
    found = getattr(getattr(aten, packet[:-1], None), overload, None)
    return found if is_overload(found) else None


def _view_is_read_later(written: Node, at: Node, order: Mapping[Node, int]) -> bool:
    """Whether another name of the same memory is read after the write."""
    family = views_of(written, at) - {written}
    return any(order[user] > order[at] for member in family for user in member.users)


def _remove_no_ops(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in families.NO_OP:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _views_to_reshapes(graph: fx.Graph) -> None:
    """A view demands one memory layout of its input; a reshape computes the same in any (channels-last training).

    Left alone where something is still written in place: a reshape may copy, and then the write would be lost.
    """
    if any(getattr(getattr(node.target, "_schema", None), "is_mutable", False) for node in graph.nodes):
        return
    for node in graph.nodes:
        if node.target in families.VIEW:
            sizes = arguments(node)["size"]
            node.target = aten.reshape.default
            node.args, node.kwargs = (node.args[0], sizes), {}


def _pin_attention_scale(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.target in families.ATTENTION and arguments(node)["scale"] is None:
            width = int(node.args[0].meta["val"].shape[-1])
            set_argument(node, "scale", width**-0.5)


def _pin_norm_epsilon(graph: fx.Graph) -> None:
    """The default depends on the element type; a network does not change when its type does."""
    for node in graph.nodes:
        if node.target in families.RMS_NORM and arguments(node)["eps"] is None:
            set_argument(node, "eps", torch.finfo(node.args[0].meta["val"].dtype).eps)


def _remove_unread(graph: fx.Graph) -> None:
    """What nobody reads (attention weights that are averaged and dropped) would only forbid removals."""
    for node in reversed(list(graph.nodes)):
        schema = getattr(node.target, "_schema", None)
        if node.op == "call_function" and not node.users and schema is not None and not schema.is_mutable:
            graph.erase_node(node)


def _merge_tied(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """One name per tensor: the first one; returns the others."""
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        canonical = first.setdefault(id(tensor), name)
        if canonical != name:
            aliases[name] = canonical
    for node in graph.nodes:
        if node.op == "get_attr" and node.target in aliases:
            node.target = aliases[node.target]
    return aliases
