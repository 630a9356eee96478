"""From a program to an ONNX file that is written only when it was checked; it must never change the
program."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import onnx_ir as ir
import torch

from compressor.asking.counts import check_counts
from compressor.asking.export import DEFAULT_CHECK, DEFAULT_FORM, ExportForm, Int8
from compressor.data.source import DataSource
from compressor.errors import ModelError, UsageError, VerificationError, first_line
from compressor.exporting.contents import kept_norms
from compressor.exporting.convert import named_outputs, to_onnx, weight_dtype
from compressor.exporting.exported import ExportReport
from compressor.exporting.half import to_half
from compressor.exporting.host import host_module, in_runtime_type
from compressor.exporting.metadata import PREFIX, stamp
from compressor.exporting.promises import keep
from compressor.exporting.publish import data_file, publish
from compressor.exporting.quantise import quantise
from compressor.exporting.sparse import to_sparse
from compressor.exporting.verify import FileComparison, SizesDifferError, check_data, check_file, onnx_run
from compressor.formats.onnx_weights import count_onnx_parameters
from compressor.program import Program, TensorShape, families, infer_shapes
from compressor.units import format_dtype

EXTERNAL_ABOVE_BYTES = 2**31 - 2**24
"""Weights above this go into a file of their own: protobuf ends at 2 GiB, and the graph needs its share of
them."""


def export_onnx(
    program: Program,
    target: str | Path | BinaryIO,
    *,
    opset: int | None = DEFAULT_FORM.opset,
    batch: int | None = DEFAULT_FORM.batch,
    fp16: bool = DEFAULT_FORM.fp16,
    int8: Int8 | None = DEFAULT_FORM.int8,
    n_calibration: int = DEFAULT_FORM.n_calibration,
    sparse: bool = DEFAULT_FORM.sparse,
    fold_norms: bool = DEFAULT_FORM.fold_norms,
    force: bool = False,
    batch_sizes: Sequence[int] = DEFAULT_CHECK.batch_sizes,
    data: DataSource | None = None,
    metadata: Mapping[str, str] | None = None,
    accept: Callable[[ExportReport], None] | None = None,
) -> ExportReport:
    """What was written: the program as ONNX, checked by onnx and run in onnxruntime against torch first.

    `batch` fixes the batch; a program with a fixed batch, or a file with one, is checked at that only. `fp16`,
    `int8` and `sparse` as in `ExportForm`; `fold_norms` has no effect and will go. Weights above 2 GB go into
    `TARGET.data` beside the file. A stream gets the bytes of the file once it passed. `accept` sees the report
    before the file gets its name; what it raises leaves nothing behind.

    Raises:  VerificationError if the file is not valid or disagrees with torch (nothing is written then);
             ModelError if the model has no ONNX form, or weights that masks cut are not 0; UsageError for an
             opset, a batch size, a form or metadata that is out of range; OutputError if the target cannot be
             written; DataError if the data do not fit the program.
    """
    started = time.perf_counter()
    if fold_norms:
        warnings.warn("fold_norms has no effect: the exporter folds by itself", DeprecationWarning, stacklevel=2)
    program.check_masks()
    program, told = in_runtime_type(program)
    form = ExportForm(opset=opset, batch=batch, fp16=fp16, int8=int8, n_calibration=n_calibration, sparse=sparse)
    check_counts("--check-batch", batch_sizes)
    form.check_batch(program.has_dynamic_batch)
    _check_precision(program, form)
    if data is not None:
        check_data(program, data)
    elif int8 == "static":
        raise UsageError("--int8 static needs samples to find the ranges of activations; give --data, or take dynamic")
    extra = dict(metadata or {})

    def build(path: Path) -> ExportReport:
        try:
            report = _built(program, path, form, batch_sizes, data, extra)
        except VerificationError as error:
            raise VerificationError(f"{error}\nnothing was written; {_advice(form, program)}") from error
        report = replace(report, notes=(*told, *report.notes))
        if accept is not None:
            accept(report)
        return report

    report = publish(build, target, force, ".onnx")
    return replace(report, seconds=time.perf_counter() - started)


def _check_precision(program: Program, form: ExportForm) -> None:
    """Raises:  UsageError for weights that the converters leave as they are."""
    dtype = weight_dtype(program)
    if form.precision != "unchanged" and dtype != torch.float32:
        option = "--fp16" if form.fp16 else "--int8"
        found = "no floating weights" if dtype is None else format_dtype(dtype) + " weights"
        raise UsageError(f"{option} converts float32 weights, and the model has {found}; leave it out")


def _advice(form: ExportForm, program: Program) -> str:
    if form.fp16:
        return "this model needs more than half precision: leave --fp16 out"
    if form.int8 is not None:
        return "try the other kind of --int8, more --calibration samples, or --fp16"
    squeezed = _squeezes_batch(program) if form.batch is None else None
    if squeezed is not None:
        return (
            f"squeeze() ({squeezed}) drops a batch of one sample too, and no file does: name the dimensions there"
            " (squeeze((2, 3))), or fix the batch with --batch N"
        )
    return "try another --opset"


def _built(program: Program, *rest: Any) -> ExportReport:
    """As `_build`; with fixed sizes, and a note, where the program or its ONNX form does not do with open ones."""
    interface = program.record.interface
    if interface is None or not interface.has_open_sizes:
        return _build(program, *rest)
    try:
        return _build(program, *rest)
    except (ModelError, SizesDifferError) as error:
        fixed, note = _with_fixed_sizes(program)
        report = _build(fixed, *rest)
        return replace(report, notes=(f"{note} ({first_line(error)})", *report.notes))


def _squeezes_batch(program: Program) -> str | None:
    """The line that squeezes a dimension whose size depends on the batch; None if none does."""
    if not program.has_dynamic_batch:
        return None
    of_one = infer_shapes(program.module, program.inputs, batch=1)
    for node in program.module.graph.nodes:
        if node.target in families.SQUEEZE or node.target in families.SQUEEZE_DIMS:
            alone, several = of_one[node.name], program.shapes[node.name]
            if (
                isinstance(alone, TensorShape)
                and isinstance(several, TensorShape)
                and len(alone.sizes) != len(several.sizes)
            ):
                return node.meta.get("where") or node.name
    return None


def _build(
    program: Program,
    path: Path,
    form: ExportForm,
    batch_sizes: Sequence[int],
    data: DataSource | None,
    extra: Mapping[str, str],
) -> ExportReport:
    """Writes and checks the file at `path`; time and final path are for the caller to fill in."""
    module = host_module(program)
    model = to_onnx(program, module, form.opset, form.batch)
    interface = program.record.interface
    notes = () if interface is None else keep(model, interface)
    stamp(model, program, data, extra)
    external = sum(_size_bytes(value) for value in model.graph.initializers.values()) > EXTERNAL_ABOVE_BYTES
    if external and form.is_converted:
        raise UsageError("--fp16, --int8 and --sparse work on models below 2 GB; leave them out for this one")
    ir.save(model, path, external_data=data_file(path).name if external else None)
    check_file(path)
    plain_size, n_sparse = path.stat().st_size, 0
    if form.is_converted:
        n_sparse = _convert(path, form, data)
    run = onnx_run(path, form.precision, interface)
    comparison = FileComparison(program.replace(module=module), run, form.precision, form.batch)
    found = comparison.verification(batch_sizes, data)
    written = onnx.load(str(path), load_external_data=False)
    n_norms, kept = sum(node.target in families.BATCH_NORM for node in module.graph.nodes), kept_norms(written)
    return ExportReport.of(
        program,
        [path, data_file(path)] if external else [path],
        found,
        opset=model.opset_imports[""],
        n_params=count_onnx_parameters(written),
        n_nodes=len(written.graph.node),
        on_data=data is not None,
        precision=form.precision,
        batch=form.batch,
        n_sparse=n_sparse,
        plain_size_bytes=plain_size if form.is_converted else None,
        n_folded_norms=n_norms - len(kept),
        kept_norms=kept,
        left_out=tuple(named_outputs(program)[1]),
        notes=notes,
    )


def _with_fixed_sizes(program: Program) -> tuple[Program, str]:
    """The program without open sizes in its interface, and a note that says so."""
    interface = program.record.interface
    assert interface is not None
    sizes = ", ".join(f"{spec.name} {'x'.join(map(str, spec.shape[1:]))}" for spec in program.inputs)
    record = replace(program.record, interface=interface.with_fixed_sizes(program.inputs))
    return program.replace(record=record), f"sizes that the original leaves open are fixed: {sizes}"


def _convert(path: Path, form: ExportForm, data: DataSource | None) -> int:
    """Rewrites the plain file at `path` in its form; how many tensors became sparse."""
    model = onnx.load(str(path))
    props = {entry.key: entry.value for entry in model.metadata_props}
    n_sparse = 0
    if form.int8 is not None:
        calibrating = data if form.int8 == "static" else None
        model = quantise(model, calibrating, form.n_calibration, form.batch)
    elif form.fp16:
        model = to_half(model)
    if form.sparse:
        model, n_sparse = to_sparse(model)
    if form.precision != "unchanged":
        props[PREFIX + "precision"] = form.precision
    # The converters add notes of their own, and some drop what was there.
    onnx.helper.set_model_props(model, dict(sorted(props.items())))
    onnx.save(model, str(path))
    # onnx infers no shapes through a sparse operand; the same graph was checked in full before.
    check_file(path, full=not n_sparse)
    return n_sparse


def _size_bytes(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.nbytes
