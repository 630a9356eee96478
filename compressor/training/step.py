"""One training step, from a batch to changed weights; it must never know of epochs, files or evaluation."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.asking.recipe import Recipe
from compressor.errors import TrainingError
from compressor.training.auxiliary import TrainingOutputs
from compressor.training.compiled import compiled, compiler_named
from compressor.training.devices import LossReading, autocast, gradient_scaler
from compressor.training.distillation import soft_loss
from compressor.training.hooks import StepHook
from compressor.training.optimizer import add_l1_gradient, build_optimizer, matrices
from compressor.training.processes import Processes
from compressor.training.spread import clip_gradients, settle
from compressor.typed_torch import backward

if TYPE_CHECKING:
    from compressor.data.source import Batch
    from compressor.data.task import Task


class Stepper:
    """The module with its optimizer: each call of `step` is one update."""

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        recipe: Recipe,
        processes: Processes,
        hooks: tuple[StepHook, ...],
        teacher: nn.Module | None,
        outputs: TrainingOutputs | None = None,
    ) -> None:
        self.optimizer = build_optimizer(module, recipe)
        self.scaler = gradient_scaler(processes.device, recipe.precision)
        self.hooks = hooks
        self._task, self._recipe, self._device = task, recipe, processes.device
        self._processes = processes
        self._teacher = _ready_teacher(teacher, recipe, processes.device)
        self._callee, self._outputs = processes.wrap(module), outputs or TrainingOutputs()
        self._reporting = compiler_named if recipe.compile else nullcontext
        if recipe.compile:
            self._callee, self._teacher = compiled(self._callee), self._teacher and compiled(self._teacher)
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._weights = matrices(self._trained)

    def step(self, batch: Batch, lr: float, where: str) -> float:
        """The batch's loss, weights updated at rate `lr`.

        Raises:  TrainingError if the loss is not finite; weights are then still those of the step before.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        with self._reporting():
            with autocast(self._device, self._recipe.precision):
                loss = self._loss(batch)
            reading = LossReading(loss)
            backward(self.scaler.scale(loss))
        value = reading.value()
        if not math.isfinite(value):
            raise TrainingError(
                f"{where}: the loss is {value} at learning rate {lr:.3g}\n"
                "try a lower lr, warmup_epochs, clip_norm, or precision fp32"
            )
        self._update()
        return value

    def _loss(self, batch: Batch) -> Tensor:
        outputs = self._callee(*batch.inputs)
        loss, measured = self._outputs.loss(self._task, outputs, batch, smoothing=self._recipe.label_smoothing)
        if self._teacher is None:
            return loss
        with torch.no_grad():
            taught = self._teacher(*batch.inputs)
        share = self._recipe.distill
        return (1 - share) * loss + share * soft_loss(measured, taught, self._recipe.temperature)

    def _update(self) -> None:
        settle(self._trained, self._processes)
        self.scaler.unscale_(self.optimizer)
        # L1 comes before the hooks: a mask on the gradients has to see it.
        add_l1_gradient(self._weights, self._recipe.l1)
        for hook in self.hooks:
            hook.on_gradients()
        if self._recipe.clip_norm is not None:
            clip_gradients(self._trained, self._recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for hook in self.hooks:
            hook.on_update()


def _ready_teacher(teacher: nn.Module | None, recipe: Recipe, device: torch.device) -> nn.Module | None:
    if recipe.distill == 0:
        return None
    if teacher is None:
        raise TrainingError(f"distill = {recipe.distill}: there is no teacher; give the dense model or set it to 0")
    return teacher.to(device).eval()
