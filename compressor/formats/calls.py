"""Whether a call read from a file fits its operator's schema, before anything is run.

It must never hold what an operator computes; that its tensors fit is found out by shape inference.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

from compressor.errors import ModelError
from compressor.narrowing import is_row, is_slice
from compressor.program.arguments import n_operands
from compressor.program.element_types import ELEMENT_TYPES
from compressor.program.normalise import SIZE_ARITHMETIC
from compressor.typed_torch import Overload, is_overload, schema_of

_python: Any = operator  # its stubs say nothing about `pow`
_SCALARS = frozenset({"int", "float", "bool", "number", "SymInt"})
_FROM_NODES = frozenset({"Tensor", "int", "float", "bool", "number", "SymInt", "SymBool"})
_BROADCAST = frozenset({"int", "float", "SymInt", "bool"})
"""One number stands for a list of equal ones in some schemas (`int[2] stride=1`)."""

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "Tensor": (bool, int, float),
    "number": (bool, int, float),
    "float": (int, float),
    "bool": bool,
    "str": str,
    "ScalarType": torch.dtype,
    "Layout": torch.layout,
    "MemoryFormat": torch.memory_format,
    "Device": torch.device,
}
"""Schema kind -> what a file may give for it, besides values of the graph; a generator or a storage never."""

_ONLY: Mapping[str, Callable[[Any], bool]] = {
    "ScalarType": frozenset(
        (*(kind.torch_dtype for kind in ELEMENT_TYPES), torch.complex64, torch.complex128)
    ).__contains__,
    "Layout": lambda layout: layout is torch.strided,
    "Device": lambda device: device.type != "meta",
}
"""Quantised numbers, packed layouts and values without memory have kernels of their own, which trust their caller."""

_LOWEST = -(2**62)
"""Sizes and positions lie above; at the very lowest integer torch's own loops do not end (matrix_power)."""

_HIGHEST_POWER = 8
"""Sizes are small integers; a tower of powers would never end computing."""


def check_call(target: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Nothing, when names, count and kinds of the arguments fit.

    Raises:  ModelError saying which does not.
    """
    if is_overload(target):
        _check_overload(target, args, kwargs)
    elif kwargs:
        raise ModelError(f"{target.__name__} takes no named arguments")
    elif target is operator.getitem:
        _check_getitem(args)
    else:
        _check_arithmetic(target, args)


def _check_overload(target: Overload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    known = schema_of(target).arguments
    positional = [a for a in known if not a.kwarg_only]
    if len(args) > len(positional):
        raise ModelError(f"{target} takes {len(positional)} positional arguments, not {len(args)}")
    bound: dict[str, Any] = {a.name: value for a, value in zip(positional, args, strict=False)}
    for name, value in kwargs.items():
        if name in bound:
            raise ModelError(f"{target} is given {name} twice")
        bound[name] = value
    by_name = {a.name: a for a in known}
    unknown = [name for name in bound if name not in by_name]
    if unknown:
        raise ModelError(f"{target} has no argument {unknown[0][:60]!r}")
    missing = [a.name for a in known if a.name not in bound and not a.has_default_value()]
    if missing:
        raise ModelError(f"{target} lacks its argument {missing[0]}")
    for name, value in bound.items():
        if not _fits(value, str(by_name[name].real_type)):
            kind = by_name[name].type
            raise ModelError(f"{target}: {name} must be {kind}, not {type(value).__name__} {str(value)[:40]}")


def _fits(value: Any, kind: str) -> bool:
    """Whether the value is of the schema's kind; torch itself casts, looks up and loops on more than that."""
    if kind.startswith("Optional["):
        return value is None or _fits(value, kind[len("Optional[") : -1])
    if kind.startswith("List["):
        inner = kind[len("List[") : -1]
        whole = is_row(value) and all(_fits(part, inner) for part in value)
        return whole or isinstance(value, Node) or (inner in _BROADCAST and _fits(value, inner))
    if isinstance(value, Node):
        return kind in _FROM_NODES
    if kind == "int":
        return type(value) is int and value > _LOWEST
    return isinstance(value, _KINDS.get(kind, ())) and (kind not in _ONLY or _ONLY[kind](value))


def _check_getitem(args: tuple[Any, ...]) -> None:
    if len(args) != 2 or not isinstance(args[0], Node):
        raise ModelError("getitem takes a value of the graph and an index")
    index = args[1]
    parts = (index.start, index.stop, index.step) if is_slice(index) else (index,)
    if not all(type(part) is int or (part is None and is_slice(index)) for part in parts):
        raise ModelError("getitem takes an integer or a slice as index")


def _check_arithmetic(target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    expected = n_operands(target)
    if len(args) != expected:
        raise ModelError(f"{target.__name__} takes {expected} arguments, not {len(args)}")
    if not all(isinstance(a, (bool, int, float)) or (isinstance(a, Node) and _is_scalar(a)) for a in args):
        raise ModelError(f"{target.__name__} computes on numbers only")
    if target is _python.pow and not (isinstance(args[1], (int, float)) and abs(args[1]) <= _HIGHEST_POWER):
        raise ModelError(f"a power above {_HIGHEST_POWER} or one that is computed")


def _is_scalar(node: Node) -> bool:
    """Whether the node's value is one number, by schema and not by running it."""
    target = node.target
    if node.op != "call_function":
        return False
    if is_overload(target):
        returns = schema_of(target).returns
        return len(returns) == 1 and str(returns[0].type) in _SCALARS
    if target is not operator.getitem:
        return target in SIZE_ARITHMETIC
    source = node.args[0]
    if not isinstance(source, Node) or not is_overload(source.target) or type(node.args[1]) is not int:
        return False
    returns = schema_of(source.target).returns
    if len(returns) == 1:
        return str(returns[0].type).removeprefix("List[").removesuffix("]") in _SCALARS
    return 0 <= node.args[1] < len(returns) and str(returns[node.args[1]].type) in _SCALARS
