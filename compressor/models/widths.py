"""Which entries of a configuration are widths of which weights, found by building networks of other sizes.

An entry is changed and the shapes tell what it is a width of; it must never know an architecture by name. What cannot
be found so is how many heads share a width (fewer of a larger size have the same shapes), hence the names of heads.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeAlias

from compressor.errors import CompressError
from compressor.narrowing import is_row

Key: TypeAlias = tuple[str | int, ...]
"""Where an entry stands: names of tables and places in lists."""
Axis: TypeAlias = tuple[str, int]
"""A tensor by name, and a dimension."""
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Entries: TypeAlias = Mapping[str, Any]
Build: TypeAlias = Callable[[Entries], Shapes | None]
"""Shapes of all tensors of the network that a configuration describes; None if there is no such network."""

_WITHIN_HEADS = ("head_dim", "d_kv", "head_size", "kv_channels")
"""Parts of the names of widths inside of a head, which stay: what is removed is whole heads."""
_HEADS = frozenset(
    {
        "num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
        "decoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads",
    }
)  # fmt: skip
_NEVER = (
    "_token_id", "num_labels", "_layers", "vocab_size", "image_size", "patch_size", "positions", "type_vocab",
    "buckets", "max_position",
)  # fmt: skip
"""Parts of names that are no width of what is inside of a network: not worth a network to find out."""
_PROBE = 14
"""A number that nothing else in a configuration divides."""
_MOST_ENTRIES = 64
_MOST_CANDIDATES = 64


@dataclass(frozen=True)
class Widths:
    """The widths of a network.

    `entries` is the configuration with all that was left open written out. `axes` tells for each entry that is a width
    the axes that grow with it, all by the same factor. `heads` are counts of heads that no shape shows. `shapes` are
    those of the network as it is.
    """

    entries: Entries
    axes: Mapping[Key, frozenset[Axis]]
    heads: tuple[Key, ...]
    shapes: Shapes
    build: Build = field(repr=False, compare=False)

    @property
    def removable(self) -> dict[Key, frozenset[Axis]]:
        """Without widths inside of a head."""
        return {key: axes for key, axes in self.axes.items() if not _has(key, _WITHIN_HEADS)}

    def expected(self, factors: Mapping[Key, Fraction]) -> Shapes | None:
        """The shapes with these entries times their factors; None if there is no such network, or an entry is not the
        width of what it was found to be the width of."""
        entries = self.scaled(factors)
        shapes = None if entries is None else self.build(entries)
        if shapes is None or shapes.keys() != self.shapes.keys():
            return None
        wanted = self._multiplied(factors)
        return shapes if shapes == wanted else None

    def _multiplied(self, factors: Mapping[Key, Fraction]) -> dict[str, tuple[Any, ...]]:
        sizes: dict[str, list[Any]] = {name: list(shape) for name, shape in self.shapes.items()}
        for key, factor in factors.items():
            for name, dim in self.axes.get(key, ()):
                sizes[name][dim] *= factor
        return {name: tuple(shape) for name, shape in sizes.items()}

    def factors_of(self, shapes: Shapes) -> dict[Key, Fraction]:
        """What each entry is multiplied by in a network of these shapes, by the first of its axes that no other entry
        is a width of; tensors that are not in `shapes` say nothing."""
        owners: dict[Axis, list[Key]] = {}
        for key, axes in self.removable.items():
            for axis in axes:
                owners.setdefault(axis, []).append(key)
        found: dict[Key, Fraction] = {}
        for (name, dim), keys in sorted(owners.items()):
            if len(keys) == 1 and name in shapes and len(shapes[name]) == len(self.shapes[name]):
                found.setdefault(keys[0], Fraction(shapes[name][dim], self.shapes[name][dim]))
        return found

    def scaled(self, factors: Mapping[Key, Fraction]) -> Entries | None:
        """The configuration with these entries times their factors; None if one would be no whole number."""
        entries: Any = copy.deepcopy(self.entries)
        for key, factor in factors.items():
            value = Fraction(get_entry(entries, key)) * factor
            if value.denominator != 1 and type(get_entry(entries, key)) is int and get_entry(entries, key) > _PROBE:
                return None
            put_entry(entries, key, int(value) if value.denominator == 1 else float(value))
        return entries


def find_widths(entries: Entries, build: Build) -> Widths:
    """The widths of the network that `entries` describe.

    Raises:  whatever `build` does.
    """
    shapes = build(entries)
    assert shapes is not None
    entries = _written_out(entries, build, shapes)
    found: dict[Key, frozenset[Axis]] = {}
    heads: list[Key] = []
    for key, value in _numbers(entries):
        if _has(key, _NEVER):
            continue
        axes = _growing(shapes, build(_with(entries, key, value * 2)))
        if axes:
            found[key] = axes
        elif key[-1] in _HEADS or (len(key) > 1 and key[-2] in _HEADS):
            heads.append(key)
    return Widths(entries, found, tuple(heads), shapes, build)


def candidates(widths: Widths, factors: Mapping[Key, Fraction]) -> Iterator[Entries]:
    """Configurations with these factors, counts of heads that no shape shows left alone or shrunk with a width beside
    them; only those that give a network."""
    choices: list[list[Fraction]] = []
    for key in widths.heads:
        beside = {factor for other, factor in factors.items() if other[:-1] == key[:-1]}
        choices.append([Fraction(1), *sorted(beside - {Fraction(1)})])
    for chosen in itertools.islice(itertools.product(*choices), _MOST_CANDIDATES):
        entries = widths.scaled({**factors, **dict(zip(widths.heads, chosen, strict=True))})
        if entries is not None and widths.build(entries) is not None:
            yield entries


def name_of(key: Key) -> str:
    """`text_config.hidden_size`, `hidden_sizes[1]`."""
    first, *rest = key
    return str(first) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest)


def _written_out(entries: Entries, build: Build, shapes: Shapes) -> Entries:
    """The configuration with the widths that it leaves to the library (a head of hidden ÷ heads, a layer of 4 · hidden)
    as numbers of their own, where it has an entry for them."""
    for key in [*_open_entries(entries), *_heads_dims(entries)]:
        other = build(_with(entries, key, _PROBE))
        if other is None or other.keys() != shapes.keys():
            continue
        sizes = {
            Fraction(shapes[name][dim] * _PROBE, size)
            for name, shape in other.items()
            for dim, size in enumerate(shape)
            if size != shapes[name][dim]
        }
        if len(sizes) == 1 and (size := sizes.pop()).denominator == 1:
            written = _with(entries, key, int(size))
            if build(written) == shapes:
                entries = written
    return entries


def _growing(before: Shapes, after: Shapes | None) -> frozenset[Axis]:
    """Axes that are twice as long; empty if anything else changed."""
    if after is None or before.keys() != after.keys():
        return frozenset()
    changed: set[Axis] = set()
    for name, shape in before.items():
        other = after[name]
        if len(other) != len(shape):
            return frozenset()
        for dim, (old, new) in enumerate(zip(shape, other, strict=True)):
            if new == 2 * old:
                changed.add((name, dim))
            elif new != old:
                return frozenset()
    return frozenset(changed)


def tables_of(entries: Any, at: Key = ()) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    """Every table of entries in a configuration, itself first."""
    yield at, entries
    for name, value in entries.items():
        if isinstance(value, Mapping) and name.endswith("config"):
            yield from tables_of(value, (*at, name))


def _numbers(entries: Entries) -> list[tuple[Key, int]]:
    found: list[tuple[Key, int]] = []
    for at, table in tables_of(entries):
        for name, value in table.items():
            listed = enumerate(value) if is_row(value) else ()
            found += [((*at, name, i), part) for i, part in listed if type(part) is int and part > 0]
            if type(value) is int and value > 0:
                found.append(((*at, name), value))
    return found[:_MOST_ENTRIES]


def _open_entries(entries: Entries) -> Iterator[Key]:
    for at, table in tables_of(entries):
        yield from ((*at, name) for name, value in table.items() if value is None and not _has((name,), _NEVER))


def _heads_dims(entries: Entries) -> Iterator[Key]:
    """The size of a head, which many architectures take though their files do not hold it."""
    for at, table in tables_of(entries):
        if "head_dim" not in table and _HEADS & table.keys():
            yield (*at, "head_dim")


def _has(key: Key, parts: Sequence[str]) -> bool:
    name = next(str(part) for part in reversed(key) if not isinstance(part, int))
    return any(part in name for part in parts)


def get_entry(entries: Any, key: Key) -> Any:
    """What stands there."""
    for part in key:
        entries = entries[part]
    return entries


def put_entry(entries: Any, key: Key, value: Any) -> None:
    """Puts a value there, in place.

    Raises:  CompressError if it is a part of what cannot be changed.
    """
    table = get_entry(entries, key[:-1])
    if isinstance(table, tuple):
        raise CompressError(f"{name_of(key)}: is no list that can be changed")
    table[key[-1]] = value


def _with(entries: Entries, key: Key, value: Any) -> Entries:
    changed = copy.deepcopy(dict(entries))
    put_entry(changed, key, value)
    return changed
