"""Gradients of a trained network on calibration batches, without a step; it must never change a weight or a buffer."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.errors import DataError, TrainingError
from compressor.training.devices import forked_rng
from compressor.training.processes import open_processes
from compressor.typed_torch import backward

if TYPE_CHECKING:
    from compressor.data.source import DataSource
    from compressor.data.task import Task


def gradient_moments(
    module: nn.Module,
    data: DataSource,
    task: Task,
    *,
    n_batches: int,
    batch_size: int = 64,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean |g| and mean g² of every trained parameter over the first training batches of a seed, on the CPU.

    In eval mode: batch norm reads its running statistics and dropout lets everything through. Every process gets the
    first one's answer, so that all of them decide alike. The module ends on `device`, without gradients.

    Shapes:  name -> two tensors in the parameter's shape
    Raises:  DataError without training data; TrainingError if a gradient is not finite.
    """
    processes = open_processes(device)
    device = processes.device
    module.to(device).eval()
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    sums = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in trained.items()}
    n_seen = 0
    with forked_rng(device):
        batches = data.batches("train", batch_size, seed=seed, device=str(device))
        for batch in islice(batches, n_batches):
            module.zero_grad(set_to_none=True)
            backward(task.loss(module(*batch.inputs), batch))
            n_seen += 1
            for name, parameter in trained.items():
                if parameter.grad is not None:
                    sums[name][0].add_(parameter.grad.abs())
                    sums[name][1].addcmul_(parameter.grad, parameter.grad)
    module.zero_grad(set_to_none=True)
    processes.share(tensor for pair in sums.values() for tensor in pair)
    if n_seen == 0:
        raise DataError(f"{data.ref}: the train split is empty; there is nothing to take gradients on")
    for name, (absolute, _) in sums.items():
        if not bool(torch.isfinite(absolute).all()):
            raise TrainingError(f"{name}: its gradient is not finite; the network does not fit its data")
    return {name: (absolute.cpu() / n_seen, square.cpu() / n_seen) for name, (absolute, square) in sums.items()}
