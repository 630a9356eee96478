"""`prune`: settings and a program in, a masked program at that ratio out; it must never remove anything physically."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from compressor.axes import UnitMap, find_units
from compressor.cost import count_macs, mac_terms, macs_of_layers
from compressor.data import DataSource, Task, open_task
from compressor.errors import UsageError
from compressor.program import Program, find_layers
from compressor.progress import Progress, Silent
from compressor.pruning.hooks import AdmmHook, MaskHook
from compressor.pruning.phases import Phase, plan
from compressor.pruning.result import LayerCut, PruneReport, StageRow
from compressor.pruning.run import Clock, ResumeFile, ResumePoint, Trainer, identity_of
from compressor.pruning.settings import PruneSettings
from compressor.sparsity import Budget, Choice, Selection, Selector, apply_masks, kept_units, make_selector, merge_masks
from compressor.training import StepHook
from compressor.units import Macs, Params, format_ratio

_TOLERANCE = 0.02
"""Asked = got: how far above the asked ratio a result may lie before the user is told."""


def prune(
    program: Program,
    settings: PruneSettings,
    *,
    data: DataSource | None = None,
    task: Task | None = None,
    progress: Progress | None = None,
    resume_file: Path | None = None,
    resume: bool = False,
) -> tuple[Program, PruneReport]:
    """The pruned program (masked, its cut weights 0) and what was asked, got and measured on the way.

    The input program is left untouched. `resume_file` receives a resume point every epoch; with `resume` a run that
    was broken off continues from it, bit for bit on one CPU process.

    Raises:  UsageError if training is asked for without data; RatioError if the ratio is infeasible; PatternError if
             nothing can be pruned; TrainingError if training diverges.
    """
    trains = settings.prune_recipe is not None or settings.retrain_recipe is not None
    if trains and data is None:
        raise UsageError("no data: pruning retrains the network; give --data, or --no-retrain to only cut")
    clock = Clock()
    units = find_units(program, settings.walk)
    selector = make_selector(program, units, _choice(settings))
    selector.select(program.parameters, settings.ratio)  # an infeasible ratio is found before hours of training
    run = _Run(program, settings, selector, data, task, progress or Silent(), resume_file)
    pruned, stages = run.execute(resume)
    pruned = _remember(pruned, program, settings)
    return pruned, _report(program, pruned, units, selector, settings, stages, clock.seconds)


def _choice(settings: PruneSettings) -> Choice:
    return Choice(
        settings.pattern, settings.of, settings.allocation, settings.scope, settings.keep, settings.floor,
        settings.round_to, "random" if settings.method == "random" else "magnitude", settings.seed,
    )  # fmt: skip


class _Run:
    """Executes the phases on a copy of the program."""

    def __init__(
        self,
        program: Program,
        settings: PruneSettings,
        selector: Selector,
        data: DataSource | None,
        task: Task | None,
        progress: Progress,
        resume_file: Path | None,
    ) -> None:
        self.settings, self.selector, self.data, self.progress = settings, selector, data, progress
        self.task = task or open_task(None)
        self.program = program.clone()
        self.stages: list[StageRow] = []
        identity = identity_of(program, asdict(settings), data.ref if data else "") if resume_file else ""
        self.file = ResumeFile(resume_file, identity)
        recipes = (settings.prune_recipe, settings.retrain_recipe)
        distils = any(recipe is not None and recipe.distill > 0 for recipe in recipes)
        teacher = program.clone() if distils else None
        self.trainer = (
            Trainer(data, self.task, settings.seed, settings.device, progress, teacher) if data is not None else None
        )

    def execute(self, resume: bool) -> tuple[Program, tuple[StageRow, ...]]:
        point = self.file.read() if resume else None
        if point is not None:
            self.stages.extend(point.stages)
            self.program = self.program.replace(masks=point.masks)
            if point.module is not None:
                self.program.module.load_state_dict(point.module)
            self.progress.note(f"resumed from {self.file.path}")
        else:
            self._record("dense", 1.0, 0, 0.0, {})
        for number, phase in enumerate(plan(self.settings)):
            if point is None or number >= point.phase:
                self._phase(number, phase, point if point is not None and number == point.phase else None)
        return self.program, tuple(self.stages)

    def _phase(self, number: int, phase: Phase, point: ResumePoint | None) -> None:
        clock = Clock()
        fit_state = point.fit if point is not None else None
        if fit_state is None:
            self.file.write(number, None, self.program, self.stages)
            if phase.kind == "masked":
                self._cut(phase.ratio)
        extra: dict[str, float] = {}
        epochs = 0
        if phase.recipe is not None and self.trainer is not None:
            result = self.trainer.train(
                phase.name, self.program, phase.recipe, self._hooks(phase), fit_state,
                lambda state: self.file.write(number, state, self.program, self.stages),
            )  # fmt: skip
            epochs = len(result.history)
            extra = dict(result.history[-1].extra) if result.history else {}
        self._record(phase.name, phase.ratio if phase.kind == "masked" else 1.0, epochs, clock.seconds, extra)

    def _hooks(self, phase: Phase) -> list[StepHook]:
        """ADMM comes first: what is cut already (an earlier stage, an earlier run) must not follow its pull."""
        module = self.program.module.to(self.settings.device)
        hooks: list[StepHook] = [MaskHook(module, self.program.masks)]
        if phase.kind == "admm":
            hooks.insert(0, AdmmHook(module, self.selector, phase.ratio, self.settings.admm))
        return hooks

    def _cut(self, ratio: float) -> Selection:
        """Cut to `ratio`; what was cut before, perhaps under another scope or pattern, stays cut."""
        selection = self.selector.select(self.program.parameters, ratio)
        masks = merge_masks(self.program.masks, selection.masks)
        apply_masks(self.program.module, masks)
        self.program = self.program.replace(masks=masks)
        return selection

    def _record(self, name: str, ratio: float, epochs: int, seconds: float, extra: dict[str, float]) -> None:
        metrics = self.trainer.evaluate(self.program) if self.trainer is not None else None
        kept = Params(self.program.n_parameters - self.program.n_zeroed)
        self.stages.append(StageRow(name, ratio, kept, epochs, seconds, metrics, extra))


def _report(
    dense: Program, pruned: Program, units: UnitMap, selector: Selector, settings: PruneSettings,
    stages: tuple[StageRow, ...], seconds: float,
) -> PruneReport:  # fmt: skip
    """Asked and got, counted on what compaction will leave."""
    keep = kept_units(units, pruned.masks, pruned.parameters)
    structured = settings.pattern != "unstructured"
    compacted = Budget.of_params(pruned, units).cost(keep)
    kept_params = compacted if structured else pruned.n_parameters - pruned.n_zeroed
    kept_macs = Budget.of_macs(pruned, units).cost(keep) if structured else _masked_macs(pruned)
    got = selector.dense / selector.kept_cost(pruned.masks, keep)
    warnings = []
    if got > settings.ratio * (1 + _TOLERANCE):
        warnings.append(
            f"asked {format_ratio(settings.ratio)}, got {format_ratio(got)}: whole units"
            + (f" in multiples of {settings.round_to}" if settings.round_to > 1 else "")
            + " come no closer"
        )
    return PruneReport(
        method=settings.method,
        pattern=settings.pattern,
        of=settings.of,
        asked=settings.ratio,
        got=got,
        dense_params=Params(dense.n_parameters),
        kept_params=Params(round(kept_params)),
        dense_macs=count_macs(dense),
        kept_macs=Macs(round(kept_macs)),
        zeroed=pruned.n_zeroed - (pruned.n_parameters - round(compacted)),
        layers=_layer_cuts(pruned, by_weight=not structured),
        stages=stages,
        warnings=tuple(warnings),
        seconds=seconds,
    )


def _masked_macs(program: Program) -> float:
    per_weight = {t.factors[0].name: t.coefficient for t in mac_terms(program) if t.factors and t.factors[0].is_tensor}
    cut = sum(float((~mask).sum()) * per_weight.get(name, 0.0) for name, mask in program.masks.items())
    return sum(macs_of_layers(program).values()) - cut


def _layer_cuts(program: Program, *, by_weight: bool) -> tuple[LayerCut, ...]:
    """Kept and dense filters of each layer with weights to contract, or its single weights (`by_weight`)."""
    parameters = program.parameters
    cuts: list[LayerCut] = []
    for layer in find_layers(program):
        weight = parameters.get(layer.weight)
        if weight is None or layer.in_dim is None:
            continue
        mask = program.masks.get(layer.weight)
        others = [d for d in range(weight.dim()) if d != layer.out_dim]
        n_dense = weight.numel() if by_weight else weight.shape[layer.out_dim]
        n_kept = n_dense if mask is None else int((mask if by_weight else mask.any(dim=others)).sum())
        owned = [name for name in layer.tensors if name in parameters]
        dense = sum(parameters[name].numel() for name in owned)
        cut = sum(int((~program.masks[name]).sum()) for name in owned if name in program.masks)
        cuts.append(LayerCut(layer.name, n_kept, n_dense, Params(dense - cut), Params(dense)))
    return tuple(cuts)


def _remember(program: Program, dense: Program, settings: PruneSettings) -> Program:
    """The pruned program with its units and the size of the dense one, if that is not there yet, in its record."""
    record = dense.record
    return program.replace(
        record=replace(
            program.record,
            dense_params=record.dense_params or dense.n_parameters,
            dense_macs=record.dense_macs or count_macs(dense),
            walk=settings.walk.to_mapping(),
        )
    )
