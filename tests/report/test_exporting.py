"""The table of export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rich.console import RenderableType

from compressor.exporting.result import ExportReport
from compressor.report.console import plain_text
from compressor.report.exporting import export_table

Golden = Callable[[str, RenderableType], None]


def report() -> ExportReport:
    return ExportReport(
        path="model.onnx",
        opset=20,
        size_bytes=134567,
        n_params=33000,
        n_program_params=33058,
        n_nodes=9,
        batch_sizes=(1, 2, 5),
        max_abs=3.2e-6,
        max_rel=2.9e-7,
        limit=1e-4,
        on_data=True,
        top1_agreement=0.999,
        external_data=False,
        seconds=1.9,
    )


def test_export(golden: Golden) -> None:
    golden("export", export_table(report(), "model.onnx"))


def test_without_data_nothing_is_said_of_top_1() -> None:
    text = plain_text(export_table(replace(report(), on_data=False, top1_agreement=None), "-"))
    assert "top-1" not in text
    assert "random inputs, batch 1, 2, 5" in text
    assert "wrote standard output" in text


def test_equal_counts_are_told_once() -> None:
    text = plain_text(export_table(replace(report(), n_params=33058, external_data=True), "m.onnx"))
    assert "parameters  33,058\n" in text
    assert "weights in a file of their own" in text
