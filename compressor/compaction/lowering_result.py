"""What lowering did to each layer with unused columns, as plain values; it must never hold tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoweredLayer:
    """The form that a layer got. `seconds` are the measured times of the forms it could have, empty if none was asked.

    `n_used` of `n_columns` columns are not zero across all filters; `reason` says why the layer stayed dense where it
    was not a measurement that decided.
    """

    name: str
    form: str
    n_used: int
    n_columns: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
