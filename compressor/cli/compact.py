"""`compress compact`; it must never hold how anything is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from compressor.cli import provenance
from compressor.cli.options import ModelOptions, OutputOptions, option
from compressor.cli.session import Session
from compressor.cli.streams import choose_target, device_name, known_data, read_source, write_program


@dataclass(frozen=True, kw_only=True)
class CompactOptions(OutputOptions, ModelOptions):
    """Options of `compress compact`."""

    allow_noop: Annotated[
        bool,
        option("--allow-noop", help="Succeed when there is nothing to remove, and write the model as it is."),
    ] = False


def compact(options: CompactOptions, session: Session) -> None:
    """Removes what is dead from the network and checks the rest.

    Nothing is written when the smaller model does not compute what the masked one does.

    \b
    Examples:
      compress compact model.retrained.pt
      compress compact pruned-by-something-else.safetensors --arch resnet56 -o small.pt
      compress compact - -o - < model.pruned.pt | compress export - -o model.onnx
    """
    target = choose_target(options, ".compact.pt")
    from compressor.compaction import compact as shrink
    from compressor.report.compaction import compact_table
    from compressor.report.jsonable import plain

    source = read_source(options, options.model, session)
    data, task = known_data(source.program, options, session)
    with session.working("removing, and comparing with the masked model"):
        program, report = shrink(
            source.program, data=data, task=task, allow_noop=options.allow_noop, device=device_name(options)
        )
    metrics = {"removed": report.removed, "still_zeroed": report.still_zeroed, **(report.metrics or {})}
    step = provenance.make_step("compact", options, source, metrics)
    written = provenance.remember(
        program,
        step,
        dense_params=program.record.dense_params or report.dense_params,
        dense_macs=program.record.dense_macs or report.dense_macs,
    )
    size = write_program(written, target, session)
    head = {"model": source.name, "output": target.name, "size_bytes": size, "removed": report.removed}
    session.show(lambda: compact_table(report, target.name, size, every_row=options.verbose), {**head, **plain(report)})
