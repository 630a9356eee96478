"""What the outputs are for: the loss to train on and the metrics to show.

It must never hold a loop over batches, nor averages over several: metrics are sums and counts, so they merge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.data.source import Batch
from compressor.errors import DataError
from compressor.narrowing import is_row
from compressor.reference import complete_reference, load_reference
from compressor.units import format_dtype
from compressor.users_code import called

_MEMBERS = ("name", "primary", "higher_is_better", "loss", "metrics")


class Task(Protocol):
    """A loss and metrics over (outputs of the model, batch).

    It may have a `finished(means)`, and a `training_loss(outputs, batch, *, smoothing=0.0)` over what a network returns
    while it trains, where that is something else.
    """

    @property
    def name(self) -> str: ...

    @property
    def primary(self) -> str:
        """Name of the metric that is shown and gated on."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value of the primary metric is the better one."""
        ...

    def loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        """The scalar to minimise, a mean over the batch; `smoothing` is label smoothing."""
        ...

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[float, int]]:
        """Metric -> (sum over the batch, count); over many batches the mean is all sums / all counts."""
        ...


class Classification:
    """Cross entropy and accuracy over class numbers; also per position, for outputs (N, C, ...).

    Shapes:  outputs (N, C, ...), batch.target (N, ...) of integers in 0..C-1
    """

    name = "classification"
    primary = "accuracy"
    higher_is_better = True

    def loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy.

        Raises:  DataError if the labels do not fit the outputs.
        """
        logits = _logits(outputs, batch)
        # On an accelerator the look at the labels would make every step wait, and it would take a compiled one apart;
        # `metrics`, which waits anyway, and the validation before training look there.
        if logits.device.type == "cpu" and not torch.compiler.is_compiling():
            _check_range(logits, batch.target)
        return F.cross_entropy(logits, batch.target, label_smoothing=smoothing)

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[float, int]]:
        """Accuracy as (number right, number looked at).

        Raises:  DataError if the labels do not fit the outputs.
        """
        logits = _logits(outputs, batch)
        _check_range(logits, batch.target)
        right = (logits.argmax(1) == batch.target).sum()
        return {"accuracy": (float(right), batch.target.numel())}


MASKED, CAUSAL = "masked-lm", "causal-lm"
IGNORED = -100
"""A target that nothing is asked of: padding, a token that was not masked."""
_LARGEST_LOG = 50.0


class LanguageModelling:
    """Cross entropy and perplexity of the tokens that are to be predicted, wherever in a text they stand.

    Shapes:  outputs (N, T, V), batch.target (N, T) of tokens, `IGNORED` where nothing is asked
    """

    primary = "perplexity"
    higher_is_better = False

    def __init__(self, name: str) -> None:
        self.name = name

    def loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy over the tokens that are asked for.

        Raises:  DataError if the outputs are no scores of tokens.
        """
        logits, target = self._asked(outputs, batch)
        return F.cross_entropy(logits, target, label_smoothing=smoothing)

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[float, int]]:
        """Accuracy, and the logarithm of the perplexity: sums over tokens, and their number."""
        logits, target = self._asked(outputs, batch)
        n = target.numel()
        nats = float(F.cross_entropy(logits, target, reduction="sum")) if n else 0.0
        return {"perplexity": (nats, n), "accuracy": (float((logits.argmax(1) == target).sum()), n)}

    def finished(self, means: dict[str, float]) -> dict[str, float]:
        """The metrics from their means: e to the power of the cross entropy."""
        return {**means, "perplexity": math.exp(min(means["perplexity"], _LARGEST_LOG))}

    def _asked(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores and tokens. Shapes: -> (n, V), (n,)"""
        target = batch.target
        if not isinstance(outputs, Tensor) or outputs.dim() != 3 or outputs.shape[:2] != target.shape:
            raise DataError(f"--task {self.name} reads (N, T, tokens), the model returns {_describe(outputs)}")
        asked = target != IGNORED
        return outputs[asked], target[asked]


def means_of(task: Task, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Metrics from sums and counts; a task may have something to do with the means (`finished`)."""
    means = {name: value / max(count, 1) for name, (value, count) in sums.items()}
    finish = getattr(task, "finished", None)
    return means if finish is None else finish(means)


def open_task(ref: str | None, *, base: Path | None = None, trust_code: bool = False) -> Task:
    """The task that `ref` names: None or `classification`, `masked-lm`, `causal-lm`, else `file.py:Name` or
    `package.module:Name`.

    All but the built-in ones are code, which is imported only with `trust_code`: see `open_data`.

    Raises:  DataError if it cannot be loaded or lacks a part of a task; UntrustedCodeError if it is not trusted.
    """
    if ref is None or ref == Classification.name:
        return Classification()
    if ref in (MASKED, CAUSAL):
        return LanguageModelling(ref)
    if ref.endswith(".py"):
        ref = complete_reference(
            ref, field="task", trust_code=trust_code, base=base, error=DataError, fits=(_is_task,)
        )  # fmt: skip
    found = load_reference(ref, field="task", trust_code=trust_code, base=base, error=DataError)
    if isinstance(found, type):
        with called(f"{ref}: creating it", DataError):
            found = found()
    missing = [member for member in _MEMBERS if not hasattr(found, member)]
    if missing:
        raise DataError(f"{ref}: not a task, it lacks {', '.join(missing)}; a task has {', '.join(_MEMBERS)}")
    return cast(Task, found)


def _is_task(found: object) -> bool:
    return isinstance(found, type) and all(hasattr(found, member) for member in _MEMBERS)


def _logits(outputs: Any, batch: Batch) -> Tensor:
    if is_row(outputs) and len(outputs) == 1:
        outputs = outputs[0]
    if not isinstance(outputs, Tensor):
        raise DataError(
            f"classification reads one tensor, the model returns {_describe(outputs)}; give --task file.py:Task"
        )
    target = batch.target
    if target is None:
        raise DataError("the data have no labels; give data with labels, or the dense model as --teacher")
    if not isinstance(target, Tensor) or target.is_floating_point() or target.is_complex():
        raise DataError(
            f"classification needs integer labels, the data have {_describe(target)}; give --task file.py:Task"
        )
    if outputs.dim() < 2 or outputs.shape[:1] + outputs.shape[2:] != target.shape:
        raise DataError(
            f"outputs {tuple(outputs.shape)} and labels {tuple(target.shape)} do not fit: "
            f"classification reads (N, classes) and (N,); give --task file.py:Task"
        )
    return outputs


def _check_range(logits: Tensor, target: Tensor) -> None:
    if not target.numel():
        return
    low, high = (int(value) for value in torch.aminmax(target))
    if low < 0:
        raise DataError(f"labels go down to {low}; class numbers start at 0")
    if high >= logits.shape[1]:
        raise DataError(
            f"labels go up to {high} but the model has {logits.shape[1]} outputs; "
            f"are --data and the model meant for each other?"
        )


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return format_dtype(value.dtype)
    if is_row(value):
        return f"{len(value)} values"
    return type(value).__name__
