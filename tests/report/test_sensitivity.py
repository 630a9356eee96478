"""The table of a sensitivity scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rich.console import RenderableType

from compressor.asking import Sensitivity
from compressor.report.console import plain_text
from compressor.report.sensitivity import merged, nearest, sensitivity_table, typical_shares, value_range
from tests.report.html.values import scan

Golden = Callable[[str, RenderableType], None]

FILTERS = Sensitivity(
    "accuracy", 0.9, 100, "filter",
    {"a": ((0.25, 0.8), (0.875, 0.1)), "b": ((0.5, 0.7),), "c": ((0.25, 0.85), (0.9, 0.2))},
)  # fmt: skip


def test_sensitivity(golden: Golden) -> None:
    whole = scan()
    names = {name: curve for name, curve in whole.curves.items() if name.startswith("layer")}
    golden("sensitivity", sensitivity_table(replace(whole, curves=names)))


def test_columns_are_the_shares_that_most_layers_have() -> None:
    assert typical_shares(FILTERS) == (0.25, 0.8875)
    assert nearest(typical_shares(FILTERS), 0.5) == 0
    assert value_range(FILTERS) == (0.1, 0.9)
    text = plain_text(sensitivity_table(FILTERS))
    assert "-25 %" in text and "-89 %" in text
    assert len([line for line in text.splitlines() if line.startswith("b ")]) == 1


def test_what_was_not_reached_is_said() -> None:
    text = plain_text(sensitivity_table(replace(FILTERS, unmeasured=tuple(f"late{i}" for i in range(8)))))
    assert "not reached in time: late0, late1, late2, late3, late4, late5 and 2 more" in text
    assert "not reached" not in plain_text(sensitivity_table(FILTERS))


def test_layers_with_one_curve_are_together() -> None:
    curve = ((0.5, 0.8),)
    alike = replace(FILTERS, curves={"a": curve, "b": ((0.5, 0.7),), "c": curve})
    assert merged(alike) == [("a", "c"), ("b",)]
    assert merged(FILTERS) == [("a",), ("b",), ("c",)]
