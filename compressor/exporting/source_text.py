"""Text that may stand in generated Python: identifiers, literals, constructor calls; it must never hold a name or a
text of a model as it is.

Names of a checkpoint are whatever its author wrote. An attribute that is no plain identifier is reached by `getattr`
with a literal, and every text is written as an ASCII literal.
"""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compressor.errors import ModelError

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}", re.ASCII)
_RESERVED = frozenset(
    {*dir(builtins), "self", "torch", "nn", "F", "math", "Path", "OrderedDict", "Model", "load", "batch", "device"}
)
_MODULE = frozenset(dir(nn.Module())) | {"training"}


def is_attribute(name: str) -> bool:
    """Whether `self.name` is fit to read and means what was meant (`self.__name` inside a class does not)."""
    return _PLAIN.fullmatch(name) is not None and not keyword.iskeyword(name) and not _is_taken(name)


def _is_taken(name: str) -> bool:
    return name.startswith("__") or name in _MODULE


def variable(name: str, taken: Sequence[str] = ()) -> str:
    """An identifier for a local value, like the name where that can be one."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:40] or "value"
    if plain[0].isdigit() or keyword.iskeyword(plain) or keyword.issoftkeyword(plain) or plain in _RESERVED:
        plain = f"value_{plain}"
    return unique(plain, taken)


def unique(name: str, taken: Sequence[str] | set[str]) -> str:
    """The name, numbered from 2 on where it is taken."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}{number}"
    return found


def class_name(path: Sequence[str]) -> str:
    """`layer1.0` -> `LayerBlock`, `blocks.3.attn` -> `Attn`, `blocks.0` -> `Block`."""
    words = [part for part in path if not part.isdigit()]
    word = re.sub(r"[^A-Za-z0-9]+", " ", words[-1]).strip()[:40] if words else ""
    plain = "".join(part[:1].upper() + part[1:] for part in word.split()).rstrip("0123456789")
    plain = re.sub(r"^[0-9]+", "", plain) or "Part"
    if path and path[-1].isdigit():
        plain = "Block" if plain.lower() in ("block", "blocks", "layer", "layers") else f"{plain}Block"
    return f"{plain}_" if keyword.iskeyword(plain) or plain in _RESERVED else plain


def attribute(owner: str, name: str) -> str:
    """`self` and `conv1` -> `self.conv1`; a name that is no plain one is only ever a literal."""
    return f"{owner}.{name}" if is_attribute(name) else f"getattr({owner}, {quoted(name)})"


def quoted(text: str) -> str:
    """The text as an ASCII literal."""
    plain = ascii(text)
    return plain if "\\" in plain or '"' in plain or "'" in text else f'"{plain[1:-1]}"'


def literal(value: Any) -> str:
    """A constant as Python writes it.

    Raises:  ModelError for what has no literal.
    """
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        return str(value)
    if isinstance(value, torch.device):
        return f"torch.device({quoted(str(value))})"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool | int | complex) or value is None:
        return repr(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, list | tuple):
        inner = ", ".join(literal(part) for part in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    raise ModelError(
        f"an argument of type {type(value).__name__} cannot be written as Python source; export ONNX or .pt2"
    )


def _float(value: float) -> str:
    if math.isnan(value):
        return "math.nan"
    if math.isinf(value):
        return "math.inf" if value > 0 else "-math.inf"
    return repr(value)


@dataclass(frozen=True)
class Slot:
    """A constant of a class that may differ between its instances; equal ones of one `kind` become one argument."""

    value: Any
    kind: str
    hint: str


@dataclass(frozen=True)
class Arg:
    """An argument of a constructor; one that equals its default is left out."""

    name: str | None
    value: Slot | Build
    default: Any = ...


@dataclass(frozen=True)
class Build:
    """A call that makes a module; one that `is_fixed` is not to be trained."""

    callee: str
    args: tuple[Arg, ...]
    is_fixed: bool = False


def slots_of(build: Build) -> Iterator[Slot]:
    """Constants in the order in which they stand."""
    for arg in build.args:
        if isinstance(arg.value, Slot):
            yield arg.value
        else:
            yield from slots_of(arg.value)


def shape_of(build: Build) -> tuple[Any, ...]:
    """What is left of a call without its constants."""
    inner = tuple(
        (arg.name, arg.value.kind if isinstance(arg.value, Slot) else shape_of(arg.value)) for arg in build.args
    )
    return (build.callee, inner, build.is_fixed)


def written(build: Build, arguments: Mapping[int, str], slots: Iterator[int], indent: int = 8, used: int = 0) -> str:
    """The call as source, over several lines where it is long.

    `arguments` has the name of every constant that is an argument of the class, by its position; `slots` counts them.
    """
    parts = [_argument(arg, arguments, slots, indent, build.callee) for arg in build.args]
    given = [part for part in parts if part is not None]
    before, after = (
        (f"{build.callee}(", ").requires_grad_(False)")
        if build.is_fixed
        else {
            "nn.ModuleList": ("nn.ModuleList([", "])"),
            "nn.ModuleDict": ("nn.ModuleDict({", "})"),
            "OrderedSequential": ("nn.Sequential(OrderedDict({", "}))"),
        }.get(build.callee, (f"{build.callee}(", ")"))
    )
    line = f"{before}{', '.join(given)}{after}"
    is_list = any(isinstance(arg.value, Build) for arg in build.args)
    if "\n" not in line and indent + used + len(line) <= (88 if is_list else 110):
        return line
    pad = " " * (indent + 4)
    return f"{before}\n" + "".join(f"{pad}{part},\n" for part in given) + " " * indent + after


def _argument(arg: Arg, arguments: Mapping[int, str], slots: Iterator[int], indent: int, callee: str) -> str | None:
    if isinstance(arg.value, Build):
        text = written(arg.value, arguments, slots, indent + 4, used=8)
        return f"{quoted(str(arg.name))}: {text}" if callee in ("nn.ModuleDict", "OrderedSequential") else text
    position = next(slots)
    name = arguments.get(position)
    if name is None and arg.default is not ... and _same(arg.value.value, arg.default):
        return None
    text = name if name is not None else literal(arg.value.value)
    return text if arg.name is None else f"{arg.name}={text}"


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b
