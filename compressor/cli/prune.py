"""`compress prune`: options -> settings, one call, a table, a checkpoint; it must never hold a method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from compressor.cli import provenance
from compressor.cli.options import ModelOptions, OutputOptions, RecipeOptions, option, recipe_values
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
from compressor.units import parse_ratio, ratio_from_sparsity

if TYPE_CHECKING:
    from compressor.pruning import PruneReport, PruneSettings
    from compressor.training import Recipe

_BUDGET = "How much"
_METHOD = "How"


@dataclass(frozen=True, kw_only=True)
class PruneOptions(RecipeOptions, OutputOptions, ModelOptions):
    """Options of `compress prune`; what is None here takes its default from `PruneSettings` or `Recipe`."""

    ratio: Annotated[
        str | None,
        option("--ratio", "-r", metavar="13x", panel=_BUDGET, help="Dense ÷ kept of the compacted model."),
    ] = None
    sparsity: Annotated[float | None, option(metavar="0.923", panel=_BUDGET, help="The same as a removed share.")] = (
        None
    )
    of: Annotated[Literal["params", "macs"], option(panel=_BUDGET, help="What the ratio counts.")] = "params"
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
        int, option(metavar="N", panel=_BUDGET, help="Keep a multiple of N filters in every layer.")
    ] = 1
    allocation: Annotated[
        Literal["global", "uniform"], option(panel=_BUDGET, help="How the budget is spread over layers.")
    ] = "global"
    method: Annotated[
        Literal["admm", "magnitude", "random"],
        option("--method", "-m", panel=_METHOD, help="How to choose what is cut."),
    ] = "admm"
    pattern: Annotated[
        Literal["channel", "filter", "head", "unstructured"],
        option(
            "--pattern",
            "-p",
            panel=_METHOD,
            help="What goes together: coupled units, filters, attention heads, single weights.",
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
    rho_growth: Annotated[float, option(metavar="X", panel=_METHOD, help="Growth of the penalty at every update.")] = (
        1.3
    )
    update_epochs: Annotated[int, option(metavar="N", panel=_METHOD, help="Epochs between two updates of Z and U.")] = 1
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
    asked_ratio(options)  # what can be refused without torch is refused without waiting for it
    target = None if options.dry_run else choose_target(options, ".pruned.pt")
    point = None if target is None else choose_resume_point(target, options)
    settings = prune_settings(options, device_name(options))
    source = read_source(options, options.model, session)
    if target is None:
        _try(options, settings, source, session)
    else:
        session.resume_point = point
        _run(options, settings, source, target, session)


def asked_ratio(options: PruneOptions) -> float:
    """Dense ÷ kept, from the one of --ratio and --sparsity that was given.

    Raises:  UsageError if both or neither were given, or it is no ratio.
    """
    if options.ratio is not None and options.sparsity is None:
        return parse_ratio(options.ratio)
    if options.sparsity is not None and options.ratio is None:
        return ratio_from_sparsity(options.sparsity)
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
        round_to=options.round_to,
        admm=Admm(options.rho, options.rho_growth, update_epochs=options.update_epochs, stages=options.stages),
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


def _try(options: PruneOptions, settings: PruneSettings, source: Source, session: Session) -> None:
    """--dry-run: the cut by the weights as they are, without any training."""
    from compressor.pruning import prune as cut
    from compressor.report.pruning import prune_table

    method = "magnitude" if settings.method == "admm" else settings.method
    untrained = replace(settings, method=method, steps=1, prune_recipe=None, retrain_recipe=None)
    _, report = cut(source.program, untrained)
    session.show(
        lambda: prune_table(report, every_row=True, would=settings.method),
        {"model": source.name, "output": None, "dry_run": True, **_body(report)},
    )


def _run(options: PruneOptions, settings: PruneSettings, source: Source, target: Target, session: Session) -> None:
    from compressor.formats import check_storable
    from compressor.pruning import prune as cut
    from compressor.report.pruning import prune_table

    check_storable(source.program)  # what no file can hold is found before hours of training
    trains = settings.prune_recipe is not None or settings.retrain_recipe is not None
    needed = f"pruning by {options.method} with training" if trains else None
    data, task = known_data(source.program, options, session, needed_for=needed)
    with session.progress() as progress:
        program, report = cut(
            source.program,
            settings,
            data=data,
            task=task,
            progress=progress,
            resume_file=session.resume_point,
            resume=options.resume,
        )
    written = provenance.remember(
        program,
        provenance.make_step("prune", options, source, _metrics(report)),
        dense_params=program.record.dense_params or report.dense_params,
        dense_macs=program.record.dense_macs or report.dense_macs,
    )
    size = write_program(written, target, session)
    if session.resume_point is not None and session.is_main:
        session.resume_point.unlink(missing_ok=True)
    session.show(
        lambda: prune_table(report, output=target.name, size_bytes=size, every_row=options.verbose),
        {"model": source.name, "output": target.name, "size_bytes": size, "dry_run": False, **_body(report)},
    )


def _body(report: PruneReport) -> dict[str, Any]:
    from compressor.report.jsonable import plain

    return plain(report)


def _metrics(report: PruneReport) -> dict[str, Any]:
    measured = next((row.metrics for row in reversed(report.stages) if row.metrics), None) or {}
    return {"asked": report.asked, "got": report.got, "of": report.of, **measured}
