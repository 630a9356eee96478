"""Gates: parsed with their units, checked against the right models."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compressor.asking.gates import METRICS, parse_gate
from compressor.errors import GateError, UsageError
from compressor.timing import BenchReport, Environment, Timing, require

Make = Callable[..., Timing]


@pytest.mark.parametrize(
    ("text", "metric", "comparison", "limit"),
    [
        ("speedup>=3", "speedup", ">=", 3.0),
        ("speedup >= 3x", "speedup", ">=", 3.0),
        ("latency<=2ms", "latency", "<=", 0.002),
        ("latency<250us", "latency", "<", 250e-6),
        ("latency<250µs", "latency", "<", 250e-6),
        ("p99<=1e-1s", "p99", "<=", 0.1),
        ("accuracy>=0.98", "accuracy", ">=", 0.98),
        ("accuracy>98%", "accuracy", ">", 0.98),
        ("size<=1MiB", "size", "<=", 2**20),
        ("size<=1.5MB", "size", "<=", 1.5e6),
        ("memory<=64mib", "memory", "<=", 2**26),
        ("ratio>=10", "ratio", ">=", 10.0),
        ("throughput>=500/s", "throughput", ">=", 500.0),
        (" Speedup>=.5 ", "speedup", ">=", 0.5),
    ],
)
def test_requirements_that_are_understood(text: str, metric: str, comparison: str, limit: float) -> None:
    gate = parse_gate(text, METRICS["bench"])
    assert (gate.metric, gate.comparison) == (metric, comparison)
    assert gate.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speedup", "not a requirement; write it as"),
        ("", "not a requirement"),
        ("speedup=3", "not a requirement"),
        ("speedup>=fast", "not a requirement"),
        ("speedup>=-3", "not a requirement"),
        ("speedup>=1.2.3", "not a requirement"),
        ("speedpu>=3", "did you mean speedup"),
        ("latncy<=2ms", "did you mean latency"),
        ("colour>=3", "use one of speedup, ratio"),
        ("latency<=2", "a unit is missing; latency takes: s, ms"),
        ("latency<=2MiB", "unknown unit MiB"),
        ("size<=1", "a unit is missing"),
    ],
)
def test_requirements_that_are_not(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_gate(text, METRICS["bench"])
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def report(timing: Make, environment: Environment) -> BenchReport:
    """A reference and a model that is 3 times faster, 10 times smaller and a little worse."""
    dense = timing("dense.onnx", median_s=3e-3, accuracy=0.99, n_params=1000, size_bytes=2**22)
    small = timing(
        "small.onnx",
        median_s=1e-3,
        p99_s=4e-3,
        accuracy=0.975,
        n_params=100,
        size_bytes=2**19,
        speedup=3.0,
        verdict="faster",
        throughput_per_s=1000.0,
    )
    return BenchReport((dense, small), (), environment, 100)


def test_gates_that_pass_say_what_was_measured(report: BenchReport) -> None:
    results = require(
        report, ["speedup>=3", "latency<=2ms", "accuracy>=0.97", "size<=1MiB", "ratio>=10", "throughput>900"]
    )
    assert all(result.passed for result in results)
    assert [result.value for result in results] == [3.0, 1e-3, 0.975, 2.0**19, 10.0, 1000.0]
    assert {result.timing.subject.name for result in results} == {"small.onnx"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("speedup>3", "3.00x"),
        ("latency<=900us", "1 ms"),
        ("p99<=2ms", "4 ms"),
        ("accuracy>=0.98", "0.9750"),
        ("size<=500KiB", "512 KiB"),
        ("ratio>=10.1", "10.0x"),
        ("throughput>=2000", "1000/s"),
    ],
)
def test_gates_that_fail_name_the_model_and_the_value(report: BenchReport, text: str, shown: str) -> None:
    with pytest.raises(GateError, match=rf"1 of 1 requirements failed: .*small\.onnx has {shown}"):
        require(report, [text])


def test_one_message_for_all_failures(report: BenchReport) -> None:
    with pytest.raises(GateError, match=r"2 of 3 requirements failed: speedup>=4.*; ratio>=20") as caught:
        require(report, ["speedup>=4", "latency<=2ms", "ratio>=20"])
    assert caught.value.exit_code == 3


def test_a_single_model_is_gated_itself(timing: Make, environment: Environment) -> None:
    report = BenchReport((timing(median_s=3e-3),), (), environment, 100)
    with pytest.raises(GateError, match=r"m\.onnx has 3 ms"):
        require(report, ["latency<=2ms"])
    with pytest.raises(UsageError, match="give two models"):
        require(report, ["speedup>=1"])


def test_every_configuration_is_gated_against_its_own_reference(timing: Make, environment: Environment) -> None:
    rows = []
    for batch, speedup in ((1, 4.0), (16, 2.0)):
        rows += [timing("dense", batch=batch), timing("small", batch=batch, speedup=speedup)]
    report = BenchReport(tuple(rows), (), environment, 200)
    with pytest.raises(GateError, match=r"1 of 2 .* small \(threads 1, batch 16\) has 2.00x"):
        require(report, ["speedup>=3"])


def test_what_was_not_measured_cannot_be_gated(timing: Make, environment: Environment) -> None:
    report = BenchReport((timing(),), (), environment, 100)
    with pytest.raises(UsageError, match=r"accuracy of m\.onnx was not measured"):
        require(report, ["accuracy>=0.9"])


def test_no_requirements_no_results(report: BenchReport) -> None:
    assert require(report, []) == ()
