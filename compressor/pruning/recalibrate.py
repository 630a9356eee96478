"""Batch-norm statistics measured anew after a cut; it must never train a weight."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor
from torch.fx import Node

from compressor.data import DataSource
from compressor.errors import DataError
from compressor.program import Program, arguments, set_argument

aten = torch.ops.aten


@torch.no_grad()
def recalibrate(
    program: Program, data: DataSource, *, n_batches: int, batch_size: int = 64, seed: int = 0, device: str = "cpu"
) -> int:
    """How many batch norms got the statistics of the first training batches of a seed, in place.

    Every norm normalises by its batch meanwhile, as in training; dropout stays off. All batches count alike: the mean
    is that of all samples, the variance that within the batches plus that of their means.

    Raises:  DataError without training data.
    Source:  Li et al. 2020, "EagleEye: Fast Sub-net Evaluation", sec. 3.3 (there: the moving average goes on).
    """
    measuring = program.module.clone()
    names = [_measured_by_batch(node) for node in _norms(measuring.graph.nodes)]
    if not names:
        return 0
    measuring.eval()
    for node in _norms(measuring.graph.nodes):
        set_argument(node, "training", True)
        set_argument(node, "momentum", 1.0)
    measuring.recompile()
    measuring.to(device)
    buffers = dict(measuring.named_buffers())
    sums = {pair: _Pooled() for pair in names}
    for batch in islice(data.batches("train", batch_size, seed=seed, device=device), n_batches):
        measuring(*batch.inputs)
        for pair, pooled in sums.items():
            pooled.add(buffers[pair[0]], buffers[pair[1]], len(batch.inputs[0]))
    own = dict(program.module.named_buffers())
    for (mean_name, var_name), pooled in sums.items():
        if pooled.n == 0:
            raise DataError(f"{data.ref}: the train split is empty; there is nothing to calibrate on")
        mean, var = pooled.result()
        own[mean_name].copy_(mean)
        own[var_name].copy_(var)
    return len(names)


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


def _norms(nodes: object) -> list[Node]:
    """Batch norms with running statistics; one without them measures every batch anyway."""
    found: list[Node] = []
    for node in nodes:  # type: ignore[attr-defined]
        if node.target is aten.batch_norm.default and isinstance(arguments(node)["running_mean"], Node):
            found.append(node)
    return found


def _measured_by_batch(node: Node) -> tuple[str, str]:
    bound = arguments(node)
    return str(bound["running_mean"].target), str(bound["running_var"].target)
