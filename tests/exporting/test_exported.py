"""A report of a file holds its agreement; what is worst of it stands beside the file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from compressor.exporting.exported import Check, ExportReport, Verification


class Small:
    n_parameters = 12


FOUND = Verification(
    (
        Check("random", 1, 1e-6, 1e-7, 1e-5),
        Check("random", 5, 3e-6, 4e-7, 1e-5),
        Check("validation", None, 1e-6, 2e-7, 1e-5),
    ),
    0.98,
)


def test_the_worst_check_and_the_sizes_that_were_made() -> None:
    assert FOUND.worst.batch == 5 and FOUND.batch_sizes == (1, 5)


def test_a_report_measures_its_files_and_repeats_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(bytes(10))
    (tmp_path / "m.onnx.data").write_bytes(bytes(32))
    files = [tmp_path / "m.onnx", tmp_path / "m.onnx.data"]
    report = ExportReport.of(Small(), files, FOUND, n_params=11, n_nodes=3, on_data=True)  # type: ignore[arg-type]
    assert (report.size_bytes, report.external_data, report.n_program_params) == (42, True, 12)
    assert (report.max_abs, report.max_rel, report.limit, report.top1_agreement) == (3e-6, 4e-7, 1e-5, 0.98)
    repeated = {field.name for field in fields(report)} & {field.name for field in fields(Check)}
    assert repeated == {"batch"}, "the batch that the file fixes, that of a check"
