"""Which names from a file may become names in generated code or attributes of a module.

It must never hold anything else: torch.fx writes names of nodes and tensors into Python source and runs it.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import fx, nn

from compressor.errors import ModelError
from compressor.printable import one_line
from compressor.program import ProgramModule

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_NO_IDENTIFIER = re.compile(r"[^A-Za-z0-9_]", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_:/+@ -]+", re.ASCII)
"""No quote, backslash or line break: a part that is no identifier is put between quotes in generated code."""

_LONGEST = 500


def shown(name: object, limit: int = 100) -> str:
    """A name from a file, fit for a line of a message: cut, and without what a terminal would obey."""
    return one_line(str(name)[:limit])


def check_node_name(name: object) -> str:
    """The name, when it can only be a variable.

    Raises:  ModelError if it is no ASCII identifier or a word of the language.
    """
    if not isinstance(name, str) or len(name) > _LONGEST or _IDENTIFIER.fullmatch(name) is None:
        raise ModelError(f"{str(name)[:60]!r} cannot be the name of a node; the file cannot be trusted")
    if keyword.iskeyword(name) or name == "self":
        raise ModelError(f"{name} cannot be the name of a node: it is a word of Python")
    return name


def variables_of(names: Sequence[str]) -> list[str]:
    """What a graph calls inputs of these names, which may be any text in a foreign file: `input.1` is `input_1`."""
    graph = fx.Graph()
    return [graph.placeholder(_variable(name)).name for name in names]


def _variable(name: str) -> str:
    plain = _NO_IDENTIFIER.sub("_", name)[:100] or "input"
    return f"input_{plain}" if plain[0].isdigit() or plain == "self" else plain


def check_tensor_names(names: Iterable[str]) -> None:
    """Nothing, when every name is a path of plain attributes and none leads through another tensor.

    Raises:  ModelError naming the first that does not.
    """
    known = set(names)
    for name in known:
        parts = name.split(".")
        if len(name) > _LONGEST or not all(_is_plain(part) for part in parts):
            raise ModelError(f"{name[:60]!r} cannot be the name of a tensor; the file cannot be trusted")
        taken = [part for i, part in enumerate(parts) if part in (_attributes() if i == 0 else _module_attributes())]
        if taken:
            raise ModelError(f"{name[:60]}: a tensor cannot be kept at {taken[0]}, which every module has")
        inside = next((p for p in (".".join(parts[:i]) for i in range(1, len(parts))) if p in known), None)
        if inside is not None:
            raise ModelError(f"{name[:60]}: lies inside the tensor {inside[:60]}")


def _is_plain(part: str) -> bool:
    return _PART.fullmatch(part) is not None and not keyword.iskeyword(part)


@lru_cache(maxsize=1)
def _module_attributes() -> frozenset[str]:
    return frozenset(dir(nn.Module()))


@lru_cache(maxsize=1)
def _attributes() -> frozenset[str]:
    graph = fx.Graph()
    graph.output(graph.get_attr("weight_of_nothing"))
    module = ProgramModule({"weight_of_nothing": torch.zeros(())}, graph)
    return (frozenset(dir(module)) | frozenset(vars(module))) - {"weight_of_nothing"}
