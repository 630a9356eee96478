"""Names for tensors that a program gets; it must never rename one that it has."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from torch import fx, nn

_ATTRIBUTES = frozenset((*dir(fx.GraphModule), *dir(nn.Module())))


def free_name(wanted: str, taken: Iterable[str]) -> str:
    """`wanted`, changed as little as it takes to be a tensor's name beside those that are taken.

    A tensor is no module that another one could be in: beside `token`, `token.constant` becomes `token_constant`. What
    every module has already (`to`, `training`) gets a word in front; what is taken otherwise gets a number.
    """
    known = set(taken)
    modules = {name[:i] for name in known for i, letter in enumerate(name) if letter == "."}
    parts = [f"made_{part}" if part in _ATTRIBUTES else part for part in wanted.split(".")]
    name = parts[0]
    for part in parts[1:]:
        name = f"{name}_{part}" if name in known else f"{name}.{part}"
    return next(free for n in count(1) if (free := name if n == 1 else f"{name}_{n}") not in known | modules)
