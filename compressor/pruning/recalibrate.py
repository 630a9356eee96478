"""Batch-norm statistics measured anew after a cut; it must never train a weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import torch
from torch import Tensor
from torch.fx import Node

from compressor.data import Batch, DataSource
from compressor.errors import DataError
from compressor.program import Program, ProgramModule, arguments, families, set_argument

Names = tuple[str, str]
"""Mean and variance of one batch norm, as the module names them."""

Statistics = dict[Names, tuple[Tensor, Tensor]]

_FURTHEST = 4.0
"""Between the variances of augmented and of plain images, either way: 0.70 to 2.11 over all 2,720 channels of the
published ResNet-20 and -56."""


@torch.no_grad()
def recalibrate(
    program: Program,
    data: DataSource,
    *,
    n_batches: int,
    batch_size: int = 64,
    seed: int = 0,
    device: str = "cpu",
    reference: Program | None = None,
    augment: bool = False,
) -> int:
    """How many batch norms got the statistics of the first training batches of a seed, in place.

    Every norm normalises by its batch meanwhile, as in training; dropout stays off. All batches count alike: the mean
    is that of all samples, the variance that within the batches plus that of their means.

    A network was trained on augmented images that nobody may know any more, and its statistics are of those. The
    `reference`, the network as it was before the cut, says what that makes: it is measured on the same batches, and
    what it holds against what is measured there, per channel, corrects what is measured here. A network that nothing
    happened to so keeps its statistics. One that has other norms says nothing; then `augment` makes the batches those
    of training.

    Raises:  DataError without training data.
    Source:  Li et al. 2020, "EagleEye: Fast Sub-net Evaluation", sec. 3.3 (there: the moving average goes on); the
             correction is ours. The published ResNet-20 as it is, "re-calibrated" on plain images, falls from 91.65 to
             88.75 % (2,000 test images); it was trained on shifted ones.
    """
    names = [_measured_by_batch(node) for node in _norms(program.module)]
    if not names:
        return 0
    fits = reference is not None and _shapes(reference) == _shapes(program)
    augment = augment and not fits

    def measured(of: Program) -> Statistics:
        batches = islice(data.batches("train", batch_size, seed=seed, augment=augment, device=device), n_batches)
        found = _measure(of, batches, device)
        if not found:
            raise DataError(f"{data.ref}: the train split is empty; there is nothing to calibrate on")
        return found

    found = measured(program)
    if reference is not None and fits:
        found = _corrected(found, measured(reference), dict(reference.module.named_buffers()))
    own = dict(program.module.named_buffers())
    for (mean_name, var_name), (mean, var) in found.items():
        own[mean_name].copy_(mean)
        own[var_name].copy_(var)
    return len(names)


def _measure(program: Program, batches: Iterator[Batch], device: str) -> Statistics:
    """What the batches make of every norm, in float64 on the device; nothing without a batch."""
    measuring = program.module.clone()
    measuring.eval()
    for node in _norms(measuring):
        set_argument(node, "training", True)
        set_argument(node, "momentum", 1.0)
    measuring.recompile()
    measuring.to(device)
    buffers = dict(measuring.named_buffers())
    sums = {_measured_by_batch(node): _Pooled() for node in _norms(measuring)}
    for batch in batches:
        measuring(*batch.inputs)
        for (mean, var), pooled in sums.items():
            pooled.add(buffers[mean], buffers[var], len(batch.inputs[0]))
    return {pair: pooled.result() for pair, pooled in sums.items() if pooled.n}


def _corrected(found: Statistics, of_reference: Statistics, held: Mapping[str, Tensor]) -> Statistics:
    """The statistics `found`, moved as those the reference `held` are from what was measured `of_reference`.

    The shift of the mean is in units of the channel's deviation. A channel that is as good as constant in the
    reference, or whose variance there has nothing to do with what was measured, says nothing and stays as found.
    """
    corrected: Statistics = {}
    for names, (mean, var) in found.items():
        old_mean, old_var = (held[name].to(mean) for name in names)
        ref_mean, ref_var = of_reference[names]
        known = (ref_var > 0) & (old_var < _FURTHEST * ref_var) & (ref_var < _FURTHEST * old_var)
        per_var = torch.where(known, var / ref_var.where(known, torch.ones_like(ref_var)), 0)
        corrected[names] = (
            mean + (old_mean - ref_mean) * per_var.sqrt(),
            torch.where(known, old_var * per_var, var),
        )
    return corrected


class _Pooled:
    """Mean and variance over batches. Shapes: (C,) each."""

    def __init__(self) -> None:
        self.n = 0
        self._mean: Tensor | float = 0.0
        self._square: Tensor | float = 0.0
        self._within: Tensor | float = 0.0

    def add(self, mean_C: Tensor, var_C: Tensor, n: int) -> None:
        mean_C, var_C = mean_C.to(torch.float64), var_C.to(torch.float64)
        self.n += n
        self._mean = self._mean + n * mean_C
        self._square = self._square + n * mean_C.square()
        self._within = self._within + n * var_C

    def result(self) -> tuple[Tensor, Tensor]:
        mean, square, within = (torch.as_tensor(s) / self.n for s in (self._mean, self._square, self._within))
        return mean, within + (square - mean.square()).clamp_min(0)


def _norms(module: ProgramModule) -> list[Node]:
    """Batch norms with running statistics; one without them measures every batch anyway."""
    return [
        node
        for node in module.graph.nodes
        if node.target in families.BATCH_NORM and isinstance(arguments(node)["running_mean"], Node)
    ]


def _shapes(program: Program) -> dict[Names, torch.Size]:
    buffers = dict(program.module.named_buffers())
    return {names: buffers[names[0]].shape for names in map(_measured_by_batch, _norms(program.module))}


def _measured_by_batch(node: Node) -> Names:
    bound = arguments(node)
    return str(bound["running_mean"].target), str(bound["running_var"].target)
