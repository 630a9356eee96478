"""What a network returns while it trains beside what it is measured by: auxiliary heads, and what they add to the loss.

It must never know how a network was captured, or of masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.narrowing import is_mapping, is_row

if TYPE_CHECKING:
    from compressor.data.source import Batch
    from compressor.data.task import Task

AUXILIARY_SHARE = 0.3
"""Of the loss of an auxiliary head, beside that of the network itself.

Source:  Szegedy et al. 2015, "Going Deeper with Convolutions", sec. 5.
"""
Place = int | str


@dataclass(frozen=True)
class TrainingOutputs:
    """Where in what a network returns while it trains the outputs are that it is measured by.

    `main` is their place in a tuple or their key; None means that all of it is. `auxiliary` are the places of
    others of the same form, to which the same loss applies; whatever else is returned has no loss.
    """

    main: Place | None = None
    auxiliary: tuple[Place, ...] = ()

    def measured(self, outputs: Any) -> Any:
        """What the network is measured by, of all that it returns."""
        return outputs if self.main is None else outputs[self.main]

    def loss(self, task: Task, outputs: Any, batch: Batch, *, smoothing: float = 0.0) -> tuple[Tensor, Any]:
        """The loss with the share of the auxiliary heads, and the outputs that the network is measured by.

        A task that has a `training_loss` reads what is returned as it is.
        """
        measured = self.measured(outputs)
        own = getattr(task, "training_loss", None)
        if own is not None:
            return own(outputs, batch, smoothing=smoothing), measured
        loss = task.loss(measured, batch, smoothing=smoothing)
        for place in self.auxiliary:
            loss = loss + AUXILIARY_SHARE * task.loss(outputs[place], batch, smoothing=smoothing)
        return loss, measured


@dataclass(frozen=True)
class TrainedAs:
    """The module that trains where that is not the one that is measured: the two share their parameters."""

    module: nn.Module
    outputs: TrainingOutputs = TrainingOutputs()


def find_outputs(training: Any, evaluation: Any) -> TrainingOutputs | None:
    """How to read what a network returns in training, by what it returns in evaluation; None if that is not in it."""
    if is_alike(training, evaluation):
        return TrainingOutputs()
    parts = dict(_parts(training))
    alike = [place for place, part in parts.items() if is_alike(part, evaluation)]
    return TrainingOutputs(alike[0], tuple(alike[1:])) if alike else None


def names_of(outputs: Any, places: Sequence[Place]) -> list[str]:
    """What to call places of a tuple: the names of its fields, where it has some."""
    fields = getattr(outputs, "_fields", ())
    return [fields[p] if isinstance(p, int) and p < len(fields) else p if isinstance(p, str) else f"output {p}"
            for p in places]  # fmt: skip


def is_alike(one: Any, other: Any) -> bool:
    """Whether two values are the same containers of tensors of the same shapes and types."""
    (mine, how), (theirs, how_theirs) = pytree.tree_flatten(one), pytree.tree_flatten(other)
    return how == how_theirs and all(_shape(a) == _shape(b) for a, b in zip(mine, theirs, strict=True))


def _parts(outputs: Any) -> list[tuple[Place, Any]]:
    if is_mapping(outputs):
        return [(key, value) for key, value in outputs.items() if isinstance(key, str)]
    return list(enumerate(outputs)) if is_row(outputs) else []


def _shape(value: Any) -> object:
    return (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else value.__class__
