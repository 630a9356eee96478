"""How long each layer takes by itself before and after; it must never take time itself or know what was cut.

A layer is timed with the moves of data that lead to it (a gather, slices and a concat of one value, a padding), because
compaction may have put them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from compressor.cost import Stopwatch
from compressor.program import (
    CONTRACTIONS,
    InputSpec,
    Layer,
    Program,
    ProgramModule,
    TensorShape,
    arguments,
    families,
    find_layers,
)

_MOVES = families.INDEX_SELECT | families.PAD | families.SLICE | families.CAT
_MOST_WEIGHTS = 2**28
"""A trial is one protobuf message, which holds 2 GiB at most; a larger layer has no time."""


@dataclass(frozen=True)
class LayerLatency:
    """Seconds of one run of a layer by itself, summed over its uses; `after_s` is None where it is gone."""

    name: str
    before_s: float
    after_s: float | None


def layer_latencies(before: Program, after: Program, stopwatch: Stopwatch, batch: int = 1) -> tuple[LayerLatency, ...]:
    """The convolutions and linear layers of `before` in graph order, each timed side by side with what `after` has.

    Layers whose operators cannot be put into a trial are left out.
    """
    then, now = _trials(before, batch), _trials(after, batch)
    found: list[LayerLatency] = []
    for name, trials in then.items():
        left = now.get(name, [])
        if any(trial is None for trial in (*trials, *left)):
            continue
        programs = [trial for trial in (*trials, *left) if trial is not None]
        seconds = stopwatch.seconds(programs, batch)
        n = len(trials)
        found.append(LayerLatency(name, sum(seconds[:n]), sum(seconds[n:]) if left else None))
    return tuple(found)


def _trials(program: Program, batch: int) -> dict[str, list[Program | None]]:
    """Every use of every layer as a small program by the layer's name; None where it cannot be one."""
    nodes = {node.name: node for node in program.module.graph.nodes}
    trials: dict[str, list[Program | None]] = {}
    for layer in find_layers(program):
        if layer.kind in CONTRACTIONS:
            trials.setdefault(layer.name, []).append(_trial(program, layer, nodes[layer.node], batch))
    return trials


def _trial(program: Program, layer: Layer, node: Node, batch: int) -> Program | None:
    """The layer and the moves before it; its nodes have names of their own, so that equal layers are equal trials."""
    source = _source(arguments(node)["input"])
    shape = program.shapes[source.name]
    sampled = program.sampled_batch
    if not isinstance(shape, TensorShape) or not shape.sizes or shape.sizes[0] % sampled:
        return None
    own = program.module.tensors()
    if own[layer.weight].numel() > _MOST_WEIGHTS:
        return None
    tensors: dict[str, Tensor] = {}
    graph = fx.Graph()
    made: dict[Node, Node] = {source: graph.placeholder("x")}
    for each in _between(source, node):
        if each.op == "get_attr":
            name = f"layer.{len(tensors)}"
            tensors[name] = _plain(own[str(each.target)])
            made[each] = graph.get_attr(name)
        elif callable(each.target) and (each is node or each.target in _MOVES):
            made[each] = graph.call_function(each.target, *_copied(each, made))
        else:
            return None
    graph.output((made[node],))
    sizes = (shape.sizes[0] // sampled * batch, *shape.sizes[1:])  # windows and tokens may lie along the batch
    return Program(ProgramModule(tensors, graph), (InputSpec("x", sizes),))


def _source(value: Node) -> Node:
    """The one value that is moved about until it is `value`; `value` itself where it is made of several."""
    while value.target in _MOVES:
        moved = _before(value.all_input_nodes)
        behind = {_source(one) if value.target in families.CAT else one for one in moved}
        if len(behind) != 1:
            return value
        value = behind.pop()
    return value


def _before(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if node.op != "get_attr"]


def _between(source: Node, last: Node) -> list[Node]:
    """What is computed from `source` up to `last`, in the order of the graph."""
    needed, waiting = {last}, [last]
    while waiting:
        for one in waiting.pop().all_input_nodes:
            if one is not source and one not in needed:
                needed.add(one)
                waiting.append(one)
    return [node for node in last.graph.nodes if node in needed]


def _copied(node: Node, made: Mapping[Node, Node]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args: Any = fx.map_arg(node.args, lambda one: made[one])
    kwargs: Any = fx.map_arg(node.kwargs, lambda one: made[one])
    return args, kwargs


def _plain(tensor: Tensor) -> Tensor:
    """Weights of one ordinary size: what they are is of no matter, but arithmetic on denormal numbers is slow."""
    if not tensor.is_floating_point():
        return tensor
    return nn.Parameter(torch.full(tensor.shape, 0.01), requires_grad=False)
