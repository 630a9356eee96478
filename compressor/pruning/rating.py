"""Weights as the criterion of a run sees them, with what it needs of the data; it must never choose what goes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from compressor.asking.prune import PruneSettings
from compressor.asking.score import MEASURED_SCORES, NEEDS_GRADIENTS, NEEDS_INPUTS
from compressor.axes import UnitMap
from compressor.program import Program, find_layers
from compressor.pruning.run import Trainer
from compressor.sparsity import PER_SAMPLE, Moments, rate


def rated_tensors(
    program: Program, units: UnitMap, settings: PruneSettings, trainer: Trainer | None
) -> Mapping[str, Tensor]:
    """What a selector ranks by squared magnitude, by the parameters' names; what is cut already rates 0.

    Raises:  UsageError if the criterion needs data and there is none; PatternError as `sparsity.rate`.
    """
    if settings.score in ("l2", *MEASURED_SCORES):
        return program.parameters
    moments = None
    if settings.score in NEEDS_GRADIENTS and trainer is not None:
        gradients = trainer.gradients(program, settings.score_batches, per_sample=settings.score in PER_SAMPLE)
        moments = {name: Moments(*pair) for name, pair in gradients.items()}
    energies = None
    if settings.score in NEEDS_INPUTS and trainer is not None:
        energies = trainer.input_energies(program, settings.score_batches)
    rated = rate(settings.score, program.parameters, find_layers(program), units, moments, energies)
    return {
        name: tensor.masked_fill(~program.masks[name], 0.0) if name in program.masks else tensor
        for name, tensor in rated.items()
    }
