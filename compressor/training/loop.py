"""The training loop over epochs; it must never know what its hooks do, what the model is, where files lie."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.asking.recipe import Recipe
from compressor.errors import ConfigError, TrainingError
from compressor.narrowing import is_list
from compressor.training.auxiliary import TrainedAs
from compressor.training.devices import flushed_denormals, forked_rng, seed_epoch, tried_kernels
from compressor.training.evaluation import evaluate
from compressor.training.form import check_fit_state, plain_as
from compressor.training.hooks import StepHook
from compressor.training.processes import Processes, open_processes
from compressor.training.records import EpochRecord, FitResult, StepReport, best_record
from compressor.training.resume import plain_copy
from compressor.training.schedule import learning_rate
from compressor.training.spread import all_gathered, placed, whole
from compressor.training.step import Stepper

if TYPE_CHECKING:
    from compressor.data.source import Batch, DataSource
    from compressor.data.task import Task


def fit(
    module: nn.Module,
    data: DataSource,
    task: Task,
    recipe: Recipe,
    *,
    seed: int = 0,
    hooks: Sequence[StepHook] = (),
    teacher: nn.Module | None = None,
    trained_as: TrainedAs | None = None,
    device: str | torch.device = "cpu",
    start: Mapping[str, Any] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_state: Callable[[dict[str, Any]], None] | None = None,
    evaluate_every: int = 1,
) -> FitResult:
    """What happened while `module` was trained in place; it ends in eval mode on `device`, without gradients.

    With `trained_as` that module is called and its parameters are trained, of which those of `module` are a part; what
    is measured is `module`.
    `start` is what `on_state` got after an earlier epoch: on one CPU process the weights then come out bit
    for bit as without the interruption. `on_state` gets a copy on the CPU, ready for `resume.save_state`.
    With several processes only the first calls the callbacks. The caller's random numbers stay as they were.

    Raises:  TrainingError if the loss is not finite (weights stay those of the step before), nothing can be
             trained, or `start` belongs to another run; ProviderError if the device is not there.
    """
    if evaluate_every < 1:
        raise ConfigError(f"evaluate_every = {evaluate_every}: must be a whole number, 1 or more")
    processes = open_processes(device)
    module.to(processes.device)
    trained_as = trained_as or TrainedAs(module)
    trained_as.module.to(processes.device)
    stepper = Stepper(trained_as.module, task, recipe, processes, tuple(hooks), teacher, trained_as.outputs)
    run = _Run(module, trained_as.module, data, task, recipe, seed, processes, stepper)
    with forked_rng(processes.device), flushed_denormals(), tried_kernels(recipe.compile):
        if start is not None:
            run.restore(start)
        while run.stopped is None and len(run.history) < recipe.epochs:
            record = run.epoch(on_step if processes.is_main else None, evaluate_every)
            if processes.is_main and on_epoch is not None:
                on_epoch(record)
            if on_state is not None and (processes.is_main or processes.spreads):
                state = run.state()
                if processes.is_main:
                    on_state(state)
    return run.result()


class _Run:
    """One fit on its way: all that changes from epoch to epoch."""

    def __init__(
        self,
        measured: nn.Module,
        module: nn.Module,
        data: DataSource,
        task: Task,
        recipe: Recipe,
        seed: int,
        processes: Processes,
        stepper: Stepper,
    ) -> None:
        self.measured, self.module = measured, module
        self.data, self.task, self.recipe, self.seed = data, task, recipe, seed
        self.processes, self.stepper = processes, stepper
        self.history: list[EpochRecord] = []
        self.best_state: dict[str, Tensor] | None = None
        self.stopped: str | None = None
        self.steps = 0
        self._needs_metric = recipe.keep == "best" or recipe.patience is not None
        if self._needs_metric and data.n_val == 0:
            raise TrainingError(f"{data.ref}: no validation data; keep = best and patience need some")

    def epoch(self, on_step: Callable[[StepReport], None] | None, evaluate_every: int) -> EpochRecord:
        """Trains one epoch, lets the hooks act, evaluates where it is due, and decides whether to stop."""
        began, number = time.perf_counter(), len(self.history) + 1
        seed_epoch(self.processes.device, self.seed, number, self.processes.rank)
        self.module.train()
        train_loss, lr = self._train_epoch(number, on_step)
        self.processes.share_buffers(self.module)
        extra = self._ask_hooks(number)
        due = number % evaluate_every == 0 or number == self.recipe.epochs or self.stopped is not None
        metrics: dict[str, float] = {}
        if due and self.data.n_val:
            with whole(self.module):
                metrics = evaluate(self.measured, self.data, self.task, device=self.processes.device)
        record = EpochRecord(number, lr, train_loss, metrics, extra, time.perf_counter() - began)
        self.history.append(record)
        if metrics and self._needs_metric:
            self._judge(record)
        return record

    def state(self) -> dict[str, Any]:
        """Copies of all that the epochs to come depend on; random numbers are seeded anew for every epoch."""
        state = {
            "recipe": self.recipe.to_mapping(),
            "seed": self.seed,
            "module": self.module.state_dict(),
            "optimizer": all_gathered(self.stepper.optimizer.state_dict()),
            "scaler": self.stepper.scaler.state_dict(),
            "hooks": [hook.state_dict() for hook in self.stepper.hooks],
            "history": [asdict(record) for record in self.history],
            "best_state": self.best_state,
            "stopped": self.stopped,
            "steps": self.steps,
        }
        return plain_copy(state, "state")

    def restore(self, start: Mapping[str, Any]) -> None:
        """Takes up a run where `state` left it; `start` itself stays as it is.

        Raises:  TrainingError if it was made with another recipe, seed, number of hooks, or model, or is damaged.
        """
        hooks = self.stepper.hooks
        _refuse_other(start, self.recipe.to_mapping(), self.seed, len(hooks))
        start = plain_copy(start, "start")  # optimizers and hooks may keep the tensors they are given
        check_fit_state(start, self.state(), self.recipe, self.module)
        self.module.load_state_dict(start["module"])
        self.stepper.optimizer.load_state_dict(placed(start["optimizer"], self.stepper.optimizer))
        self.stepper.scaler.load_state_dict(start["scaler"])
        for hook, hook_state in zip(hooks, start["hooks"], strict=True):
            hook.load_state_dict(hook_state)
        self.history = [EpochRecord(**record) for record in start["history"]]
        self.best_state = start["best_state"]
        self.stopped, self.steps = start["stopped"], start["steps"]

    def result(self) -> FitResult:
        """The end: the best weights where they are asked for, no gradients left, eval mode."""
        if self.recipe.keep == "best" and self.best_state is not None:
            self.module.load_state_dict(self.best_state)
        self.stepper.optimizer.zero_grad(set_to_none=True)
        for module in {self.module, self.measured}:
            module.eval()
        best = best_record(self.history, self.task.primary, self.task.higher_is_better)
        return FitResult(tuple(self.history), best.epoch if best else None, self.stopped, self.steps)

    def _train_epoch(self, number: int, on_step: Callable[[StepReport], None] | None) -> tuple[float, float]:
        """Mean training loss, and the last step's learning rate."""
        lr = 0.0
        n_steps, batches = self._batches(number - 1)
        for step, batch in enumerate(batches):
            lr = learning_rate(self.recipe, number - 1, step, n_steps)
            loss = self.stepper.step(batch, lr, f"epoch {number}, step {step + 1}")
            self.steps += 1
            if on_step is not None:
                on_step(StepReport(number, step + 1, n_steps, loss, lr))
        loss_sum, n_seen = self.stepper.losses.total()
        if n_seen == 0:
            raise TrainingError(f"{self.data.ref}: no training batches; the train split is empty or too small")
        sums = self.processes.gather((loss_sum, n_seen))
        return sum(s for s, _ in sums) / sum(n for _, n in sums), lr

    def _batches(self, epoch: int) -> tuple[int, Iterator[Batch]]:
        """Steps to expect (as many on every process) and the batches of this process."""
        world = self.processes.world
        size = math.ceil(self.recipe.batch_size / world)
        n_steps = steps_per_epoch(self.data.n_train, self.recipe, world)
        batches = self.data.batches(
            "train",
            size,
            seed=self.seed,
            epoch=epoch,
            augment=self.recipe.augment,
            device=str(self.processes.device),
            shard=self.processes.shard,
        )
        return n_steps, batches if self.recipe.epoch_steps is None else islice(batches, n_steps)

    def _ask_hooks(self, number: int) -> dict[str, float]:
        extra: dict[str, float] = {}
        for hook in self.stepper.hooks:
            extra = {**extra, **{k: v for k, v in hook.on_epoch(number).items() if k not in extra}}
            if hook.finished() and self.stopped is None:
                self.stopped = f"{type(hook).__name__} was finished after epoch {number}"
        return extra

    def _judge(self, record: EpochRecord) -> None:
        """Keeps the weights of a best epoch, and stops when none came for too long."""
        metric = self.task.primary
        if metric not in record.metrics:
            raise TrainingError(f"task {self.task.name}: reports no {metric}, its primary metric")
        best = best_record(self.history, metric, self.task.higher_is_better)
        if self.recipe.keep == "best" and best is record:
            self.best_state = {key: value.detach().clone() for key, value in self.module.state_dict().items()}
        since = record.epoch - (best.epoch if best else 0)
        if self.recipe.patience is not None and since >= self.recipe.patience and self.stopped is None:
            self.stopped = f"no better {metric} for {since} epochs"


def steps_per_epoch(n_train: int, recipe: Recipe, world: int = 1) -> int:
    """Optimizer steps of an epoch, the same on each of `world` processes, which share the batches."""
    full, rest = divmod(n_train // world, math.ceil(recipe.batch_size / world))
    n_steps = max(full + (rest >= 2), 1)  # a source drops a last batch of one: batch norm cannot train on it
    return n_steps if recipe.epoch_steps is None else min(n_steps, recipe.epoch_steps)


def _refuse_other(start: Mapping[str, Any], recipe: dict[str, Any], seed: int, n_hooks: int) -> None:
    given, hooks = plain_as(dict[str, Any], start.get("recipe"), "recipe"), start.get("hooks")
    asked = {**recipe, "seed": seed, "number of hooks": n_hooks}
    seed_then = plain_as(int, start.get("seed"), "seed")
    made = {**given, "seed": seed_then, "number of hooks": len(hooks) if is_list(hooks) else None}
    for name in sorted(asked.keys() | made.keys()):
        if asked.get(name) != made.get(name):
            raise TrainingError(
                f"resume point: it was made with {name} = {made.get(name)}, asked is {asked.get(name)}\n"
                "resume with the same, or start again without --resume"
            )
