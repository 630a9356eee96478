"""`compress compact`; it must never hold how anything is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.asking.compact import CompactSettings
from compressor.asking.gates import gates_of
from compressor.cli import provenance
from compressor.cli.closing import Closing, Told
from compressor.cli.html_report import ReportOptions, check_report
from compressor.cli.latency import LatencyOptions, after_compact, clock
from compressor.cli.memory import give_freed_memory_back
from compressor.cli.named import check_named
from compressor.cli.options import GateOptions, ModelOptions, OutputOptions
from compressor.cli.session import Session
from compressor.cli.streams import Written, choose_target, device_name, known_data, read_source

if TYPE_CHECKING:
    from compressor.compaction import CompactReport
    from compressor.program import Program
    from compressor.report.html import About
    from compressor.timing import CutLatency


@dataclass(frozen=True, kw_only=True)
class CompactOptions(LatencyOptions, ReportOptions, GateOptions, OutputOptions, ModelOptions):
    """Options of `compress compact`, beside those that `CompactSettings` declares."""

    asks = (CompactSettings,)


def compact(options: CompactOptions, session: Session) -> None:
    """Removes what is dead from the network and checks the rest.

    Nothing is written when the smaller model does not compute what the masked one does.

    \b
    Examples:
      compress compact model.retrained.pt
      compress compact pruned-by-something-else.safetensors --arch resnet56 -o small.pt
      compress compact - -o - < model.pruned.pt | compress export - -o model.onnx
    """
    gates = gates_of("compact", options.require or (), task=options.task)
    asked = options.request(CompactSettings)
    target = choose_target(options, ".compact.pt")
    check_report(options)
    check_named(options, session)
    give_freed_memory_back()
    from compressor.compaction import compact as shrink
    from compressor.report.compaction import compact_table
    from compressor.report.jsonable import plain

    source = read_source(options, options.model, session)
    data, task = known_data(source.program, options, session, needed_for=gates.needs_data, gates=gates)
    stopwatch = clock(asked.threads) if asked.takes_time else None
    with session.working("removing, and comparing with the masked model"):
        program, report = shrink(
            source.program, data=data, task=task, allow_noop=asked.allow_noop, masks_only=asked.masks_only,
            device=device_name(options), lowering=asked.lowering, stopwatch=stopwatch, round_to=asked.round_to,
        )  # fmt: skip
    sizes = {"params": report.compact_params - report.still_zeroed, "macs": report.compact_macs}
    counted = {"removed": report.removed, "still_zeroed": report.still_zeroed}
    metrics = {**counted, **sizes, **(report.metrics or {})}
    step = provenance.make_step("compact", options, source, metrics)
    written = provenance.remember(
        program,
        step,
        dense_params=program.record.dense_params or report.dense_params,
        dense_macs=report.dense_macs,
    )

    def tell(file: Written) -> Told:
        full, latency = after_compact(
            options, options.model, asked, session, source.program, program, report, stopwatch
        )
        return Told(
            lambda: compact_table(full, file.output, file.size_bytes, every_row=options.verbose, latency=latency),
            {"removed": full.removed, **plain(full), "latency": latency},
            lambda about: _page(full, about, source.program, written, asked.threads, session, latency),
        )

    Closing(options, session, source).write(written, target, gates, _gated(report), tell)


def _page(
    report: CompactReport, about: About, before: Program, after: Program, threads: int, session: Session,
    latency: CutLatency | None,
) -> str:  # fmt: skip
    from compressor.analysis import layer_costs, layer_latencies
    from compressor.report.html import compact_page

    with session.working("measuring every layer for the report"):
        latencies = layer_latencies(before, after, clock(threads))
    return compact_page(report, about, layer_costs(before), layer_costs(after), latencies, threads, latency)


def _gated(report: CompactReport) -> dict[str, float | None]:
    params, macs = report.compact_params, report.compact_macs
    return {
        "ratio": report.dense_params / max(params, 1),
        "macs_ratio": report.dense_macs / max(macs, 1),
        "params": float(params),
        "macs": float(macs),
        **(report.metrics or {}),
    }
