"""`prune`: settings and a program in, a masked program at that ratio out; it must never remove anything physically."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from compressor.axes import Keep, UnitMap, find_units
from compressor.cost import (
    USUAL,
    Preferences,
    Stopwatch,
    count_macs,
    find_preferences,
    mac_terms,
    macs_of_layers,
)
from compressor.data import DataSource, Task, open_task
from compressor.errors import UsageError
from compressor.patterns import Pattern
from compressor.program import Program, find_layers, open_response_norms
from compressor.progress import Progress, Silent
from compressor.pruning.alternate import AlternateHook
from compressor.pruning.dropout import rescale_dropout
from compressor.pruning.hooks import AdmmHook, MaskHook, Penalties
from compressor.pruning.inputs import select_inputs
from compressor.pruning.phases import Phase, plan
from compressor.pruning.rating import rated_tensors
from compressor.pruning.result import LayerCut, PruneReport, StageRow
from compressor.pruning.run import Clock, ResumeFile, ResumePoint, Trainer, epoch_rows, identity_of
from compressor.pruning.settings import PruneSettings
from compressor.pruning.survivors import reinitialise
from compressor.sparsity import (
    NEEDS_GRADIENTS,
    Budget,
    Choice,
    Selection,
    Selector,
    apply_masks,
    kept_units,
    make_selector,
    matching_layers,
    merge_masks,
)
from compressor.training import EpochRecord, StepHook, steps_per_epoch
from compressor.units import Macs, Params, format_ratio

_TOLERANCE = 0.02
"""Asked = got: how far above the asked ratio a result may lie before the user is told."""
_SETTLED = 0.1


def prune(
    program: Program,
    settings: PruneSettings,
    *,
    data: DataSource | None = None,
    task: Task | None = None,
    progress: Progress | None = None,
    resume_file: Path | None = None,
    resume: bool = False,
    stopwatch: Stopwatch | None = None,
) -> tuple[Program, PruneReport]:
    """The pruned program (masked, its cut weights 0) and what was asked, got and measured on the way.

    The input program is left untouched. `resume_file` receives a resume point every epoch; with `resume` a run that
    was broken off continues from it, bit for bit on one CPU process. `stopwatch` takes the times where the
    settings ask for time.

    Raises:  UsageError if training is asked for without data; RatioError if the ratio is infeasible; PatternError if
             nothing can be pruned; TrainingError if training diverges.
    """
    if data is None and (why := _why_data(settings)):
        raise UsageError(f"no data: {why}")
    if stopwatch is None and settings.takes_time:
        raise UsageError("no stopwatch: latency is measured; give prune a compressor.OperatorClock()")
    clock = Clock()
    program = open_response_norms(program)
    if settings.select_inputs:
        program = select_inputs(program)
    progress = progress or Silent()
    preferences = find_preferences(stopwatch) if settings.likes_widths else USUAL
    if preferences.trouble is not None:
        progress.note(preferences.trouble)
    units = find_units(program, settings.walk)
    selector = make_selector(program, units, _choice(settings, stopwatch, preferences))
    selector.select(
        program.parameters, settings.ratio, program.masks
    )  # an infeasible ratio is found before hours of training
    run = _Run(program, settings, units, selector, data, task, progress, resume_file, preferences)
    pruned, stages = run.execute(resume)
    pruned = _remember(pruned, program, settings)
    return pruned, _report(program, pruned, units, selector, settings, stages, clock.seconds)


def _why_data(settings: PruneSettings) -> str | None:
    """What the settings need data for, and how to do without."""
    if settings.prune_recipe is not None or settings.retrain_recipe is not None:
        return "pruning retrains the network; give --data, or --no-retrain to only cut"
    if settings.score in NEEDS_GRADIENTS:
        return f"--score {settings.score} takes gradients of the loss; give --data, or --score l2"
    if settings.recovery:
        return "--reconstruct and --recalibrate run the network on training batches; give --data"
    return None


def _choice(settings: PruneSettings, stopwatch: Stopwatch | None, preferences: Preferences) -> Choice:
    return Choice(
        settings.pattern, settings.of, settings.allocation, settings.scope, settings.keep, settings.floor,
        settings.round_to, "random" if settings.method == "random" else "magnitude", settings.seed,
        settings.unit_share, shares=settings.layers, quality=settings.quality, scan=settings.sensitivity,
        max_loss=settings.max_loss, stopwatch=stopwatch, preferences=preferences,
    )  # fmt: skip


class _Run:
    """Executes the phases on a copy of the program."""

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
    ) -> None:
        self.settings, self.selector, self.data, self.progress = settings, selector, data, progress
        self.task = task or open_task(None)
        self.given, self.units = program, units
        self.program = program.clone()
        self.stages: list[StageRow] = []
        options = {**asdict(settings), "preferences": preferences.of_kind}
        identity = identity_of(program, options, data.ref if data else "") if resume_file else ""
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
            if self.settings.rescale_dropout:
                self.program, _ = rescale_dropout(self.program, self.given)
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
                # Healing needs the network as it was; all others only look at the masks, which a cut replaces.
                before = self.program.clone() if self.settings.recovery else self.program
                self._cut(phase.ratio)
                self._heal(phase, before)
        history: tuple[EpochRecord, ...] = ()
        if phase.recipe is not None and self.trainer is not None:
            history = self.trainer.train(
                phase.name, self.program, phase.recipe, self._hooks(phase), fit_state,
                lambda state: self.file.write(number, state, self.program, self.stages),
            ).history  # fmt: skip
        # The stage's own parameters say what is cut; that of ADMM's last epoch is not cut yet.
        extra = {k: v for k, v in history[-1].extra.items() if k != "sparsity"} if history else {}
        ratio = phase.ratio if phase.kind == "masked" else 1.0
        self._record(phase.name, ratio, len(history), clock.seconds, extra, epoch_rows(history))

    def _hooks(self, phase: Phase) -> list[StepHook]:
        """ADMM comes first: what is cut already (an earlier stage, an earlier run) must not follow its pull."""
        module = self.program.module.to(self.settings.device)
        hooks: list[StepHook] = [MaskHook(module, self.program.masks)]
        if phase.kind == "admm":
            hooks.insert(0, self._admm_hook(module, phase))
        elif self.settings.alternate:
            hooks.append(AlternateHook(self.program))
        return hooks

    def _admm_hook(self, module: nn.Module, phase: Phase) -> AdmmHook:
        settings = self.settings.admm
        assert phase.recipe is not None and self.data is not None
        n_steps = phase.recipe.epochs * steps_per_epoch(self.data.n_train, phase.recipe.batch_size)
        penalties = Penalties(settings.rho, *settings.course(phase.recipe, n_steps), self._rho_factors())
        return AdmmHook(module, self.selector, phase.ratio, settings, n_steps, penalties, masks=self.program.masks)

    def _rho_factors(self) -> dict[str, float]:
        """By tensor, what a layer's own first penalty is to the common one; of two globs the later one counts.

        Raises:  UsageError if a glob matches no layer.
        """
        layers = find_layers(self.program)
        factors: dict[str, float] = {}
        for glob, rho in self.settings.admm.layer_rho:
            chosen = matching_layers(layers, (glob,), "--layer-rho")
            owned = (tensor for layer in layers if layer.name in chosen for tensor in layer.tensors)
            factors |= dict.fromkeys(owned, rho / self.settings.admm.rho)
        return factors

    def _cut(self, ratio: float) -> Selection:
        """Cut to `ratio`; what was cut before, perhaps under another scope or pattern, stays cut."""
        rated = rated_tensors(self.program, self.units, self.settings, self.trainer)
        selection = self.selector.select(rated, ratio, self.program.masks)
        masks = merge_masks(self.program.masks, selection.masks)
        apply_masks(self.program.module, masks)
        self.program = self.program.replace(masks=masks)
        return selection

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
            self._record(f"{phase.name}: cut", phase.ratio, 0, 0.0, {})
            clock = Clock()
            found = self.trainer.recover(self.program, settings.recovery, before)
            self._record(f"{phase.name}: recovered", phase.ratio, 0, clock.seconds, found)

    def _record(
        self, name: str, ratio: float, epochs: int, seconds: float, extra: dict[str, float],
        history: tuple[dict[str, float], ...] = (),
    ) -> None:  # fmt: skip
        metrics = self.trainer.evaluate(self.program) if self.trainer is not None else None
        kept = Params(self.program.n_parameters - self.program.n_zeroed)
        self.stages.append(StageRow(name, ratio, kept, epochs, seconds, metrics, extra, history))


def _report(
    dense: Program, pruned: Program, units: UnitMap, selector: Selector, settings: PruneSettings,
    stages: tuple[StageRow, ...], seconds: float,
) -> PruneReport:  # fmt: skip
    """Asked and got, counted on what compaction will leave."""
    keep = kept_units(units, pruned.masks, pruned.parameters)
    pattern = settings.parsed_pattern
    compacted, kept_macs = _compacted(pruned, units, keep, settings)
    if not pattern.is_physical:
        kept_params, kept_macs = pruned.n_parameters - pruned.n_zeroed, _masked_macs(pruned)
    else:
        kept_params = compacted
    got = selector.dense / selector.kept_cost(pruned.masks, keep)
    liked = settings.likes_widths and pattern.weights is None
    warnings = [*selector.notes, *_unsettled(stages)]
    before = selector.dense / selector.kept_cost(dense.masks, kept_units(units, dense.masks, dense.parameters))
    asked = None if settings.decides_alone and settings.ratio == 1 else settings.ratio
    if asked is None:
        warnings += [] if got > 1 else ["nothing was cut: every layer keeps all it has"]
    elif before > settings.ratio * (1 + _TOLERANCE):
        warnings.append(
            f"asked {format_ratio(settings.ratio)}, but {format_ratio(before)} was cut before: nothing to cut"
        )
    elif got > settings.ratio * (1 + _TOLERANCE) and pattern.implied_ratio is not None:
        warnings.append(f"{pattern.text} and what was cut before make {format_ratio(got)} together")
    elif got > settings.ratio * (1 + _TOLERANCE):
        warnings.append(
            f"asked {format_ratio(settings.ratio)}, got {format_ratio(got)}: whole {_thing(pattern)}"
            + (f" in multiples of {settings.round_to}" if settings.round_to > 1 else "")
            + (" in widths that kernels like come no closer; --round-to 1 does" if liked else " come no closer")
        )
    return PruneReport(
        method=settings.method,
        pattern=settings.pattern,
        of=settings.of,
        asked=asked,
        got=got,
        dense_params=Params(dense.n_parameters),
        kept_params=Params(round(kept_params)),
        dense_macs=count_macs(dense),
        kept_macs=Macs(round(kept_macs)),
        zeroed=pruned.n_zeroed - (pruned.n_parameters - round(compacted)),
        layers=_layer_cuts(pruned, pattern),
        stages=stages,
        warnings=tuple(warnings),
        seconds=seconds,
    )


def _thing(pattern: Pattern) -> str:
    return {"shape": "columns", "block": "blocks", "unstructured": "weights"}.get(pattern.weights or "", "units")


def _unsettled(stages: tuple[StageRow, ...]) -> list[str]:
    """A hint where the last ADMM stage left the weights far from what the hard prune made of them."""
    residual = next((row.extra["residual"] for row in reversed(stages) if "residual" in row.extra), 0.0)
    if residual <= _SETTLED:
        return []
    return [
        f"residual {residual:.2g} before the hard prune: the weights had not settled; more --epochs, or a larger"
        " --rho-max, draws them closer"
    ]


def _compacted(program: Program, units: UnitMap, keep: Keep, settings: PruneSettings) -> tuple[float, float]:
    """Parameters and MACs once units are removed and, with `shape`, cut columns are left out of every layer."""
    if settings.parsed_pattern.weights != "shape":
        return Budget.of_params(program, units).cost(keep), Budget.of_macs(program, units).cost(keep)
    counts = (make_selector(program, units, Choice(settings.pattern, of)) for of in ("params", "macs"))
    params, macs = (count.kept_cost(program.masks, keep) for count in counts)
    return params, macs


def _masked_macs(program: Program) -> float:
    per_weight = {t.factors[0].name: t.coefficient for t in mac_terms(program) if t.factors and t.factors[0].is_tensor}
    cut = sum(float((~mask).sum()) * per_weight.get(name, 0.0) for name, mask in program.masks.items())
    return sum(macs_of_layers(program).values()) - cut


def _layer_cuts(program: Program, pattern: Pattern) -> tuple[LayerCut, ...]:
    """Kept and dense filters (or single weights) of each layer with weights to contract, and columns with `shape`."""
    parameters, by_weight = program.parameters, not pattern.is_physical
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
        columns = None
        if pattern.weights == "shape":
            n_columns = weight.numel() // weight.shape[layer.out_dim]
            columns = (n_columns if mask is None else int(mask.any(dim=layer.out_dim).sum()), n_columns)
        cuts.append(LayerCut(layer.name, n_kept, n_dense, Params(dense - cut), Params(dense), columns))
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
