"""The table of operators: every gap has a reason, and no reason has outlived its gap."""

from __future__ import annotations

import pytest
import torch

from compressor.axes.table import RULES
from compressor.compaction.slicing import REWRITES
from compressor.program import families as f
from docs import make_operators_table as maker

aten = torch.ops.aten


@pytest.mark.parametrize("family", f.FAMILIES, ids=lambda family: family.name)
def test_an_empty_cell_has_one_reason_and_a_full_one_none(family: f.Family) -> None:
    known, missing = maker.cells(family), maker.reasons(family)
    assert {column: len(missing.get(column, ())) for column in maker.COLUMNS if not known[column]} == {
        column: 1 for column in maker.COLUMNS if not known[column]
    }
    assert [column for column in maker.COLUMNS if known[column] and column in missing] == []


@pytest.mark.parametrize("column", [column for column in maker.COLUMNS if column != "From ONNX"])
def test_a_table_treats_the_overloads_of_a_family_alike(column: str) -> None:
    """Else the family is two."""
    mixed = {family.name: cell for family in f.FAMILIES if ", " in (cell := maker.cells(family)[column])}
    assert mixed == {}


def test_twin_a_rewrite_that_is_missing_is_an_empty_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(REWRITES, aten.select.int)
    assert maker.cells(f.SELECT)["Rewrite"] == "" and "Rewrite" not in maker.reasons(f.SELECT)


def test_twin_an_overload_with_a_rule_of_its_own_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, aten.concat.default, RULES[aten.linear.default])
    assert maker.cells(f.CAT)["Axis rule"] == "`concatenate`, `linear`"


def test_what_an_importer_writes_is_found_through_its_helpers_and_tables() -> None:
    written = maker._written()
    assert aten.conv2d.default in written["Conv"] and aten.conv_transpose1d.default in written["ConvTranspose"]
    assert aten.erf.default in written["Erf"] and aten.cos.default not in written["Erf"]
    assert "`Relu`" in maker.cells(f.RELU)["From ONNX"]
