"""What heals a cut without a step of training, in its order; it must never cut or train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from compressor.asking import Recovery
from compressor.data import DataSource
from compressor.errors import UsageError
from compressor.program import Program
from compressor.pruning.least_squares import Support
from compressor.pruning.recalibrate import recalibrate
from compressor.pruning.reconstruct import reconstruct


@dataclass(frozen=True)
class Recovered:
    """Numbers for the stage's row, and masks that stand in place of the program's."""

    numbers: dict[str, float]
    masks: Mapping[str, Tensor]


def recover(
    program: Program,
    recovery: Recovery,
    data: DataSource,
    *,
    dense: Program | None,
    batch_size: int = 64,
    seed: int = 0,
    device: str = "cpu",
    augment: bool = False,
    supports: Mapping[str, Support] | None = None,
) -> Recovered:
    """What was done; the program's tensors are changed in place. Layers with `supports` choose anew what they keep.

    `dense` is the network as it was before the cut: its outputs are fitted, its batch norms say what the data of its
    training were like. Where it is not there, re-calibration takes batches that are augmented as asked.
    `output error` is the mean over all fitted layers of ‖Y − Y'‖ / ‖Y‖ on the calibration data, after fitting;
    `unfitted` the same before.

    Raises:  UsageError if outputs are to be fitted and there is no dense program of the same graph.
    """
    found: dict[str, float] = {}
    chosen: Mapping[str, Tensor] = {}
    if recovery.reconstruct:
        if dense is None:
            raise UsageError("--reconstruct fits the outputs of the dense model; name it with --teacher MODEL")
        fitted = reconstruct(
            program, dense, data, n_batches=recovery.reconstruct, batch_size=batch_size, ridge=recovery.ridge,
            seed=seed, device=device, supports=supports,
        )  # fmt: skip
        chosen = fitted.masks
        if fitted.after:
            found["unfitted"] = sum(fitted.before.values()) / len(fitted.before)
            found["output error"] = sum(fitted.after.values()) / len(fitted.after)
    if recovery.recalibrate:
        n_norms = recalibrate(
            program, data, n_batches=recovery.recalibrate, batch_size=batch_size, seed=seed, device=device,
            reference=dense, augment=augment,
        )  # fmt: skip
        found["norms"] = float(n_norms)
    return Recovered(found, chosen)
