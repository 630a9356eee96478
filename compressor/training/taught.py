"""Data without labels: a network's own outputs are what another one is to give; it must never look at a label.

Source:  Hinton et al. 2015, "Distilling the Knowledge in a Neural Network": with the soft targets alone as the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compressor.data import Batch, Classification, DataSource, Split, Task, has_labels, open_task
from compressor.errors import DataError, UsageError, first_line
from compressor.training.distillation import soft_loss
from compressor.training.evaluation import evaluate

_Data = TypeVar("_Data", DataSource, DataSource | None)
_SMALLEST = 1e-12
_TEMPERATURE = 4.0
"""As where distillation stands beside labels: what is almost sure of itself tells more so."""


class TaughtSource:
    """The same inputs; the target is what `teacher` answers, with `keeps_labels` the pair of label and answer.

    The teacher stays in eval mode and is moved to the device of the batches. Beside labels it is asked on validation
    data only; its answer is None elsewhere, for training does not look at it.
    """

    labelled = True
    n_classes = None

    def __init__(self, source: DataSource, teacher: nn.Module, *, keeps_labels: bool = False) -> None:
        self._source, self._keeps_labels = source, keeps_labels
        self.teacher = self._in_training = teacher.eval()

    @property
    def learns_answers(self) -> bool:
        """Whether the teacher's answers are all that there is to learn from."""
        return not self._keeps_labels

    def teaching(self, in_training: nn.Module) -> TaughtSource:
        """The same, with what `in_training` answers as the targets of the train split."""
        more = TaughtSource(self._source, self.teacher, keeps_labels=self._keeps_labels)
        more._in_training = in_training.eval()
        return more

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def batches(self, split: Split, batch_size: int, **options: Any) -> Iterator[Batch]:
        """Batches as DataSource.batches describes.

        Raises:  DataError if the teacher cannot take the samples.
        """
        if self._keeps_labels and split == "train":
            for inputs, label in self._source.batches(split, batch_size, **options):
                yield Batch(inputs, (label, None))
            return
        teacher = (self._in_training if split == "train" else self.teacher).to(options.get("device", "cpu"))
        for inputs, label in self._source.batches(split, batch_size, **options):
            with torch.no_grad():
                try:
                    answer = teacher(*inputs)
                except RuntimeError as error:
                    raise DataError(
                        f"{self._source.ref}: the model cannot take the first {split} samples: {first_line(error)}"
                    ) from error
            yield Batch(inputs, (label, answer) if self._keeps_labels else answer)


class Agreement:
    """How far outputs are those of another network, which the targets are.

    One tensor (N, C, ...) with C > 1 is taken for class scores: soft targets as the loss, and `agreement` is the share
    of positions whose largest score is the same one. Anything else: the squared error relative to the target's
    square, and the cosine between the two.
    """

    name = "agreement"
    primary = "agreement"
    higher_is_better = True

    def loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        """The scalar to minimise; targets are soft already, so `smoothing` changes nothing.

        Raises:  DataError if the outputs are not those of the same network.
        """
        pairs = _pairs(outputs, batch.target)
        if _are_scores(outputs):
            return soft_loss(*pairs[0], _TEMPERATURE)
        parts = [(mine - theirs).square().sum() / theirs.square().sum().clamp_min(_SMALLEST) for mine, theirs in pairs]
        return torch.stack(parts).mean()

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[float, int]]:
        """Agreement as (sum, number looked at).

        Raises:  DataError if the outputs are not those of the same network.
        """
        pairs = _pairs(outputs, batch.target)
        if _are_scores(outputs):
            mine, theirs = (scores.argmax(1) for scores in pairs[0])
            return {"agreement": (float((mine == theirs).sum()), mine.numel())}
        n = len(batch.inputs[0])
        parts = [float(torch.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0)) for mine, theirs in pairs]
        return {"agreement": (n * sum(parts) / len(parts), n)}


class AlsoAgreement:
    """A task with labels, and `agreement` among its metrics; targets are pairs of label and answer."""

    def __init__(self, task: Task) -> None:
        self._task, self._agreement = task, Agreement()
        self.name, self.primary, self.higher_is_better = task.name, task.primary, task.higher_is_better
        if hasattr(task, "training_loss"):
            self.training_loss = self._training_loss

    def _training_loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        """What the task itself reads of the training forward."""
        own: Any = self._task
        return own.training_loss(outputs, Batch(batch.inputs, batch.target[0]), smoothing=smoothing)

    def loss(self, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        return self._task.loss(outputs, Batch(batch.inputs, batch.target[0]), smoothing=smoothing)

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[float, int]]:
        label, answer = batch.target
        own = self._task.metrics(outputs, Batch(batch.inputs, label))
        return own if answer is None else {**own, **self._agreement.metrics(outputs, Batch(batch.inputs, answer))}

    def finished(self, means: dict[str, float]) -> dict[str, float]:
        """What the task itself makes of its means."""
        finish = getattr(self._task, "finished", None)
        return means if finish is None else finish(means)


def is_measurable(data: DataSource, task: Task | None) -> bool:
    """Whether the task can be asked about the data: the built-in one needs labels."""
    return has_labels(data) or not (task is None or isinstance(task, Classification))


def evaluate_where_possible(
    module: nn.Module, data: DataSource | None, task: Task | None, *, device: str = "cpu"
) -> dict[str, float] | None:
    """The task's metrics as `evaluate` has them; None without data, and without labels where the task needs them."""
    if data is None or not is_measurable(data, task):
        return None
    return evaluate(module, data, task or open_task(None), device=device)


def with_targets(data: _Data, task: Task | None, dense: nn.Module | None) -> tuple[_Data, Task | None]:
    """Data and task as they are; for data without labels and no task of the user's, with `dense`'s answers as targets.

    Raises:  UsageError if there is no dense network to take them from.
    """
    if data is None or is_measurable(data, task):
        return data, task
    if dense is None:
        raise UsageError(f"{data.ref}: has no labels; give the dense model as --teacher MODEL, or data with labels")
    return TaughtSource(data, dense), Agreement()  # type: ignore[return-value]


def with_agreement(data: DataSource, task: Task, dense: nn.Module) -> tuple[DataSource, Task]:
    """The same with `agreement` with `dense` among the metrics."""
    return TaughtSource(data, dense, keeps_labels=True), AlsoAgreement(task)  # type: ignore[return-value]


def _pairs(outputs: Any, target: Any) -> list[tuple[Tensor, Tensor]]:
    """Outputs beside targets, those of floating point; others (numbers of classes, of boxes) cannot be learned from."""
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(tree_leaves(outputs), tree_leaves(target), strict=False)
        if isinstance(mine, Tensor) and isinstance(theirs, Tensor) and mine.is_floating_point()
    ]
    if not pairs or any(mine.shape != theirs.shape for mine, theirs in pairs):
        raise DataError(
            "the model's outputs are not those of the model whose answers take the place of labels; give the dense"
            " model that it was pruned from"
        )
    return pairs


def _are_scores(outputs: Any) -> bool:
    leaves = tree_leaves(outputs)
    return len(leaves) == 1 and leaves[0].dim() > 1 and leaves[0].shape[1] > 1
