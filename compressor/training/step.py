"""One training step, from a batch to changed weights; it must never know of epochs, files or evaluation."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.asking.recipe import Recipe
from compressor.errors import TrainingError
from compressor.training.auxiliary import TrainingOutputs
from compressor.training.compiled import compiled, compiler_named, step_begins
from compressor.training.devices import LossReading, autocast, autocast_type, gradient_scaler
from compressor.training.hooks import StepHook
from compressor.training.losses import Gate, Losses
from compressor.training.optimizer import add_l1_gradient, build_optimizer, matrices
from compressor.training.processes import Processes
from compressor.training.spread import clip_gradients, settle
from compressor.training.teacher import Teacher
from compressor.typed_torch import backward

if TYPE_CHECKING:
    from compressor.data.source import Batch
    from compressor.data.task import Task


class Stepper:
    """The module with its optimizer: each call of `step` is one update, `losses` are those of all steps.

    A compiled step on an accelerator does not wait for its own loss, so that the next one is handed over while it runs;
    from a loss that is not finite on, a `Gate` on the device then keeps the weights.
    """

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
        self._loss_of = compiled(self._loss, self._device) if recipe.compile else self._loss
        self.losses = Losses()
        self._gate = None if _waits(recipe, self._device) else Gate.before(self.optimizer)
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._weights = matrices(self._trained)

    def step(self, batch: Batch, lr: float, where: str) -> float:
        """The batch's loss, weights updated at rate `lr`; where the step does not wait, the last loss that is known.

        Raises:  TrainingError if a loss is not finite; weights are then still those of the step before it.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        step_begins(self._device, self._recipe.compile)
        with self._reporting():
            with autocast(self._device, self._recipe.precision):
                if self._teacher is not None:
                    self._teacher.cast_once(batch.inputs)
                loss = self._loss_of(batch)
            self.losses.add(LossReading(loss), len(batch.inputs[0]), where, lr)
            if self._gate is not None:
                self._gate.take(loss)
            backward(self.scaler.scale(loss))
        self.losses.read(wait=self._gate is None)
        self._update()
        return self.losses.latest

    def _loss(self, batch: Batch) -> Tensor:
        outputs = self._callee(*batch.inputs)
        loss, _ = self._outputs.loss(self._task, outputs, batch, smoothing=self._recipe.label_smoothing)
        if self._teacher is None:
            return loss
        taught = self._teacher(*batch.inputs)
        share = self._recipe.distill
        return (1 - share) * loss + share * self._outputs.taught_loss(outputs, taught, self._recipe.temperature)

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


def _waits(recipe: Recipe, device: torch.device) -> bool:
    """Whether each step reads its loss before it changes weights. A CPU has it by then; fp16 has its own gate."""
    return not recipe.compile or device.type == "cpu" or recipe.precision == "fp16"


def _ready_teacher(teacher: nn.Module | None, recipe: Recipe, device: torch.device) -> Teacher | None:
    if recipe.distill == 0:
        return None
    if teacher is None:
        raise TrainingError(f"distill = {recipe.distill}: there is no teacher; give the dense model or set it to 0")
    return Teacher(teacher.to(device).eval(), autocast_type(recipe.precision))
