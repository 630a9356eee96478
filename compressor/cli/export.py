"""`compress export`; it must never hold how ONNX is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from compressor.asking.export import ExportForm
from compressor.asking.gates import Gates, gates_of
from compressor.cli import provenance
from compressor.cli.lists import read_counts
from compressor.cli.options import GateOptions, ModelOptions, OutputOptions, option
from compressor.cli.session import Session
from compressor.cli.streams import STREAM, choose_target, default_name, known_data, read_source
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.cli.streams import Source
    from compressor.exporting.result import ExportReport


@dataclass(frozen=True, kw_only=True)
class ExportOptions(GateOptions, OutputOptions, ModelOptions):
    """Options of `compress export`."""

    opset: Annotated[int | None, option(metavar="N", min=1, help="ONNX operator set, 15 to 26. Default: torch's.")] = (
        None
    )
    format: Annotated[
        Literal["onnx", "pt2", "python"] | None,
        option(
            help="pt2 is an archive of torch.export; python is source for PyTorch, a model.py with model.safetensors "
            "beside it. Default: by the name of the output, else onnx."
        ),
    ] = None
    batch: Annotated[int | None, option(metavar="N", min=1, help="Fix the batch at N. Default: any batch.")] = None
    fp16: Annotated[bool, option("--fp16", help="Weights and arithmetic in half precision; inputs stay float32.")] = (
        False
    )
    int8: Annotated[
        Literal["dynamic", "static"] | None,
        option(help="Weights in 8 bits; activations by what is seen while running, or by ranges found on --data."),
    ] = None
    calibration: Annotated[
        int, option(metavar="N", min=1, help="Training samples that find the ranges of --int8 static.")
    ] = 256
    sparse: Annotated[
        bool, option("--sparse", help="Store tensors that are mostly zero as ONNX sparse ones: a smaller file.")
    ] = False
    fold_norms: Annotated[
        bool,
        option(
            "--fold-norms",
            help="No effect: the exporter puts batch norms into the layers before them by itself. Will be removed.",
        ),
    ] = False
    check_batch: Annotated[
        list[str] | None, option("--check-batch", metavar="1,8", help="Batch sizes of the check. Default: 1,2,5.")
    ] = None
    check_only: Annotated[
        bool, option("--check-only", help="Write nothing: check the ONNX file that is there against MODEL.")
    ] = False


def export(options: ExportOptions, session: Session) -> None:
    """Writes ONNX, or Python source for PyTorch, checked against the model.

    Any batch size unless --batch fixes it. Nothing is written when the check fails.

    \b
    Examples:
      compress export model.compact.pt -o model.onnx
      compress export model.pt --opset 18 --batch 1
      compress export model.compact.pt --int8 static --data mnist:data -o model.int8.onnx
      compress export model.pruned.pt --sparse -o small.onnx
      compress export model.compact.pt -o model.py
      compress export model.pt -o model.onnx --check-only
      compress compact model.pruned.pt -o - | compress export - -o model.onnx
    """
    gates = gates_of("export", options.require or (), task=options.task)
    sizes = read_counts("--check-batch", options.check_batch, (1, 2, 5))
    if options.check_only:
        _check(options, gates, sizes, session)
        return
    form = _form_of(options)
    ExportForm(options.opset, options.batch, options.fp16, options.int8, options.calibration, options.sparse)
    target = choose_target(options, _SUFFIXES[form])
    from compressor.exporting import export_onnx, export_pt2, export_python

    if options.fold_norms:
        session.note("--fold-norms has no effect: the exporter folds batch norms by itself; leave it out")
    source = read_source(options, options.model, session)
    data, _ = known_data(source.program, options, session, needed_for=_needs_data(options, gates))
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
        if form == "pt2":
            report = export_pt2(source.program, stream, batch=options.batch, **shared)
        elif form == "python":
            assert isinstance(stream, Path)
            report = export_python(source.program, stream, **shared)
        else:
            report = export_onnx(
                source.program,
                stream,
                batch=options.batch,
                opset=options.opset,
                fp16=options.fp16,
                int8=options.int8,
                n_calibration=options.calibration,
                sparse=options.sparse,
                **shared,
            )
    _show(report, target.name, gates, source, session)


_SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "python": ".py"}
_CALLED = {"pt2": "an archive of torch.export", "python": "Python source"}


def _form_of(options: ExportOptions) -> str:
    """The format that is asked for, in so many words or by the output's name.

    Raises:  UsageError for options that the format does not have.
    """
    by_name = next((form for form, suffix in _SUFFIXES.items() if (options.output or "").endswith(suffix)), "onnx")
    form = options.format or by_name
    if form == "onnx":
        return form
    given = {
        "--opset": options.opset,
        "--fp16": options.fp16,
        "--int8": options.int8,
        "--sparse": options.sparse,
        "--fold-norms": options.fold_norms,
        "--batch": options.batch if form == "python" else None,
    }
    wrong = next((name for name, value in given.items() if value), None)
    if wrong is not None:
        raise UsageError(f"{wrong}: {_CALLED[form]} has no such thing; write ONNX for it (--format onnx)")
    if form == "python" and options.output == STREAM:
        raise UsageError("-o -: Python source comes with a second file for its weights; give -o FILE.py")
    return form


def _needs_data(options: ExportOptions, gates: Gates) -> str | None:
    return "--int8 static" if options.int8 == "static" else gates.needs_data


def _check(options: ExportOptions, gates: Gates, sizes: tuple[int, ...], session: Session) -> None:
    """Compares what is there; the file itself says in which form it is, so options about that are refused."""
    given = {
        "--opset": options.opset,
        "--format": options.format,
        "--batch": options.batch,
        "--fp16": options.fp16,
        "--int8": options.int8,
        "--sparse": options.sparse,
        "--fold-norms": options.fold_norms,
    }
    wrong = next((name for name, value in given.items() if value), None)
    if wrong is not None:
        raise UsageError(f"--check-only writes nothing, so {wrong} has nothing to change; leave it out")
    path = options.output if options.output is not None else default_name(options, ".onnx")
    if path == STREAM:
        raise UsageError("--check-only reads the file that -o names, and - is none; give -o FILE")
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
    from compressor.report.exporting import export_table
    from compressor.report.jsonable import plain

    head = {"model": source.name, "output": output}
    verdicts = gates.judge(_gated(report))
    session.show(lambda: export_table(report, output, written=written), {**head, **plain(report), **verdicts.body()})


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
