"""Operator families: every overload in one of them, and no list of overloads beside them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.program import families as f
from compressor.program.family import Known, OperatorTable

aten = torch.ops.aten
SOURCE = Path(__file__).parents[2] / "compressor"

WRITES_ATEN = ("program/families.py", "formats/onnx_import/")
"""Where lists of overloads stand: the families, and what an ONNX operator becomes (calls that are written)."""


def parents(tree: ast.AST) -> Mapping[ast.AST, ast.AST]:
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def overloads_in(tree: ast.AST) -> Iterator[tuple[ast.Attribute, str]]:
    """Every `aten.NAME.OVERLOAD` of a module, however aten is reached."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            home = node.value.value
            if (home.attr if isinstance(home, ast.Attribute) else getattr(home, "id", "")) == "aten":
                yield node, f"aten.{node.value.attr}.{node.attr}"


def lists(text: str) -> list[str]:
    """Overloads that a module lists or recognises: in a table, a decorator, a comparison or a literal.

    One that is written (an argument of a call inside a function, a new target) is no list.
    """
    tree = ast.parse(text)
    parent_of = parents(tree)
    return [name for node, name in overloads_in(tree) if _is_listed(node, parent_of)]


def _is_listed(node: ast.AST, parent_of: Mapping[ast.AST, ast.AST]) -> bool:
    is_argument = False
    while node in parent_of:
        above = parent_of[node]
        is_argument |= isinstance(above, ast.Call)
        if isinstance(above, (ast.Compare, ast.Tuple, ast.List, ast.Set, ast.Dict)) and not is_argument:
            return True
        if isinstance(above, (ast.FunctionDef, ast.Lambda)):
            return isinstance(above, ast.FunctionDef) and node in above.decorator_list
        node = above
    return True


def test_overloads_are_listed_in_the_families_only() -> None:
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).as_posix()
        if not place.startswith(WRITES_ATEN) and (listed := lists(path.read_text(encoding="utf-8"))):
            found[place] = listed
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "MINE = (aten.relu.default, aten.tanh.default)",
        "ONE = torch.ops.aten.relu.default",
        "@rule(aten.relu.default)\ndef f(node): ...",
        "def f(node):\n    return node.target is aten.relu.default",
        "def f(node):\n    return node.target in (aten.relu.default, aten.tanh.default)",
        "def f(node):\n    return {aten.relu.default: 1}.get(node.target)",
    ],
)
def test_twin_a_list_beside_the_families_is_found(text: str) -> None:
    assert lists(text)[0] == "aten.relu.default"


@pytest.mark.parametrize(
    "text",
    [
        "def f(graph, x):\n    return graph.call_function(aten.relu.default, (x,))",
        "def f(node):\n    node.target = aten.reshape.default",
        "def f(make, x):\n    return [make(aten.slice.Tensor, x, 0)]",
        "def f(name):\n    return getattr(torch.ops.aten, name)",
    ],
)
def test_an_overload_that_is_written_is_no_list(text: str) -> None:
    assert lists(text) == []


def test_every_overload_is_real_and_in_one_family() -> None:
    listed = [overload for family in f.FAMILIES for overload in family]
    assert all(isinstance(overload, torch._ops.OpOverload) for overload in listed)
    assert len(set(listed)) == len(listed)
    assert len({family.name for family in f.FAMILIES}) == len(f.FAMILIES)
    assert all(f.family_of(overload) in f.FAMILIES for overload in listed)


def test_twin_an_overload_in_two_families_is_an_error() -> None:
    known = Known()
    known.add("one", aten.relu.default)
    with pytest.raises(ValueError, match=r"aten\.relu\.default is in two families: one and two"):
        known.add("two", aten.tanh.default, aten.relu.default)


def test_membership_of_families_and_groups() -> None:
    assert aten.conv2d.padding in f.CONV2D and aten.conv2d.padding in f.WITH_FILTERS
    assert aten.conv1d.default not in f.CONV2D and "conv1d.weight" not in f.WITH_FILTERS
    both = f.CONV1D | f.CONVOLUTIONS | f.LINEAR
    assert [family.name for family in both.families] == ["conv1d", "conv2d", "conv3d", "linear"]
    assert list(f.CONV1D | f.LINEAR) == [aten.conv1d.default, aten.conv1d.padding, aten.linear.default]


def test_what_torch_tags_as_pointwise_has_a_family_without_an_entry() -> None:
    assert f.family_of(aten.mish.default) is f.TAGGED and f.works_by_element(aten.mish.default)
    assert f.family_of(aten.relu_.default) is None, "it writes into its operand"
    assert f.family_of(aten.fft_rfft2.default) is None and f.family_of("x") is None
    assert aten.prelu.default in f.UNTAGGED and f.works_by_element(aten.prelu.default)
    assert aten.relu.default not in f.UNTAGGED


def test_the_arguments_that_a_family_names_are_in_every_schema_of_it() -> None:
    for family in f.FAMILIES:
        named = {*family.operands, *((family.mode,) if family.mode else ())}
        named |= {"weight"} if family.filter_dim is not None else set()
        for overload in family:
            assert named <= {argument.name for argument in overload._schema.arguments}, overload


def test_what_has_a_training_mode_names_it() -> None:
    """A `train` that no family names would stay as the capture left it."""
    assert {family.name for family in f.FAMILIES if family.mode} == {
        "batch_norm", "rrelu", "dropout", "alpha_dropout", "recurrent",
    }  # fmt: skip
    unnamed = {
        family.name
        for family in f.FAMILIES
        for overload in family
        if not family.mode and {"train", "training"} & {argument.name for argument in overload._schema.arguments}
    }
    assert unnamed == set()


@pytest.mark.parametrize(
    ("overload", "rank"),
    [
        (aten.max_pool1d.default, 1), (aten.conv3d.padding, 3), (aten.upsample_bilinear2d.vec, 2),
        (aten.relu.default, 2),
    ],
)  # fmt: skip
def test_the_dimensions_that_a_window_slides_along(overload: Any, rank: int) -> None:
    assert f.spatial_rank(overload) == rank


def test_names_of_operators() -> None:
    assert f.operator_name(aten.max_pool2d.default) == "max_pool2d"
    assert f.operator_name(len) == "" and f.operator_name("conv.weight") == ""


def test_a_table_has_one_entry_per_overload() -> None:
    table: OperatorTable[Any] = OperatorTable("a number")

    @table.register(f.CONV1D, aten.relu.default)
    def one() -> int:
        return 1

    assert set(table) == {aten.conv1d.default, aten.conv1d.padding, aten.relu.default}
    with pytest.raises(ValueError, match=r"aten\.conv1d\.padding already has a number: one"):
        table.register(aten.tanh.default, aten.conv1d.padding)(one)
