"""The one table of ONNX operators.

It must never hold what an operator becomes: every entry registers itself from the modules beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from compressor.errors import ModelError
from compressor.formats.onnx_import.node import Op as Op  # importers take it from here, with what registers them
from compressor.formats.onnx_import.node import integers as integers
from compressor.formats.onnx_import.values import Value

if TYPE_CHECKING:
    from compressor.formats.onnx_import.emitter import Emitter

_STANDARD = ("", "ai.onnx")
_CLASSICAL = "ai.onnx.ml"
_WAY_OUT = "where they stand before or behind the layers, onnx.utils.extract_model cuts the file without them"

Importer: TypeAlias = "Callable[[Emitter, Op], Value | tuple[Value, ...]]"
_Registered = TypeVar("_Registered", bound=Importer)
IMPORTERS: dict[str, Importer] = {}
SIZE_IMPORTERS: dict[str, Importer] = {}
"""How an operator works on `Sizes`; asked first when an input is one."""

_QUANTISED = "holds quantised arithmetic; give the float model it was made from, or one quantised in the form QDQ"
_LOOPS = "loops are not supported; export the network with its loops unrolled"
_SEQUENCES = "sequences and optional values are not supported"
_DATA = "its output's size depends on data"
_RANDOM = "draws random numbers"
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
         "MatMulInteger"), _QUANTISED,
    ),
    **dict.fromkeys(("Loop", "Scan"), _LOOPS),
    **dict.fromkeys(
        ("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
         "SequenceMap", "ConcatFromSequence", "SplitToSequence", "Optional", "OptionalGetElement",
         "OptionalHasElement"), _SEQUENCES,
    ),
    **dict.fromkeys(("NonZero", "NonMaxSuppression", "Unique", "Compress"), _DATA),
    **dict.fromkeys(("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial",
                     "Bernoulli"), _RANDOM),
}  # fmt: skip
"""Operators that are known and refused, with the reason."""


def imports(*kinds: str) -> Callable[[_Registered], _Registered]:
    """Register how operators become ATen calls; a second importer for one operator is an error.

    Raises:  ValueError if one is registered already.
    """
    return _registering(IMPORTERS, kinds)


def imports_sizes(*kinds: str) -> Callable[[_Registered], _Registered]:
    """Register what operators do to integer arrays that depend on the batch. Raises: ValueError as `imports`."""
    return _registering(SIZE_IMPORTERS, kinds)


def _registering(table: dict[str, Importer], kinds: Sequence[str]) -> Callable[[_Registered], _Registered]:
    def register(function: _Registered) -> _Registered:
        for kind in kinds:
            if kind in table:
                raise ValueError(f"{kind} already has an importer: {table[kind].__name__}")
            table[kind] = function
        return function

    return register


def refusal(domain: str, kind: str) -> str | None:
    """Why an operator cannot be imported; None if it can."""
    if domain == _CLASSICAL:
        return f"of the domain {domain}, trees and scalers, which are no layers"
    if domain not in _STANDARD:
        return f"of the domain {domain}, which is not standard ONNX; give the file from before it was optimised"
    if kind in REFUSED:
        return REFUSED[kind]
    return None if kind in IMPORTERS or kind == "If" else "has no importer"


def check_supported(nodes: Sequence[tuple[str, str, str]], name: str) -> None:
    """Nothing, when every (domain, operator, node name) can be imported.

    Raises:  ModelError naming all operators that cannot, each with the reason and its first nodes.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for domain, kind, node in nodes:
        if refusal(domain, kind) is not None:
            found.setdefault((domain, kind), []).append(node)
    if not found:
        return
    listed: list[str] = []
    for (domain, kind), where in found.items():
        shown = ", ".join(where[:2]) + (f" and {len(where) - 2} more" if len(where) > 2 else "")
        listed.append(f"{kind} ({refusal(domain, kind)}) at {shown}")
    raise ModelError(f"{name}: operators that cannot be imported: {'; '.join(listed)}\n{_WAY_OUT}")
