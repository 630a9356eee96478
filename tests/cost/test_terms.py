"""Cost terms: their sum against torch's own counter, and what is left after compaction against the budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor.sparsity.budget as budget_module
from compressor.axes import Value, find_units
from compressor.axes.labels import Label
from compressor.compaction.slicing import slice_program
from compressor.cost import Factor, Term, count_activations, count_macs, mac_terms, macs_of_layers, parameter_terms
from compressor.errors import ModelError
from compressor.models import ARCHITECTURES, build
from compressor.program import (
    InputSpec,
    Program,
    ProgramModule,
    arguments,
    capture,
    infer_shapes,
    set_argument,
)
from compressor.sparsity import Budget


class Mixed(nn.Module):
    """Grouped, depthwise and transposed convolutions, a concatenation, a flatten, attention and a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped, self.depth = nn.Conv2d(8, 12, 3, 2, 1, groups=2), nn.Conv2d(12, 12, 3, 1, 1, groups=12)
        self.up = nn.ConvTranspose2d(12, 6, 2, 2)
        self.q, self.k, self.v = (nn.Linear(14, 10) for _ in range(3))
        self.out = nn.Linear(10 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = torch.cat((self.up(self.depth(self.grouped(y))), y), 1)
        t = y.flatten(2).transpose(1, 2)
        t = nn.functional.scaled_dot_product_attention(self.q(t), self.k(t), self.v(t))
        t = t + (t @ t.transpose(1, 2)) @ t
        return self.out(t.flatten(1))


def program_of(name: str) -> Program:
    if name == "mixed":
        return capture(Mixed(), [InputSpec("x", (None, 3, 8, 8))])
    return capture(build(name, {}, seed=0).module, [InputSpec("x", (None, *ARCHITECTURES[name].input_shape))])


NAMES = ("lenet-300-100", "lenet5", "resnet20", "vgg16-cifar", "mixed")


@pytest.mark.parametrize("name", NAMES)
def test_terms_sum_up_to_what_torch_counts(name: str) -> None:
    program = program_of(name)
    assert sum(macs_of_layers(program).values()) == count_macs(program)
    units = find_units(program)
    assert Budget.of_macs(program, units).dense == count_macs(program)
    assert Budget.of_params(program, units).dense == program.n_parameters


def test_published_counts() -> None:
    assert count_macs(program_of("lenet5")) == 2_293_000
    assert count_macs(program_of("lenet-300-100")) == 266_200


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_the_budget_of_a_choice_is_what_is_left_after_compaction(name: str, rate: float) -> None:
    program = program_of(name)
    units = find_units(program)
    random = np.random.default_rng(7)
    keep = random.random(units.n_units) >= rate
    for _, members in units.widths:
        keep[members[0]] |= not keep[members].any()
    compact = slice_program(program, units, keep)
    assert compact.n_parameters == Budget.of_params(program, units).cost(keep) < program.n_parameters
    assert count_macs(compact) == Budget.of_macs(program, units).cost(keep) < count_macs(program)


def test_twin_a_term_that_forgets_a_factor_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(program: Program) -> tuple[Term, ...]:
        sizes = {name: tuple(t.shape) for name, t in program.module.tensors().items()}
        return tuple(
            Term(t.owner, t.coefficient * sizes[t.owner][0], t.factors[1:]) if len(t.factors) > 1 else t
            for t in parameter_terms(program)
        )

    monkeypatch.setattr(budget_module, "parameter_terms", forgetful)
    with pytest.raises(AssertionError, match="n_parameters"):
        test_the_budget_of_a_choice_is_what_is_left_after_compaction("mixed", 0.6)


def test_owners_and_scopes() -> None:
    program = program_of("lenet5")
    assert {term.owner for term in parameter_terms(program)} == set(program.parameters)
    assert len(mac_terms(program)) == 4
    units = find_units(program)
    assert Budget.of_params(program, units, ["fc1"]).dense == 800 * 500 + 500
    assert Budget.of_macs(program, units, ["conv1", "fc2"]).dense == 24 * 24 * 20 * 25 + 5000
    assert Budget.of_params(program, units, []).dense == 0


class Halves(nn.Module):
    """The samples folded into two parts, and a table of positions that every sample shares."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.table = nn.Linear(6, 8), nn.Linear(8, 3), nn.Parameter(torch.randn(5, 4))
        self.place = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).reshape(x.shape[0], 10, 4).reshape(x.shape[0], 5, 8)
        return self.b(y + self.place(self.table))


def test_what_no_sample_goes_into_is_counted_once() -> None:
    program = capture(Halves(), [InputSpec("x", (None, 5, 6))])
    assert macs_of_layers(program) == {"linear": 5 * 48, "linear_1": 5 * 4 * 8, "linear_2": 5 * 24}
    fixed = program.replace(inputs=(InputSpec("x", (4, 5, 6)),))
    assert (count_macs(fixed), fixed.sampled_batch) == (count_macs(program), 4)


def test_counting_needs_no_other_batch_than_that_of_the_shapes() -> None:
    """A graph that only fits one batch is no program to trust, but what it multiplies can be said all the same."""
    program = capture(Halves(), [InputSpec("x", (None, 5, 6))])
    for node in program.module.graph.nodes:
        if node.target is torch.ops.aten.reshape.default:
            set_argument(node, "shape", [2, *arguments(node)["shape"][1:]])
    one_batch = program.replace(module=ProgramModule(program.module.tensors(), program.module.graph))
    with pytest.raises(ModelError, match="does not fit"):
        infer_shapes(one_batch.module, one_batch.inputs, batch=1)
    assert count_macs(one_batch) == count_macs(program)


def test_units_that_cross_are_counted_as_removal_leaves_them() -> None:
    """Positions of a value along which units vary together with another dimension: any of them keeps its line."""
    program = program_of("lenet-300-100")
    units = find_units(program)
    name = next(node.name for node in program.module.graph.nodes if "relu" in node.name)
    label = units.walk.values[name].labels[0]
    crossed = Value((2, 3, 100), (Label((1, 2), label.ids.reshape(3, 100)),))
    walked = replace(units.walk, values={**units.walk.values, name: crossed})
    term = Term(name, 2.0, (Factor(name, 1), Factor(name, 2)))
    budget = budget_module._bind(program, replace(units, walk=walked), [term])
    assert budget.dense == 2 * 3 * 100
    keep = np.ones(units.n_units, dtype=bool)
    ids = units.of_ids(crossed.labels[0].ids)
    keep[ids[1]] = False  # a whole line goes
    keep[ids[:, 7]] = False  # and a whole row of what crosses it
    keep[ids[0, 8]] = False  # alone it takes nothing away
    assert budget.cost(keep) == 2 * 2 * 99


def test_activations_are_those_of_one_sample() -> None:
    program = capture(nn.Sequential(nn.Linear(3, 5), nn.ReLU()), [InputSpec("x", (None, 3))])
    assert count_activations(program) == 10


def test_counting_leaves_the_program_on_real_tensors() -> None:
    program = program_of("lenet5")
    count_macs(program)
    assert type(next(program.module.parameters()).data) is torch.Tensor
    assert program.module(*program.example_inputs(2)).shape == (2, 10)
