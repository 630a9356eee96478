"""Routers that choose among experts, written so that an expert whose weights in the router are 0 is never chosen.

A softmax gives every logit a share and a topk takes the largest, 0 among them; so an expert that is cut has the logit
minus infinity. Which are cut is read off the router's own weight, whose rows masks set to 0: there is no second truth.
It must never decide which experts go.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.fx import Graph, Node

from compressor.program import families
from compressor.program.arguments import arguments, set_argument
from compressor.program.layers import layer_name
from compressor.program.module import ProgramModule
from compressor.program.program import Program
from compressor.program.shapes import Shapes, TensorShape
from compressor.program.unread import erase_unread

aten = torch.ops.aten


@dataclass(frozen=True)
class Router:
    """A linear layer of whose outputs a topk takes the `n_chosen` largest, and what is looked up by their places.

    `weight` has one row for each of the `n_experts`; `topk` is the node that chooses, `over` those that work along the
    logits: softmaxes and the topk itself.
    """

    weight: str
    n_experts: int
    n_chosen: int
    topk: str
    over: tuple[str, ...]

    @property
    def name(self) -> str:
        return layer_name(self.weight)


def find_routers(program: Program) -> tuple[Router, ...]:
    """The routers of a program in graph order. Whether their experts may go is for the walk over the axes to say."""
    shapes, found = program.shapes, list[Router]()
    for node in program.module.graph.nodes:
        if node.target not in families.TOPK or not _looks_up(node):
            continue
        path = _path(node, shapes)
        if path is not None and str(path[0].target) in program.parameters:
            weight, over = path
            sizes = _sizes(weight, shapes)
            found.append(
                Router(str(weight.target), sizes[0], arguments(node)["k"], node.name, tuple(one.name for one in over))
            )
    return tuple(found)


def open_choices(program: Program) -> Program:
    """The program with a logit of minus infinity for every expert whose row in the router is 0; none may be so far, and
    then it computes what it did. Routers that are written so already stay as they are, and those with a row of 0, in
    which no cut can be told from what was there.
    """
    routers = [one for one in find_routers(program) if _all_rows_live(program, one.weight)]
    graph = copy.deepcopy(program.module.graph)
    nodes = {node.name: node for node in graph.nodes}
    changed = False
    for router in routers:
        for name in router.over:
            reader = nodes[name]
            if weight_of_choice(arguments(reader)["self"]) is None:
                changed = True
                _leave_out(graph, reader, _read_of(graph, router.weight))
    return program.replace(module=_module(program, graph)) if changed else program


def leaves_out(program: Program) -> bool:
    """Whether some router of the program is written so."""
    return any(weight_of_choice(node) is not None for node in program.module.graph.nodes)


def close_choices(program: Program) -> Program:
    """The program without what leaves experts out, where there is none to be left out any more."""
    graph = copy.deepcopy(program.module.graph)
    changed = False
    for node in list(graph.nodes):
        weight = weight_of_choice(node)
        if weight is not None and _all_rows_live(program, weight):
            node.replace_all_uses_with(arguments(node)["self"])
            changed = True
    if not changed:
        return program
    erase_unread(graph)
    return program.replace(module=_module(program, graph))


def weight_of_choice(node: object) -> str | None:
    """The router's weight, if this node sets the logits of experts to minus infinity whose rows in it are 0."""
    if not isinstance(node, Node) or node.target not in families.MASKED_FILL:
        return None
    bound = arguments(node)
    if bound["value"] != -math.inf or bound["mask"].target not in families.EQUALS:
        return None
    compared = arguments(bound["mask"])
    if compared["other"] != 0 or compared["self"].target not in families.SUM_ALONG:
        return None
    summed = arguments(compared["self"])
    if summed["dim"] != [1] or summed["self"].target not in families.MAGNITUDE:
        return None
    weight = arguments(summed["self"])["self"]
    return str(weight.target) if weight.op == "get_attr" else None


def _leave_out(graph: Graph, reader: Node, weight: Node) -> None:
    """The new operators in front of a reader of the logits."""
    logits = arguments(reader)["self"]
    with graph.inserting_before(reader):
        size = graph.call_function(aten.abs.default, (weight,))
        total = graph.call_function(aten.sum.dim_IntList, (size, [1]))
        absent = graph.call_function(aten.eq.Scalar, (total, 0))
        left = graph.call_function(aten.masked_fill.Scalar, (logits, absent, -math.inf))
    for node in (size, total, absent, left):
        node.meta = {"where": reader.meta.get("where", "")}
    set_argument(reader, "self", left)


def _read_of(graph: Graph, name: str) -> Node:
    return next(node for node in graph.nodes if node.op == "get_attr" and node.target == name)


def _module(program: Program, graph: Graph) -> ProgramModule:
    module = ProgramModule(program.module.tensors(), graph)
    module.training = program.module.training
    return module


def _all_rows_live(program: Program, weight: str) -> bool:
    return bool((program.parameters[weight].detach() != 0).any(1).all())


def _path(topk: Node, shapes: Shapes) -> tuple[Node, list[Node]] | None:
    """The weight of the linear layer whose outputs a topk chooses among, and what works along them on the way."""
    bound = arguments(topk)
    sizes = _sizes(bound["self"], shapes)
    if not sizes or bound["dim"] % len(sizes) != len(sizes) - 1 or not bound["largest"]:
        return None
    over, node = [topk], bound["self"]
    while _sizes(node, shapes)[-1:] == sizes[-1:]:
        if node.target in families.LINEAR:
            weight = arguments(node)["weight"]
            return (weight, over) if weight.op == "get_attr" else None
        if node.target in families.SOFTMAX:
            if arguments(node)["dim"] % len(_sizes(node, shapes)) != len(_sizes(node, shapes)) - 1:
                return None
            over.append(node)
        elif node.target not in families.VIEWS and not families.works_by_element(node.target):
            return None
        before = [source for source in node.all_input_nodes if _sizes(source, shapes)[-1:] == sizes[-1:]]
        full = [source for source in before if math.prod(_sizes(source, shapes)) == math.prod(_sizes(node, shapes))]
        if len(full) != 1:
            return None
        node = full[0]
    return None


def _sizes(node: object, shapes: Shapes) -> tuple[int, ...]:
    shape = shapes.get(node.name) if isinstance(node, Node) else None
    return shape.sizes if isinstance(shape, TensorShape) else ()


def _looks_up(topk: Node) -> bool:
    """Whether something is looked up at the places that a topk took."""
    waiting = [node for node in topk.users if node.target is operator.getitem and node.args[1] == 1]
    while waiting:
        node = waiting.pop()
        for user in node.users:
            if user.target in families.LOOKS_UP:
                return True
            if user.target in families.SAME_NUMBERS:
                waiting.append(user)
    return False


def rows_of(program: Program, router: Router) -> Iterator[str]:
    """Names of the nodes that hold the places a router took, moved about at most, by which something is looked up."""
    nodes = {node.name: node for node in program.module.graph.nodes}
    waiting = [node for node in nodes[router.topk].users if node.target is operator.getitem and node.args[1] == 1]
    while waiting:
        node = waiting.pop()
        if any(user.target in families.LOOKS_UP for user in node.users):
            yield node.name
        waiting.extend(user for user in node.users if user.target in families.SAME_NUMBERS)
