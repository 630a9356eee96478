"""A program as an archive of torch.export, read back and compared; it must never open a file that it did not write."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from compressor.asking.counts import check_counts
from compressor.asking.export import DEFAULT_CHECK, DEFAULT_FORM, ExportForm
from compressor.data.source import DataSource
from compressor.errors import ModelError, VerificationError, innermost_line
from compressor.exporting.convert import quiet, to_exported
from compressor.exporting.exported import ExportReport
from compressor.exporting.host import host_module
from compressor.exporting.metadata import PREFIX, properties, refuse_reserved
from compressor.exporting.publish import publish
from compressor.exporting.verify import FileComparison, Run, check_data
from compressor.program import Program
from compressor.program.agreement import leaves
from compressor.program.runs import Other, seeded


def export_pt2(
    program: Program,
    target: str | Path | BinaryIO,
    *,
    force: bool = False,
    batch: int | None = DEFAULT_FORM.batch,
    batch_sizes: Sequence[int] = DEFAULT_CHECK.batch_sizes,
    data: DataSource | None = None,
    metadata: Mapping[str, str] | None = None,
    accept: Callable[[ExportReport], None] | None = None,
) -> ExportReport:
    """What was written: a .pt2 for `torch.export.load`, which was read back and run beside the program.

    Whoever opens such an archive should trust where it is from, for opening one can run code; the checkpoint
    is the form to pass on. The metadata are extra files in it.

    Raises:  VerificationError if what is read back disagrees (nothing is written then); ModelError if torch
             cannot export or save it; UsageError for a batch that the program cannot have; OutputError if
             the target cannot be written.
    """
    started = time.perf_counter()
    program.check_masks()
    form = ExportForm(batch=batch)
    form.check_batch(program.has_dynamic_batch)
    check_counts("--check-batch", batch_sizes)
    extra = dict(metadata or {})
    refuse_reserved(extra)
    if data is not None:
        check_data(program, data)

    def build(path: Path) -> ExportReport:
        module = host_module(program)
        exported = to_exported(program, module, batch)
        _save(exported, path, {**properties(program, data), **extra})
        comparison = FileComparison(program.replace(module=module), _read_back(path), batch=batch)
        report = _report(program, path, exported, comparison, batch_sizes, data)
        if accept is not None:
            accept(report)
        return report

    report = publish(build, target, force, ".pt2")
    return replace(report, seconds=time.perf_counter() - started)


def _save(exported: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    files = {f"{key.removeprefix(PREFIX)}.txt": value for key, value in metadata.items()}
    try:
        with quiet():
            torch.export.save(exported, path, extra_files=files)
    except Exception as error:  # the serialiser asserts on what it does not know
        raise ModelError(f"torch cannot save the model as .pt2: {innermost_line(error)}") from error


def _read_back(path: Path) -> Run:
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Written by this process a moment ago: nobody else's code can be in it.
            module: nn.Module = torch.export.load(path).module()  # noqa: TID251
    except Exception as error:
        raise VerificationError(f"torch cannot read the .pt2 back: {innermost_line(error)}") from error

    def run(inputs: Sequence[Tensor]) -> Other:
        with seeded(), torch.no_grad():
            return Other(inputs, leaves(module(*inputs)))

    return run


def _report(
    program: Program,
    path: Path,
    exported: torch.export.ExportedProgram,
    comparison: FileComparison,
    batch_sizes: Sequence[int],
    data: DataSource | None,
) -> ExportReport:
    found = comparison.verification(batch_sizes, data)
    n_params = sum(parameter.numel() for parameter in exported.parameters())
    return ExportReport.of(
        program,
        [path],
        found,
        n_params=n_params,
        n_nodes=sum(1 for node in exported.graph.nodes if node.op == "call_function"),
        on_data=data is not None,
        format="pt2",
        batch=comparison.batch,
    )
