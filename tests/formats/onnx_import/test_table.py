"""The table of importers: one importer an operator, a row in every docstring, the documentation in step."""

from __future__ import annotations

import pytest
from onnx import defs

from compressor.errors import ModelError
from compressor.formats.onnx_import.attributes import READ, WITHOUT_EFFECT, check_attributes
from compressor.formats.onnx_import.importers import IMPORTER_MODULES
from compressor.formats.onnx_import.read import OLDEST
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
    with pytest.raises(ModelError, match=r"Scaler \(of the domain ai\.onnx\.ml, trees and scalers.*\n.*extract_model"):
        check_supported([("ai.onnx.ml", "Scaler", "a")], "m.onnx")


def test_an_operator_names_the_input_that_it_lacks() -> None:
    op = Op("Conv", "n", (None,), ("y",), {}, 17)
    assert op.given(0) is op.given(5) is None
    with pytest.raises(ModelError, match="lacks its input 0"):
        op.needed(0)


def _attributes(kind: str, opset: int) -> set[str]:
    """Those of the operator in that opset; none where it is not in it."""
    try:
        return set(defs.get_schema(kind, opset).attributes)
    except defs.SchemaError:
        return set()


STANDARD = {
    (kind, opset): _attributes(kind, opset)
    for kind in IMPORTERS
    for opset in range(OLDEST, defs.onnx_opset_version() + 1)
}
"""Attributes that ONNX itself gives every imported operator, in every opset that can be read."""

REFUSED_ATTRIBUTES = {"Constant": {"sparse_value", "value_string", "value_strings"}}


def test_all_attributes_of_the_standard_are_read_without_effect_or_refused() -> None:
    """What a newer onnx adds stands here as missing, and is refused by name until an importer knows it."""
    missing = {
        (kind, name)
        for (kind, _), names in STANDARD.items()
        for name in names - READ.get(kind, set()) - WITHOUT_EFFECT.get(kind, {}).keys()
        if name not in REFUSED_ATTRIBUTES.get(kind, set())
    }
    assert missing == set()


def test_no_attribute_is_read_that_the_standard_does_not_have() -> None:
    for kind, names in READ.items():
        known = set[str]().union(*(found for (other, _), found in STANDARD.items() if other == kind))
        assert names <= known, kind


@pytest.mark.parametrize(
    ("kind", "attributes", "named"),
    [
        ("SpaceToDepth", {"blocksize": 2, "order": "CRD"}, "order"),
        ("Conv", {"group": 2, "padding_mode": "circular"}, "padding_mode"),
        ("Relu", {"alpha": 0.1}, "alpha"),
        ("Constant", {"value_string": "a"}, "value_string"),
    ],
)
def test_an_attribute_that_no_importer_knows_is_refused_by_name(kind: str, attributes: dict, named: str) -> None:
    with pytest.raises(ModelError, match=f"its attribute {named} is not known"):
        check_attributes(kind, attributes, 17)


def test_an_unknown_attribute_that_says_what_holds_without_it_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READ, "Softmax", frozenset())
    check_attributes("Softmax", {"axis": -1}, 13)
    with pytest.raises(ModelError, match="its attribute axis is not known"):
        check_attributes("Softmax", {"axis": 1}, 13)
