"""How units are found: the two questions that have two right answers; it must never hold a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from compressor.errors import ModelError

ThroughNorm: TypeAlias = Literal["pin", "exact", "rescale"]
THROUGH_NORM: tuple[ThroughNorm, ...] = get_args(ThroughNorm)


@dataclass(frozen=True)
class WalkOptions:
    """Which of two possible answers the rules give.

    `keep_heads`: a view that splits attention heads keeps identity along the heads and ties the positions inside.
    `through_norm`: what passes a mean or a variance stays (`pin`), may go while the original divisor is kept (`exact`:
    the compact model equals the masked one), or may go with its share of the divisor (`rescale`: it does not).
    """

    keep_heads: bool = False
    through_norm: ThroughNorm = "pin"

    def to_mapping(self) -> dict[str, Any]:
        """What differs from the default, as plain JSON: the form in a checkpoint's record."""
        return {key: value for key, value in asdict(self).items() if value != getattr(WalkOptions(), key)}

    @staticmethod
    def from_mapping(entry: Mapping[str, Any]) -> WalkOptions:
        """Raises:  ModelError if the entry holds anything but options of a walk."""
        known = {"keep_heads": (False, True), "through_norm": THROUGH_NORM}
        for key, value in entry.items():
            if value not in known.get(key, ()):
                raise ModelError(f"walk option {str(key)[:40]!r} = {str(value)[:40]!r} is unknown; update compress")
        return WalkOptions(**entry)
