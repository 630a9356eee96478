"""The picture of bench --plot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from compressor.report.plot import bench_svg
from compressor.timing.measured import BenchReport, Environment, Subject, Timing

SVG = "{http://www.w3.org/2000/svg}"


def timing(name: str, median_s: float, **changes: Any) -> Timing:
    subject = Subject(name, name, "onnx", 1000, 100)
    values: dict[str, Any] = {
        "subject": subject, "provider": "cpu", "threads": 1, "batch": 1, "n_runs": 50, "n_inner": 1, "n_openings": 1,
        "median_s": median_s, "mean_s": median_s, "p90_s": median_s * 1.1, "p99_s": median_s, "min_s": median_s,
        "mad_s": 0.0, "n_outliers": 0, "throughput_per_s": 1 / median_s, "peak_memory_bytes": None, "accuracy": None,
        "speedup": 1.0, "speedup_low": 1.0, "speedup_high": 1.0, "verdict": "reference",
    }  # fmt: skip
    return Timing(**{**values, **changes})


def picture(*timings: Timing) -> ElementTree.Element:
    where = Environment("Some CPU", 2, None, "2.13", "1.31", "3.11", "Linux", 0.1)
    drawn = ElementTree.fromstring(bench_svg(BenchReport(timings, (), where, 50)))
    legends = [(chart, part) for chart in drawn.iter() for part in chart if part.get("class") == "legend"]
    assert len(legends) >= len(timings) / 2, "every chart has one; its marks measure nothing"
    for chart, legend in legends:
        chart.remove(legend)
    return drawn


def dots(drawn: ElementTree.Element) -> list[list[float]]:
    """Where the medians and speed-ups lie, chart by chart."""
    charts = (part for part in drawn.iter(f"{SVG}svg") if part is not drawn)
    return [[float(dot.get("cx", 0)) for dot in chart.iter(f"{SVG}circle")] for chart in charts]


def test_latencies_and_speedups_lie_where_they_are() -> None:
    drawn = picture(timing("dense.onnx", 4e-3), timing("small.onnx", 1e-3, speedup=4.0, verdict="faster"))
    (slow, fast), (speedup,) = dots(drawn)
    assert slow - 10 == pytest.approx(4 * (fast - 10), rel=0.01), "the axis begins at 0, 10 from the left"
    assert 10 < speedup <= 360
    texts = [text.text or "" for text in drawn.iter(f"{SVG}text")]
    assert "cpu, 1 thread, batch 1" in texts and "small.onnx" in texts
    assert {"1 ms", "4 ms", "4.00x"} <= set(texts)


def test_a_tail_ends_within_the_picture() -> None:
    drawn = picture(timing("noisy.onnx", 1e-3, p90_s=1.0))
    (tail,) = (line for line in drawn.iter(f"{SVG}line") if "thin" in (line.get("class") or ""))
    assert 10 < float(tail.get("x2", 0)) <= 360
    (dot,), (arrow,) = dots(drawn)[0], [p for p in drawn.iter(f"{SVG}polyline") if "beyond" in (p.get("class") or "")]
    assert dot > 180 and arrow.get("points"), "the axis is the median's; that the tail goes on is said by an arrow"


def test_every_configuration_has_its_own_scale() -> None:
    drawn = picture(timing("a.onnx", 1e-3), timing("a.onnx", 64e-3, batch=64))
    (one,), (other,) = dots(drawn)
    assert min(one, other) > 180, "on one scale the first would lie at the very left"


def test_charts_lie_beside_and_below_each_other() -> None:
    drawn = picture(timing("a", 1e-3), timing("b", 2e-3), timing("a", 1e-3, batch=8), timing("b", 2e-3, batch=8))
    charts = [part for part in drawn.iter(f"{SVG}svg") if part is not drawn]
    corners = [(float(chart.get("x", 0)), float(chart.get("y", 0)), float(chart.get("height", 0))) for chart in charts]
    assert len({(x, y) for x, y, _ in corners}) == 4
    assert corners[2][1] >= corners[0][1] + corners[0][2]
    assert float(drawn.get("height", 0)) >= max(y + height for _, y, height in corners)


def test_names_of_strangers_stay_text() -> None:
    hostile = timing("<script>&", 1e-3)
    drawn = picture(hostile, replace(hostile, verdict="no difference"))
    assert not list(drawn.iter(f"{SVG}script"))
    assert "<script>&" in [text.text for text in drawn.iter(f"{SVG}text")]
