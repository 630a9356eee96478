"""Which entries of a configuration say how many layers a network has, found by building networks with one layer less.

An entry is lowered by one and the names of the tensors tell which layers it counts; lists that have to be as long are
found in the same way. It must never know an architecture by name.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.models.widths import Build, Entries, Key, Shapes, get_entry, put_entry, tables_of
from compressor.narrowing import is_row

_NUMBERED = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class Depth:
    """An entry that counts `n` layers, those numbered in `stacks` (names of modules with a dot behind them), and the
    lists that have a value for each.
    """

    key: Key
    n: int
    stacks: tuple[str, ...]
    lists: tuple[Key, ...] = ()

    def place(self, name: str) -> tuple[str, int, str] | None:
        """The stack, number and rest of the name of a tensor or layer in one of the layers; None elsewhere."""
        for stack in self.stacks:
            if name.startswith(stack):
                number, _, rest = name[len(stack) :].partition(".")
                if number.isdecimal():
                    return stack, int(number), rest
        return None

    def left(self, names: Collection[str]) -> tuple[int, ...]:
        """Numbers of the layers of which anything is among these names."""
        return tuple(sorted({place[1] for name in names if (place := self.place(name)) is not None}))

    def without(self, entries: Entries, kept: Sequence[int]) -> Entries:
        """The configuration of a network with these layers only."""
        return _cut(entries, self.key, self.lists, kept)

    def renamed(self, name: str, kept: Sequence[int]) -> str:
        """What a tensor is called in the network with these layers only."""
        place = self.place(name)
        if place is None or place[1] not in kept:
            return name
        stack, number, rest = place
        return f"{stack}{list(kept).index(number)}.{rest}"


def find_depths(entries: Entries, build: Build) -> tuple[Depth, ...]:
    """The entries that count layers, each of which can be one less.

    Raises:  whatever `build` does.
    """
    shapes = build(entries)
    assert shapes is not None
    lengths = set(_stacks(shapes).values())
    found: dict[tuple[str, ...], Depth] = {}
    for key, n in _whole_numbers(entries):
        if n in lengths and n > 1:
            depth = _depth(entries, build, shapes, key, n)
            if depth is not None:
                found.setdefault(depth.stacks, depth)
    return tuple(found.values())


def _depth(entries: Entries, build: Build, shapes: Shapes, key: Key, n: int) -> Depth | None:
    beside = [other for other in _lists(entries, n) if other[:-1] == key[:-1]]
    lists = tuple(other for other in beside if _counts_too(entries, build, key, other, n))
    smaller = build(_cut(entries, key, lists, range(n - 1)))
    if smaller is None:
        return None
    gone = shapes.keys() - smaller.keys()
    if not gone or any(shapes.get(name) != shape for name, shape in smaller.items()):
        return None
    stacks = tuple(stack for stack, length in _stacks(shapes).items() if length == n and _holds(stack, n - 1, gone))
    outer = tuple(one for one in stacks if not any(one != other and one.startswith(other) for other in stacks))
    depth = Depth(key, n, outer, lists)
    return depth if all((place := depth.place(name)) is not None and place[1] == n - 1 for name in gone) else None


def _counts_too(entries: Entries, build: Build, key: Key, other: Key, n: int) -> bool:
    """Whether a list has a value for each layer: it can be shorter where there is a layer less, and only there."""
    alone = copy.deepcopy(dict(entries))
    put_entry(alone, other, list(get_entry(entries, other))[:-1])
    both = _cut(entries, key, (other,), range(n - 1))
    return build(alone) is None and build(both) is not None


def _cut(entries: Entries, key: Key, lists: Sequence[Key], kept: Sequence[int]) -> Entries:
    changed = copy.deepcopy(dict(entries))
    put_entry(changed, key, len(kept))
    for other in lists:
        values = list(get_entry(entries, other))
        put_entry(changed, other, [values[i] for i in kept])
    return changed


def _whole_numbers(entries: Entries) -> Iterator[tuple[Key, int]]:
    for at, table in tables_of(entries):
        yield from (((*at, name), value) for name, value in table.items() if type(value) is int)


def _lists(entries: Entries, n: int) -> Iterator[Key]:
    for at, table in tables_of(entries):
        yield from ((*at, name) for name, value in table.items() if is_row(value) and len(value) == n)


def _stacks(shapes: Mapping[str, Any]) -> dict[str, int]:
    """Modules whose children are numbered from 0, by name with a dot behind it, and how many there are."""
    numbers: dict[str, set[int]] = {}
    for name in shapes:
        for match in _NUMBERED.finditer(name):
            numbers.setdefault(name[: match.start()], set()).add(int(match[0]))
    return {stack: len(found) for stack, found in numbers.items() if found == set(range(len(found)))}


def _holds(stack: str, number: int, names: Collection[str]) -> bool:
    return any(name.startswith(f"{stack}{number}.") for name in names)
