"""The primary metric of each model on validation data, through the runtime it is timed in; it must never
train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.data import DataSource, Task, Wanted, fitted, open_data, open_task
from compressor.errors import DataError, UsageError
from compressor.program import InputSpec, misfit
from compressor.timing.onnx_runner import OnnxRunner
from compressor.timing.providers import Provider, require_torch
from compressor.timing.subjects import Opened
from compressor.training import evaluate

_BATCH = 250


class _OnnxModule(nn.Module):
    """A session called like a module; gives tensors, a single output alone."""

    def __init__(self, runner: OnnxRunner) -> None:
        super().__init__()
        self._runner = runner

    def forward(self, *inputs: Tensor) -> Any:
        outputs = tuple(torch.from_numpy(output) for output in self._runner.outputs(inputs))
        return outputs[0] if len(outputs) == 1 else outputs


@dataclass(frozen=True)
class Question:
    """A subject, and what its accuracy is asked on."""

    entry: Opened
    data: DataSource
    task: Task


def questions(
    opened: Sequence[Opened], data: DataSource | None, task: Task | None, *, trust_code: bool = False
) -> list[Question]:
    """What to measure each subject on, found before anything is timed.

    Without `data` a program is measured on the data that it remembers, and an ONNX file on those of the
    programs beside it if they agree; the same for `task`, which is classification where nothing is
    remembered. What is remembered as code is run with `trust_code` only.

    Raises:  UsageError if there are no data for a subject; DataError if they cannot be opened.
    """
    refs = {o.program.record.data for o in opened if o.program is not None and o.program.record.data}
    shared = refs.pop() if len(refs) == 1 else None
    sources: dict[str, DataSource] = {}
    return [
        Question(
            entry,
            data if data is not None else _remembered(entry, shared, sources, trust_code),
            task if task is not None else _task_of(entry, opened, trust_code),
        )
        for entry in opened
    ]


def accuracy(question: Question, provider: Provider, *, threads: int, inputs: Sequence[InputSpec] = ()) -> float:
    """The task's primary metric over the validation split.

    Raises:  DataError if the samples have another shape than the model's inputs.
    """
    entry, data, limit = question.entry, question.data, None
    if entry.program is not None:
        module, specs = entry.program.module.clone(), entry.program.inputs
        device, batch = require_torch(provider), _BATCH if entry.program.has_dynamic_batch else 1
    else:
        runner = entry.onnx_runner(provider, threads, inputs=inputs)
        module, specs, device, batch = _OnnxModule(runner), runner.specs, torch.device("cpu"), _BATCH
        if runner.fixed_batch is not None:  # such a file cannot take the last, short batch
            batch = runner.fixed_batch
            limit = data.n_val - data.n_val % batch
    data = fitted(data, [Wanted(spec.name, spec.shape[1:], spec.torch_dtype.is_floating_point) for spec in specs])
    wanted = tuple(tuple(spec.shape[1:]) for spec in specs)
    if len(data.input_shapes) != len(wanted) or misfit(specs, data.input_shapes) is not None:
        raise DataError(f"{data.ref}: its samples are {data.input_shapes}, {entry.subject.name} reads {wanted}")
    metrics = evaluate(module, data, question.task, device=device, batch_size=batch, limit=limit)
    return metrics[question.task.primary]


def _remembered(entry: Opened, shared: str | None, sources: dict[str, DataSource], trust_code: bool) -> DataSource:
    ref = entry.program.record.data if entry.program is not None else shared
    if ref is None:
        raise UsageError(f"no data: {entry.subject.name} remembers none to measure its accuracy on; give --data")
    if ref not in sources:
        sources[ref] = open_data(ref, trust_code=trust_code)
    return sources[ref]


def _task_of(entry: Opened, opened: Sequence[Opened], trust_code: bool) -> Task:
    if entry.program is not None:
        return open_task(entry.program.record.task, trust_code=trust_code)
    refs = {o.program.record.task for o in opened if o.program is not None}
    return open_task(refs.pop() if len(refs) == 1 else None, trust_code=trust_code)
