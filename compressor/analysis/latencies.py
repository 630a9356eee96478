"""How long each layer takes by itself before and after; it must never take time itself or know what was cut.

A layer is timed with the moves of data that lead to it (a gather, slices and a concat of one value, a padding), because
compaction may have put them there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from compressor.cost import Stopwatch
from compressor.program import (
    FILTERED,
    Excerpt,
    Layer,
    Program,
    TensorShape,
    arguments,
    between,
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
        if layer.kind in FILTERED:
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
    nodes = between((source,), node)
    if any(each is not node and each.op != "get_attr" and each.target not in _MOVES for each in nodes):
        return None
    trial = Excerpt((shape.sizes[0] // sampled * batch, *shape.sizes[1:]))  # windows and tokens may lie along the batch
    made = {source: trial.input}
    trial.copy(nodes, made, lambda each: _plain(own[str(each.target)]))
    return trial.program(made[node])


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


def _plain(tensor: Tensor) -> Tensor:
    """Weights of one ordinary size: what they are is of no matter, but arithmetic on denormal numbers is slow."""
    return torch.full(tensor.shape, 0.01) if tensor.is_floating_point() else tensor
