"""How hard ADMM and growing regularisation pull, from update to update; it must never see a weight.

Two courses of the penalty ρ: the fixed one of Zhang et al. (`Growing`), and one that is steered by how far the weights
still are from the constraint set (`Steered`). What ρ does to a weight depends on optimizer, rate, momentum, loss and
batch: with sgd a step of lr · ρ / (1 − momentum) of the way, with Adam a step of about lr. So no fixed course serves
all of them, and steering needs to know none of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Reading:
    """What an update finds: the share of the stage that is `done` and the residual now and at the update before, each
    as a share of the first one."""

    done: float
    left: float
    left_before: float
    n_updates: int


class Course(Protocol):
    """The penalty of a whole stage; `factors` are what single tensors have it multiplied by."""

    @property
    def first(self) -> float: ...

    @property
    def factors(self) -> Mapping[str, float]: ...

    def after(self, rho: float, found: Reading) -> float:
        """The penalty until the next update."""
        ...

    def planned(self, done: float) -> float | None:
        """What should be left of the first residual when that share of the stage is done; None where nothing aims."""
        ...


@dataclass(frozen=True)
class Growing:
    """Times `growth` at every update, up to `limit`. Source: Zhang et al. 2018, sec. 4.2 (there by hand)."""

    first: float
    growth: float
    limit: float
    factors: Mapping[str, float] = field(default_factory=dict[str, float])

    def after(self, rho: float, found: Reading) -> float:
        return min(rho * self.growth, self.limit)

    def planned(self, done: float) -> float | None:
        return None


@dataclass(frozen=True)
class Steered:
    """The penalty that leads the residual down a straight line to 0 at `settle` of the stage, at most `limit`.

    At every update the decay of the last stretch (in logarithms) is held against the decay that is needed until the
    next one, and ρ is multiplied by the ratio, at most by `nimble` either way. It stands where Boyd et al. 2011, sec.
    3.4.1, balance the primal with the dual residual: with a set that stays the dual one is how far training moves the
    weights that stay, and says nothing about the pull. (An argument; the balanced course was not measured.)
    """

    first: float
    settle: float
    limit: float
    nimble: float = 2.0
    factors: Mapping[str, float] = field(default_factory=dict[str, float])

    def after(self, rho: float, found: Reading) -> float:
        aim = self.planned(found.done + 1 / found.n_updates)
        needed = math.log(max(found.left, _NOTHING) / max(aim, _NOTHING))
        done = math.log(max(found.left_before, _NOTHING) / max(found.left, _NOTHING))
        wanted = needed / done if done > 0 else math.inf
        return min(rho * min(max(wanted, 1 / self.nimble), self.nimble), self.limit)

    def planned(self, done: float) -> float:
        return max(1 - done / self.settle, 0.0)


_NOTHING = 1e-6
"""A residual, as a share of the first one, that is as good as 0."""
