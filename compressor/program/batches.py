"""What an export says about sizes: which are open, and where the code goes another way than it was traced.

It must never call the network. torch notes every question about a size that a network's code asked during the trace.
The answers hold for the size of the example; where another size answers otherwise, the program may be another network.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compressor.program.normalise import users_line
from compressor.program.spec import InputSpec
from compressor.typed_torch import symbol_of

_ASKED = (*range(1, 65), 128, 256, 512, 1024)
"""Batch sizes that every question is asked for."""


def open_batch(exported: torch.export.ExportedProgram) -> bool:
    """Whether every input of the network takes any batch size."""
    return all(is_open(node) for node in _inputs(exported))


def is_open(node: fx.Node, dim: int = 0) -> bool:
    """Whether a dimension of an input is a size of any value, and not one that the code made a number of."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() <= dim:
        return False
    size = symbol_of(value.shape[dim])
    return size is not None and size.maybe_as_int() is None


def closed_lengths(exported: torch.export.ExportedProgram, inputs: Sequence[InputSpec]) -> set[str]:
    """Names of free dimensions that the code made a number of, in one input at least."""
    named = ((node, spec.free) for node, spec in zip(_inputs(exported), inputs, strict=True))
    return {name for node, free in named for dim, name in enumerate(free) if name and not is_open(node, dim)}


def fixed_at(exported: torch.export.ExportedProgram) -> str:
    """The user's line that made a number of a size, "" where torch does not know."""
    for environment in _environments(exported):
        for source in getattr(environment, "replacements_slocs", {}).values():
            if line := _line(source):
                return line
    return ""


def turning_points(exported: torch.export.ExportedProgram) -> dict[int, str]:
    """Batch sizes that answer a question of the code otherwise than the trace, the smallest for each question; with the
    user's line where torch knows it."""
    return _turns(exported, {node.meta["val"].shape[0].node.expr for node in _inputs(exported)})


def turning_lengths(exported: torch.export.ExportedProgram, inputs: Sequence[InputSpec]) -> dict[str, dict[int, str]]:
    """The same of each free dimension, by its name."""
    symbols: dict[str, set[Any]] = {}
    for node, spec in zip(_inputs(exported), inputs, strict=True):
        for dim, name in enumerate(spec.free):
            if name and is_open(node, dim):
                symbols.setdefault(name, set()).add(node.meta["val"].shape[dim].node.expr)
    return {name: found for name, own in symbols.items() if (found := _turns(exported, own))}


def _turns(exported: torch.export.ExportedProgram, symbols: set[Any]) -> dict[int, str]:
    found: dict[int, str] = {}
    for environment in _environments(exported):
        for guard in getattr(environment, "guards", ()):
            if guard.expr.free_symbols and guard.expr.free_symbols <= symbols:
                for batch in _ASKED:
                    if guard.expr.subs(dict.fromkeys(symbols, batch)) == False:  # noqa: E712  # sympy's own false
                        found[batch] = found.get(batch) or _line(getattr(guard, "sloc", None))
                        break
    return found


def _inputs(exported: torch.export.ExportedProgram) -> Iterator[fx.Node]:
    names = exported.graph_signature.user_inputs
    return (node for node in exported.graph.nodes if node.op == "placeholder" and node.name in names)


def _environments(exported: torch.export.ExportedProgram) -> list[Any]:
    """torch's records of the questions, one for all inputs."""
    sizes = (size for node in _inputs(exported) for size in getattr(node.meta.get("val"), "shape", ()))
    symbols = (symbol_of(size) for size in sizes)
    return list({id(symbol.shape_env): symbol.shape_env for symbol in symbols if symbol is not None}.values())


def _line(source: Any) -> str:
    for place in (getattr(source, "maybe_user_loc", None), getattr(source, "framework_loc", None)):
        if isinstance(place, traceback.FrameSummary) and (line := users_line(traceback.format_list([place])[0])):
            return line
    return ""
