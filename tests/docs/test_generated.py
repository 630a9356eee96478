"""Pages against the code that parts of them are made from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from compressor.axes.table import RULES
from compressor.formats.onnx_import.table import IMPORTERS
from docs.generated import MAKERS, Part, by_function, parts, table

PARTS = {part.page: part for part in parts()}


@pytest.fixture
def tables_stay() -> Iterator[None]:
    rules, importers = dict(RULES), dict(IMPORTERS)
    yield
    for entries, before in ((RULES, rules), (IMPORTERS, importers)):
        entries.clear()
        entries.update(before)


@pytest.mark.parametrize("page", PARTS)
def test_a_page_says_what_the_code_says(page: str) -> None:
    text = PARTS[page].read()
    assert PARTS[page].updated(text) == text, "run: python -m docs.generated"


@pytest.mark.parametrize("page", PARTS)
def test_twin_a_row_that_is_gone_is_found(page: str) -> None:
    text = PARTS[page].read()
    row = PARTS[page].make().splitlines()[-1]
    assert row in text and PARTS[page].updated(text.replace(row, "")) == text != text.replace(row, "")


def test_twin_a_new_entry_would_change_its_page(tables_stay: None) -> None:
    before = {page: part.make() for page, part in PARTS.items()}
    RULES[torch.ops.aten.fft_rfft2.default] = RULES[torch.ops.aten.linear.default]
    IMPORTERS["Det"] = IMPORTERS["Conv"]
    assert PARTS["axes.md"].make() != before["axes.md"] and PARTS["onnx.md"].make() != before["onnx.md"]
    assert PARTS["json.md"].make() == before["json.md"]


def test_a_page_without_the_markers_is_an_error() -> None:
    part = Part("axes.md", "nothing", lambda: "")
    with pytest.raises(ValueError, match=r"axes\.md has no part nothing: it lacks <!-- nothing: begin -->"):
        part.updated("text")
    with pytest.raises(ValueError, match="it lacks <!-- nothing: end -->"):
        part.updated("text <!-- nothing: begin --> more")


def test_every_maker_of_the_folder_is_known() -> None:
    from docs.generated import HERE

    assert {path.stem for path in HERE.glob("make_*.py")} == set(MAKERS)


def test_tables_and_functions() -> None:
    assert table(("a", "b"), [("1|2", "3")]) == "| a | b |\n|---|---|\n| 1\\|2 | 3 |"
    import docs.generated as module

    found = by_function({"x": table, "y": parts, "z": table, "other": len}, [module])
    assert found == {table: ["x", "z"], parts: ["y"]}
