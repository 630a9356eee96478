"""`retrain`: fine-tuning that keeps what was cut cut; it must never cut anything itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from compressor.data import DataSource, Task, open_task
from compressor.errors import UsageError
from compressor.program import Program
from compressor.progress import Progress, Silent
from compressor.pruning.hooks import MaskHook
from compressor.pruning.result import RetrainReport, StageRow
from compressor.pruning.run import Clock, ResumeFile, Trainer, identity_of
from compressor.sparsity import apply_masks
from compressor.training import Recipe
from compressor.units import Params


def retrain(
    program: Program,
    recipe: Recipe,
    *,
    data: DataSource | None,
    task: Task | None = None,
    seed: int = 0,
    device: str = "cpu",
    teacher: Program | None = None,
    progress: Progress | None = None,
    resume_file: Path | None = None,
    resume: bool = False,
) -> tuple[Program, RetrainReport]:
    """The fine-tuned program and its history: under the masks if it has any, ordinary training otherwise.

    The input program is left untouched.

    Raises:  UsageError without data, or with distillation and no teacher; TrainingError if training diverges.
    """
    if data is None:
        raise UsageError("no data: give --data, for example --data mnist:DIR or --data digits.npz")
    if recipe.distill > 0 and teacher is None:
        raise UsageError("--distill needs --teacher MODEL, for example the dense model that this one was pruned from")
    clock = Clock()
    tuned = program.clone()
    apply_masks(tuned.module, tuned.masks)
    trainer = Trainer(data, task or open_task(None), seed, device, progress or Silent(), teacher)
    file = ResumeFile(resume_file, identity_of(program, asdict(recipe), data.ref) if resume_file else "")
    point = file.read() if resume else None
    ratio = tuned.n_parameters / _left(tuned)
    before = point.stages[0] if point else StageRow("before", ratio, _left(tuned), 0, 0.0, trainer.evaluate(tuned))
    tuned.module.to(device)
    result = trainer.train(
        "retrain", tuned, recipe, [MaskHook(tuned.module, tuned.masks)], point.fit if point else None,
        lambda state: file.write(0, state, tuned, [before]),
    )  # fmt: skip
    after = StageRow("retrain", ratio, _left(tuned), len(result.history), clock.seconds, trainer.evaluate(tuned))
    history = tuple(
        {"epoch": r.epoch, "lr": r.lr, "train_loss": r.train_loss, **r.metrics, "seconds": r.seconds}
        for r in result.history
    )
    return tuned, RetrainReport((before, after), history, tuned.n_zeroed, result.stopped, clock.seconds)


def _left(program: Program) -> Params:
    return Params(program.n_parameters - program.n_zeroed)
