"""`compress prune`: options -> settings, one call, a table, a checkpoint; it must never hold a method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from compressor.cli import provenance
from compressor.cli.by_layer import LayerOptions, decides_alone, glob_values, layer_values
from compressor.cli.gates import Gates, gates_of
from compressor.cli.html_report import ReportOptions, check_report, write_report
from compressor.cli.latency import LatencyOptions, after_prune, clock
from compressor.cli.memory import keep_freed_memory
from compressor.cli.options import (
    GateOptions,
    HealingOptions,
    ModelOptions,
    OutputOptions,
    RecipeOptions,
    multiple_of,
    option,
    recipe_values,
    recovery_of,
)
from compressor.cli.scoring import ScoringOptions, scoring_values
from compressor.cli.session import Session
from compressor.cli.streams import (
    Source,
    Target,
    choose_resume_point,
    choose_target,
    device_name,
    known_data,
    read_source,
    write_program,
)
from compressor.errors import UsageError
from compressor.patterns import parse_pattern
from compressor.units import parse_ratio, ratio_from_sparsity

if TYPE_CHECKING:
    from compressor.program import Program
    from compressor.pruning import PruneReport, PruneSettings
    from compressor.training import Recipe

_BUDGET = "How much"
_METHOD = "How"


@dataclass(frozen=True, kw_only=True)
class PruneOptions(
    LatencyOptions,
    ReportOptions,
    HealingOptions,
    LayerOptions,
    ScoringOptions,
    RecipeOptions,
    GateOptions,
    OutputOptions,
    ModelOptions,
):
    """Options of `compress prune`; what is None here takes its default from `PruneSettings` or `Recipe`."""

    ratio: Annotated[
        str | None,
        option("--ratio", "-r", metavar="13x", panel=_BUDGET, help="Dense ÷ kept of the compacted model."),
    ] = None
    sparsity: Annotated[float | None, option(metavar="0.923", panel=_BUDGET, help="The same as a removed share.")] = (
        None
    )
    of: Annotated[
        Literal["params", "macs", "latency"],
        option(panel=_BUDGET, help="What the ratio counts: weights, work, or each layer's measured time."),
    ] = "params"
    scope: Annotated[
        list[str] | None,
        option(
            "--scope",
            metavar="GLOB",
            panel=_BUDGET,
            help="Layers that the ratio is over; repeat. Default: all.",
        ),
    ] = None
    keep: Annotated[
        list[str] | None,
        option("--keep", metavar="GLOB", panel=_BUDGET, help="Layers that nothing may be cut from; repeat."),
    ] = None
    floor: Annotated[float, option(metavar="SHARE", panel=_BUDGET, help="Share of every layer that always stays.")] = (
        0.05
    )
    round_to: Annotated[
        str,
        option(
            metavar="N",
            panel=_BUDGET,
            help="Keep a multiple of N filters in every layer, 1 for any number; auto: what is measured to be fast.",
        ),
    ] = "auto"
    unit_share: Annotated[
        float,
        option(
            metavar="SHARE",
            panel=_BUDGET,
            help="Of filter+shape: how much of the ratio, as a power, whole units carry; columns carry the rest.",
        ),
    ] = 0.5
    allocation: Annotated[
        Literal["global", "uniform", "sensitivity", "latency"],
        option(
            panel=_BUDGET,
            help="How the budget is spread over layers; latency: so that the weights that are left run fastest.",
        ),
    ] = "global"
    method: Annotated[
        Literal["admm", "magnitude", "random"],
        option("--method", "-m", panel=_METHOD, help="How to choose what is cut."),
    ] = "admm"
    pattern: Annotated[
        str,
        option(
            "--pattern",
            "-p",
            metavar="PATTERN",
            panel=_METHOD,
            help="What goes together: channel (coupled units), filter, head, shape (channel and position, of all "
            "filters; shape:channel, shape:position), filter+shape, channel+shape, unstructured, 2:4 (any N:M), "
            "block:4x4.",
        ),
    ] = "channel"
    through_norm: Annotated[
        Literal["pin", "exact", "rescale"],
        option(
            panel=_METHOD,
            help="Units that pass a mean or a variance (the residual stream of a transformer): stay; go, and the norm "
            "keeps its divisor (compact = masked); go, and the norm is rescaled (retrain after compact).",
        ),
    ] = "pin"
    steps: Annotated[int, option(metavar="N", panel=_METHOD, help="Prune-retrain rounds of magnitude and random.")] = 1
    schedule: Annotated[
        Literal["geometric", "cubic"], option(panel=_METHOD, help="Course of the ratio over the steps.")
    ] = "geometric"
    rho: Annotated[float, option(metavar="RHO", panel=_METHOD, help="First penalty of ADMM.")] = 1e-3
    rho_growth: Annotated[
        float | None,
        option(
            metavar="X",
            panel=_METHOD,
            help="Growth of the penalty at every update. Default: what reaches --rho-max at the last one.",
        ),
    ] = None
    rho_max: Annotated[
        float | None,
        option(
            metavar="RHO",
            panel=_METHOD,
            help="Largest penalty of ADMM. Default: 1, at most 100 ÷ steps per update, for sgd also 0.5 ÷ lr.",
        ),
    ] = None
    layer_rho: Annotated[
        list[str] | None,
        option("--layer-rho", metavar="GLOB=RHO", panel=_METHOD, help="First penalty of single layers; repeat."),
    ] = None
    updates: Annotated[int, option(metavar="N", panel=_METHOD, help="Updates of Z and U in an ADMM stage.")] = 40
    stages: Annotated[int, option(metavar="N", panel=_METHOD, help="ADMM stages on the way to the ratio.")] = 1
    epochs: Annotated[
        int | None,
        option(
            "--epochs",
            "-e",
            metavar="N",
            panel=_METHOD,
            help="Epochs of ADMM, or of each magnitude step but the last. Default: 20.",
        ),
    ] = None
    retrain_epochs: Annotated[
        int | None,
        option(metavar="N", panel=_METHOD, help="Epochs of the final masked retraining. Default: 20."),
    ] = None
    no_retrain: Annotated[bool, option("--no-retrain", panel=_METHOD, help="Leave out the final retraining.")] = False
    dry_run: Annotated[
        bool,
        option("--dry-run", "-n", help="Show what would be cut by the weights as they are; write nothing."),
    ] = False
    resume: Annotated[bool, option("--resume", help="Go on where an interrupted run stopped.")] = False


def prune(options: PruneOptions, session: Session) -> None:
    """Cuts to a ratio with structure, training included.

    The checkpoint keeps its size, with masks for what is cut, until `compact` removes it.

    \b
    Examples:
      compress prune model.pt --ratio 13x --data mnist:data
      compress prune model.pt -r 4x --of macs --method magnitude --steps 4 --round-to 8
      compress prune model.pt -r 8x --keep conv1 --epochs 12 --retrain-epochs 20 --distill 0.7
      compress prune model.pt -r 13x --dry-run
      compress prune model.pt -r 13x -o - | compress compact - -o small.pt
    """
    multiple_of(options.round_to)
    asked_ratio(options)  # what can be refused without torch is refused without waiting for it
    gates = gates_of("prune", options)
    target = None if options.dry_run else choose_target(options, ".pruned.pt")
    check_report(options)
    point = None if target is None else choose_resume_point(target, options, session)
    settings = prune_settings(options, device_name(options))
    keep_freed_memory()
    source = read_source(options, options.model, session)
    if target is None:
        _try(options, settings, source, gates, session)
    else:
        session.resume_point = point
        _run(options, settings, source, target, gates, session)


def asked_ratio(options: PruneOptions) -> float:
    """Dense ÷ kept, from the one of --ratio and --sparsity that was given; N:M says it itself, and 1 says nothing.

    Raises:  UsageError if the pattern is none, both or neither were given, or it is no ratio.
    """
    implied = parse_pattern(options.pattern).implied_ratio
    if implied is not None and options.ratio is None and options.sparsity is None:
        return implied
    if options.ratio is not None and options.sparsity is None:
        return parse_ratio(options.ratio)
    if options.sparsity is not None and options.ratio is None:
        return ratio_from_sparsity(options.sparsity)
    if options.ratio is None and decides_alone(options):
        return 1.0
    raise UsageError("give exactly one of --ratio (13x: dense ÷ kept) and --sparsity (0.923: the removed share)")


def prune_settings(options: PruneOptions, device: str) -> PruneSettings:
    """What the options ask for.

    Raises:  UsageError for a value out of range; ConfigError for one of the training's.
    """
    from compressor.pruning import Admm, PruneSettings

    searching, retraining = _recipes(options)
    return PruneSettings(
        ratio=asked_ratio(options),
        method=options.method,
        pattern=options.pattern,
        through_norm=options.through_norm,
        of=options.of,
        allocation=options.allocation,
        steps=options.steps,
        schedule=options.schedule,
        scope=tuple(options.scope or ("*",)),
        keep=tuple(options.keep or ()),
        floor=options.floor,
        round_to=multiple_of(options.round_to),
        unit_share=options.unit_share,
        admm=Admm(
            options.rho,
            options.rho_growth,
            options.rho_max,
            glob_values(options.layer_rho or (), "--layer-rho", "GLOB=RHO, as in 'conv*=0.01'"),
            updates=options.updates,
            stages=options.stages,
        ),
        **layer_values(options, options.allocation),
        **scoring_values(options),
        recovery=recovery_of(options),
        alternate=options.alternate,
        prune_recipe=searching,
        retrain_recipe=retraining,
        seed=options.seed,
        device=device,
    )


def _recipes(options: PruneOptions) -> tuple[Recipe | None, Recipe | None]:
    """Training while the structure is found, and the final retraining; None where there is none."""
    from compressor.training import Recipe

    values = recipe_values(options)
    retraining = None if options.no_retrain else Recipe.from_mapping(_with(values, epochs=options.retrain_epochs))
    if options.method != "admm" and options.steps == 1:
        return None, retraining
    # The search must end where it converges, not at its luckiest epoch, and learns from the data alone.
    values = {key: value for key, value in values.items() if key not in ("keep", "patience", "distill")}
    return Recipe.from_mapping(_with(values, epochs=options.epochs)), retraining


def _with(values: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**values, **{key: value for key, value in more.items() if value is not None}}


def _try(options: PruneOptions, settings: PruneSettings, source: Source, gates: Gates, session: Session) -> None:
    """--dry-run: the cut by the weights as they are, without any training, held against what can be counted."""
    from compressor.pruning import Recovery
    from compressor.pruning import prune as cut
    from compressor.report.jsonable import plain
    from compressor.report.pruning import prune_table

    method = "magnitude" if settings.method == "admm" else settings.method
    bare = replace(settings, recovery=Recovery(), rescale_dropout=False, prune_recipe=None, retrain_recipe=None)
    untrained = replace(bare, method=method, steps=1)
    needed = _needed_for(untrained)
    data, task = known_data(source.program, options, session, needed_for=needed) if needed else (None, None)
    stopwatch = clock() if settings.may_take_time else None
    with session.progress() as progress:
        program, report = cut(
            source.program, untrained, data=data, task=task, progress=progress, stopwatch=stopwatch
        )  # fmt: skip
    report, latency = after_prune(options, session, source.program, program, report, stopwatch)
    _report(options, session, report, source, None, program)
    verdicts = gates.counted().judge(_gated(report))
    head = {"model": source.name, "output": None, "size_bytes": None, "dry_run": True}
    session.show(
        lambda: prune_table(report, latency=latency, every_row=True, would=settings.method),
        {**head, **plain(report), "latency": latency, **verdicts.body()},
    )
    verdicts.enforce()


def _run(
    options: PruneOptions, settings: PruneSettings, source: Source, target: Target, gates: Gates, session: Session
) -> None:
    from compressor.formats import check_storable
    from compressor.pruning import prune as cut
    from compressor.report.jsonable import plain
    from compressor.report.pruning import prune_table

    check_storable(source.program)  # what no file can hold is found before hours of training
    needed = _needed_for(settings) or gates.needs_data
    data, task = known_data(source.program, options, session, needed_for=needed, gates=gates)
    stopwatch = clock() if settings.may_take_time else None
    with session.progress() as progress:
        program, report = cut(
            source.program,
            settings,
            data=data,
            task=task,
            progress=progress,
            resume_file=session.resume_point,
            resume=options.resume,
            stopwatch=stopwatch,
        )
    written = provenance.remember(
        program,
        provenance.make_step("prune", options, source, _metrics(report)),
        dense_params=program.record.dense_params or report.dense_params,
        dense_macs=program.record.dense_macs or report.dense_macs,
    )
    output, size, verdicts = write_program(written, target, session, gates, _gated(report))
    if output is not None and session.resume_point is not None and session.is_main:
        session.resume_point.unlink(missing_ok=True)
    report, latency = after_prune(options, session, source.program, written, report, stopwatch)
    _report(options, session, report, source, output, written)
    head = {"model": source.name, "output": output, "size_bytes": size, "dry_run": False}
    session.show(
        lambda: prune_table(report, latency=latency, output=output, size_bytes=size, every_row=options.verbose),
        {**head, **plain(report), "latency": latency, **verdicts.body()},
    )
    verdicts.enforce(session.resume_point)


def _report(
    options: PruneOptions, session: Session, report: PruneReport, source: Source, output: str | None, program: Program
) -> None:
    """The page of --report."""
    from compressor.analysis import layer_costs
    from compressor.report.html import prune_page

    write_report(
        options,
        session,
        lambda about: prune_page(report, about, layer_costs(program)),
        model=source.name,
        sha256=source.sha256,
        output=output,
        record=program.record,
    )


def _needed_for(settings: PruneSettings) -> str | None:
    """What data is needed for, if for anything."""
    if settings.prune_recipe is not None or settings.retrain_recipe is not None:
        return f"pruning by {settings.method} with training"
    if settings.recovery:
        return "--reconstruct and --recalibrate"
    return f"--score {settings.score}" if settings.score in ("taylor", "fisher") else None


def _gated(report: PruneReport) -> dict[str, float | None]:
    counted = {"ratio": report.got, "params": float(report.kept_params), "macs": float(report.kept_macs)}
    return {**counted, **_measured(report)}


def _metrics(report: PruneReport) -> dict[str, Any]:
    counted = {"asked": report.asked, "got": report.got, "of": report.of}
    sizes = {"params": report.kept_params, "macs": report.kept_macs, "before": report.stages[0].metrics}
    return {**counted, **sizes, **_measured(report)}


def _measured(report: PruneReport) -> dict[str, float]:
    return next((row.metrics for row in reversed(report.stages) if row.metrics), None) or {}
