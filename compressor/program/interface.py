"""What the file that a network came from promises to programs that use it: names, types, open sizes, properties.

It must never hold a tensor, nor how a file is made that keeps the promise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from compressor.errors import ModelError
from compressor.program.element_types import ELEMENT_TYPES
from compressor.program.spec import InputSpec

_HALVES = {kind.name: kind.torch_dtype for kind in ELEMENT_TYPES if kind.is_half}
_KNOWN = frozenset(kind.name for kind in ELEMENT_TYPES)
_WORD = re.compile(r"[^A-Za-z0-9_]", re.ASCII)

Dim = int | str
"""A size, or the name of one that is open."""


@dataclass(frozen=True)
class Port:
    """One input or output of a file: `dtype` by our names, empty where it has none; `shape` None where it has none.

    `value` is what an input was bound to: the network computes with that number, and reads the input no more.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None = None
    value: float | None = None

    @property
    def is_half(self) -> bool:
        """Whether what goes through here has 16 bits, where the network computes in 32."""
        return self.dtype in _HALVES

    @property
    def is_sound(self) -> bool:
        """Whether type, sizes and number can be those of a tensor."""
        sizes = [size for size in self.shape or () if isinstance(size, int)]
        is_number = self.value is None or (math.isfinite(self.value) and set(self.shape or ()) <= {1})
        return self.dtype in ("", *_KNOWN) and min(sizes, default=1) > 0 and is_number

    def open_sizes(self) -> tuple[int, ...]:
        """Dimensions behind the first whose sizes are open."""
        return tuple(dim for dim, size in enumerate(self.shape or ()) if dim and isinstance(size, str))


@dataclass(frozen=True)
class Interface:
    """`inputs` in the file's order, bound ones too; `metadata` are the file's own properties."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def read(self) -> tuple[Port, ...]:
        """The inputs that the network reads."""
        return tuple(port for port in self.inputs if port.value is None)

    @property
    def has_open_sizes(self) -> bool:
        return any(port.open_sizes() for port in self.read)

    def with_fixed_sizes(self, specs: Sequence[InputSpec], but: Sequence[Sequence[int]] = ()) -> Interface:
        """The same with sizes behind the batch as in the specifications, but for those dimensions of each."""
        kept = {spec.name: (spec, dims) for spec, dims in zip(specs, but or ((),) * len(specs), strict=True)}
        return replace(self, inputs=tuple(_fixed(port, *kept.get(port.name, (None, ()))) for port in self.inputs))

    def check(self, specs: Sequence[InputSpec], n_outputs: int) -> None:
        """Raises:  ModelError where a network with these inputs and that many outputs cannot keep it."""
        own, names = [port.name for port in self.read], [spec.name for spec in specs]
        if own != names or len(self.outputs) != n_outputs:
            raise ModelError(
                f"its interface has the inputs {own} and {len(self.outputs)} outputs, the network {names} and "
                f"{n_outputs}; the file is damaged"
            )
        ranks = [
            port.shape is None or len(port.shape) == len(spec.shape)
            for port, spec in zip(self.read, specs, strict=True)
        ]
        if not all(ranks) or not all(port.is_sound for port in (*self.inputs, *self.outputs)):
            raise ModelError("its interface has a type, a size or a number that is not valid; the file is damaged")

    def rounded(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Inputs as they arrive through the file's own types: what 16 bits do not hold is not there."""
        pairs = zip(inputs, self.read, strict=True)
        return tuple(x.to(_HALVES[port.dtype]).to(x.dtype) if port.is_half else x for x, port in pairs)

    def grown(self, specs: Sequence[InputSpec], last: bool) -> tuple[InputSpec, ...]:
        """The inputs with the last open size of each doubled, or all others where there are several."""
        return tuple(_grown(spec, port.open_sizes(), last) for spec, port in zip(specs, self.read, strict=True))


def open_name(told: str, dim: int) -> str:
    """The name of an open size: the file's own where it is a word, one of ours where not."""
    plain = _WORD.sub("_", told)[:40]
    if plain and not plain[0].isdigit():
        return plain
    return "batch" if dim == 0 else f"size_{dim}"


def _fixed(port: Port, spec: InputSpec | None, but: Sequence[int]) -> Port:
    if spec is None or port.shape is None or len(port.shape) != len(spec.shape):
        return port
    pairs = enumerate(zip(port.shape, spec.shape, strict=True))
    return replace(port, shape=tuple(held if size is None or dim in but else size for dim, (held, size) in pairs))


def _grown(spec: InputSpec, dims: Sequence[int], last: bool) -> InputSpec:
    chosen = set(dims[-1:] if last or len(dims) == 1 else dims[:-1])
    sizes = (size * 2 if dim in chosen and size is not None else size for dim, size in enumerate(spec.shape))
    return replace(spec, shape=tuple(sizes))
