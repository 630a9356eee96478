"""Each warning, and that it stays away when nothing is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from compressor.asking.bench import Plan
from compressor.timing import Environment, Timing, WarningKind
from compressor.timing.cautions import Reasons, cautions

Make = Callable[..., Timing]


def test_a_clean_run_has_none(timing: Make, environment: Environment) -> None:
    assert cautions([timing("a"), timing("b")], environment, Plan(), Reasons()) == ()


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (WarningKind.FEW_RUNS, {"n_runs": 12}, "only 12 runs"),
        (WarningKind.NOISY, {"mad_s": 2e-4}, "bad: half of the runs are more than 20% off"),
        (WarningKind.OUTLIERS, {"n_outliers": 20}, "bad: up to 20 of 100 runs"),
        (WarningKind.OVERSUBSCRIBED, {"threads": 8}, r"8 threads on 2 core\(s\)"),
        (WarningKind.TORCH_VS_ORT, {"kind": "torch"}, "different runtimes"),
        (WarningKind.FAST, {"median_s": 1e-5, "mad_s": 0.0}, "bad: one inference takes 10 µs"),
    ],
)
def test_each_fault_of_a_timing_has_its_warning(
    timing: Make, environment: Environment, kind: WarningKind, changes: dict[str, Any], message: str
) -> None:
    (found,) = cautions([timing("good"), timing("bad", **changes)], environment, Plan(), Reasons())
    assert found.kind is kind and found.hint == kind.value
    assert re.search(message, found.message)


def test_a_loaded_machine(timing: Make, environment: Environment) -> None:
    (found,) = cautions([timing()], replace(environment, load=1.5), Plan(), Reasons())
    assert found.kind is WarningKind.LOADED and "1.5 on 2" in found.message
    assert cautions([timing()], replace(environment, load=None), Plan(), Reasons()) == ()


def test_fewer_runs_than_asked_for(timing: Make, environment: Environment) -> None:
    (found,) = cautions([timing(n_runs=100)], environment, Plan(min_runs=200), Reasons())
    assert found.kind is WarningKind.FEW_RUNS


def test_unknown_memory_gives_each_reason_once(timing: Make, environment: Environment) -> None:
    (found,) = cautions([timing()], environment, Plan(), Reasons(memory=["no file", "no file", "not Linux"]))
    assert found.kind is WarningKind.MEMORY_UNKNOWN
    assert found.message == "peak memory unknown: no file; not Linux"


def test_what_could_not_be_done_as_asked_is_said(timing: Make, environment: Environment) -> None:
    reasons = Reasons(profile=["a.pt runs in torch"], fell_back=["3 nodes of m.onnx run on CPUExecutionProvider"])
    fell, unknown = cautions([timing()], environment, Plan(), reasons)
    assert (fell.kind, unknown.kind) == (WarningKind.FELL_BACK, WarningKind.PROFILE_UNKNOWN)
    assert fell.message == "not all on the provider: 3 nodes of m.onnx run on CPUExecutionProvider"
    assert unknown.message == "no profile: a.pt runs in torch"


def test_every_hint_says_something() -> None:
    assert all(len(kind.hint) > 20 for kind in WarningKind)
    assert len({kind.hint for kind in WarningKind}) == len(WarningKind)
