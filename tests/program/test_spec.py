"""Input specifications: their text forms, examples and mappings."""

from __future__ import annotations

import pytest
import torch

from compressor.errors import ModelError, UsageError
from compressor.program import InputSpec, all_lengths, parse_input


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
        ("ids:int64:seq<50", InputSpec("ids", (None, 128), "int64", 50, ("", "seq"))),
        ("ids=seq@16<50", InputSpec("ids", (None, 16), "int64", 50, ("", "seq"))),
        ("3xheightxwidth", InputSpec("input", (None, 3, 224, 224), free=("", "", "height", "width"))),
        ("3xside@64xside@64", InputSpec("input", (None, 3, 64, 64), free=("", "", "side", "side"))),
        ("t:float32:()", InputSpec("t", (None,))),
        ("t=int64:()<1000", InputSpec("t", (None,), "int64", 1000)),
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
        ("3xbox", "not a shape"),
        ("seq@", "not a shape"),
        ("seq@0", "a dimension of size 0"),
        ("()x3", "not a shape"),
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
    for spec in (
        InputSpec("x", (None, 3)), InputSpec("ids", (1, 4), "int64", 9), InputSpec("x", (None, 3), free=("", "n")),
    ):  # fmt: skip
        assert InputSpec.from_mapping(spec.to_mapping()) == spec
    with pytest.raises(ModelError, match="an input specification cannot be read: shape: Field required"):
        InputSpec.from_mapping({"name": "x"})
    with pytest.raises(ModelError, match="element type complex64 is not supported"):
        InputSpec("x", (None, 3), "complex64")


def test_free_dimensions_take_any_size_and_are_one_size_by_name() -> None:
    ids, mask = parse_input("ids:int64:seq@6<50"), parse_input("mask:int64:seq@6<2")
    assert ids.concrete(3) == (3, 6) and ids.concrete(3, {"seq": 9, "other": 1}) == (3, 9)
    assert ids.example(2, lengths={"seq": 4}).shape == (2, 4)
    assert ids.accepts((99,)) and not ids.accepts((9, 9)) and not parse_input("3xseq").accepts((4, 9))
    assert all_lengths([ids, mask]) == {"seq": 6}
    assert ids.fixed(["seq"]) == parse_input("ids:int64:6<50")
    with pytest.raises(UsageError, match="mask: seq is 7 here and 6 in an input before"):
        all_lengths([ids, parse_input("mask:int64:seq@7<2")])


def test_a_mask_of_padding_has_its_zeros_behind() -> None:
    mask = parse_input("attention_mask:int64:40<2").example(16)
    assert bool((mask[:, :20] == 1).all()) and int((mask == 0).sum()) > 0
    assert bool((mask.diff(dim=1) <= 0).all())
    assert not bool((parse_input("kind:int64:40<2").example(16).diff(dim=1) <= 0).all())


@pytest.mark.parametrize("free", [("seq",), ("seq", ""), ("", "a b"), ("", "../x"), ("", "x" * 99)])
def test_names_of_a_damaged_file_are_refused(free: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="do not fit its shape"):
        InputSpec("x", (None, 3), free=free)
