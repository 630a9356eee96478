"""Metrics of a model on a data set; it must never change weights or know why it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from compressor.data.task import means_of
from compressor.errors import DataError
from compressor.training.processes import Processes, open_processes

if TYPE_CHECKING:
    from compressor.data.source import DataSource
    from compressor.data.task import Task

EVALUATED_AT_ONCE = 1000
"""Samples that run together where nobody says otherwise."""


def evaluate(
    module: nn.Module,
    data: DataSource,
    task: Task,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = EVALUATED_AT_ONCE,
    limit: int | None = None,
    split: Literal["train", "val"] = "val",
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """The task's metrics, `loss` and the number of samples `n`, in fp32.

    Leaves the module on `device` in eval mode. `on_step` gets (samples done, samples in all). With several
    processes each takes its share, all must call it and all get the same answer.

    Raises:  DataError if the split is empty.
    """
    processes = open_processes(device)
    module.to(processes.device).eval()
    size = data.n_val if split == "val" else data.n_train
    total = min(size, limit) if limit is not None else size
    sums: dict[str, tuple[float, int]] = {}
    with torch.no_grad():
        for batch in data.batches(split, batch_size, limit=limit, device=str(processes.device), shard=processes.shard):
            n_batch = len(batch.inputs[0])
            outputs = module(*batch.inputs)
            loss = float(task.loss(outputs, batch))
            _add(sums, {"loss": (loss * n_batch, n_batch), **task.metrics(outputs, batch)})
            if on_step is not None:
                on_step(min(sums["loss"][1] * processes.world, total), total)
    merged = _merged(processes, sums)
    if not merged:
        raise DataError(f"{data.ref}: the {split} split is empty; there is nothing to evaluate on")
    return {**means_of(task, merged), "n": merged["loss"][1]}


def _merged(processes: Processes, sums: dict[str, tuple[float, int]]) -> dict[str, tuple[float, int]]:
    merged: dict[str, tuple[float, int]] = {}
    for part in processes.gather(sums):
        _add(merged, part)
    return merged


def _add(sums: dict[str, tuple[float, int]], part: Mapping[str, tuple[float, int]]) -> None:
    for name, (value, count) in part.items():
        so_far, n_so_far = sums.get(name, (0.0, 0))
        sums[name] = (so_far + value, n_so_far + count)
