"""The one table of ONNX operators, and a node's inputs and attributes by name.

It must never hold what an operator becomes: every entry registers itself from the modules beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from compressor.errors import ModelError
from compressor.formats.onnx_import.values import Sizes, Value, entries_of

if TYPE_CHECKING:
    from compressor.formats.onnx_import.emitter import Emitter

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Op:
    """One ONNX node: `inputs` has None where an optional one is left out."""

    kind: str
    name: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    input_names: tuple[str, ...] = ()

    def given(self, position: int) -> Value | None:
        """An input, or None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def needed(self, position: int) -> Value:
        """An input that must be there. Raises: ModelError if it is not."""
        value = self.given(position)
        if value is None:
            raise ModelError(f"lacks its input {position}")
        return value

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def axes(self, position: int | None = 1, name: str = "axes") -> list[int] | None:
        """Dimensions from an attribute (older opsets) or from an input (newer ones); None when not given."""
        if name in self.attributes:
            return list(self.attributes[name])
        value = self.given(position) if position is not None else None
        return None if value is None else integers(value)


Importer: TypeAlias = "Callable[[Emitter, Op], Value | tuple[Value, ...]]"
_Registered = TypeVar("_Registered", bound=Importer)
IMPORTERS: dict[str, Importer] = {}
SIZE_IMPORTERS: dict[str, Importer] = {}
"""How an operator works on `Sizes`; asked first when an input is one."""

_QUANTISED = "holds quantised arithmetic; give the float model it was made from"
_RECURRENT = "recurrent layers are not supported; there is no axis rule for their packed weights"
_LOOPS = "loops are not supported; export the network with its loops unrolled"
_SEQUENCES = "sequences and optional values are not supported"
_DATA = "its output's size depends on data"
_RANDOM = "draws random numbers"
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
         "MatMulInteger"), _QUANTISED,
    ),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _RECURRENT),
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
    listed = []
    for (domain, kind), where in found.items():
        shown = ", ".join(where[:2]) + (f" and {len(where) - 2} more" if len(where) > 2 else "")
        listed.append(f"{kind} ({refusal(domain, kind)}) at {shown}")
    raise ModelError(f"{name}: operators that cannot be imported: " + "; ".join(listed))


def integers(value: Value) -> list[int]:
    """A constant as integers. Raises: ModelError if it is computed, from data or from the batch size."""
    if isinstance(value, Sizes):
        raise ModelError("an argument depends on the batch size, where fixed numbers are needed")
    return [int(entry) for entry in entries_of(value).reshape(-1)]
