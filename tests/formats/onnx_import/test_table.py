"""The table of importers: one importer an operator, a row in every docstring, the documentation in step."""

from __future__ import annotations

import pytest
from onnx import defs

from compressor.errors import ModelError
from compressor.formats.onnx_import.operators import IMPORTER_MODULES
from compressor.formats.onnx_import.table import (
    IMPORTERS,
    REFUSED,
    SIZE_IMPORTERS,
    Op,
    check_supported,
    imports,
    refusal,
)


def test_a_second_importer_of_an_operator_is_an_error() -> None:
    before = IMPORTERS["Conv"]
    with pytest.raises(ValueError, match="Conv already has an importer: convolution"):
        imports("Conv")(lambda ctx, op: op.needed(0))
    assert IMPORTERS["Conv"] is before


def test_a_first_importer_is_registered_and_then_supported() -> None:
    assert refusal("", "Det") == "has no importer"
    try:
        imports("Det")(lambda ctx, op: op.needed(0))
        assert refusal("", "Det") is None
    finally:
        IMPORTERS.pop("Det", None)


def test_all_are_standard_operators_and_none_is_refused_too() -> None:
    standard = {schema.name for schema in defs.get_all_schemas_with_history() if schema.domain == ""}
    assert set(IMPORTERS) <= standard | {"Swish"}
    assert set(REFUSED) <= standard
    assert not set(IMPORTERS) & set(REFUSED)
    assert set(SIZE_IMPORTERS) <= set(IMPORTERS)


def test_every_importer_says_in_one_row_what_it_does() -> None:
    own = {module.__name__ for module in IMPORTER_MODULES}
    for function in (*IMPORTERS.values(), *SIZE_IMPORTERS.values()):
        assert function.__module__ in own
        assert (function.__doc__ or "").strip().splitlines()[0].endswith("."), function.__name__


def test_only_what_is_unsupported_is_named() -> None:
    check_supported([("", "Conv", "a"), ("ai.onnx", "Relu", "b")], "m.onnx")
    with pytest.raises(ModelError, match=r"Loop \(loops are not supported.*\) at c, d and 1 more"):
        check_supported([("", "Conv", "a"), *(("", "Loop", name) for name in "cde")], "m.onnx")


def test_an_operator_names_the_input_that_it_lacks() -> None:
    op = Op("Conv", "n", (None,), ("y",), {}, 17)
    assert op.given(0) is op.given(5) is None
    with pytest.raises(ModelError, match="lacks its input 0"):
        op.needed(0)
