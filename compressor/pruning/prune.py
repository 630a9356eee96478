"""`prune`: settings and a program in, a masked program at that ratio out; it must never remove anything physically."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.asking.prune import PruneSettings
from compressor.asking.score import NEEDS_GRADIENTS, NEEDS_INPUTS
from compressor.axes import UnitMap
from compressor.cost import (
    USUAL,
    Preferences,
    Stopwatch,
    find_preferences,
)
from compressor.data import DataSource, Task, in_batches_of, open_task
from compressor.errors import UsageError
from compressor.program import (
    Program,
    find_layers,
    narrowed,
    open_choices,
    open_heads,
    open_response_norms,
    own_positions,
    widened,
)
from compressor.program.masks import replaced
from compressor.progress import Progress, Silent
from compressor.pruning.alternate import AlternateHook
from compressor.pruning.block_order import order_of
from compressor.pruning.choosing import layers_of, remember, resolved, units_of
from compressor.pruning.closing import Speedup, close
from compressor.pruning.drawing import PLANNED, DrawHook
from compressor.pruning.dropout import rescale_dropout
from compressor.pruning.freeze import FreezeHook
from compressor.pruning.hooks import MaskHook
from compressor.pruning.inputs import select_inputs
from compressor.pruning.least_squares import Support
from compressor.pruning.phases import Phase, plan
from compressor.pruning.pruned import PruneReport, StageRow
from compressor.pruning.rating import rated_tensors
from compressor.pruning.reporting import reached, report_of
from compressor.pruning.routing import routed_of
from compressor.pruning.run import (
    Clock,
    ResumeFile,
    ResumePoint,
    Trainer,
    check_batch_size,
    epoch_rows,
    evaluated_at_once,
    identity_of,
)
from compressor.pruning.searching import search_hook
from compressor.pruning.survivors import reinitialise
from compressor.pruning.training_form import TrainingForm, find_form, of_form
from compressor.pruning.worsened import worsened
from compressor.sparsity import (
    Choice,
    Selector,
    apply_masks,
    make_selector,
    merge_masks,
    supports_of,
    without_cut_blocks,
)
from compressor.training import EpochRecord, StepHook, is_measurable, steps_per_epoch, with_targets
from compressor.units import Params, format_dtype, format_ratio


def prune(
    program: Program,
    settings: PruneSettings,
    *,
    data: DataSource | None = None,
    task: Task | None = None,
    model: nn.Module | None = None,
    progress: Progress | None = None,
    resume_file: Path | None = None,
    resume: bool = False,
    stopwatch: Stopwatch | None = None,
    speedup: Speedup | None = None,
    on_step: Callable[[StageRow, Program], None] | None = None,
) -> tuple[Program, PruneReport]:
    """The pruned program (masked, its cut weights 0) and what was asked, got and measured on the way.

    The input program is left untouched. With data that have no labels its answers are learned from, and `agreement`
    with them is measured. `model` is the live module that it was captured from: it trains in its own form (auxiliary
    heads, dropout, stochastic depth) where the graph does something else, and ends with the weights of the result; a
    library's network is made anew without it. `resume_file` receives a resume point every epoch; with `resume` a run
    that was broken off continues from it, bit for bit on one CPU process. `stopwatch` takes the times where settings
    ask for time; with `speedup` a ratio of time is the whole network's as it measures it, not that of summed layers.
    `on_step` gets what every cut, with its retraining, comes to; not again what a run did before it was broken off.

    Raises:  UsageError if training is asked for without data; RatioError if the ratio is infeasible; PatternError if
             nothing can be pruned; ModelError if weights that masks cut are not 0; TrainingError if training diverges.
    """
    if data is None and (why := _why_data(settings)):
        raise UsageError(f"no data: {why}")
    program.check_masks()
    for recipe in (settings.prune_recipe, settings.retrain_recipe):
        check_batch_size(program, recipe)
    clock = Clock()
    has_answers = data is None or is_measurable(data, task)
    taught_by = program.module if has_answers else program.clone().module
    data, task = with_targets(in_batches_of(data, program.fixed_batch), task, taught_by)
    stored = _opened(program, settings)
    program = widened(stored) if _trains(settings) else stored
    settings = resolved(settings, stopwatch)
    progress = progress or Silent()
    units, selector, preferences = _selection(program, settings, data, stopwatch, progress)
    form = _form(program, model, settings, data, task, progress)
    run = _Run(program, settings, units, selector, data, task, progress, resume_file, preferences, form)
    timed = speedup if settings.of == "latency" else None
    if timed is not None:
        run.aim = lambda: _closed(program, selector, settings.ratio, timed, run.progress)
    if on_step is not None:
        run.on_step = lambda row, reached: on_step(row, _remembered(reached.clone(), program, stored, settings))
    run.execute(resume)
    run.round_to(stored)
    pruned, stages = remember(run.program, program, settings), tuple(run.stages)
    measured = timed(program, pruned) if timed is not None else None
    report = report_of(program, pruned, units, selector, settings, stages, clock.seconds, measured)
    lost = worsened(stages, run.task, keeps_best=any(recipe.keep == "best" for recipe in settings.recipes))
    return pruned, replace(report, warnings=(*report.warnings, *lost))


def _selection(
    program: Program, settings: PruneSettings, data: DataSource | None, stopwatch: Stopwatch | None, progress: Progress
) -> tuple[UnitMap, Selector, Preferences]:
    """Units, what selects among them, and the widths that the machine likes.

    Raises:  RatioError if the ratio is infeasible, PatternError if nothing can be pruned.
    """
    preferences = find_preferences(stopwatch) if settings.likes_widths else USUAL
    if preferences.trouble is not None:
        progress.note(preferences.trouble)
    routed = routed_of(program, settings, data, progress)
    units = units_of(program, settings, progress.note, routed)
    blocks = layers_of(program, settings, progress.note)
    order = order_of(program, settings, data, progress, blocks)
    selector = make_selector(program, units, Choice(settings, stopwatch, preferences, order, routed, blocks))
    selector.select(program.parameters, settings.ratio, program.masks)  # infeasible is found before hours of training
    return units, selector, preferences


def _trains(settings: PruneSettings) -> bool:
    """Whether weights are changed by small steps, or gradients taken."""
    return bool(settings.recipes or settings.recovery) or settings.score in NEEDS_GRADIENTS


def _remembered(reached: Program, program: Program, stored: Program, settings: PruneSettings) -> Program:
    """What a step came to, as it is stored."""
    found = remember(reached, program, settings)
    return found if program is stored else narrowed(found, stored)


def _opened(program: Program, settings: PruneSettings) -> Program:
    """The program with what pruning needs to be operators of their own."""
    program = open_response_norms(program)
    if settings.pattern.experts:
        program = open_choices(program)
    if settings.pattern.units is not None:
        program = open_heads(program) if settings.walk.keep_heads else own_positions(program)
    return select_inputs(program) if settings.select_inputs else program


def _form(
    program: Program, model: nn.Module | None, settings: PruneSettings, data: DataSource | None, task: Task | None,
    progress: Progress,
) -> TrainingForm | None:  # fmt: skip
    """The form in which the network trains, if it does; rates of dropout that are rescaled are those of the graph."""
    if data is None or not settings.recipes or settings.rescale_dropout:
        return None
    return find_form(program, model, data, task or open_task(None), progress)


def _closed(program: Program, selector: Selector, asked: float, speedup: Speedup, progress: Progress) -> float:
    """The ratio of the sum of layers with which the network gets as much faster as was asked."""
    found = close(program, selector, asked, speedup)
    if found is None:
        progress.note("the network cannot be timed whole: the ratio is that of the sum of its layers' times")
        return asked
    progress.note(
        f"asks {format_ratio(found.ratio)} of the layers' summed time, which makes the whole network"
        f" {found.speedup:.2f}x faster ({found.tries} cuts measured)"
    )
    return found.ratio


def _why_data(settings: PruneSettings) -> str | None:
    """What the settings need data for, and how to do without."""
    if settings.recipes:
        return "pruning retrains the network; give --data, or --no-retrain to only cut"
    if settings.score in NEEDS_GRADIENTS:
        return f"--score {settings.score} takes gradients of the loss; give --data, or --score l2"
    if settings.score in NEEDS_INPUTS:
        return f"--score {settings.score} measures what reaches each weight; give --data, or --score l2"
    if settings.recovery:
        return "--reconstruct and --recalibrate run the network on training batches; give --data"
    return None


class _Run:
    """Executes the phases on a copy of the program; without data on the program itself, whose weights stay as they are:
    nothing trains, and cut weights are new ones."""

    def __init__(
        self,
        program: Program,
        settings: PruneSettings,
        units: UnitMap,
        selector: Selector,
        data: DataSource | None,
        task: Task | None,
        progress: Progress,
        resume_file: Path | None,
        preferences: Preferences,
        form: TrainingForm | None,
    ) -> None:
        self.settings, self.selector, self.data, self.progress = settings, selector, data, progress
        self.task = task or open_task(None)
        self.given, self.units = program, units
        self.program = program if data is None else program.clone()
        self.stages: list[StageRow] = []
        self.drawn: dict[str, Tensor] = {}
        self.on_step: Callable[[StageRow, Program], None] | None = None
        resume_file = None if data is None else resume_file  # without training there is nothing to go on with
        options = {**asdict(settings), "preferences": preferences.of_kind, **of_form(form)}
        identity = identity_of(program, options, data, self.task) if resume_file else ""
        self.file = ResumeFile(resume_file, identity, form)
        self.aim: Callable[[], float] = lambda: settings.ratio
        distils = any(recipe.distill > 0 for recipe in settings.recipes)
        teacher = program.clone() if distils else None
        self.trainer = None
        if data is not None:
            at_once = evaluated_at_once(program)
            self.trainer = Trainer(
                data, self.task, settings.seed, settings.device, progress, teacher, form, at_once
            )  # fmt: skip

    def execute(self, resume: bool) -> None:
        point = self.file.read(self.program, len(plan(self.settings))) if resume else None
        if point is not None:
            self.stages.extend(point.stages)
            self.drawn = point.drawn
            self.settings = replace(self.settings, ratio=point.ratio)
            self.program = self.program.replace(masks=point.masks)
            if point.module is not None:
                self.program.module.load_state_dict(point.module)
            if self.settings.rescale_dropout:
                self.program, _ = rescale_dropout(self.program, self.given)
            self.progress.note(f"resumed from {self.file.path}")
        else:
            self.settings = replace(self.settings, ratio=self.aim())
            self._record("dense", 0, 0.0, {})
        for number, phase in enumerate(plan(self.settings)):
            if point is None or number >= point.phase:
                self._phase(number, phase, point if point is not None and number == point.phase else None)

    def round_to(self, stored: Program) -> None:
        """Back to the types that weights are stored in, and what that comes to as a stage of its own."""
        if stored is not self.given:
            self.program = narrowed(self.program, stored)
            types = sorted({format_dtype(p.dtype) for p in stored.module.parameters() if p.dtype != torch.float32})
            self._record(f"rounded to {', '.join(types)}", 0, 0.0, {})

    def _save(self, number: int, fit_state: dict[str, Any] | None) -> None:
        self.file.write(number, fit_state, self.program, self.stages, self.drawn, self.settings.ratio)

    def _phase(self, number: int, phase: Phase, point: ResumePoint | None) -> None:
        clock = Clock()
        fit_state = point.fit if point is not None else None
        if fit_state is None:
            self._save(number, None)
            if phase.kind == "masked":
                # Healing needs the network as it was; all others only look at the masks, which a cut replaces.
                before = self.program.clone() if self.settings.recovery else self.program
                self._cut(phase.ratio)
                self._heal(phase, before)
        history: tuple[EpochRecord, ...] = ()
        hooks: list[StepHook] = []
        if phase.recipe is not None and self.trainer is not None:
            history = self.trainer.train(
                phase.name, self.program, phase.recipe, lambda: self._hooks(phase, hooks), fit_state,
                lambda state: self._save(number, state),
            ).history  # fmt: skip
        searched = next((hook for hook in hooks if isinstance(hook, DrawHook)), None)
        self.drawn = {name: mask.cpu() for name, mask in searched.masks.items()} if searched is not None else {}
        residuals = searched.residuals if searched is not None else {}
        # The stage's own parameters say what is cut; that of ADMM's last epoch is not cut yet.
        ending = history[-1].extra if history else {}
        extra = {name: value for name, value in ending.items() if name not in ("sparsity", PLANNED)}
        self._record(phase.name, len(history), clock.seconds, extra, epoch_rows(history), residuals)
        if phase.kind == "masked" and self.on_step is not None:
            self.on_step(self.stages[-1], self.program)

    def _hooks(self, phase: Phase, hooks: list[StepHook]) -> list[StepHook]:
        """Into `hooks` those of a phase. The search comes first: what is cut already (an earlier stage, an earlier run)
        must not follow its pull."""
        module = self.program.module.to(self.settings.device)
        hooks.append(MaskHook(module, self.program.masks))
        if phase.kind == "search":
            assert phase.recipe is not None and self.data is not None
            n_steps = phase.recipe.epochs * steps_per_epoch(self.data.n_train, phase.recipe)
            hooks.insert(0, search_hook(
                module, self.program, self.units, self.selector, replace(self.settings, ratio=phase.ratio), n_steps,
                phase.recipe,
            ))  # fmt: skip
        elif self.settings.alternate:
            hooks.append(AlternateHook(self.program))
        if self.settings.freeze:
            hooks.append(FreezeHook(self.program, self.settings.freeze))
        return hooks

    def _cut(self, ratio: float) -> None:
        """Cut to `ratio`, or what the search drew to 0; what was cut before, perhaps under another scope or pattern,
        stays cut.

        A ranking of the weights as the search left them would choose again between units near the edge, by what is left
        of those that were drawn down.
        """
        chosen = self.drawn
        if not chosen:
            rated = rated_tensors(self.program, self.units, self.settings, self.trainer)
            chosen = self.selector.select(rated, ratio, self.program.masks).masks
        masks = merge_masks(self.program.masks, chosen)
        if self.data is None:
            self.program = self.program.cut(masks)
            return
        apply_masks(self.program.module, masks)
        self.program = self.program.replace(masks=masks)

    def _heal(self, phase: Phase, before: Program) -> None:
        """What the settings do between a cut and its retraining; `before` is the program as it went into the cut."""
        settings = self.settings
        if settings.rescale_dropout:
            self.program, rates = rescale_dropout(self.program, self.given)
            said = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
            self.progress.note(f"dropout rates now: {said}" if said else "--rescale-dropout: no dropout to rescale")
        if settings.reinit and phase.recipe is not None and phase.recipe is settings.retrain_recipe:
            reinitialise(self.program, settings.seed)
        if settings.recovery and self.trainer is not None and self.program.n_zeroed > before.n_zeroed:
            self._record(f"{phase.name}: cut", 0, 0.0, {})
            clock = Clock()
            found = self.trainer.recover(self.program, settings.recovery, before, supports=self._supports(before))
            self.program = self.program.replace(masks=replaced(self.program.masks, found.masks))
            self._record(f"{phase.name}: recovered", 0, clock.seconds, found.numbers)

    def _supports(self, before: Program) -> Mapping[str, Support] | None:
        """How layers choose what they keep, where their outputs are what decides."""
        if not self.settings.chooses_by_outputs:
            return None
        return supports_of(find_layers(before), self.settings.pattern, self.program.masks, before.masks)

    def _record(
        self, name: str, epochs: int, seconds: float, extra: dict[str, float],
        history: tuple[dict[str, float], ...] = (), residuals: dict[str, float] | None = None,
    ) -> None:  # fmt: skip
        metrics = self.trainer.evaluate(self.program) if self.trainer is not None else None
        left = without_cut_blocks(self.program)
        kept = Params(left.n_parameters - left.n_zeroed)
        ratio = reached(self.program, self.units, self.selector)
        self.stages.append(StageRow(name, ratio, kept, epochs, seconds, metrics, extra, history, residuals or {}))
