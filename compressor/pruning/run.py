"""One run's machinery: executes phases, reports progress, leaves resume points; it must never know a method."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.asking import Recipe, Recovery
from compressor.data import DataSource, Task
from compressor.errors import TrainingError, UsageError
from compressor.program import Program, families
from compressor.progress import Progress
from compressor.pruning.recovery import recover
from compressor.pruning.result import StageRow
from compressor.training import (
    EpochRecord,
    FitResult,
    StepHook,
    StepReport,
    evaluate,
    fit,
    gradient_moments,
    load_state,
    save_state,
    share_state,
    steps_per_epoch,
)

_GRADIENT_BATCH = 64


@dataclass(frozen=True)
class Trainer:
    """What every training stretch of a run shares."""

    data: DataSource
    task: Task
    seed: int
    device: str
    progress: Progress
    teacher: Program | None = None

    def train(
        self, stage: str, program: Program, recipe: Recipe, hooks: Sequence[StepHook], start: Mapping[str, Any] | None,
        on_state: Any = None,
    ) -> FitResult:  # fmt: skip
        """Train in place under hooks, with a progress bar; the program ends on the CPU, in the usual memory layout."""
        _lay_out(program, torch.channels_last)
        if self.teacher is not None:
            _lay_out(self.teacher, torch.channels_last)
        n_steps = steps_per_epoch(self.data.n_train, recipe)
        done = len(start["history"]) if start else 0
        self.progress.start(stage, max(recipe.epochs - done, 0) * n_steps, "step")
        latest: dict[str, float] = {}

        def on_step(step: StepReport) -> None:
            self.progress.advance(1, loss=step.loss, **latest)

        def on_epoch(epoch: EpochRecord) -> None:
            latest.update(_shown(epoch, self.task))
            self.progress.advance(0, loss=epoch.train_loss, **latest)

        result = fit(
            program.module, self.data, self.task, recipe, seed=self.seed, hooks=hooks, device=self.device,
            teacher=self.teacher.module if self.teacher is not None else None,
            start=start, on_step=on_step, on_epoch=on_epoch, on_state=on_state,
        )  # fmt: skip
        self.progress.finish(stage, **latest)
        program.module.to("cpu")
        _lay_out(program, torch.contiguous_format)
        return result

    def gradients(self, program: Program, n_batches: int, *, per_sample: bool) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean |g| and mean g² of every parameter, over batches or over the same samples one by one; the program ends
        on the CPU."""
        size = 1 if per_sample else _GRADIENT_BATCH
        moments = gradient_moments(
            program.module, self.data, self.task, n_batches=n_batches * _GRADIENT_BATCH // size, batch_size=size,
            seed=self.seed, device=self.device,
        )  # fmt: skip
        program.module.to("cpu")
        return moments

    def recover(
        self, program: Program, recovery: Recovery, dense: Program | None, *, augment: bool = False
    ) -> dict[str, float]:
        """Heal in place without training; what was done, as numbers."""
        found = recover(
            program, recovery, self.data, dense=dense, seed=self.seed, device=self.device, augment=augment
        )  # fmt: skip
        share_state(program.module, self.device)
        return found

    def evaluate(self, program: Program) -> dict[str, float]:
        return evaluate(program.module, self.data, self.task, device=self.device)


def check_batch_size(program: Program, recipe: Recipe | None) -> None:
    """Nothing, when the network can be trained in batches of the recipe's size.

    Raises:  UsageError if it fixes its batch at another one.
    """
    if recipe is not None and program.fixed_batch not in (None, recipe.batch_size):
        raise UsageError(
            f"--batch-size {recipe.batch_size}: the network takes batches of {program.fixed_batch} only; give "
            f"--batch-size {program.fixed_batch}, or do not train it here"
        )


def _lay_out(program: Program, layout: torch.memory_format) -> None:
    """Put 4-D weights into a memory layout. With channels last a LeNet-5 step takes 0.69 of the time on the CPU, a
    ResNet-20 step 0.85; nothing else about the module changes. A graph that kept its views needs the usual one."""
    if not any(node.target in families.VIEW for node in program.module.graph.nodes):
        program.module.to(memory_format=layout)  # pyright: ignore[reportCallIssue]  # its stub lacks this overload


def epoch_rows(history: Sequence[EpochRecord]) -> tuple[dict[str, float], ...]:
    """Every epoch as plain numbers: `epoch`, `lr`, `train_loss`, the metrics, what hooks told, `seconds`."""
    return tuple(
        {"epoch": r.epoch, "lr": r.lr, "train_loss": r.train_loss, **r.metrics, **r.extra, "seconds": r.seconds}
        for r in history
    )


def _shown(epoch: EpochRecord, task: Task) -> dict[str, float]:
    """What stands beside the loss: the metric, the penalty that the loss leaves out, how much is cut, and how far the
    weights are from that."""
    known = {**epoch.extra, **epoch.metrics}
    return {name: known[name] for name in (task.primary, "penalty", "sparsity", "residual") if name in known}


@dataclass(frozen=True)
class ResumePoint:
    """Where a run stood: the phase it was in, that fit's own state, the masks in force, the stages behind it, and the
    masks that the search before it drew the weights to."""

    phase: int
    fit: dict[str, Any] | None
    module: dict[str, Tensor] | None
    masks: dict[str, Tensor]
    stages: tuple[StageRow, ...]
    drawn: dict[str, Tensor]


class ResumeFile:
    """The resume point of one run on disk; a file of another run is refused, not overwritten silently."""

    def __init__(self, path: Path | None, identity: str) -> None:
        self.path, self._identity = path, identity

    def read(self) -> ResumePoint | None:
        """Raises:  TrainingError if the file belongs to a run with other settings or another model."""
        if self.path is None or not self.path.exists():
            return None
        state = load_state(self.path)
        if state.get("identity") != self._identity:
            raise TrainingError(
                f"{self.path}: belongs to a run with another model or other options\n"
                "give the same options as then, or start afresh without --resume"
            )
        stages = tuple(StageRow(**row) for row in state["stages"])
        return ResumePoint(state["phase"], state["fit"], state["module"], state["masks"], stages, state["drawn"])

    def write(
        self, phase: int, fit_state: dict[str, Any] | None, program: Program, stages: Sequence[StageRow],
        drawn: Mapping[str, Tensor],
    ) -> None:  # fmt: skip
        """At the end of an epoch (`fit_state`) or at the start of a phase (None: the module's own state is kept)."""
        if self.path is None:
            return
        module = None if fit_state is not None else dict(program.module.state_dict())
        rows = [asdict(row) for row in stages]
        state = {"identity": self._identity, "phase": phase, "fit": fit_state, "module": module}
        save_state(self.path, {**state, "masks": dict(program.masks), "stages": rows, "drawn": dict(drawn)})


def identity_of(program: Program, options: Mapping[str, Any], data: str) -> str:
    """A digest of model, masks, options and data: two runs that share it would do the same.

    The device is left out, so that a run may go on elsewhere.
    """
    plain = {key: value for key, value in options.items() if key != "device"}
    digest = hashlib.sha256(json.dumps({"options": plain, "data": data}, sort_keys=True, default=str).encode())
    masks = {f"mask of {name}": mask for name, mask in program.masks.items()}
    for name, tensor in {**program.module.tensors(), **masks}.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Clock:
    """Seconds since it was made. Units: seconds."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began
