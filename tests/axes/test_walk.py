"""The walk: operators without a rule, inputs and outputs, and that it guesses nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.axes import Value, find_units, walk
from compressor.axes.labels import Walked
from compressor.program import InputSpec, capture, open_choices
from tests.axes import expert_networks as nets
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


def test_features_of_an_input_say_why_they_stay_and_a_network_without_heads_has_none() -> None:
    traced = trace(lambda net, x: net.b(net.a(x)), (3,), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    assert traced.reason("a.weight", 1) == "input of the network"
    assert walk(traced.program).heads.size == 0


def test_windows_stay_and_channels_do_not_where_a_kernel_is_read_flat_before_it_is_one() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        size = (net.w.flatten(1) @ net.w.new_ones(36)).reshape(4, 1, 1, 1)
        return net.last(F.conv2d(net.first(x), net.w * size.sigmoid()))

    traced = trace(
        forward, (3, 6, 6),
        first=nn.Conv2d(3, 4, 1), w=nn.Parameter(torch.randn(4, 4, 3, 3)), last=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    for kernel, other in ((("w", 0), ("last.weight", 1)), (("w", 1), ("first.weight", 0))):
        assert traced.along(*kernel) == traced.along(*other) and -1 not in traced.along(*kernel)
    assert traced.reason("w", 2) == traced.reason("w", 3) == "kernel window"


@pytest.mark.parametrize("mix", [nets.by_embedding, nets.by_row])
def test_numbers_of_experts_say_whose_they_are_wherever_they_are_moved(mix: Callable[..., Tensor]) -> None:
    walked = walk(open_choices(capture(nets.mixture(nets.topk_first, mix), [InputSpec("x", (None, 4, 5))])))
    placed = {name: value for name, value in _values(walked.values).items() if value.places is not None}
    assert len(placed) > 1
    assert mix is nets.by_embedding or any(name.startswith("reshape") for name in placed)
    assert all(np.array_equal(value.places, walked.axes["router.weight", 0]) for value in placed.values())


def test_numbers_of_experts_that_are_calculated_with_keep_all_of_them() -> None:
    mixture = nets.mixture(nets.topk_first, nets.by_number)
    units = find_units(open_choices(capture(mixture, [InputSpec("x", (None, 4, 5))])))
    assert units.axes["router.weight", 0].tolist() == [-1] * nets.EXPERTS
    assert "their numbers are read by mul" in units.pin_at["router.weight", 0].reason


def _values(walked: Mapping[str, Walked]) -> dict[str, Value]:
    """Every value, those in a tuple by their number."""
    parts = {
        f"{name}.{i}": part
        for name, value in walked.items()
        for i, part in enumerate(value if isinstance(value, tuple) else (value,))
    }
    return {name: part for name, part in parts.items() if isinstance(part, Value)}


def test_each_of_several_results_of_an_unknown_operator_says_why_its_reader_stays() -> None:
    traced = trace(
        lambda net, x: net.out(torch.linalg.qr(net.first(x))[0]),
        (3, 4), first=nn.Linear(4, 3), out=nn.Linear(3, 2),
    )  # fmt: skip
    assert traced.reason("first.weight").startswith("no axis rule for aten.linalg_qr")
    assert traced.reason("out.weight", 1).endswith("no axis rule for aten.linalg_qr.default")


def test_a_reason_is_told_on_by_what_only_computes() -> None:
    traced = trace(
        lambda net, x: net.out(torch.linalg.matrix_exp(net.first(x)).relu() * 2),
        (3, 4), first=nn.Linear(4, 3), out=nn.Linear(3, 2),
    )  # fmt: skip
    assert traced.reason("out.weight", 1).endswith("no axis rule for aten.linalg_matrix_exp.default")
