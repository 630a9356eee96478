"""`compress prune --ratio 2x,4x,8x`: every ratio from MODEL, into a folder; it must never hold how one is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.cli import provenance
from compressor.cli.latency import network_speedup
from compressor.cli.memory import keep_freed_memory
from compressor.cli.named import check_named
from compressor.cli.streams import default_name, device_name, known_data, read_source
from compressor.errors import OutputError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from compressor.cli.pruning import PruneOptions
    from compressor.cli.session import Session
    from compressor.program import Program
    from compressor.pruning import PruneReport


def sweep(options: PruneOptions, ratios: Sequence[str], session: Session) -> None:
    """Writes a checkpoint and a row for each ratio; run again, it goes on where it stopped."""
    from compressor.cli.pruning import measured_for_record, needed_for, prune_settings, stopwatch_of
    from compressor.units import parse_ratio

    _refuse(options)
    folder = Path(options.output or default_name(options, ".sweep"))
    if folder.is_file():
        raise OutputError(f"{folder}: is a file; a sweep writes a folder, name another with -o")
    settings = prune_settings(_at(options, ratios[0]))
    check_named(options, session)
    from compressor import formats
    from compressor.pruning import sweep as prune_to_all
    from compressor.report.pruning import sweep_table

    settings = replace(settings, device=device_name(options))
    keep_freed_memory()
    modules: list[nn.Module] = []
    source = read_source(options, options.model, session, on_module=modules.append if settings.recipes else None)
    formats.check_storable(source.program)
    data, task = known_data(source.program, options, session, needed_for=needed_for(settings), dense=source.program)

    def keep(ratio: float, pruned: Program, report: PruneReport) -> None:
        step = provenance.make_step("prune", _at(options, f"{ratio:g}x"), source, measured_for_record(report))
        record = pruned.record
        written = provenance.remember(
            pruned, step, dense_params=record.dense_params or report.dense_params,
            dense_macs=record.dense_macs or report.dense_macs,
        )  # fmt: skip
        if session.is_main:
            formats.save(written, folder / f"{ratio:g}x.pruned.pt", force=True)

    with session.progress() as progress:
        rows = prune_to_all(
            source.program, settings, [parse_ratio(ratio) for ratio in ratios], folder, data=data, task=task,
            model=next(iter(modules), None), progress=progress, stopwatch=stopwatch_of(settings), on_pruned=keep,
            speedup=network_speedup() if settings.of == "latency" else None,
        )  # fmt: skip
    body = {"model": source.name, "output": str(folder), "rows": rows}
    session.show(lambda: sweep_table(rows, str(folder)), body)


def _at(options: PruneOptions, ratio: str) -> PruneOptions:
    """The options with one ratio."""
    return replace(options, said={**options.said, "ratio": ratio})


def _refuse(options: PruneOptions) -> None:
    """Raises:  UsageError for an option that speaks about one result."""
    of_one = {
        "--dry-run": options.dry_run, "--require": options.require, "--report": options.report,
        "--sparsity": options.said.get("sparsity"), "-o -": options.output == "-",
    }  # fmt: skip
    given = [name for name, value in of_one.items() if value]
    if given:
        raise UsageError(f"{given[0]}: is about one result; give one --ratio")


def asked_for(options: PruneOptions) -> list[str]:
    """The ratios of a list as they were given, empty where it is none."""
    parts = [part.strip() for part in str(options.said.get("ratio") or "").split(",")]
    return parts if len(parts) > 1 else []
