"""The walk: operators without a rule, inputs and outputs, and that it guesses nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressor.axes import Value, find_units, walk
from compressor.program import InputSpec
from tests.axes.tracing import trace


def test_an_operator_without_a_rule_pins_what_reaches_it_and_is_counted() -> None:
    traced = trace(
        lambda net, x: net.out(torch.linalg.matrix_exp(net.inner(net.first(x)))),
        (3, 4),
        first=nn.Linear(4, 6),
        inner=nn.Linear(6, 3),
        out=nn.Linear(3, 2),
    )
    assert dict(traced.units.walk.unknown) == {"aten.linalg_matrix_exp.default": 1}
    assert traced.reason("inner.weight") == "no axis rule for aten.linalg_matrix_exp.default"
    assert traced.along("inner.weight", 0) == [-1] * 3
    assert traced.along("first.weight", 0) == list(range(6))


def test_what_an_unknown_operator_makes_pins_its_reader() -> None:
    traced = trace(
        lambda net, x: net.out(torch.linalg.matrix_exp(net.first(x))),
        (3, 4),
        first=nn.Linear(4, 3),
        out=nn.Linear(3, 2),
    )
    assert traced.along("out.weight", 1) == [-1] * 3
    assert traced.units.n_units == 0


def test_an_unknown_operator_on_values_without_labels_is_no_news() -> None:
    traced = trace(
        lambda net, x: net.out(net.hidden(torch.linalg.matrix_exp(x))),
        specs=(InputSpec("x", (None, 1, 1)),),
        hidden=nn.Linear(1, 4),
        out=nn.Linear(4, 2),
    )
    assert traced.units.n_units == 4
    assert not traced.units.walk.unknown


def test_integer_inputs_carry_no_labels() -> None:
    traced = trace(
        lambda net, ids: net.out(net.table(ids)),
        specs=(InputSpec("ids", (None, 7), "int64", 10),),
        table=nn.Embedding(10, 6),
        out=nn.Linear(6, 3),
    )
    assert traced.along("table.weight", 1) == traced.along("out.weight", 1) == list(range(6))
    assert traced.reason("table.weight", 0) == "rows are chosen by the input's integers"


def test_every_output_of_a_structure_is_pinned() -> None:
    traced = trace(
        lambda net, x: {"a": net.a(x), "rest": (net.b(x), net.c(x).relu())},
        (3,), a=nn.Linear(3, 4), b=nn.Linear(3, 4), c=nn.Linear(3, 4),
    )  # fmt: skip
    assert traced.units.n_units == 0
    assert {traced.reason(f"{name}.weight") for name in "abc"} == {"output of the network"}


def test_every_node_has_a_value_with_the_sizes_of_the_shapes() -> None:
    traced = trace(
        lambda net, x: net.out(net.first(x).chunk(2, 1)[0].flatten(1)),
        (3, 4, 4),
        first=nn.Conv2d(3, 4, 1),
        out=nn.Linear(32, 2),
    )
    walked = walk(traced.program)
    for name, shape in traced.program.shapes.items():
        value = walked.values[name]
        if isinstance(value, Value):
            assert value.sizes == shape.sizes, name


def test_a_walk_changes_nothing() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.fc(x))

    traced = trace(Net(), (3,))
    before = {name: t.clone() for name, t in traced.program.module.tensors().items()}
    code = traced.program.module.code
    again = find_units(traced.program)
    assert again.n_units == traced.units.n_units
    assert traced.program.module.code == code
    assert all(torch.equal(t, before[name]) for name, t in traced.program.module.tensors().items())
