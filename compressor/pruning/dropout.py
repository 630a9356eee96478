"""Dropout rates that follow the capacity left; it must never cut or train."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.fx import Node

from compressor.program import CONTRACTIONS, Layer, Program, arguments, families, find_layers, set_argument


def rescale_dropout(program: Program, before: Program) -> tuple[Program, dict[str, float]]:
    """The program with smaller dropout rates, and the new rate of each dropout whose reader lost connections.

    D_r = D_o · sqrt(C_ir / C_io): a network with fewer connections overfits less. C_i are the connections of the layer
    that reads what the dropout lets through; `before` is the same graph with the rates and masks that D_o and C_io
    stand for. Without dropout in the network nothing happens.

    Source:  Han et al. 2015, sec. 3.2.
    """
    dropouts = [node for node in before.module.graph.nodes if node.target in families.DROPOUT]
    rate_before = {node.name: arguments(node)["p"] for node in dropouts}
    layers = {layer.node: layer for layer in find_layers(program) if layer.kind in CONTRACTIONS}
    tuned = program.clone()
    rates: dict[str, float] = {}
    for node in tuned.module.graph.nodes:
        if node.target not in families.DROPOUT:
            continue
        readers = [layers[reader] for reader in _readers(node, layers)]
        connections = sum(_kept(program, layer, program.masks) for layer in readers)
        connections_before = sum(_kept(program, layer, before.masks) for layer in readers)
        if connections and connections < connections_before:
            rates[node.name] = float(rate_before[node.name]) * (connections / connections_before) ** 0.5
            set_argument(node, "p", rates[node.name])
    tuned.module.recompile()
    return tuned, rates


def _readers(node: Node, layers: Mapping[str, Layer]) -> list[str]:
    """The first layers with weights to contract downstream of a node."""
    found: list[str] = []
    waiting, seen = list(node.users), set[Node]()
    while waiting:
        user = waiting.pop()
        if user in seen:
            continue
        seen.add(user)
        if user.name in layers:
            found.append(user.name)
        else:
            waiting.extend(user.users)
    return found


def _kept(program: Program, layer: Layer, masks: Mapping[str, Tensor]) -> int:
    mask = masks.get(layer.weight)
    return program.module.tensors()[layer.weight].numel() if mask is None else int(mask.sum())
