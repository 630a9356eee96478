"""Entries of configurations that are widths, found from the shapes of networks that are built without data."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from compressor.models.widths import candidates, find_widths, name_of


def of_layers(entries: Any) -> dict[str, tuple[int, ...]] | None:
    """Two layers and a head; heads divide the hidden size, the inner width is four times it unless it is said."""
    wide, heads, inner = entries["hidden"], entries["num_heads"], entries["inner_dim"] or 4 * entries["hidden"]
    if wide % heads:
        return None
    shapes: dict[str, tuple[int, ...]] = {"words": (entries["vocab_size"], wide), "head": (entries["num_labels"], wide)}
    for i in range(entries["num_layers"]):
        shapes |= {f"{i}.qkv": (3 * wide, wide), f"{i}.up": (2 * inner, wide), f"{i}.down": (wide, inner)}
    return shapes | {"stem": (entries["stages"][0], 3), "later": (entries["stages"][1], entries["stages"][0])}


ENTRIES = {
    "hidden": 32, "num_heads": 4, "inner_dim": None, "num_layers": 2, "vocab_size": 50, "num_labels": 3,
    "stages": [8, 16], "dropout": 0.1, "act": "relu",
}  # fmt: skip


def test_entries_by_what_they_are_widths_of() -> None:
    found = find_widths(ENTRIES, of_layers)
    assert {name_of(key) for key in found.axes} == {"hidden", "inner_dim", "stages[0]", "stages[1]"}
    assert found.entries["inner_dim"] == 128
    assert found.axes["inner_dim",] == {("0.up", 0), ("0.down", 1), ("1.up", 0), ("1.down", 1)}
    assert ("0.qkv", 0) in found.axes["hidden",] and ("0.up", 0) not in found.axes["hidden",]
    assert found.axes["stages", 0] == {("stem", 0), ("later", 1)}
    assert found.heads == (("num_heads",),)


def test_factors_are_read_off_shapes_and_give_configurations() -> None:
    found = find_widths(ENTRIES, of_layers)
    shapes = of_layers({**ENTRIES, "hidden": 24, "inner_dim": 100, "num_heads": 3})
    assert shapes is not None
    factors = found.factors_of(shapes)
    assert factors["hidden",] == Fraction(3, 4) and factors["inner_dim",] == Fraction(100, 128)
    heads = [entries["num_heads"] for entries in candidates(found, factors)]
    assert heads == [4, 3]  # 24 wide by both; which one answers as the program does decides
    as_wide = {("hidden",): Fraction(3, 4), ("inner_dim",): Fraction(1)}
    assert [entries["num_heads"] for entries in candidates(found, as_wide)] == [4, 3], "each once"


@pytest.mark.parametrize(
    ("factors", "is_one"),
    [
        ({("hidden",): Fraction(1, 2)}, True),
        ({("hidden",): Fraction(31, 32)}, False),  # no multiple of the heads
        ({("inner_dim",): Fraction(1, 3)}, False),  # no whole number
        ({("hidden",): Fraction(3, 4), ("num_heads",): Fraction(3, 4)}, True),
    ],
)
def test_what_a_configuration_can_say(factors: dict[Any, Fraction], is_one: bool) -> None:
    assert (find_widths(ENTRIES, of_layers).expected(factors) is not None) == is_one


def test_whole_numbers_stay_whole_and_others_may_become_fractions() -> None:
    found = find_widths({**ENTRIES, "ratio": 3.0, "few": 3}, of_layers)
    half = {(name,): Fraction(1, 2) for name in ("hidden", "ratio", "few")}
    entries = found.scaled(half)
    assert entries is not None
    assert (repr(entries["hidden"]), entries["ratio"], entries["few"]) == ("16", 1.5, 1.5)
    assert found.scaled({("hidden",): Fraction(1, 3)}) is None
    small = find_widths({**ENTRIES, "few": 14}, of_layers).scaled({("few",): Fraction(1, 3)})
    assert small is not None and small["few"] == pytest.approx(14 / 3)


def test_heads_of_each_stage_are_heads_too() -> None:
    def of_stages(entries: Any) -> dict[str, tuple[int, ...]] | None:
        wide, heads = entries["sizes"], entries["num_heads"]
        return None if any(a % b for a, b in zip(wide, heads, strict=True)) else {"a": (wide[0], 3), "b": (wide[1], 3)}

    found = find_widths({"sizes": [8, 16], "num_heads": [2, 4]}, of_stages)
    assert found.heads == (("num_heads", 0), ("num_heads", 1)) and set(found.axes) == {("sizes", 0), ("sizes", 1)}


def test_twin_an_entry_that_is_no_width_alone_is_not_found() -> None:
    def odd(entries: Any) -> dict[str, tuple[int, ...]]:
        return {"a": (entries["hidden"] + 5, 2)}

    assert find_widths({"hidden": 32}, odd).axes == {}
