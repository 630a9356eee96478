"""`retrain`: fine-tuning that keeps what was cut cut; it must never cut anything itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from compressor.asking import Recipe, Recovery
from compressor.data import DataSource, Task, in_batches_of, open_task
from compressor.errors import UsageError
from compressor.program import Program, has_halves, narrowed, widened
from compressor.progress import Progress, Silent
from compressor.pruning.alternate import AlternateHook
from compressor.pruning.freeze import FreezeHook
from compressor.pruning.hooks import MaskHook
from compressor.pruning.pruned import RetrainReport, StageRow
from compressor.pruning.run import Clock, ResumeFile, Trainer, check_batch_size, epoch_rows, identity_of
from compressor.pruning.training_form import find_form, of_form
from compressor.pruning.worsened import worsened
from compressor.training import StepHook, evaluate_where_possible, with_targets
from compressor.units import Params


def retrain(
    program: Program,
    recipe: Recipe | None,
    *,
    data: DataSource | None,
    task: Task | None = None,
    model: nn.Module | None = None,
    seed: int = 0,
    device: str = "cpu",
    teacher: Program | None = None,
    recovery: Recovery | None = None,
    alternate: bool = False,
    freeze: Sequence[str] = (),
    progress: Progress | None = None,
    resume_file: Path | None = None,
    resume: bool = False,
) -> tuple[Program, RetrainReport]:
    """The fine-tuned program and its history: under the masks if it has any, ordinary training otherwise.

    `recovery` heals first, towards the teacher where outputs are fitted and where it has the same batch norms, else on
    images augmented as the recipe says; without a recipe healing is all. `alternate` trains convolutions and linear
    layers in turn, `freeze` leaves layers, by glob, as they are. Where the data have no labels, the teacher's answers
    are learned from. `model` as of `prune`: the live module trains in its own form. The input program stays untouched.

    Raises:  UsageError without data, with distillation and no teacher, or with nothing to do; ModelError if weights
             that masks cut are not 0; TrainingError if training diverges.
    """
    recovery = recovery or Recovery()
    given = _checked(data, recipe, recovery, teacher)
    program.check_masks()
    check_batch_size(program, recipe)
    clock = Clock()
    stored, program, teacher = program, widened(program), teacher and widened(teacher)  # small steps need float32
    taught_by = None if teacher is None else teacher.clone().module
    source, task = with_targets(in_batches_of(given, program.fixed_batch), task, taught_by)
    tuned = program.clone()
    task, progress = task or open_task(None), progress or Silent()
    form = None if recipe is None else find_form(program, model, source, task, progress)
    trainer = Trainer(source, task, seed, device, progress, teacher, form)
    options = {**_options(recipe, recovery, alternate, freeze), **of_form(form)}
    identity = identity_of(program, options, source, task, teacher) if resume_file else ""
    file = ResumeFile(resume_file, identity, form)
    point = file.read(tuned, 1) if resume else None
    ratio = tuned.n_parameters / _left(tuned)
    stages = list(point.stages) if point else [StageRow("before", ratio, _left(tuned), 0, 0.0, trainer.evaluate(tuned))]
    if recovery and point is None:
        stages.append(_recovered(trainer, tuned, ratio, recovery, teacher, recipe))
    if recipe is None:
        return _rounded(tuned, stored), _report(stages, tuned, trainer, None, clock.seconds)
    tuned.module.to(device)
    result = trainer.train(
        "retrain", tuned, recipe, lambda: _hooks(tuned, alternate, freeze), point.fit if point else None,
        lambda state: file.write(0, state, tuned, stages, {}),
    )  # fmt: skip
    tuned = _rounded(tuned, stored)
    history, metrics = epoch_rows(result.history), trainer.evaluate(tuned)
    last = StageRow("retrain", ratio, _left(tuned), len(history), clock.seconds, metrics, history=history)
    return tuned, _report([*stages, last], tuned, trainer, result.stopped, clock.seconds, recipe.keep == "best")


def _recovered(
    trainer: Trainer, tuned: Program, ratio: float, recovery: Recovery, teacher: Program | None, recipe: Recipe | None
) -> StageRow:
    """What healing in place came to."""
    clock = Clock()
    found = trainer.recover(tuned, recovery, teacher, augment=recipe is not None and recipe.augment).numbers
    return StageRow("recovered", ratio, _left(tuned), 0, clock.seconds, trainer.evaluate(tuned), found)


def _rounded(tuned: Program, stored: Program) -> Program:
    """What was trained in float32, in the types that `stored` has."""
    return narrowed(tuned, stored) if has_halves(stored) else tuned


def _hooks(program: Program, alternate: bool, freeze: Sequence[str]) -> list[StepHook]:
    hooks: list[StepHook] = [MaskHook(program.module, program.masks)]
    hooks += [AlternateHook(program)] if alternate else []
    return [*hooks, *([FreezeHook(program, freeze)] if freeze else [])]


def _report(
    stages: Sequence[StageRow], tuned: Program, trainer: Trainer, stopped: str | None, seconds: float,
    keeps_best: bool = False,
) -> RetrainReport:  # fmt: skip
    """The history stands once, beside the stages."""
    rows = tuple(replace(row, history=()) for row in stages)
    lost = worsened(stages, trainer.task, keeps_best=keeps_best)
    return RetrainReport(rows, stages[-1].history, tuned.n_zeroed, stopped, seconds, lost)


def _checked(data: DataSource | None, recipe: Recipe | None, recovery: Recovery, teacher: Program | None) -> DataSource:
    """The data, when there is something to do and all that it needs."""
    if data is None:
        raise UsageError("no data: give --data, for example --data mnist:DIR or --data digits.npz")
    if recipe is None and not recovery:
        raise UsageError("--epochs 0: leaves nothing to do without --recalibrate or --reconstruct")
    if recipe is not None and recipe.distill > 0 and teacher is None:
        raise UsageError("--distill needs --teacher MODEL, for example the dense model that this one was pruned from")
    return data


def standing(
    program: Program, name: str, *, data: DataSource | None = None, task: Task | None = None, device: str = "cpu"
) -> RetrainReport:
    """The report of a program that was trained elsewhere: one row, `name`, measured where there are data."""
    clock = Clock()
    data = in_batches_of(data, program.fixed_batch)
    metrics = evaluate_where_possible(program.module, data, task, device=device)
    row = StageRow(name, program.n_parameters / _left(program), _left(program), 0, clock.seconds, metrics)
    return RetrainReport((row,), (), program.n_zeroed, None, clock.seconds)


def _options(recipe: Recipe | None, recovery: Recovery, alternate: bool, freeze: Sequence[str]) -> dict[str, Any]:
    how = {"recovery": asdict(recovery), "alternate": alternate, "freeze": list(freeze)}
    return {**(asdict(recipe) if recipe else {}), **how}


def _left(program: Program) -> Params:
    return Params(program.n_parameters - program.n_zeroed)
