"""Whether data, model and task fit each other, found out on the first samples; it must never train or change anything.

What does not fit is said here, in words about the data, before minutes of training end in a message about a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.data import Batch, DataSource, Task
from compressor.data.source import Split
from compressor.data.task import Classification, means_of
from compressor.errors import CompressError, DataError, ModelError, first_line
from compressor.program import InputSpec, misfit
from compressor.units import format_dtype
from compressor.users_code import line_of

_SAMPLES = 2


def first_metrics(module: nn.Module, inputs: Sequence[InputSpec], data: DataSource, task: Task) -> dict[str, float]:
    """Loss and metrics on the first samples of the validation data; the first ones to train on are tried as well.

    Raises:  DataError saying which of data, model and task does not fit the others.
    """
    n = _SAMPLES if all(spec.shape[0] is None for spec in inputs) else 1
    module.eval()
    found: dict[str, float] = {}
    splits: tuple[Split, Split] = ("train", "val")
    for split in splits:
        batch = next(iter(data.batches(split, n, limit=n)), None)
        if batch is not None:
            _check_inputs(batch, inputs, f"{data.ref}: {split}")
            found = _measured(module, batch, data, task, split)
    return found


def _check_inputs(batch: Batch, inputs: Sequence[InputSpec], where: str) -> None:
    if len(batch.inputs) != len(inputs):
        names = ", ".join(spec.name for spec in inputs)
        raise DataError(f"{where}: gives {len(batch.inputs)} inputs but the model takes {len(inputs)}: {names}")
    unfit = misfit(inputs, [tuple(tensor.shape[1:]) for tensor in batch.inputs])
    for tensor, spec in zip(batch.inputs, inputs, strict=True):
        given, wanted = tuple(tensor.shape[1:]), tuple(spec.shape[1:])
        if spec is unfit:
            raise DataError(
                f"{where}: gives inputs of {_size(given)} but the model takes {_size(wanted)} ({spec.name}); "
                "give the data set that it was trained on with --data"
            )
        if tensor.is_floating_point() != spec.torch_dtype.is_floating_point:
            raise DataError(
                f"{where}: gives {format_dtype(tensor.dtype)} inputs but the model takes {spec.dtype} ({spec.name}); "
                f"store them as {spec.dtype}"
            )


@torch.no_grad()
def _measured(module: nn.Module, batch: Batch, data: DataSource, task: Task, split: str) -> dict[str, float]:
    try:
        outputs = module(*batch.inputs)
    except (RuntimeError, ModelError) as error:
        why = first_line(error.__cause__ or error)
        raise DataError(f"{data.ref}: the model cannot take the first {split} samples: {why}") from error
    _check_classes(outputs, data, task)
    shown = f"outputs {_describe(outputs)} and targets {_describe(batch.target)}"
    try:
        loss, metrics = task.loss(outputs, batch), task.metrics(outputs, batch)
    except CompressError as error:
        raise type(error)(f"{data.ref}: {error}") from error
    except Exception as error:  # the task is the user's code
        told = f"task {task.name} raised {type(error).__name__} on {shown}: {first_line(error)}"
        line = line_of(error)
        raise DataError(told + (f"\nin {line}" if line else "")) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise DataError(f"task {task.name}: loss must be a tensor of one number, got {_describe(loss)}")
    _check_metrics(metrics, task)
    return {"loss": float(loss), **means_of(task, metrics)}


def _check_classes(outputs: Any, data: DataSource, task: Task) -> None:
    if isinstance(outputs, (tuple, list)) and len(outputs) == 1:
        outputs = outputs[0]
    if not isinstance(task, Classification) or not isinstance(outputs, Tensor) or outputs.dim() < 2:
        return
    if data.n_classes is not None and data.n_classes > outputs.shape[1]:
        raise DataError(
            f"{data.ref}: has {data.n_classes} classes but the model has {outputs.shape[1]} outputs; "
            "are --data and the model meant for each other?"
        )


def _check_metrics(metrics: Any, task: Task) -> None:
    pairs = isinstance(metrics, Mapping) and all(
        isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(part, (int, float)) for part in pair)
        for pair in metrics.values()
    )
    if not pairs:
        raise DataError(f"task {task.name}: metrics must give a dictionary of name: (sum over the batch, count)")
    if task.primary not in metrics and task.primary != "loss":
        raise DataError(f"task {task.name}: its primary metric {task.primary} is not one of {', '.join(metrics)}")


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{format_dtype(value.dtype)} {_size(tuple(value.shape)) or 'scalar'}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_describe(part)}" for key, part in list(value.items())[:4]) + "}"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(_describe(part) for part in value[:4]) + (", …)" if len(value) > 4 else ")")
    return type(value).__name__


def _size(sizes: tuple[int | None, ...]) -> str:
    return "×".join(map(str, sizes))
