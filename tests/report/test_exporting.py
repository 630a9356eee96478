"""The table of export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.console import RenderableType

from compressor.exporting.exported import Check, ExportReport, Verification
from compressor.report.console import plain_text
from compressor.report.exporting import export_body, export_table

Golden = Callable[[str, RenderableType], None]


def verification(agreement: float | None, *checks: Check) -> Verification:
    random = (Check("random", size, size * 6.4e-7, size * 5.8e-8, 1e-4) for size in (1, 2, 5))
    return Verification(checks or tuple(random), agreement)


def report() -> ExportReport:
    return ExportReport(
        path="model.onnx",
        opset=20,
        size_bytes=134567,
        n_params=33000,
        n_program_params=33058,
        n_nodes=9,
        verification=verification(0.999),
        on_data=True,
        external_data=False,
        seconds=1.9,
    )


def test_export(golden: Golden) -> None:
    golden("export", export_table(report(), "model.onnx"))


def test_without_data_nothing_is_said_of_top_1() -> None:
    text = plain_text(export_table(replace(report(), on_data=False, verification=verification(None)), "-"))
    assert "top-1" not in text
    assert "random inputs, batch 1, 2, 5" in text
    assert "wrote standard output" in text


def test_equal_counts_are_told_once() -> None:
    text = plain_text(export_table(replace(report(), n_params=33058, external_data=True), "m.onnx"))
    assert "parameters  33,058\n" in text
    assert "weights in a file of their own" in text


def test_the_form_of_the_file_is_told_when_it_is_not_the_usual_one() -> None:
    def form(**changes: Any) -> str:
        text = plain_text(export_table(replace(report(), **changes), "m.onnx"))
        return next((line.split(None, 1)[1] for line in text.splitlines() if line.startswith("form ")), "")

    assert form() == ""
    assert form(batch=4, precision="fp16") == "batch fixed at 4, fp16"
    assert form(n_sparse=2, plain_size_bytes=10**6) == "2 sparse tensors"
    assert form(plain_size_bytes=10**6) == "stored dense: no tensor is two thirds zero"
    assert form(format="pt2", opset=None) == "torch.export archive"


def test_the_size_of_a_converted_file_stands_beside_the_plain_one() -> None:
    text = plain_text(export_table(replace(report(), precision="fp16", plain_size_bytes=269134), "m.onnx"))
    assert "131 KiB instead of 263 KiB" in text


def test_a_file_that_was_only_checked_was_not_written() -> None:
    real = Check("validation", 1, 1e-3, 1e-2, 1e-2)
    text = plain_text(export_table(replace(report(), verification=verification(0.999, real)), "m.onnx", written=False))
    assert "checked m.onnx after 1.90 s" in text and "wrote" not in text
    assert "against torch, real inputs" in text


def test_in_json_the_largest_difference_stands_beside_the_numbers_of_the_file() -> None:
    body = export_body(report())
    assert (body["max_abs"], body["max_rel"], body["limit"]) == (5 * 6.4e-7, 5 * 5.8e-8, 1e-4)
    assert body["batch_sizes"] == [1, 2, 5] and len(body["checks"]) == 3
    assert body["top1_agreement"] == 0.999 and not {"verification", "inputs"} & set(body)
