"""One real, short bench, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from compressor.data.arrays import Arrays, ArraySource
from compressor.errors import ModelError, ProviderError, UsageError
from compressor.program import Program
from compressor.timing import RoundProgress, WarningKind, bench
from compressor.timing.onnx_runner import OnnxRunner
from compressor.timing.providers import Provider

Write = Callable[..., Path]


def test_a_short_bench_of_both_runtimes(checkpoint: Path, onnx_file: Write) -> None:
    seen: list[RoundProgress] = []
    threads_before = torch.get_num_threads()
    arrays = Arrays(torch.randn(9, 4), torch.zeros(9).long())
    report = bench(
        [checkpoint, onnx_file()],
        threads=(1, 2),
        batches=(1, 4),
        min_runs=12,
        min_seconds=0.05,
        max_seconds=600,  # the least numbers end it, however busy the machine is
        data=ArraySource("fake", arrays, arrays, 3),
        with_accuracy=True,
        on_round=seen.append,
    )
    assert [(t.subject.name, t.threads, t.batch) for t in report.timings] == [
        (name, n, size) for n in (1, 2) for size in (1, 4) for name in ("tiny.pt", "tiny.onnx")
    ]
    for first, second in zip(report.timings[::2], report.timings[1::2], strict=True):
        assert (first.verdict, first.speedup) == ("reference", 1.0)
        assert second.speedup == pytest.approx(first.median_s / second.median_s)
        assert second.speedup_low <= second.speedup <= second.speedup_high
        assert first.n_runs == second.n_runs >= 12
    for timing in report.timings:
        assert 0 < timing.min_s <= timing.median_s <= timing.p90_s <= timing.p99_s
        assert timing.throughput_per_s == pytest.approx(timing.batch / timing.median_s)
        assert timing.n_inner >= 1 and timing.n_openings >= 1 and timing.peak_memory_bytes is None
    assert [timing.accuracy for timing in report.timings[1::2]] == [1.0] * 4
    assert report.rounds == sum(timing.n_runs for timing in report.timings[::2]) == len(seen)
    assert seen[-1].fraction == 1.0 and [p.fraction for p in seen] == sorted(p.fraction for p in seen)
    kinds = {warning.kind for warning in report.warnings}
    assert WarningKind.TORCH_VS_ORT in kinds  # the others depend on how fast and how busy the machine is
    assert torch.get_num_threads() == threads_before


def test_size_after_gzip_and_profiles_are_measured_on_request(checkpoint: Path, onnx_file: Write) -> None:
    report = bench(
        [onnx_file(), checkpoint], min_runs=1, min_seconds=0, max_seconds=1, with_gzip=True, with_profile=True
    )
    assert all((t.subject.gzip_bytes or 0) > 0 for t in report.timings)
    (profile,) = report.profiles
    assert (profile.subject.name, profile.threads, profile.batch) == ("tiny.onnx", 1, 1)
    (unknown,) = (w for w in report.warnings if w.kind is WarningKind.PROFILE_UNKNOWN)
    assert unknown.message == "no profile: tiny.pt runs in torch"
    for timing in report.timings:
        assert timing.median_low_s is not None and timing.median_high_s is not None
        assert timing.median_low_s <= timing.median_s <= timing.median_high_s
        assert timing.with_copies_s is None


def test_on_a_device_copies_and_strays_are_told(onnx_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Provider, "is_device", property(lambda self: True))
    monkeypatch.setattr(OnnxRunner, "has_own_memory", property(lambda self: True))
    monkeypatch.setattr(OnnxRunner, "elsewhere", lambda self: {"CPUExecutionProvider": 2})
    report = bench([onnx_file()], min_runs=1, min_seconds=0, max_seconds=1)
    assert (report.timings[0].with_copies_s or 0) > 0
    (fell,) = (w for w in report.warnings if w.kind is WarningKind.FELL_BACK)
    assert fell.message == "not all on the provider: 2 nodes of tiny.onnx run on CPUExecutionProvider"


def test_memory_that_cannot_be_measured_is_said(program: Program) -> None:
    report = bench([program], min_runs=1, min_seconds=0, max_seconds=1, with_memory=True)
    assert report.timings[0].peak_memory_bytes is None
    assert WarningKind.MEMORY_UNKNOWN in {warning.kind for warning in report.warnings}


def test_what_is_refused_before_anything_is_measured(program: Program, onnx_file: Write) -> None:
    never: Callable[[RoundProgress], None] = lambda progress: pytest.fail("measured")  # noqa: E731
    with pytest.raises(UsageError, match=r"--threads 0: give one or more"):
        bench([program], threads=(0,), on_round=never)
    with pytest.raises(UsageError, match=r"--batch : give one or more"):
        bench([program], batches=(), on_round=never)
    with pytest.raises(UsageError, match=r"--min-runs 0"):
        bench([program], min_runs=0, on_round=never)
    with pytest.raises(UsageError, match="no such provider"):
        bench([program], provider="warp", on_round=never)
    with pytest.raises(ProviderError, match="has no OpenVINOExecutionProvider"):
        bench([onnx_file()], provider="openvino", on_round=never)
    with pytest.raises(ProviderError, match="make it ONNX first"):
        bench([program], provider="coreml", on_round=never)
    with pytest.raises(UsageError, match="no data"):
        bench([program], with_accuracy=True, on_round=never)
    with pytest.raises(ModelError, match="no such file"):
        bench(["gone.onnx"], on_round=never)
