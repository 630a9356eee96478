"""Writes through a slice -> a concatenation that says the same without writing; it must never change what is computed.

`x[:, 3:5] = y` becomes, for every later reader of x, the concatenation of what is left of the slice, y, and what is
right of it, so that axis rules see data move instead of memory change. A write whose reach is not certain stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from compressor.program import families
from compressor.program.arguments import arguments

aten = torch.ops.aten

_SLICES = families.SLICE | families.SELECT


def write_slices_out(
    graph: fx.Graph, functional_form: Callable[[Node], Any], other_views: Callable[[Node, Node], set[Node]]
) -> None:
    """Replace every write through slices whose base has no other name (edits the graph in place).

    `functional_form` gives the operator that computes what an in-place one writes; `other_views(base, at)` the values
    that share the memory of `base` when `at` writes.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and node.args and isinstance(node.args[0], Node):
            chain = _slices_of(node.args[0])
            if chain and _is_certain(node, chain, other_views):
                _write_out(graph, node, chain, functional_form)


def _slices_of(written: Node) -> list[Node]:
    """The slices from the written value up to the base, the innermost first."""
    chain: list[Node] = []
    while written.target in _SLICES and isinstance(written.args[0], Node):
        chain.append(written)
        written = written.args[0]
    return chain


def _is_certain(node: Node, chain: list[Node], other_views: Callable[[Node, Node], set[Node]]) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable or not schema.name.endswith("_"):
        return False
    base = chain[-1].args[0]
    assert isinstance(base, Node)
    order = {n: i for i, n in enumerate(node.graph.nodes)}
    read_later = {n for n in other_views(base, node) if any(order[user] > order[node] for user in n.users)}
    return base.op == "call_function" and not (read_later - {base, chain[0]}) and all(map(_is_plain, chain))


def _is_plain(node: Node) -> bool:
    bound = arguments(node)
    bounds = [bound[key] for key in ("start", "end", "step", "index") if bound.get(key) is not None]
    return all(isinstance(bound, int) for bound in bounds) and bound.get("step", 1) == 1


def _write_out(graph: fx.Graph, node: Node, chain: list[Node], functional_form: Callable[[Node], Any]) -> None:
    order = {n: i for i, n in enumerate(graph.nodes)}
    make = _maker(node)
    value = _written_value(node, make, functional_form)
    if value is None:
        return
    node.replace_all_uses_with(value)
    _redirect(chain[0], value, order, node)
    for view in chain:
        source = view.args[0]
        assert isinstance(source, Node)
        value = _put_back(view, value, make)
        _redirect(source, value, order, node)
    graph.erase_node(node)


def _redirect(old: Node, new: Node, order: Mapping[Node, int], at: Node) -> None:
    """Everybody who reads `old` after the write reads `new`."""
    for user in list(old.users):
        if user is not new and user in order and order[user] > order[at]:
            user.replace_input_with(old, new)


def _maker(at: Node) -> Callable[..., Node]:
    """Makes calls in front of `at`, with the value that a trace would note."""

    def make(target: Any, *args: Any, **kwargs: Any) -> Node:
        with at.graph.inserting_before(at):
            new = at.graph.call_function(target, args, kwargs)
        given_args, given_kwargs = map_arg((args, kwargs), lambda n: n.meta["val"])
        mode = _tensors((given_args, given_kwargs))[0].fake_mode  # type: ignore[attr-defined]
        with torch.no_grad(), mode:
            new.meta = {"where": at.meta.get("where", ""), "val": target(*given_args, **given_kwargs)}
        return new

    return make


def _tensors(structure: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(structure) if isinstance(leaf, Tensor)]


def _written_value(node: Node, make: Callable[..., Node], functional_form: Callable[[Node], Any]) -> Node | None:
    written = node.args[0]
    assert isinstance(written, Node)
    if node.target in families.COPY_INTO:
        source, target = arguments(node)["src"], written.meta["val"]
        if source.meta["val"].dtype != target.dtype:
            source = make(aten.to.dtype, source, target.dtype)
        return source if source.meta["val"].shape == target.shape else make(aten.expand_as.default, source, written)
    if node.target in families.ZERO_INTO:
        return make(aten.zeros_like.default, *node.args)
    if node.target in families.FILL_INTO:
        return make(aten.full_like.default, *node.args)
    functional = functional_form(node)
    return None if functional is None else make(functional, *node.args, **node.kwargs)


def _put_back(view: Node, value: Node, make: Callable[..., Node]) -> Node:
    """What the source of `view` is once `value` stands where the view looked."""
    bound = arguments(view)
    source = bound["self"]
    sizes = source.meta["val"].shape
    dim = bound["dim"] % len(sizes)
    if view.target in families.SELECT:
        index = bound["index"] % sizes[dim] if bound["index"] < 0 else bound["index"]
        start, stop = index, index + 1
        value = make(aten.unsqueeze.default, value, dim)
    elif bound["start"] in (None, 0) and (bound["end"] is None or bound["end"] >= 2**62):
        return value  # all of it: this dimension may be the batch, whose size is no number
    else:
        start, stop, _ = slice(bound["start"], bound["end"]).indices(int(sizes[dim]))
    parts = [make(aten.slice.Tensor, source, dim, 0, start)] if start else []
    parts.append(value)
    if isinstance(sizes[dim], torch.SymInt) or stop < sizes[dim]:
        parts.append(make(aten.slice.Tensor, source, dim, stop, 2**63 - 1))
    return parts[0] if len(parts) == 1 else make(aten.cat.default, parts, dim)
