"""One run's machinery: executes phases, reports progress, leaves resume points; it must never know a method."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.asking import Recipe, Recovery
from compressor.data import DataSource, Task, identity_of_data, identity_of_task, open_task
from compressor.errors import CompressError, TrainingError, UsageError
from compressor.launched import is_first_process
from compressor.program import Program, TensorShape, families
from compressor.progress import Progress
from compressor.pruning.activations import input_energies
from compressor.pruning.least_squares import Support
from compressor.pruning.matching import matched, of_its_own
from compressor.pruning.pruned import StageRow
from compressor.pruning.recovery import Recovered, recover
from compressor.pruning.training_form import SettleHook, TrainingForm
from compressor.training import (
    EVALUATED_AT_ONCE,
    EpochRecord,
    FitResult,
    StepHook,
    StepReport,
    TrainedAs,
    check_form,
    evaluate,
    fit,
    gradient_moments,
    load_state,
    open_processes,
    plain_as,
    refuse_spread,
    save_state,
    share_masks,
    share_state,
    spread,
    steps_per_epoch,
)

_GRADIENT_BATCH = 64
_ANSWERS = 1 << 24
"""Numbers that samples which are evaluated at once are answered with, at most."""


@dataclass(frozen=True)
class Trainer:
    """What every training stretch of a run shares."""

    data: DataSource
    task: Task
    seed: int
    device: str
    progress: Progress
    teacher: Program | None = None
    form: TrainingForm | None = None
    at_once: int = EVALUATED_AT_ONCE
    """Samples of an evaluation that run together."""

    def train(
        self, stage: str, program: Program, recipe: Recipe, hooks_of: Callable[[], Sequence[StepHook]],
        start: Mapping[str, Any] | None, on_state: Any = None,
    ) -> FitResult:  # fmt: skip
        """Train in place under hooks, with a progress bar; the program ends on the CPU, in the usual memory layout.

        An author's own code may take views that want the usual layout, so a training form keeps it. Hooks take
        parameters as they are while they train: spread over the processes, where the launcher asks for it.
        """
        spreads = open_processes(self.device).spreads
        hooks: list[StepHook] = [] if spreads else [*hooks_of()]
        if self.form is None and not spreads:
            _lay_out(program, torch.channels_last)
        elif self.form is not None:
            hooks = [*hooks, SettleHook(self.form, program)]
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

        program.module.to(self.device)
        data, graph = matched(program, self.data) or (self.data, of_its_own(program) if recipe.compile else None)
        if spreads:
            _check_spread(recipe, graph, self.form)
        with (
            nullcontext(graph) if self.form is None else self.form.trains(program) as trained_as,
            spread(program.module, self.device) as parts,
        ):
            if parts is not None:
                hooks, trained_as = [*hooks_of()], TrainedAs(parts)
            result = fit(
                program.module, data, self.task, recipe, seed=self.seed, hooks=hooks, device=self.device,
                teacher=self.teacher.module if self.teacher is not None else None, trained_as=trained_as,
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

    def input_energies(self, program: Program, n_batches: int) -> dict[str, Tensor]:
        """What reaches every weight; the program ends on the CPU."""
        return input_energies(
            program, self.data, n_batches=n_batches, batch_size=_GRADIENT_BATCH, seed=self.seed, device=self.device
        )

    def recover(
        self, program: Program, recovery: Recovery, dense: Program | None, *, augment: bool = False,
        supports: Mapping[str, Support] | None = None,
    ) -> Recovered:  # fmt: skip
        """Heal in place without training."""
        found = recover(
            program, recovery, self.data, dense=dense, seed=self.seed, device=self.device, augment=augment,
            supports=supports,
        )  # fmt: skip
        share_state(program.module, self.device)
        return Recovered(found.numbers, share_masks(found.masks, self.device))

    def evaluate(self, program: Program) -> dict[str, float]:
        return evaluate(program.module, self.data, self.task, device=self.device, batch_size=self.at_once)


def evaluated_at_once(program: Program) -> int:
    """How many samples: fewer where each is answered with much, as a text is with a number for every word it could go
    on with."""
    if program.fixed_batch is not None:
        return EVALUATED_AT_ONCE
    (end,) = program.module.graph.find_nodes(op="output")
    shapes = (program.shapes.get(node.name) for node in end.all_input_nodes)
    n_answers = sum(math.prod(shape.sizes) for shape in shapes if isinstance(shape, TensorShape))
    return max(1, min(EVALUATED_AT_ONCE, _ANSWERS * program.sampled_batch // max(n_answers, 1)))


def _check_spread(recipe: Recipe, graph: TrainedAs | None, form: TrainingForm | None) -> None:
    if recipe.compile:
        raise refuse_spread("--compile")
    if recipe.precision == "fp16":
        raise refuse_spread("--precision fp16")
    if graph is not None:
        raise refuse_spread("learning from a dense network's features, for want of labels,")
    if form is not None:
        raise refuse_spread("training in the author's own form (auxiliary heads, stochastic depth)")


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
    masks that the search before it drew the weights to, the ratio that the run works towards, and what only the
    training form has."""

    phase: int
    fit: dict[str, Any] | None
    module: dict[str, Tensor] | None
    masks: dict[str, Tensor]
    stages: tuple[StageRow, ...]
    drawn: dict[str, Tensor]
    ratio: float
    form: dict[str, Tensor] = field(default_factory=dict)


class ResumeFile:
    """The resume point of one run on disk; a file of another run is refused, not overwritten silently."""

    def __init__(self, path: Path | None, identity: str, form: TrainingForm | None = None) -> None:
        self.path, self._identity, self._form = path, identity, form

    def read(self, program: Program, n_phases: int) -> ResumePoint | None:
        """The point, of a run over `program` in that many phases.

        Raises:  TrainingError if the file belongs to a run with other settings, another model or other data, or is
                 damaged.
        """
        if self.path is None or not self.path.exists():
            return None
        state = load_state(self.path)
        known = state.get("identity")
        if not isinstance(known, str) or known != self._identity:
            raise TrainingError(
                f"{self.path}: belongs to a run with another model, other data or other options\n"
                "give the same as then, or start afresh without --resume"
            )
        try:
            point = _point(state, program, n_phases)
            if self._form is not None:
                self._form.restore(point.form)
            return point
        except CompressError as error:
            raise TrainingError(f"{self.path}: {error}") from error

    def write(
        self, phase: int, fit_state: dict[str, Any] | None, program: Program, stages: Sequence[StageRow],
        drawn: Mapping[str, Tensor], ratio: float = 1.0,
    ) -> None:  # fmt: skip
        """At the end of an epoch (`fit_state`) or at the start of a phase (None: the module's own state is kept); of
        several processes the first one does."""
        if self.path is None or not is_first_process():
            return
        module = None if fit_state is not None else dict(program.module.state_dict())
        rows = json.loads(json.dumps([asdict(row) for row in stages]))  # plain lists, as they are read
        state = {"identity": self._identity, "phase": phase, "fit": fit_state, "module": module}
        form = {} if self._form is None else self._form.state()
        save_state(
            self.path,
            {**state, "masks": dict(program.masks), "stages": rows, "drawn": dict(drawn), "ratio": ratio, "form": form},
        )


def _point(state: Mapping[str, Any], program: Program, n_phases: int) -> ResumePoint:
    """The parts of a state; the fit's own is looked at by whoever takes it up."""
    phase = plain_as(int, state.get("phase"), "phase")
    if not 0 <= phase < n_phases:
        raise TrainingError(f"resume point: there is no phase {phase} of this run")
    fit_state, module = state.get("fit"), state.get("module")
    if (fit_state is None) == (module is None) or not isinstance(fit_state, (dict, type(None))):
        raise TrainingError("resume point: holds not one of a fit's state and a module's")
    if fit_state is not None:
        plain_as(list[EpochRecord], fit_state.get("history"), "fit.history")
    if module is not None:
        check_form(module, program.module.state_dict(), "module")
    for name in ("masks", "drawn"):
        given, parameters = state.get(name), program.parameters
        known = [key for key in given if key in parameters] if isinstance(given, dict) else []
        check_form(given, {key: parameters[key].bool() for key in known}, name)
    stages = plain_as(list[StageRow], state.get("stages"), "stages")
    ratio = plain_as(float, state.get("ratio"), "ratio")
    if not 1 <= ratio < math.inf:
        raise TrainingError(f"resume point: a ratio of {ratio:g}")
    form = state.get("form", {})
    return ResumePoint(phase, fit_state, module, state["masks"], tuple(stages), state["drawn"], ratio, form)


def identity_of(
    program: Program,
    options: Mapping[str, Any],
    data: DataSource | None,
    task: Task | None = None,
    teacher: Program | None = None,
) -> str:
    """A digest of model, masks, options, what the data hold, task and teacher: two runs that share it do the same.

    The device and the place of the data are left out, so that a run may go on elsewhere.
    """
    plain: dict[str, Any] = {"options": {key: value for key, value in options.items() if key != "device"}}
    plain["data"] = None if data is None else identity_of_data(data)
    plain["task"] = None if data is None else identity_of_task(task or open_task(None))
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode())
    masks = {f"mask of {name}": mask for name, mask in program.masks.items()}
    taught = {} if teacher is None else {f"teacher's {name}": t for name, t in teacher.module.tensors().items()}
    for name, tensor in {**program.module.tensors(), **masks, **taught}.items():
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
