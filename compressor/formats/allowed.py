"""Which operators a checkpoint's graph may call, and the text form of each.

It must never hold a way to reach anything but the size arithmetic of `program` and the ATen overloads that are known:
those of a family, those that torch tags as pointwise, and the names in `program/unruled.py`. What a call of one may be
given is said in `calls.py`, what its tensors must be to each other in `contracts.py`, what it may take in `budget.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch

from compressor.errors import ModelError
from compressor.program.families import operator_name
from compressor.program.normalise import SIZE_ARITHMETIC
from compressor.program.unruled import known
from compressor.typed_torch import Overload, is_overload, schema_of

_ATEN = re.compile(r"aten\.([A-Za-z_]\w*)\.([A-Za-z_]\w*)", re.ASCII)


def _text(target: Any) -> str:
    module = "torch" if target.__name__.startswith("sym_") else "operator"
    return f"{module}.{target.__name__}"


PYTHON_TARGETS = MappingProxyType({_text(target): target for target in SIZE_ARITHMETIC})
"""Text -> function of everything outside ATen that a graph may call."""

_FOREIGN_TYPES = ("Storage", "Stream", "torch.classes")

_WAY_OUT = "if a rule of yours knows it, name its --plugin; else load the original weights again, with --arch"


def target_text(target: Any) -> str:
    """`aten.conv2d.default`, `operator.getitem`, `torch.sym_max`.

    Raises:  ModelError if a checkpoint cannot hold a call of it.
    """
    if is_overload(target):
        reason = refusal(target)
        if reason is not None:
            raise ModelError(
                f"operator {target} cannot be kept in a checkpoint: it {reason}\n"
                f"give it an axis rule in a --plugin, or compute the same with other operators (docs/operators.md)"
            )
        schema = schema_of(target)
        return f"{target.namespace}.{schema.name.split('::')[-1]}.{schema.overload_name or 'default'}"
    if target in SIZE_ARITHMETIC:
        return _text(target)
    raise ModelError(f"operator {target} cannot be kept in a checkpoint: it is not an ATen operator")


def resolve_target(text: str) -> Callable[..., Any]:
    """The operator that the text names.

    Raises:  ModelError if there is no such operator here, or it does more than compute.
    """
    if text in PYTHON_TARGETS:
        return PYTHON_TARGETS[text]
    match = _ATEN.fullmatch(text)
    if match is None:
        raise ModelError(f"operator {text[:80]!r} is not an ATen operator; the file cannot be trusted")
    found = getattr(getattr(torch.ops.aten, match[1], None), match[2], None)
    if not is_overload(found) or found.namespace != "aten":
        raise ModelError(
            f"operator {text[:80]} is unknown to torch {torch.__version__}; "
            f"a checkpoint of a newer torch needs that version"
        )
    reason = refusal(found)
    if reason is not None:
        raise ModelError(f"operator {text[:80]} is refused: it {reason}\n{_WAY_OUT}")
    return found


def refusal(overload: Overload) -> str | None:
    """Why the overload may not stand in a checkpoint's graph, as the end of "it ..."; None if it may."""
    schema = schema_of(overload)
    if overload.namespace != "aten":
        return "is not an ATen operator"
    if not schema.returns:
        return "computes nothing (an operator without result only has side effects)"
    if any(kind in str(a.type) for a in schema.arguments for kind in _FOREIGN_TYPES):
        return "takes a storage, a stream or a packed object"
    written = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if written and (written != [schema.arguments[0].name] or not operator_name(overload).endswith("_")):
        return "writes into its arguments"
    if known(overload) is None:
        return "is not one that compress knows"
    return None
