"""`compress retrain`; it must never hold how a network is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from compressor.asking import Healing, Recipe
from compressor.asking.gates import gates_of
from compressor.asking.recipe import DISTILL_WITH_TEACHER
from compressor.cli import provenance
from compressor.cli.closing import Closing, Told
from compressor.cli.html_report import ReportOptions, check_report
from compressor.cli.memory import keep_freed_memory
from compressor.cli.named import check_named
from compressor.cli.options import GateOptions, ModelOptions, OutputOptions, RecipeOptions, ResumeOptions, option
from compressor.cli.session import Session
from compressor.cli.streams import (
    Source,
    choose_resume_point,
    choose_target,
    device_name,
    known_data,
    read_source,
)
from compressor.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from compressor.data import DataSource, Task
    from compressor.program import Program
    from compressor.pruning import RetrainReport


@dataclass(frozen=True, kw_only=True)
class RetrainOptions(ResumeOptions, ReportOptions, RecipeOptions, GateOptions, OutputOptions, ModelOptions):
    """Options of `compress retrain`, beside those of `Healing` and `Recipe`."""

    asks = (Healing,)

    epochs: Annotated[int | None, option("--epochs", "-e", metavar="N", help="Epochs; 0 only heals. Default: 20.")] = (
        None
    )
    teacher: Annotated[
        str | None,
        option(metavar="MODEL", help="Learn from this model too; --distill says how much. Default: none."),
    ] = None
    adopt: Annotated[
        str | None,
        option(
            metavar="FILE",
            help="Take over weights that were trained elsewhere under the masks; trains on only with --epochs.",
        ),
    ] = None


def retrain(options: RetrainOptions, session: Session) -> None:
    """Fine-tunes a pruned checkpoint under its masks.

    What is cut stays cut. A compact checkpoint is trained as it is. Networks of libraries train as their authors wrote
    them (stochastic depth, dropout); name code of your own again with --arch for that.

    \b
    Examples:
      compress retrain model.pruned.pt --epochs 20
      compress retrain model.pruned.pt --optimizer sgd --lr 0.01 --teacher model.pt
      compress retrain model.pruned.pt --epochs 0 --reconstruct 8 --recalibrate 20 --teacher model.pt
      compress retrain model.compact.pt --data cifar10:data --augment --keep-best
      compress retrain model.pruned.pt --adopt trained-elsewhere.pth
    """
    gates = gates_of("retrain", options.require or (), task=options.task)
    target = choose_target(options, ".retrained.pt")
    check_report(options)
    session.resume_point = choose_resume_point(target, options, session)
    recipe = retrain_recipe(options)
    check_named(options, session)
    from compressor.formats import check_storable
    from compressor.report.html import retrain_page
    from compressor.report.jsonable import plain
    from compressor.report.pruning import retrain_table

    keep_freed_memory()
    modules: list[nn.Module] = []
    source = read_source(options, options.model, session, on_module=None if recipe is None else modules.append)
    check_storable(source.program)  # what no file can hold is found before hours of training
    if options.adopt is not None:
        source = _adopted(options.adopt, source, options, session)
    needed = "retraining" if recipe is not None or options.request(Healing).recovery else gates.needs_data
    teacher = _teacher(options, source.program, session)
    data, task = known_data(source.program, options, session, needed_for=needed, gates=gates, dense=teacher)
    only_adopts = needed != "retraining"
    model = next(iter(modules), None)
    program, report = _trained(source.program, recipe, data, task, model, only_adopts, teacher, options, session)
    measured = {"params": report.stages[-1].params, **_metrics(report)}
    step = provenance.make_step("retrain", options, source, measured)
    written = provenance.remember(program, step)
    Closing(options, session, source).write(
        written, target, gates, _metrics(report),
        lambda file: Told(
            lambda: retrain_table(report, file.output, file.size_bytes, every_row=options.verbose),
            plain(report),
            lambda about: retrain_page(report, about),
        ),
    )  # fmt: skip


def _trained(
    program: Program, recipe: Recipe | None, data: DataSource | None, task: Task, model: nn.Module | None,
    only_adopts: bool, teacher: Program | None, options: RetrainOptions, session: Session,
) -> tuple[Program, RetrainReport]:  # fmt: skip
    """The program after what the options ask for: training and healing, or nothing where weights are only adopted."""
    from compressor.pruning import retrain as train
    from compressor.pruning import standing

    if only_adopts:
        return program, standing(program, "adopted", data=data, task=task, device=device_name(options))
    with session.progress() as progress:
        return train(
            program, recipe, data=data, task=task, model=model, teacher=teacher, progress=progress,
            resume_file=session.resume_point, **_how(options),
        )  # fmt: skip


def _adopted(path: str, source: Source, options: RetrainOptions, session: Session) -> Source:
    """The source with the weights of another training; what the masks cut of them is told.

    Raises:  ModelError if they are not of this network.
    """
    from compressor.formats import read_weights, take_weights

    state = read_weights(path, key=options.weights, trust_pickle=options.trust_pickle)
    program, taken = take_weights(source.program, state, path)
    session.note(f"{taken.n_tensors} tensors taken from {path}")
    if taken.unread:
        session.note(f"{len(taken.unread)} that the network does not read were left: {', '.join(taken.unread[:3])}")
    if taken.n_revived:
        session.note(
            f"{taken.n_revived:,} weights that are cut were not 0 (up to {taken.largest_revived:.3g}) and now are;"
            " the training did not hold the masks"
        )
    return replace(source, program=program)


def _how(options: RetrainOptions) -> dict[str, Any]:
    """What the options say beside the recipe."""
    healing = options.request(Healing)
    return {
        "recovery": healing.recovery,
        "alternate": healing.alternate,
        "freeze": healing.freeze,
        "seed": options.seed,
        "device": device_name(options),
        "resume": options.resume,
    }


def retrain_recipe(options: RetrainOptions) -> Recipe | None:
    """The training that the options ask for; None for --epochs 0.

    Raises:  UsageError for --distill or --reconstruct without --teacher, --epochs 0 with nothing else to do;
             ConfigError for a value out of range.
    """
    healing = options.request(Healing).recovery
    if healing.reconstruct and options.teacher is None:
        raise UsageError("--reconstruct fits the outputs of the dense model; name it with --teacher model.pt")
    if options.epochs == 0 or (options.epochs is None and options.adopt is not None):
        if not healing and options.adopt is None:
            raise UsageError("--epochs 0: leaves nothing to do without --recalibrate or --reconstruct")
        return None
    distill = options.said.get("distill")
    if options.teacher is not None and distill is None:
        distill = DISTILL_WITH_TEACHER
    elif distill and options.teacher is None:
        raise UsageError("--distill needs a teacher; name the dense model with --teacher model.pt")
    return options.request(Recipe, epochs=options.epochs, distill=distill)


def _teacher(options: RetrainOptions, program: Program, session: Session) -> Program | None:
    """The teacher; a bare state dict is taken to be of the architecture that the model was made from."""
    if options.teacher is None:
        return None
    if options.teacher == options.model == "-":
        raise UsageError("--teacher - : standard input already holds MODEL; name a file")
    return read_source(options, options.teacher, session, like=program).program


def _metrics(report: RetrainReport) -> dict[str, Any]:
    return next((dict(row.metrics) for row in reversed(report.stages) if row.metrics), {})
