"""The tables of bench --profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from rich.console import RenderableType

from compressor.report.console import group, plain_text
from compressor.report.profiles import profile_tables, row_times
from compressor.timing.measured import OperatorTime, Profile, Subject

Golden = Callable[[str, RenderableType], None]


def profile(name: str, times: Sequence[tuple[str | None, str, float]], batch: int = 1) -> Profile:
    operators = tuple(OperatorTime(layer, operator, us * 1e-6) for layer, operator, us in times)
    subject = Subject(name, name, "onnx", 1000, 100)
    return Profile(subject, "cpu", 1, batch, 100, sum(one.seconds for one in operators), operators)


DENSE = profile(
    "dense.onnx",
    [
        ("conv1", "Conv", 12.7), (None, "ReorderOutput", 6.0), ("features.block.conv2", "Conv", 46.4),
        (None, "ReorderOutput", 3.4), ("fc1", "FusedGemm", 52.0), (None, "Relu", 4.2),
    ],
)  # fmt: skip
SMALL = profile(
    "a-rather-long-name.onnx",
    [("conv1", "Conv", 6.3), ("features.block.conv2", "Conv", 11.6), (None, "Gather", 2.0), ("fc1", "FusedGemm", 4.0)],
)


def test_side_by_side(golden: Golden) -> None:
    golden("profile", group(*profile_tables([DENSE, SMALL])))


def test_one_model_alone(golden: Golden) -> None:
    golden("profile_one", group(*profile_tables([DENSE])))


def test_operators_without_weights_are_added_up() -> None:
    assert list(row_times(DENSE)) == ["conv1", "features.block.conv2", "fc1", "(ReorderOutput)", "(Relu)"]
    assert row_times(DENSE)["(ReorderOutput)"] == pytest.approx(9.4e-6)


def test_rows_of_a_deep_network_that_take_no_time_are_one() -> None:
    deep = profile("deep.onnx", [(f"layer{i}", "Conv", 100.0 if i % 2 else 1.0) for i in range(50)])
    short, full = (plain_text(group(*profile_tables([deep], every_row=every))) for every in (False, True))
    assert "21 others" in short and "layer49" in short
    assert "others" not in full and "layer48" in full
    assert all(f"layer{i} " in short for i in range(1, 50, 2))


def test_each_configuration_has_its_own_tables() -> None:
    text = plain_text(group(*profile_tables([DENSE, SMALL, profile("dense.onnx", [("fc1", "Gemm", 9.0)], batch=8)])))
    assert "cpu, 1 thread, batch 1" in text and "cpu, 1 thread, batch 8" in text
    assert plain_text(group(*profile_tables([]))) == ""
