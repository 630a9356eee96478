"""Which shape of an input may have been meant where the given one does not run; it must never decide for one.

Shapes are written in the wrong order, without their channels, or flat; few of these are worth a try.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from compressor.program.spec import InputSpec

_CHANNELS = (1, 3)
_SIDES = (28, 32, 224)
_MOST_ELEMENTS = 2**20
"""Of one sample; a larger one takes too long for a guess."""

Sizes = tuple[int, ...]


def likely_input(inputs: Sequence[InputSpec], runs: Callable[[Sequence[InputSpec]], bool]) -> str | None:
    """What to write instead of an input, as `1x28x28`; None where nothing that was tried runs."""
    for place, spec in enumerate(inputs):
        given = tuple(size or 1 for size in spec.shape[1:])
        for sizes in _others(given):
            tried = [replace(spec, shape=(None, *sizes)) if i == place else one for i, one in enumerate(inputs)]
            if math.prod(sizes) <= _MOST_ELEMENTS and runs(tried):
                return shown(tried[place], bare=len(inputs) == 1)
    return None


def _others(given: Sizes) -> Iterator[Sizes]:
    """Shapes that are often meant, the likeliest first."""
    found: list[Sizes] = []
    if len(given) == 1:
        found += [(channels, *_square(given[0] // channels)) for channels in _CHANNELS if given[0] % channels == 0]
    if len(given) == 2:
        found += [(channels, *given) for channels in _CHANNELS]
    if len(given) == 3:
        found += [(given[2], *given[:2])]
        found += [(channels, *given[1:]) for channels in _CHANNELS]
        found += [(given[0], side, side) for side in _SIDES]
    if len(given) == 4:
        found += [rest for end, rest in ((given[0], given[1:]), (given[-1], given[:-1])) if end == 1]
    if len(given) > 1:
        found += [(math.prod(given),)]
    yield from (sizes for sizes in dict.fromkeys(found) if sizes != given and all(sizes))


def _square(n: int) -> Sizes:
    side = math.isqrt(n)
    return (side, side) if side * side == n else (0, 0)


def shown(spec: InputSpec, *, bare: bool = False) -> str:
    """As it is written for --input: `ids:int64:128<30522`, or `1x28x28` where there is nothing else to say."""
    names = spec.free[1:] or ("",) * len(spec.shape[1:])
    sizes = "x".join(f"{n}@{size}" if n else str(size) for n, size in zip(names, spec.shape[1:], strict=True)) or "()"
    bound = f"<{spec.high}" if spec.high is not None and not spec.torch_dtype.is_floating_point else ""
    if bare and spec.dtype == "float32":
        return sizes
    return f"{spec.name}:{spec.dtype}:{sizes}{bound}"
