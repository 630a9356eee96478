"""From a program to an ONNX file that is written only when it was checked; it must never change the
program."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from compressor.atomic import atomic_write
from compressor.data.source import DataSource
from compressor.errors import OutputError, UsageError
from compressor.exporting.convert import to_onnx
from compressor.exporting.metadata import stamp
from compressor.exporting.result import ExportReport
from compressor.exporting.verify import check_data, check_file, compare_with_torch
from compressor.program import Program

Build = Callable[[Path], ExportReport]

EXTERNAL_ABOVE_BYTES = 2**31 - 2**24
"""Weights above this go into a file of their own: protobuf ends at 2 GiB, and the graph needs its share of
them."""


def export_onnx(
    program: Program,
    target: str | Path | BinaryIO,
    *,
    opset: int | None = None,
    force: bool = False,
    batch_sizes: Sequence[int] = (1, 2, 5),
    data: DataSource | None = None,
    metadata: Mapping[str, str] | None = None,
) -> ExportReport:
    """What was written: the program as ONNX, checked by onnx and run in onnxruntime against torch first.

    A program with a fixed batch is checked at that batch only. Weights above 2 GB go into `TARGET.data`
    beside the file. A stream gets the bytes of the file once it passed.

    Raises:  VerificationError if the file is not valid or disagrees with torch (nothing is written then);
             ModelError if the model has no ONNX form; UsageError for an opset, a batch size or metadata that
             cannot be meant; OutputError if the target cannot be written; DataError if the data do not fit
             the program.
    """
    started = time.perf_counter()
    if not batch_sizes or min(batch_sizes) < 1:
        raise UsageError(f"batch sizes {tuple(batch_sizes)}: give at least one, each 1 or more")
    if data is not None:
        check_data(program, data)
    extra = dict(metadata or {})

    def build(path: Path) -> ExportReport:
        return _build(program, path, opset, batch_sizes, data, extra)

    if isinstance(target, str | os.PathLike):
        report = _to_path(build, Path(target), force)
    else:
        report = _to_stream(build, target)
    return replace(report, seconds=time.perf_counter() - started)


def _to_path(build: Build, target: Path, force: bool) -> ExportReport:
    final = Path(os.path.realpath(target))
    final_data = _data_file(final)
    # Checked in a directory of its own, under its final name: a model knows the file of its external data by
    # name.
    with (
        atomic_write(final, force=force) as temporary,
        tempfile.TemporaryDirectory(dir=temporary.parent, prefix=f".{final.name[:50]}-") as stage,
    ):
        staged = Path(stage, final.name)
        report = build(staged)
        os.replace(staged, temporary)
        if report.external_data:
            with atomic_write(final_data, force=force) as temporary_data:
                os.replace(_data_file(staged), temporary_data)
    return replace(report, path=str(target))


def _to_stream(build: Build, target: BinaryIO) -> ExportReport:
    with tempfile.TemporaryDirectory(prefix="compress-") as stage:
        staged = Path(stage, "model.onnx")
        report = build(staged)
        if report.external_data:
            raise OutputError("the model is above 2 GB and needs a second file for its weights; give -o PATH, not -")
        with open(staged, "rb") as file:
            shutil.copyfileobj(file, target)
    return replace(report, path=None)


def _build(
    program: Program,
    path: Path,
    opset: int | None,
    batch_sizes: Sequence[int],
    data: DataSource | None,
    extra: Mapping[str, str],
) -> ExportReport:
    """Writes and checks the file at `path`; time and final path are for the caller to fill in."""
    module = program.module.clone().to("cpu").eval()
    model = to_onnx(program, module, opset)
    stamp(model, program, data, extra)
    external = sum(_size_bytes(value) for value in model.graph.initializers.values()) > EXTERNAL_ABOVE_BYTES
    ir.save(model, path, external_data=_data_file(path).name if external else None)
    check_file(path)
    agreement = compare_with_torch(program, module, path, batch_sizes, data)
    return ExportReport(
        path=None,
        opset=model.opset_imports[""],
        size_bytes=path.stat().st_size + (_data_file(path).stat().st_size if external else 0),
        n_params=count_parameters(model),
        n_program_params=program.n_parameters,
        n_nodes=sum(1 for _ in model.graph),
        batch_sizes=agreement.batch_sizes,
        max_abs=agreement.max_abs,
        max_rel=agreement.max_rel,
        limit=agreement.limit,
        on_data=data is not None,
        top1_agreement=agreement.top1_agreement,
        external_data=external,
        seconds=0.0,
    )


def count_parameters(model: ir.Model) -> int:
    """Elements of the floating initializers; single numbers are constants of the graph, not parameters."""
    return sum(_numel(value) for value in model.graph.initializers.values() if _is_weight(value))


def _is_weight(value: ir.Value) -> bool:
    floating = value.dtype is not None and value.dtype.is_floating_point()
    return floating and value.shape is not None and len(value.shape) > 0


def _numel(value: ir.Value) -> int:
    return 0 if value.const_value is None else math.prod(value.const_value.shape.numpy())


def _size_bytes(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.nbytes


def _data_file(path: Path) -> Path:
    return path.with_name(path.name + ".data")
