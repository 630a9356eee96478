"""The line about latency: measured with its interval, or an estimate that says it is one."""

from __future__ import annotations

from compressor.report.latency import latency_line, speedup
from compressor.timing import CutLatency

MEASURED = CutLatency(1.83, 1.75, 1.9, "faster", 4.531e-3, 2.479e-3)


def test_what_was_measured_is_told_with_its_interval_and_how() -> None:
    line = latency_line(MEASURED)
    assert line is not None
    assert line.startswith("latency 4.53 ms -> 2.48 ms: 1.83x (95 %: 1.75x to 1.90x), onnxruntime, 1 thread, batch 1;")


def test_an_estimate_says_that_it_is_one_and_why() -> None:
    line = latency_line(CutLatency(3.1, estimated="one inference takes too long"))
    assert line == "latency: about 3.10x by the widths alone; not measured, one inference takes too long"
    assert speedup(CutLatency(3.1, estimated="so")) == "3.10x"


def test_without_a_measurement_there_is_no_line() -> None:
    assert latency_line(None) is None
