"""The table of `export`; it must never hold how a file is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.report.console import facts, group, lines
from compressor.report.jsonable import plain
from compressor.report.text import decided, duration, metric, plural
from compressor.units import format_bytes, format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compressor.exporting.exported import ExportReport


def export_table(report: ExportReport, output: str | None, *, written: bool = True) -> RenderableType:
    """What was written, or only checked, and how well it agrees."""
    table = facts(_rows(report))
    where = "standard output" if output == "-" else output
    verb = "wrote" if written else "checked"
    return group(table, lines(f"{verb} {where} after {duration(report.seconds)}") if output is not None else None)


def export_body(report: ExportReport) -> dict[str, Any]:
    """The report for JSON: the check with the largest difference stands beside the file's own numbers."""
    body = plain(report)
    body.pop("verification")
    found = report.verification
    worst = {key: value for key, value in plain(found.worst).items() if key not in ("inputs", "batch")}
    sizes, share = list(found.batch_sizes), plain(found.top1_agreement)
    return {**body, **worst, "batch_sizes": sizes, "top1_agreement": share, "checks": plain(found.checks)}


def _rows(report: ExportReport) -> list[tuple[str, str]]:
    batches = ", ".join(map(str, report.batch_sizes))
    real = {check.inputs for check in report.checks} == {"validation"}
    inputs = "real inputs" if real else "random and real inputs" if report.on_data else "random inputs"
    runtime = _RUNTIMES[report.format]
    rows = [
        ("size", _size(report)),
        ("parameters", _params(report)),
        ("nodes", _nodes(report)),
        ("form", _form(report)),
        ("norms", _norms(report)),
        ("with", ", ".join(report.beside)),
        ("left out", ", ".join(report.left_out) and f"{', '.join(report.left_out)}: no tensor, so no output of a file"),
        (
            "difference",
            f"{report.max_rel:.1e} of the largest output (limit {_limit(report.limit)}), {report.max_abs:.1e} absolute",
        ),
        ("judged by", report.verification.worst.basis),
        ("decided", decided([name for check in report.checks for name in check.decisions])),
        ("checked", f"{runtime} against torch, {inputs}, batch {batches}"),
    ]
    if report.top1_agreement is not None:
        rows.append(("top-1", f"{metric('agreement', report.top1_agreement)} the same as torch's"))
    rows += [("note", note) for note in report.notes]
    return [(name, value) for name, value in rows if value]


_FORMS = {
    "onnx": "", "pt2": "torch.export archive", "python": "Python source for PyTorch",
    "huggingface": "directory of transformers",
}  # fmt: skip
_RUNTIMES = {
    "onnx": "onnxruntime",
    "pt2": "the archive, read back,",
    "huggingface": "what transformers opens",
    "python": "the source, run by itself (float32, float64, training mode),",
}


def _limit(limit: float) -> str:
    return f"{limit:g}" if limit >= 0.01 else f"{limit:.0e}"


def _nodes(report: ExportReport) -> str:
    opset = f", opset {report.opset}" if report.opset is not None else ""
    return format_count(report.n_nodes) + opset if report.n_nodes else ""


def _size(report: ExportReport) -> str:
    size = format_bytes(report.size_bytes)
    if report.plain_size_bytes is not None:
        size += f" instead of {format_bytes(report.plain_size_bytes)}"
    return size + (", weights in a file of their own beside it" if report.external_data else "")


def _form(report: ExportReport) -> str:
    """What is not as usual: nothing for an ONNX file of the program's own precision with an open batch."""
    parts = [_FORMS[report.format]]
    parts.append(f"batch fixed at {report.batch}" if report.batch is not None else "")
    parts.append(report.precision if report.precision != "unchanged" else "")
    if report.n_sparse:
        parts.append(plural(report.n_sparse, "sparse tensor"))
    elif report.plain_size_bytes is not None and report.precision == "unchanged":
        parts.append("stored dense: no tensor is two thirds zero")
    return ", ".join(part for part in parts if part)


def _norms(report: ExportReport) -> str:
    if not report.n_folded_norms and not report.kept_norms:
        return ""
    kept = f"; {len(report.kept_norms)} kept, the first is {report.kept_norms[0]}" if report.kept_norms else ""
    return f"{plural(report.n_folded_norms, 'batch norm')} folded into the layers before them{kept}"


def _params(report: ExportReport) -> str:
    if report.n_params == report.n_program_params:
        return format_count(report.n_params)
    return (
        f"{format_count(report.n_params)} of {format_count(report.n_program_params)}: "
        "normalisations are folded into the layers before them"
    )
