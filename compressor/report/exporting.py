"""The table of `export`; it must never hold how was exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.report.console import group, lines, make_table
from compressor.report.text import duration, metric
from compressor.units import format_bytes, format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compressor.exporting.result import ExportReport


def export_table(report: ExportReport, output: str) -> RenderableType:
    """What was written and how well it agrees."""
    table = make_table("", "")
    table.show_header = False
    for name, value in _rows(report):
        table.add_row(name, value)
    where = "standard output" if output == "-" else output
    return group(table, lines(f"wrote {where} after {duration(report.seconds)}"))


def _rows(report: ExportReport) -> list[tuple[str, str]]:
    batches = ", ".join(map(str, report.batch_sizes))
    inputs = "random and real inputs" if report.on_data else "random inputs"
    data_file = ", weights in a file of their own beside it" if report.external_data else ""
    rows = [
        ("size", format_bytes(report.size_bytes) + data_file),
        ("parameters", _params(report)),
        ("nodes", f"{format_count(report.n_nodes)}, opset {report.opset}"),
        (
            "difference",
            f"{report.max_rel:.1e} of the largest output (limit {report.limit:.0e}), {report.max_abs:.1e} absolute",
        ),
        ("checked", f"onnxruntime against torch, {inputs}, batch {batches}"),
    ]
    if report.top1_agreement is not None:
        rows.append(("top-1", f"{metric('agreement', report.top1_agreement)} the same as torch's"))
    return rows


def _params(report: ExportReport) -> str:
    if report.n_params == report.n_program_params:
        return format_count(report.n_params)
    return (
        f"{format_count(report.n_params)} of {format_count(report.n_program_params)}: "
        "normalisations are folded into the layers before them"
    )
