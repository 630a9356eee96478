"""Two right computations of one network agree, whatever rounding decides in it; a really wrong one never does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.program import InputSpec, Program, capture
from compressor.program.agreement import Agreement, Evidence, judge
from compressor.program.replay import Replay, as_foreign
from compressor.program.runs import Other, Yardstick, examples_at_other_lengths, seeded, with_short_examples
from tests.program.faults import Fault, faults_of
from tests.program.hard_to_compare import KINDS, captured, reordered

ROUNDING = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
"""Of the other side: two units in the last place where the yardstick makes half of one."""

LIMITS = {torch.float32: 1e-5, torch.float64: 1e-9}


def precision_of(name: str, program: Program) -> torch.dtype:
    return torch.float64 if name == "float64" else torch.float32


def answer(
    program: Program, inputs: tuple[Tensor, ...], dtype: torch.dtype, own: object = None
) -> tuple[list[Tensor], Mapping[str, Tensor]]:
    """What another runtime might make of the inputs: computed with coarser roundings, other random numbers."""
    run = Replay(program.module.in_precision(torch.float64).eval(), rounding=ROUNDING[dtype])
    given = [x.double() if x.is_floating_point() else x for x in inputs]
    with seeded(99), torch.no_grad():
        made = run.run(*given)
    outputs = list(made.values()) if isinstance(made, dict) else made if isinstance(made, tuple) else [made]
    return [x.to(dtype) if x.is_floating_point() else x for x in outputs], as_foreign(run.decided)


def compared(name: str, program: Program, other: Program, batch: int = 3) -> Agreement:
    dtype = precision_of(name, program)
    inputs = program.example_inputs(batch, seed=batch)
    outputs, _ = answer(other, inputs, dtype)
    deciding = partial(answer, other, inputs, dtype)
    side = Other(inputs, outputs, deciding=deciding)
    return Yardstick(program).agreement([side], LIMITS[dtype])


def plainly(name: str, program: Program, other: Program) -> Agreement:
    dtype = precision_of(name, program)
    inputs = program.example_inputs(3, seed=3)
    return judge([Evidence(Yardstick(program).own(inputs), answer(other, inputs, dtype)[0])], LIMITS[dtype])


DECIDING = {
    "probabilities near 1e-5", "probabilities near 1e-7", "top-k queries", "two selections", "argmax as output",
    "nearest code", "sort", "thresholds and rounding", "random in evaluation",
}  # fmt: skip
"""Kinds in which something is taken over; the plain limit refuses these and the deep one."""


@pytest.mark.parametrize("name", KINDS)
def test_a_right_computation_agrees(name: str) -> None:
    program = captured(name)
    other = reordered(name, program)
    found = compared(name, program, other)
    assert found.passed, found
    assert bool(found.decisions) == (name in DECIDING)
    assert plainly(name, program, other).passed == (name not in DECIDING and name != "deep")
    if name == "deep" or name.startswith("probabilities"):
        assert found.judgment == ("own rounding" if name == "deep" else "sensitivity") and found.noise


CASES = [(name, fault) for name in KINDS for fault in faults_of(name)]


@pytest.mark.parametrize(("name", "fault"), CASES, ids=[f"{name}-{fault.__name__}" for name, fault in CASES])
def test_a_wrong_computation_never_agrees(name: str, fault: Fault) -> None:
    program = captured(name)
    other = reordered(name, program)
    fault(name, other)
    assert not compared(name, program, other).passed


class Widened(nn.Module):
    """A float32 network that gives float64."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.out(x) * 0.1 - 17).double()


def side_of(program: Program, by: float, precision: torch.dtype | None = None) -> Other:
    inputs = program.example_inputs(2)
    return Other(inputs, [x + by for x in Yardstick(program).own(inputs)], precision=precision)


def test_the_coarsest_precision_of_either_side_rounds() -> None:
    spec = [InputSpec("x", (None, 3))]
    wide = capture(Widened(), spec)
    assert Yardstick(wide).agreement([side_of(wide, 3e-8)], 1e-9).judgment == "sensitivity"
    for dtype, steps, precision in (
        (torch.float32, 2.0**-24, None),
        (torch.float32, 2.0**-11, torch.float16),
        (torch.float64, 2.0**-53, None),
        (torch.float64, 2.0**-24, torch.float32),
    ):
        net = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid()).to(dtype)
        with torch.no_grad():
            net[0].weight.mul_(0.1)
            net[0].bias.fill_(-17.0)
        program = capture(net, [InputSpec("x", (None, 3), str(dtype).removeprefix("torch."))])
        found = Yardstick(program).agreement([side_of(program, steps, precision)], 1e-9)
        assert found.passed and found.judgment == "sensitivity", (dtype, precision, found)
        assert not Yardstick(program).agreement([side_of(program, 40 * steps, precision)], 1e-9).passed


class Drawn(nn.Module):
    """What it was drawn with decides, and nothing else: no parameter, no floating output."""

    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


@pytest.mark.parametrize(
    ("weights", "precision", "outputs", "other", "rounding"),
    [
        (torch.float32, None, torch.float32, None, 2.0**-24),
        (torch.float64, None, torch.float64, None, 2.0**-53),
        (torch.float32, None, torch.float64, None, 2.0**-24),
        (torch.float64, None, torch.float32, None, 2.0**-24),
        (torch.float32, torch.float64, torch.float64, None, 2.0**-53),
        (torch.float64, torch.float32, torch.float64, None, 2.0**-24),
        (torch.float32, None, torch.float32, torch.float16, 2.0**-11),
        (torch.float32, None, torch.float32, torch.int8, 2.0**-24),
        (torch.bfloat16, None, torch.int64, None, 2.0**-8),
        (None, None, torch.int64, None, 2.0**-24),
        (None, None, torch.int64, torch.int8, 2.0**-24),
    ],
)
def test_a_rounding_is_half_a_step_of_the_coarsest_type(
    weights: torch.dtype | None,
    precision: torch.dtype | None,
    outputs: torch.dtype,
    other: torch.dtype | None,
    rounding: float,
) -> None:
    net = Drawn() if weights is None else nn.Linear(3, 4).to(weights)
    spec = InputSpec("x", (None, 3), "float32" if weights is None else str(weights).removeprefix("torch."))
    made = [torch.ones(2, 4, dtype=outputs)]
    found = Yardstick(capture(net, [spec]), precision)._rounding(made, Other((), made, precision=other))
    assert found == rounding


def test_one_rounding_of_float32_shakes_if_nothing_else_is_said() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    program = capture(Doubled(), [InputSpec("x", (None, 3))])
    yardstick, inputs = Yardstick(program), program.example_inputs(5)
    (exact,), (shaken,) = yardstick.exact(inputs), yardstick.shaken(inputs)
    steps = (shaken / exact - 1) / 2.0**-24
    assert steps.abs().round(decimals=6).unique().tolist() == [1.0] and {-1, 1} == set(steps.sign().flatten().tolist())


def test_other_lengths_come_at_batch_sizes_in_turn_where_the_network_runs() -> None:
    """A window of five takes no sequence of three."""

    class Windows(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv = nn.Conv1d(4, 4, width)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    free = InputSpec("x", (None, 4, 6), free=("", "", "time"))
    for width, batches, shapes in (
        (1, (1, 3), [(1, 4, 3), (3, 4, 12)]),
        (1, (2,), [(2, 4, 3), (2, 4, 12)]),
        (5, (1, 3), [(3, 4, 12)]),
    ):
        program = capture(Windows(width), [InputSpec("x", (None, 4, 6))]).replace(inputs=(free,))
        assert [tuple(x.shape) for (x,) in examples_at_other_lengths(program, batches)] == shapes
    double = [x.dtype for (x,) in examples_at_other_lengths(program, (1,), torch.float64)]
    assert double == [], "the weights are float32"


class Reading(nn.Module):
    """Two texts, of a length each."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 4)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.words(first).mean(1) - self.words(second).mean(1)


def reading(first: int, second: int) -> Program:
    specs = tuple(
        InputSpec(name, (None, size), "int64", high=50, free=("", name[0]))
        for name, size in (("first", first), ("second", second))
    )
    return capture(Reading().eval(), specs)


@pytest.mark.parametrize(
    ("sizes", "most", "short"),
    [
        ((64, 32), 200 * 64 * 32, (64, 32)),
        ((64, 32), 200 * 64 * 32 - 1, (32, 16)),
        ((64, 32), 200 * 16 * 8, (16, 8)),
        ((64, 32), 200 * 16 * 8 - 1, (8, 8)),
        ((64, 32), 1, (8, 8)),
        ((64, 5), 1, (8, 5)),
        ((20, 9), 1, (8, 8)),
        ((33, 9), 200 * 16 * 8, (16, 8)),
    ],
)
def test_texts_are_as_short_as_the_size_asks_for(
    sizes: tuple[int, int], most: int, short: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.program.runs._MOST_PRODUCTS", most)
    program = reading(*sizes)
    found = with_short_examples(program)
    assert program.n_parameters == 200 and found.module is program.module
    assert tuple(spec.shape[1] for spec in found.inputs) == short
    assert (found is program) == (short == sizes)


def test_a_network_of_ordinary_size_is_checked_on_its_own_examples() -> None:
    program = reading(64, 32)
    assert with_short_examples(program) is program


def test_images_are_never_smaller_than_asked_and_fixed_sizes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.program.runs._MOST_PRODUCTS", 1)
    free = capture(nn.Conv2d(3, 4, 3).eval(), InputSpec("x", (None, 3, 32, 32), free=("", "", "height", "width")))
    fixed = capture(nn.Conv2d(3, 4, 3).eval(), InputSpec("x", (None, 3, 32, 32)))
    assert with_short_examples(free) is free and with_short_examples(fixed) is fixed


def test_a_failure_of_torch_is_told_with_the_batch() -> None:
    program = capture(nn.Linear(3, 4), [InputSpec("x", (None, 3))])
    with pytest.raises(ModelError, match="torch cannot run the model at batch 5: RuntimeError: mat1 and mat2"):
        Yardstick(program).own((torch.ones(5, 4),))
    for inputs in ((), (torch.tensor(1.0),)):
        with pytest.raises(ModelError, match="torch cannot run the model: "):
            Yardstick(program).own(inputs)


def test_a_run_in_float64_makes_new_numbers_in_float64_too() -> None:
    class Made(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.full((3,), 0.1)

    program = capture(Made(), [InputSpec("x", (None, 3))])
    zeros = torch.zeros(1, 3)
    assert Yardstick(program).exact((zeros,))[0].tolist() == [[0.1] * 3]
    assert Yardstick(program).own((zeros,))[0].double().tolist() == [[float(torch.tensor(0.1))] * 3]


def test_the_runs_leave_the_program_and_the_random_numbers_alone() -> None:
    program = captured("random in evaluation").clone()
    program.module.train()
    inputs = program.example_inputs(2)
    state = torch.random.get_rng_state()
    yardstick = Yardstick(program)
    first, exact, shaken = yardstick.own(inputs), yardstick.exact(inputs), yardstick.shaken(inputs)
    assert torch.equal(first[0], yardstick.own(inputs)[0]) and program.module.training
    assert torch.equal(state, torch.random.get_rng_state()) and torch.get_default_dtype() == torch.float32
    assert exact[0].dtype == shaken[0].dtype == torch.float64 and not torch.equal(exact[0], shaken[0])


def test_what_writes_in_place_gets_tensors_of_its_own() -> None:
    program = capture(nn.Linear(3, 3), [InputSpec("x", (None, 3))])
    graph = program.module.graph
    weight = next(node for node in graph.nodes if node.op == "get_attr")
    with graph.inserting_after(weight):
        graph.call_function(torch.ops.aten.mul_.Tensor, (weight, 2.0))
    program.module.recompile()
    before = program.parameters["weight"].detach().clone()
    Yardstick(program).own(program.example_inputs(2))
    assert torch.equal(program.parameters["weight"], before)


def test_tensors_that_count_instead_are_read_where_they_fit() -> None:
    program = capture(nn.Linear(3, 2, bias=False), [InputSpec("x", (None, 3))])
    x = torch.eye(3)
    instead = {"weight": torch.ones(2, 3).double(), "nothing": torch.ones(1)}
    assert Yardstick(program, torch.float64, instead).own((x,))[0].tolist() == [[1.0, 1.0]] * 3
    kept = Yardstick(program, torch.float64, {"weight": torch.ones(3, 3)}).own((x,))[0]
    assert torch.equal(kept, program.parameters["weight"].detach().double().mT)


def test_known_outputs_are_not_computed_again() -> None:
    program = capture(nn.Linear(3, 2), [InputSpec("x", (None, 3))])
    side = side_of(program, 0.0)
    assert Yardstick(program).agreement([side], 1e-5, own=[[torch.zeros(2, 2)]]).max_abs > 0
    assert Yardstick(program).agreement([side], 1e-5).max_abs == 0


def test_another_number_of_outputs_is_told_before_anything_is_replayed() -> None:
    program = captured("top-k queries")
    inputs = program.example_inputs(1)
    found = Yardstick(program).agreement([Other(inputs, [torch.ones(1)], deciding=never)], 1e-5)
    assert str(found) == "there are 1 outputs where the model has 2"


def never(own: object) -> tuple[list[Tensor], dict[str, Tensor]]:
    raise AssertionError("was asked what it decides")


def test_what_the_plain_limit_shows_is_not_replayed() -> None:
    program = captured("top-k queries")
    inputs = program.example_inputs(1)
    found = Yardstick(program).agreement([Other(inputs, Yardstick(program).own(inputs), deciding=never)], 1e-5)
    assert found.passed and found.judgment == "limit" and found.decisions == ()


class Several(nn.Module):
    """Three decisions, and an output of each."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (x + 0.25).argmax(1), torch.round(x * 1e3), torch.sigmoid(x - 30)


def test_decisions_that_differ_are_named_and_no_others() -> None:
    program = capture(Several(), [InputSpec("x", (None, 3))])
    x = torch.tensor([[0.5, 0.5 - 2.0**-25, 0.001], [0.25, 0.5, 0.125]])

    def other(argmax: int, rounded: float, shape: tuple[int, ...] = (2,)) -> Agreement:
        def deciding(own: object) -> tuple[list[Tensor], dict[str, Tensor]]:
            places, steps, left = Yardstick(program).own((x,))
            places[0], steps[0, 2] = argmax, rounded
            return [places, steps, left], {"argmax": places.reshape(shape), "round_1": steps}

        return Yardstick(program).agreement([Other((x,), deciding({})[0], deciding=deciding)], 1e-5)

    names = [node.name for node in program.module.graph.nodes if node.op == "call_function"]
    assert {"argmax", "round_1"} <= set(names), names
    near = other(1, 1.0)
    assert near.passed and near.decisions == ("argmax",)
    assert other(0, 1.0).decisions == () and not other(2, 1.0).passed
    wrong = other(1, 3.0)
    assert not wrong.passed and wrong.decisions == ("argmax", "round_1")
    assert other(1, 1.0, (1, 2)).decisions == ("argmax",)


def test_where_the_other_side_does_not_tell_what_it_decided_the_programs_own_decisions_count() -> None:
    program = captured("top-k queries")
    inputs = program.example_inputs(2, seed=3)
    own = Yardstick(program).own(inputs)
    near = [x * (1 + 5e-7) for x in own]
    found = Yardstick(program).agreement([Other(inputs, near)], 1e-7)
    assert found.passed and found.judgment in ("own rounding", "sensitivity")
    assert not Yardstick(program).agreement([Other(inputs, [own[0], own[1].flip(1)])], 1e-5).passed


def test_a_quantised_side_is_judged_by_its_own_limit_even_where_it_decides() -> None:
    program = captured("argmax as output")
    inputs = program.example_inputs(2, seed=3)
    scores = Replay(program.module).run(*inputs)
    coarse = {"argmax": (torch.zeros_like(scores))}
    for precision, passed in ((torch.int8, True), (None, False)):
        side = Other(inputs, [coarse["argmax"]], deciding=lambda own: ([coarse["argmax"]], coarse), precision=precision)
        assert Yardstick(program).agreement([side], 0.25).passed is passed
