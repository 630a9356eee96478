"""The tables of bench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rich.console import RenderableType

from compressor.report.console import plain_text
from compressor.report.timing import bench_table
from compressor.timing.measured import BenchReport, BenchWarning, Environment, Subject, Timing, WarningKind

Golden = Callable[[str, RenderableType], None]


def timing(name: str, median_s: float, batch: int, speedup: float = 1.0, verdict: str = "reference") -> Timing:
    subject = Subject(name, name, "torch" if name.endswith(".pt") else "onnx", 1724320, 431080)
    return Timing(
        subject=subject,
        provider="cpu",
        threads=1,
        batch=batch,
        n_runs=200,
        n_inner=3,
        n_openings=4,
        median_s=median_s,
        mean_s=median_s * 1.01,
        p90_s=median_s * 1.1,
        p99_s=median_s * 1.5,
        min_s=median_s * 0.98,
        mad_s=median_s * 0.02,
        n_outliers=2,
        throughput_per_s=batch / median_s,
        peak_memory_bytes=None,
        accuracy=None,
        speedup=speedup,
        speedup_low=speedup * 0.98,
        speedup_high=speedup * 1.02,
        verdict=verdict,  # type: ignore[arg-type]
    )


def report() -> BenchReport:
    timings = (
        timing("lenet5.pt", 412e-6, 1),
        timing("runs/2025-01-01/a-very-long-name-of-a-model.onnx", 101e-6, 1, 4.08, "faster"),
        timing("same.onnx", 410e-6, 1, 1.005, "no difference"),
        timing("lenet5.pt", 4.12e-3, 16),
        timing("runs/2025-01-01/a-very-long-name-of-a-model.onnx", 8.2e-3, 16, 0.5, "slower"),
    )
    warnings = (BenchWarning(WarningKind.OUTLIERS, "lenet5.pt: up to 26 of 202 runs are outliers"),)
    where = Environment("Some CPU", 2, None, "2.13.0", "1.31.1", "3.11.7", "Linux", 0.1)
    return BenchReport(timings, warnings, where, 400)


def test_bench(golden: Golden) -> None:
    golden("bench", bench_table(report(), {"speedup>=3": True, "size<=1MiB": False}))


def test_accuracy_and_memory_have_columns_only_when_measured(golden: Golden) -> None:
    measured = [replace(t, accuracy=0.9926, peak_memory_bytes=94371840) for t in report().timings]
    golden("bench_full", bench_table(replace(report(), timings=tuple(measured), warnings=())))
    assert "Accuracy" not in plain_text(bench_table(report()))


def test_sizes_after_gzip_and_copies_have_columns_only_when_measured(golden: Golden) -> None:
    measured = [
        replace(t, with_copies_s=t.median_s + 3e-5, subject=replace(t.subject, gzip_bytes=1500000))
        for t in report().timings[:2]
    ]
    golden("bench_device", bench_table(replace(report(), timings=tuple(measured), warnings=())))
    text = plain_text(bench_table(report()))
    assert "gzip" not in text and "copies" not in text


def test_every_column_at_once_fits() -> None:
    subject = replace(report().timings[1].subject, gzip_bytes=1500000)
    full = [
        replace(t, subject=subject, accuracy=0.9926, peak_memory_bytes=94371840, with_copies_s=1e-4)
        for t in report().timings[:3]
    ]
    text = plain_text(bench_table(replace(report(), timings=tuple(full))))
    assert max(len(line) for line in text.splitlines()[2:6]) <= 110


def test_a_warning_comes_with_its_hint() -> None:
    text = plain_text(bench_table(report()))
    assert f"outliers; {WarningKind.OUTLIERS.hint}" in text
