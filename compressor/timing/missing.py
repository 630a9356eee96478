"""Why a network is not as many times faster as it has fewer MACs, in words; it must never time anything."""

from __future__ import annotations

_MOST = 0.8
"""Share of the MAC ratio from which on nothing is missing: timing on a machine in use varies by that much."""
_FIXED_S = 2e-4
"""An inference that is shorter is mostly what starting its operators costs; onnxruntime takes 1 to 5 µs for each."""
_MEMORY = 0.5


def why_missing(
    speedup: float,
    macs_ratio: float | None,
    *,
    after_s: float | None = None,
    batch: int = 1,
    filled_ratio: float | None = None,
    read_once: float = 0.0,
) -> tuple[str, ...]:
    """Reasons, the most certain first; none where the speed-up is about that of the MACs.

    `filled_ratio` is the MAC ratio with every width filled up to what kernels compute at once, `read_once` the share of
    the weights left that one sample uses once: such layers wait for memory.
    """
    if macs_ratio is None or macs_ratio <= 1 or speedup >= _MOST * macs_ratio:
        return ()
    found: list[str] = []
    if filled_ratio is not None and filled_ratio < _MOST * macs_ratio:
        found.append(f"widths between those that kernels compute at once ({filled_ratio:.2f}x by the widths alone)")
    if read_once > _MEMORY and batch == 1:
        found.append(f"{read_once:.0%} of its weights are read for one product each: memory is the limit at batch 1")
    if after_s is not None and after_s < _FIXED_S:
        found.append("an inference this short is mostly the start of operators; larger batches show more")
    return tuple(found) or ("what is left is not in products: normalisations, activations, copies, or threads",)
