"""What a family of operators is, and tables with an entry for each operator; it must never list one.

The families themselves are in `families.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from torch._ops import OpOverload

_Entry = TypeVar("_Entry", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Family:
    """Overloads that nothing here tells apart.

    A family whose argument `weight` belongs to a layer has its dimensions: `filter_dim`, and `channel_dim` where there
    are input channels. `operands` are the arguments that are multiplied, in order; `mode` is the argument that says
    whether the network is being trained.
    """

    name: str
    overloads: tuple[OpOverload, ...] = ()
    filter_dim: int | None = None
    channel_dim: int | None = None
    operands: tuple[str, ...] = ()
    mode: str | None = None

    @cached_property
    def _members(self) -> frozenset[Any]:
        return frozenset(self.overloads)

    def __contains__(self, target: Any) -> bool:
        return target in self._members

    def __iter__(self) -> Iterator[OpOverload]:
        return iter(self.overloads)

    def __or__(self, other: Family | Group) -> Group:
        return Group((self,)) | other


@dataclass(frozen=True, eq=False)
class Group:
    """Several families together."""

    families: tuple[Family, ...]

    @cached_property
    def _members(self) -> frozenset[Any]:
        return frozenset(self)

    def __contains__(self, target: Any) -> bool:
        return target in self._members

    def __iter__(self) -> Iterator[OpOverload]:
        return (overload for family in self.families for overload in family)

    def __or__(self, other: Family | Group) -> Group:
        more = other.families if isinstance(other, Group) else (other,)
        return Group((*self.families, *(family for family in more if family not in self.families)))


@dataclass
class Known:
    """The families so far, and the one of each overload."""

    families: list[Family] = field(default_factory=list[Family])
    of: dict[Any, Family] = field(default_factory=dict[Any, Family])

    def add(self, name: str, *overloads: OpOverload, **more: Any) -> Family:
        """Raises:  ValueError if an overload is in a family already."""
        family = Family(name, overloads, **more)
        for overload in overloads:
            if overload in self.of:
                raise ValueError(f"{overload} is in two families: {self.of[overload].name} and {name}")
            self.of[overload] = family
        self.families.append(family)
        return family


class OperatorTable(dict[Any, _Entry]):
    """One entry per overload; `what` names it in the error on a second one."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def register(self, *operators: Family | Group | OpOverload) -> Callable[[_Entry], _Entry]:
        """A decorator that enters a function for families, groups or single overloads.

        Raises:  ValueError if an overload has an entry already.
        """
        overloads = [o for one in operators for o in (one if isinstance(one, (Family, Group)) else (one,))]

        def enter(entry: _Entry) -> _Entry:
            for overload in overloads:
                if overload in self:
                    raise ValueError(f"{overload} already has {self._what}: {self[overload].__name__}")
                self[overload] = entry
            return entry

        return enter
