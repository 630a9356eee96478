"""What happens to layers that a pattern does not fit: refused when named, noted otherwise; it must never test a fit."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.errors import PatternError
from compressor.sparsity.choice import Choice

_NAMED = 3


def refuse_or_note(misfits: Sequence[tuple[str, str]], choice: Choice) -> tuple[str, ...]:
    """Notes about layers that stay dense, as (layer, reason): those that the user did not name with --scope.

    Raises:  PatternError if the scope was given: what is named must fit.
    """
    if not misfits:
        return ()
    if choice.asked.scope != ("*",):
        layer, reason = misfits[0]
        raise PatternError(f"{layer}: {reason}; skip it with --keep {layer}")
    shown = "; ".join(f"{layer} ({reason})" for layer, reason in misfits[:_NAMED])
    more = f" and {len(misfits) - _NAMED} more" if len(misfits) > _NAMED else ""
    return (f"left dense: {shown}{more}",)
