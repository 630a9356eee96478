"""`compress prune`: options -> settings, one call, a table, a checkpoint; it must never hold a method."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from compressor.asking import PruneSettings, Recovery
from compressor.asking.gates import Gates, Verdicts, gates_of
from compressor.cli import provenance
from compressor.cli.closing import Closing, Told
from compressor.cli.directory import check_goal, directory_target, is_directory, write_directory
from compressor.cli.foreseen import as_compacted
from compressor.cli.html_report import check_report
from compressor.cli.latency import after_prune, network_speedup
from compressor.cli.memory import give_freed_memory_back, keep_freed_memory
from compressor.cli.named import check_named
from compressor.cli.pruning import (
    PruneOptions,
    measured_for_record,
    metrics_of,
    needed_for,
    prune_settings,
    stopwatch_of,
    training_of,
)
from compressor.cli.session import Session
from compressor.cli.streams import (
    Source,
    Target,
    Written,
    choose_resume_point,
    choose_target,
    device_name,
    known_data,
    read_source,
)
from compressor.cli.sweep import asked_for, sweep
from compressor.cli.your_training import YourTraining
from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from compressor.cost import Stopwatch
    from compressor.data import DataSource, Task
    from compressor.program import Program
    from compressor.pruning import PruneReport, StageRow
    from compressor.report.html import About
    from compressor.timing import CutLatency


def prune(options: PruneOptions, session: Session) -> None:
    """Cuts to a ratio with structure, training included.

    The checkpoint keeps its size, with masks for what is cut, until `compact` removes it. With -o NAME/ a network of
    transformers is cut the same in every layer, what is cut removed, and the rest written as the library opens it.

    \b
    Examples:
      compress prune model.pt --ratio 13x --data mnist:data
      compress prune model.pt -r 4x --of macs --method magnitude --steps 4 --round-to 8
      compress prune model.pt -r 8x --keep conv1 --epochs 12 --retrain-epochs 20 --distill 0.7
      compress prune model.pt -r 13x --dry-run
      compress prune model.pt -r 2x,4x,8x -o sweep
      compress prune ./bert -r 1.3x --data text:train.csv -o bert-small/
      compress prune model.pt -r 13x -o - | compress compact - -o small.pt
    """
    own_training = training_of(options)
    if ratios := asked_for(options):
        if own_training is not None:
            raise UsageError(f"--train {own_training}: takes one --ratio; run it once for each")
        sweep(options, ratios, session)
        return
    settings = prune_settings(options)  # what can be refused without torch is refused without waiting for it
    if is_directory(options.output):
        settings = replace(settings, uniform=True)
    gates = gates_of("prune", options.require or (), task=options.task)
    target = None if options.dry_run else _target(options, settings)
    check_report(options)
    point = None if target is None else choose_resume_point(target, options, session)
    check_named(options, session)
    settings = replace(settings, device=device_name(options))
    if settings.recipes or own_training is not None:
        keep_freed_memory()
    else:
        give_freed_memory_back()
    own = None if own_training is None or target is None else YourTraining.named(own_training, session)
    modules: list[nn.Module] = [] if own is None else own.modules
    trains = target is not None and (own is not None or bool(settings.recipes))
    source = read_source(options, options.model, session, on_module=modules.append if trains else None)
    if target is None:
        _try(options, settings, source, gates, session)
    else:
        session.resume_point = None if own is not None else point
        _run(options, settings, source, target, gates, session, own, modules)


def _target(options: PruneOptions, settings: PruneSettings) -> Target:
    """Where the checkpoint goes, or the directory that transformers reads."""
    if options.output is None or not is_directory(options.output):
        return choose_target(options, ".pruned.pt")
    check_goal(settings)
    return directory_target(options.output, options.force)


def _try(options: PruneOptions, settings: PruneSettings, source: Source, gates: Gates, session: Session) -> None:
    """--dry-run: the cut by the weights as they are, without any training, held against what can be counted."""
    from compressor.pruning import prune as cut
    from compressor.report.jsonable import plain
    from compressor.report.pruning import prune_table

    method = settings.method if settings.method == "random" else "magnitude"
    bare = replace(settings, recovery=Recovery(), rescale_dropout=False).untrained()
    untrained = replace(bare, method=method, steps=1)
    needed = needed_for(untrained)
    data, task = None, None
    if needed:
        data, task = known_data(source.program, options, session, needed_for=needed, dense=source.program)
    stopwatch = stopwatch_of(untrained)
    with session.progress() as progress:
        program, report = cut(
            source.program,
            untrained,
            data=data,
            task=task,
            progress=progress,
            stopwatch=stopwatch,
            speedup=network_speedup() if settings.of == "latency" else None,
        )
    report = as_compacted(program, report)
    report, latency = after_prune(options, options.model, session, source.program, program, report, stopwatch)
    written = Written(None, None, gates.counted().judge(_gated(report)))
    table = partial(prune_table, report, latency=latency, every_row=True, would=settings.method)
    body = {"dry_run": True, **plain(report), "latency": latency}
    draw = partial(_page, report, program, latency, written.verdicts, settings.method)
    Closing(options, session, source).tell(program, written, Told(table, body, draw))


def _run(
    options: PruneOptions, settings: PruneSettings, source: Source, target: Target, gates: Gates, session: Session,
    own: YourTraining | None, modules: list[nn.Module],
) -> None:  # fmt: skip
    from compressor.formats import check_storable
    from compressor.report.jsonable import plain
    from compressor.report.pruning import prune_table

    check_storable(source.program)  # what no file can hold is found before hours of training
    needed = needed_for(settings) or gates.needs_data
    data, task = known_data(source.program, options, session, needed_for=needed, gates=gates, dense=source.program)
    stopwatch = stopwatch_of(settings)
    if own is not None:
        program, report = own.cut(source.program, settings, session, data=data, task=task, stopwatch=stopwatch)
    else:
        program, report = _cut(options, settings, source, target, session, data, task, stopwatch, modules)
    report = as_compacted(program, report)
    written = provenance.remember(
        program,
        provenance.make_step("prune", options, source, measured_for_record(report)),
        dense_params=program.record.dense_params or report.dense_params,
        dense_macs=program.record.dense_macs or report.dense_macs,
    )

    def tell(file: Written) -> Told:
        full, latency = after_prune(options, options.model, session, source.program, written, report, stopwatch)
        table = partial(prune_table, full, latency=latency, output=file.output, size_bytes=file.size_bytes)
        body = {"dry_run": False, **plain(full), "latency": latency}
        draw = partial(_page, full, written, latency, file.verdicts, None)
        return Told(partial(table, every_row=options.verbose), body, draw)

    closing = Closing(options, session, source)
    if is_directory(options.output):
        closing.end(written, write_directory(written, target, data, task, session, gates, _gated(report)), tell)
    else:
        closing.write(written, target, gates, _gated(report), tell)


def _cut(
    options: PruneOptions, settings: PruneSettings, source: Source, target: Target, session: Session,
    data: DataSource | None, task: Task, stopwatch: Stopwatch | None, modules: list[nn.Module],
) -> tuple[Program, PruneReport]:  # fmt: skip
    from compressor.pruning import prune as cut

    with session.progress() as progress:
        return cut(
            source.program,
            settings,
            data=data,
            task=task,
            model=next(iter(modules), None),
            progress=progress,
            resume_file=session.resume_point,
            resume=options.resume,
            stopwatch=stopwatch,
            speedup=network_speedup() if settings.of == "latency" else None,
            on_step=_saver(options, source, target, session) if options.save_every else None,
        )


def _saver(
    options: PruneOptions, source: Source, target: Target, session: Session
) -> Callable[[StageRow, Program], None]:
    """Writes what a step comes to beside the output, numbered in their order; one that is there is not overwritten.

    Raises:  UsageError where the output is no file.
    """
    from compressor import formats

    path = target.path
    if path is None:
        raise UsageError("--save-every: writes beside the output; name a file with -o")

    def save(row: StageRow, reached: Program) -> None:
        number = 1
        while (file := path.with_suffix(f".{number}{path.suffix}")).exists():
            number += 1
        measured = {"stage": row.name, "params": row.params, **(row.metrics or {})}
        step = provenance.make_step("prune", options, source, measured)
        if session.is_main:
            formats.save(provenance.remember(reached, step), file, force=False)

    return save


def _page(
    report: PruneReport, program: Program, latency: CutLatency | None, verdicts: Verdicts, would: str | None,
    about: About,
) -> str:  # fmt: skip
    """The page of --report."""
    from compressor.analysis import layer_costs
    from compressor.report.html import prune_page

    return prune_page(report, about, layer_costs(program), latency, would, verdicts.body()["requirements"])


def _gated(report: PruneReport) -> dict[str, float | None]:
    counted = {"ratio": report.got, "params": float(report.compact_params), "macs": float(report.compact_macs)}
    return {**counted, **metrics_of(report)}
