"""What a selector is made for, in one line of a test; it must never hold a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compressor.asking import Cut, PruneSettings
from compressor.cost import USUAL, Preferences, Stopwatch
from compressor.sparsity import Choice


def choice_of(
    pattern: str,
    of: Any = "params",
    *,
    stopwatch: Stopwatch | None = None,
    preferences: Preferences = USUAL,
    **asked: Any,
) -> Choice:
    """A choice for a cut that leaves widths as the scores have them, unless `round_to` says otherwise."""
    kind = PruneSettings if "method" in asked else Cut
    ratio = {"ratio": 2.0} if kind is PruneSettings else {}
    return Choice(kind(**{"pattern": pattern, "of": of, "round_to": 1, **ratio, **asked}), stopwatch, preferences)


def asking(choice: Choice, **asked: Any) -> Choice:
    """The same choice with something else asked."""
    return replace(choice, asked=replace(choice.asked, **asked))
