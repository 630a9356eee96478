"""`compress compact`; it must never hold how anything is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from compressor.asking.gates import gates_of
from compressor.asking.rounding import read_multiple
from compressor.cli import provenance
from compressor.cli.html_report import ReportOptions, check_report, write_report
from compressor.cli.latency import LatencyOptions, after_compact, clock
from compressor.cli.options import GateOptions, ModelOptions, OutputOptions, option
from compressor.cli.session import Session
from compressor.cli.streams import choose_target, device_name, known_data, read_source, write_program

if TYPE_CHECKING:
    from compressor.compaction import CompactReport
    from compressor.program import Program
    from compressor.report.html import About


@dataclass(frozen=True, kw_only=True)
class CompactOptions(LatencyOptions, ReportOptions, GateOptions, OutputOptions, ModelOptions):
    """Options of `compress compact`."""

    allow_noop: Annotated[
        bool,
        option("--allow-noop", help="Succeed when there is nothing to remove, and write the model as it is."),
    ] = False
    masks_only: Annotated[
        bool,
        option(
            "--masks-only",
            help="Remove what the masks cut and nothing else: for zeros that shall learn again (batch norms that start "
            "at 0).",
        ),
    ] = False
    lowering: Annotated[
        Literal["auto", "dense", "gather", "box", "gather+box", "columns"],
        option(
            help="Form of layers with columns of zeros (pattern shape): what is measured to be fastest, or this one "
            "where a layer has it; dense keeps the zeros."
        ),
    ] = "auto"
    round_to: Annotated[
        str,
        option(
            metavar="N",
            help="Keep dead channels, as zeros, to make widths a multiple of N; auto: where kernels are faster for it.",
        ),
    ] = "1"
    threads: Annotated[
        int, option(metavar="N", min=1, help="Threads of onnxruntime that --lowering auto and --report measure with.")
    ] = 1


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
    round_to = read_multiple(options.round_to)
    target = choose_target(options, ".compact.pt")
    check_report(options)
    from compressor.compaction import compact as shrink
    from compressor.report.compaction import compact_table
    from compressor.report.jsonable import plain

    source = read_source(options, options.model, session)
    data, task = known_data(source.program, options, session, needed_for=gates.needs_data, gates=gates)
    timed = options.lowering == "auto" or round_to == 0
    stopwatch = clock(options.threads) if timed else None
    with session.working("removing, and comparing with the masked model"):
        program, report = shrink(
            source.program, data=data, task=task, allow_noop=options.allow_noop,
            masks_only=options.masks_only, device=device_name(options),
            lowering=options.lowering, stopwatch=stopwatch, round_to=round_to,
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
    output, size, verdicts = write_program(written, target, session, gates, _gated(report))
    report, latency = after_compact(
        options, options.model, options.round_to, options.threads, session, source.program, program, report, stopwatch
    )
    write_report(
        options,
        session,
        lambda about: _page(report, about, source.program, written, options, session),
        model=source.name,
        sha256=source.sha256,
        output=output,
        record=written.record,
    )
    head = {"model": source.name, "output": output, "size_bytes": size, "removed": report.removed}
    session.show(
        lambda: compact_table(report, output, size, every_row=options.verbose, latency=latency),
        {**head, **plain(report), "latency": latency, **verdicts.body()},
    )
    verdicts.enforce()


def _page(
    report: CompactReport, about: About, before: Program, after: Program, options: CompactOptions, session: Session
) -> str:
    from compressor.analysis import layer_costs, layer_latencies
    from compressor.report.html import compact_page

    with session.working("measuring every layer for the report"):
        latencies = layer_latencies(before, after, clock(options.threads))
    return compact_page(report, about, layer_costs(before), layer_costs(after), latencies, options.threads)


def _gated(report: CompactReport) -> dict[str, float | None]:
    params, macs = report.compact_params, report.compact_macs
    return {
        "ratio": report.dense_params / max(params, 1),
        "macs_ratio": report.dense_macs / max(macs, 1),
        "params": float(params),
        "macs": float(macs),
        **(report.metrics or {}),
    }
