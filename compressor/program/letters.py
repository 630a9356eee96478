"""The letters of an einsum, with those of its ellipsis; it must never hold what is done along them."""

from __future__ import annotations

import re
from collections.abc import Sequence


def einsum_letters(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """The letters of every dimension of every operand and of the result; those of an ellipsis are called `.0`, `.1` …

    Numbered from the right, because that is how an ellipsis broadcasts.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    specs = [re.findall(r"\.\.\.|[A-Za-z]", part) for part in left.split(",")]
    most = max((rank - len(s) + 1 for s, rank in zip(specs, ranks, strict=True) if "..." in s), default=0)

    def spread(spec: Sequence[str], n: int) -> list[str]:
        return [one for x in spec for one in ([f".{i}" for i in reversed(range(n))] if x == "..." else [x])]

    spread_specs = [spread(spec, rank - len(spec) + 1) for spec, rank in zip(specs, ranks, strict=True)]
    if arrow:
        return spread_specs, spread(re.findall(r"\.\.\.|[A-Za-z]", right), most)
    letters = [x for spec in specs for x in spec if x != "..."]
    return spread_specs, [*spread(["..."], most), *sorted(x for x in set(letters) if letters.count(x) == 1)]
