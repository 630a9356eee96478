"""Input specifications: their text forms, examples and mappings."""

from __future__ import annotations

import pytest
import torch

from compressor.errors import ModelError, UsageError
from compressor.program import InputSpec, parse_input


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3x224x224", InputSpec("input", (None, 3, 224, 224))),
        ("1,28,28", InputSpec("input", (None, 1, 28, 28))),
        ("x=1,28,28", InputSpec("x", (None, 1, 28, 28))),
        ("mel:80x100", InputSpec("mel", (None, 80, 100))),
        ("ids:int64:128<30522", InputSpec("ids", (None, 128), "int64", 30522)),
        ("ids:128<10", InputSpec("ids", (None, 128), "int64", 10)),
        ("float16:3x4", InputSpec("input", (None, 3, 4), "float16")),
        ("mask:bool:128", InputSpec("mask", (None, 128), "bool")),
        ("3 x 4", InputSpec("input", (None, 3, 4))),
    ],
)
def test_texts(text: str, expected: InputSpec) -> None:
    assert parse_input(text) == expected


def test_names_by_position() -> None:
    assert [parse_input("3x4", i).name for i in range(3)] == ["input", "input_1", "input_2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a shape"),
        ("axb", "not a shape"),
        ("3x-4", "not a shape"),
        ("3x0x4", "a dimension of size 0"),
        ("x:complex64:3x4", "unknown type complex64"),
    ],
)
def test_texts_that_are_no_shape(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_input(text)


def test_examples_follow_their_seed_and_bound() -> None:
    spec = InputSpec("x", (None, 5))
    assert torch.equal(spec.example(3, 1), spec.example(3, 1))
    assert not torch.equal(spec.example(3, 1), spec.example(3, 2))
    ids = InputSpec("ids", (None, 200), "int64", 7).example(3)
    assert ids.dtype == torch.int64 and int(ids.min()) >= 0 and int(ids.max()) == 6
    assert InputSpec("m", (None, 9), "bool").example(2).dtype == torch.bool


def test_mappings_go_both_ways() -> None:
    for spec in (InputSpec("x", (None, 3)), InputSpec("ids", (1, 4), "int64", 9)):
        assert InputSpec.from_mapping(spec.to_mapping()) == spec
    with pytest.raises(ModelError, match="an input specification cannot be read: shape: Field required"):
        InputSpec.from_mapping({"name": "x"})
    with pytest.raises(ModelError, match="element type complex64 is not supported"):
        InputSpec("x", (None, 3), "complex64")
