"""The lines about layers with columns of zeros."""

from __future__ import annotations

from compressor.compaction.lowering_result import LoweredLayer
from compressor.report.console import plain_text
from compressor.report.lowering import lowering_lines


def text(*layers: LoweredLayer, limit: int | None = None) -> str:
    shown = lowering_lines(layers, limit)
    return "" if shown is None else plain_text(shown)


MEASURED = LoweredLayer(
    "conv3", "columns", 318, 1260, (168, 140, 3, 3), (168, 318, 1, 1), {"dense": 486e-6, "columns": 186.4e-6}
)
REFUSED = LoweredLayer("conv9", "dense", 5, 9, (4, 1, 3, 3), (4, 1, 3, 3), {}, "its weight is shared")
ASKED = LoweredLayer("fc", "gather", 40, 2048, (10, 2048), (10, 40))


def test_what_was_measured_comes_fastest_first() -> None:
    assert text(MEASURED) == (
        "conv3: 318 of 1,260 columns used, becomes columns 168×318×1×1 (µs: columns 186 · dense 486)\n"
    )


def test_a_refusal_and_a_choice_say_why() -> None:
    assert text(REFUSED, ASKED).splitlines() == [
        "conv9: 5 of 9 columns used, stays dense (its weight is shared)",
        "fc: 40 of 2,048 columns used, becomes gather 10×40 (asked for, not measured)",
    ]


def test_zeros_that_stay_because_dense_is_faster_are_summed_up() -> None:
    slower = LoweredLayer("conv1", "dense", 30, 40, (8, 10, 2, 2), (8, 10, 2, 2), {"dense": 1e-6, "columns": 2e-6})
    assert text(slower, MEASURED, REFUSED).splitlines()[-1] == (
        "1 layer kept 80 zeros because dense is faster; --lowering columns leaves them out"
    )


def test_no_layer_no_lines_and_many_are_counted() -> None:
    assert text() == ""
    assert text(MEASURED, ASKED, REFUSED, limit=1).splitlines()[1] == (
        "… and 2 more layers with columns of zeros; -v shows all"
    )
