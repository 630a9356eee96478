"""`compress export`; it must never hold how ONNX is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from compressor.asking.export import Checking, ExportForm
from compressor.asking.gates import Gates, gates_of
from compressor.cli import provenance
from compressor.cli.directory import directory_target, is_directory
from compressor.cli.memory import give_freed_memory_back
from compressor.cli.named import check_named
from compressor.cli.options import GateOptions, ModelOptions, OutputOptions, option
from compressor.cli.session import Session
from compressor.cli.streams import STREAM, Target, choose_target, default_name, known_data, read_source
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.cli.streams import Source
    from compressor.exporting.exported import ExportReport
    from compressor.program import Program


@dataclass(frozen=True, kw_only=True)
class ExportOptions(GateOptions, OutputOptions, ModelOptions):
    """Options of `compress export`, beside those that `ExportForm` and `Checking` declare."""

    asks = (ExportForm, Checking)

    check_only: Annotated[
        bool, option("--check-only", help="Write nothing: check the ONNX file that is there against MODEL.")
    ] = False


def export(options: ExportOptions, session: Session) -> None:
    """Writes ONNX, Python source for PyTorch, or a directory of transformers, checked against the model.

    Any batch size unless --batch fixes it. Nothing is written when the check fails.

    \b
    Examples:
      compress export model.compact.pt -o model.onnx
      compress export model.pt --opset 18 --batch 1
      compress export model.compact.pt --int8 static --data mnist:data -o model.int8.onnx
      compress export model.pruned.pt --sparse -o small.onnx
      compress export model.compact.pt -o model.py
      compress export bert.compact.pt -o bert-small/
      compress export model.pt -o model.onnx --check-only
      compress compact model.pruned.pt -o - | compress export - -o model.onnx
    """
    gates = gates_of("export", options.require or (), task=options.task)
    sizes = options.request(Checking).batch_sizes
    if options.check_only:
        _check(options, gates, sizes, session)
        return
    form = _form_of(options)
    target = _target(options, form.format or "onnx")
    check_named(options, session)
    if form.fold_norms:
        session.note("--fold-norms has no effect: the exporter folds batch norms by itself; leave it out")
    give_freed_memory_back()
    source = read_source(options, options.model, session)
    data, _ = known_data(source.program, options, session, needed_for=_needs_data(form, gates))
    if not session.is_main:
        return
    shared: dict[str, Any] = {
        "force": options.force,
        "batch_sizes": sizes,
        "data": data,
        "metadata": _metadata(options, source),
        "accept": lambda found: _refuse(found, gates, source, session),
    }
    with target.opened() as stream, session.working("exporting, and checking what was written"):
        report = _written(source.program, stream, form, shared)
    _show(report, target.name, gates, source, session)


_SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "python": ".py", "huggingface": ".hf"}


def _target(options: ExportOptions, form: str) -> Target:
    """Where the result goes."""
    if form == "huggingface" and options.output != STREAM:
        return directory_target(options.output or default_name(options, _SUFFIXES[form]), options.force)
    return choose_target(options, _SUFFIXES[form])


def _written(program: Program, stream: Path | BinaryIO, form: ExportForm, shared: dict[str, Any]) -> ExportReport:
    """The file in its format."""
    from compressor.exporting import export_huggingface, export_onnx, export_pt2, export_python

    if form.format == "pt2":
        return export_pt2(program, stream, batch=form.batch, **shared)
    if form.format in ("python", "huggingface"):
        assert isinstance(stream, Path)
        write = export_python if form.format == "python" else export_huggingface
        return write(program, stream, **shared)
    return export_onnx(
        program, stream, batch=form.batch, opset=form.opset, fp16=form.fp16, int8=form.int8,
        n_calibration=form.n_calibration, sparse=form.sparse, **shared,
    )  # fmt: skip


def _form_of(options: ExportOptions) -> ExportForm:
    """What is asked for, in the format of --format, or else of the output's name.

    Raises:  UsageError for options that the format does not have.
    """
    output = options.output or ""
    by_name = next((form for form, suffix in _SUFFIXES.items() if output.endswith(suffix)), "onnx")
    by_name = "huggingface" if is_directory(output) else by_name
    form = options.request(ExportForm, format=options.said.get("format") or by_name)
    if form.format in ("python", "huggingface") and options.output == STREAM:
        raise UsageError(f"-o -: --format {form.format} writes more than one file; give -o and a name")
    return form


def _needs_data(form: ExportForm, gates: Gates) -> str | None:
    return "--int8 static" if form.int8 == "static" else gates.needs_data


def _check(options: ExportOptions, gates: Gates, sizes: tuple[int, ...], session: Session) -> None:
    """Compares what is there; the file itself says in which form it is, so options about that are refused."""
    wrong = options.request(ExportForm).said
    if wrong is not None:
        raise UsageError(f"--check-only writes nothing, so {wrong} has nothing to change; leave it out")
    path = options.output if options.output is not None else default_name(options, ".onnx")
    if path == STREAM:
        raise UsageError("--check-only reads the file that -o names, and - names no file; give -o FILE")
    check_named(options, session)
    from compressor.exporting import check_onnx

    source = read_source(options, options.model, session)
    data, _ = known_data(source.program, options, session, needed_for=gates.needs_data)
    with session.working(f"checking {path} in onnxruntime"):
        report = check_onnx(source.program, path, batch_sizes=sizes, data=data)
    _show(report, path, gates, source, session, written=False)
    gates.judge(_gated(report)).enforce()


def _refuse(report: ExportReport, gates: Gates, source: Source, session: Session) -> None:
    """Raises:  GateError for a file that does not meet the gates, before it gets its name; the result is told."""
    verdicts = gates.judge(_gated(report))
    if not verdicts.passed:
        _show(report, None, gates, source, session)
        verdicts.enforce()


def _show(
    report: ExportReport, output: str | None, gates: Gates, source: Source, session: Session, *, written: bool = True
) -> None:
    from compressor.report.exporting import export_body, export_table

    head = {"model": source.name, "output": output}
    verdicts = gates.judge(_gated(report))
    session.show(
        lambda: export_table(report, output, written=written), {**head, **export_body(report), **verdicts.body()}
    )


def _gated(report: ExportReport) -> dict[str, float | None]:
    return {
        "size": float(report.size_bytes),
        "params": float(report.n_params),
        "difference": report.max_rel,
        "agreement": report.top1_agreement,
    }


def _metadata(options: ExportOptions, source: Source) -> dict[str, str]:
    """This command for the ONNX file's metadata, beside the record that the exporter puts there."""
    from dataclasses import asdict

    step = provenance.make_step("export", options, source, {})
    return {"compressor.export": json.dumps(asdict(step), sort_keys=True)}
