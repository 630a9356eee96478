"""`compress export`; it must never hold how ONNX is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from compressor.cli import provenance
from compressor.cli.options import ModelOptions, OutputOptions, option
from compressor.cli.session import Session
from compressor.cli.streams import choose_target, known_data, read_source

if TYPE_CHECKING:
    from compressor.cli.streams import Source


@dataclass(frozen=True, kw_only=True)
class ExportOptions(OutputOptions, ModelOptions):
    """Options of `compress export`."""

    opset: Annotated[int | None, option(metavar="N", min=1, help="ONNX operator set. Default: torch's.")] = None


def export(options: ExportOptions, session: Session) -> None:
    """Writes ONNX, checked against torch in onnxruntime.

    The batch stays dynamic. Nothing is written when the check fails.

    \b
    Examples:
      compress export model.compact.pt -o model.onnx
      compress export model.pt --opset 18
      compress compact model.pruned.pt -o - | compress export - -o model.onnx
    """
    target = choose_target(options, ".onnx")
    from compressor.exporting import export_onnx
    from compressor.report.exporting import export_table
    from compressor.report.jsonable import plain

    source = read_source(options, options.model, session)
    data, _ = known_data(source.program, options, session)
    if not session.is_main:
        return
    with target.opened() as stream, session.working("exporting, and checking in onnxruntime"):
        report = export_onnx(
            source.program,
            stream,
            opset=options.opset,
            force=options.force,
            data=data,
            metadata=_metadata(options, source),
        )
    session.show(
        lambda: export_table(report, target.name),
        {"model": source.name, "output": target.name, **plain(report)},
    )


def _metadata(options: ExportOptions, source: Source) -> dict[str, str]:
    """This command for the ONNX file's metadata, beside the record that the exporter puts there."""
    from dataclasses import asdict

    step = provenance.make_step("export", options, source, {})
    return {"compressor.export": json.dumps(asdict(step), sort_keys=True)}
