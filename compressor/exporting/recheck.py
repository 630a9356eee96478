"""An ONNX file that exists, compared with a program; it must never write anything."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch

from compressor.asking.counts import check_counts
from compressor.asking.export import DEFAULT_CHECK
from compressor.data.source import DataSource
from compressor.errors import ModelError, UsageError, VerificationError, innermost_line
from compressor.exporting.contents import fixed_batch, precision_of
from compressor.exporting.convert import weight_dtype
from compressor.exporting.exported import ExportReport
from compressor.exporting.host import host_module, in_runtime_type
from compressor.exporting.publish import data_file
from compressor.exporting.verify import FileComparison, check_data, check_file, onnx_run
from compressor.formats.onnx_weights import count_onnx_parameters
from compressor.program import Program


def check_onnx(
    program: Program,
    path: str | Path,
    *,
    batch_sizes: Sequence[int] = DEFAULT_CHECK.batch_sizes,
    data: DataSource | None = None,
) -> ExportReport:
    """How well the file at `path` agrees with the program, by the limits of the precision that it has.

    Raises:  VerificationError if the file is not valid or computes something else; ModelError if there is no
             such file; UsageError for a batch size out of range; DataError if the data do not fit the
             program.
    """
    started, file = time.perf_counter(), Path(path)
    check_counts("--check-batch", batch_sizes)
    program.check_masks()
    if data is not None:
        check_data(program, data)
    model = _read(file)
    batch = fixed_batch(model)
    if batch is not None and batch != 1 and not program.has_dynamic_batch:
        raise UsageError(f"{file}: its batch is fixed at {batch}, that of the checkpoint at 1; they cannot be compared")
    precision = precision_of(model, weight_dtype(program) == torch.float16)
    n_sparse = len(model.graph.sparse_initializer)
    program, _ = in_runtime_type(program)
    module = host_module(program)
    try:
        check_file(file, full=not n_sparse)
        run = onnx_run(file, precision, program.record.interface)
        comparison = FileComparison(program.replace(module=module), run, precision, batch)
        found = comparison.verification(batch_sizes, data)
    except VerificationError as error:
        raise VerificationError(f"{file}: {error}\nexport it again from this checkpoint") from error
    beside = [data_file(file)] if data_file(file).is_file() else []
    return ExportReport.of(
        program,
        [file, *beside],
        found,
        path=str(path),
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None),
        n_params=count_onnx_parameters(model),
        n_nodes=len(model.graph.node),
        on_data=data is not None,
        seconds=time.perf_counter() - started,
        precision=precision,
        batch=batch,
        n_sparse=n_sparse,
    )


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file to check; name the ONNX file with -o")
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf has its own classes, by implementation
        raise ModelError(f"{path}: not a readable ONNX file: {innermost_line(error)}") from error
