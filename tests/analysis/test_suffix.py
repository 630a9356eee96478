"""Running the rest of a graph gives what a whole run gives, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from compressor.analysis.suffix import Steps, live_bytes
from compressor.errors import ModelError
from compressor.program import InputSpec, Program, ProgramModule, capture


class Branches(nn.Module):
    """A stem that is read again at the end, two branches, a concatenation, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.stem(x)).relu()
        y = torch.cat([self.left(x), self.right(x) + x], 1)
        return self.head(y.mean((2, 3))), y.chunk(2, 1)[0]


class Writing(nn.Module):
    """Writes into its input's copy at a place only known at run time, which no rewrite takes out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        kept = x * 2
        view = kept.view(-1)
        view[x.flatten() > 0] = 0.0
        return self.fc(kept) + view.sum()


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    return capture(Branches(), [InputSpec("x", (None, 2, 6, 6))])


@pytest.mark.parametrize("name", ["stem.weight", "norm.bias", "left.weight", "right.bias", "head.weight"])
def test_the_rest_of_a_run_is_the_whole_run(program: Program, name: str) -> None:
    (x,) = program.example_inputs(3)
    steps = Steps(program)
    changed = {name: steps.tensors[name] * 0.5 + 0.1}
    start = steps.first_reader(changed)
    assert start > 0
    live = steps.begin([x])
    steps.run(live, 0, start)
    before = dict(live)
    found = steps.outputs(live, start, changed)
    assert live == before, "the values that others start from stay"

    copied = program.clone()
    copied.module.load_state_dict(changed, strict=False)
    wanted = copied.module(x)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    dense = program.module(x)
    assert not all(torch.equal(a, b) for a, b in zip(found, dense, strict=True)), "the change must show"
    rest = steps.run(live, start, steps.end)
    assert all(torch.equal(a, b) for a, b in zip(rest, dense, strict=True))


def test_a_start_behind_the_first_reader_would_be_noticed(program: Program) -> None:
    """The twin: the check above sees a start that is one operator late."""
    (x,) = program.example_inputs(3)
    steps = Steps(program)
    changed = {"stem.weight": steps.tensors["stem.weight"] * 0.5}
    start = steps.first_reader(changed) + 1
    live = steps.begin([x])
    steps.run(live, 0, start)
    assert torch.equal(steps.outputs(live, start, changed)[0], program.module(x)[0])


def test_values_are_dropped_after_their_last_reader(program: Program) -> None:
    steps = Steps(program)
    live = steps.begin(program.example_inputs(2))
    start = steps.first_reader(["head.weight"])
    steps.run(live, 0, start)
    assert len(live) <= 2, sorted(str(node) for node in live)


def test_a_graph_that_writes_into_memory_is_run_from_the_start() -> None:
    program = capture(Writing(), [InputSpec("x", (2, 4))])
    steps = Steps(program)
    (x,) = program.example_inputs(2)
    given = x.clone()
    wanted = program.module(x.clone())
    start = steps.first_reader(["fc.weight"])
    for _ in range(2):
        live = steps.begin([x])
        assert torch.equal(steps.outputs(live, start, {"fc.bias": steps.tensors["fc.bias"]}), wanted)
    assert torch.equal(x, given)


def test_an_input_that_a_graph_writes_is_the_same_in_every_run() -> None:
    """Capture copies such an input; a graph from a file may not."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(torch.ops.aten.add_.Scalar, (x, 1.0)))
    steps = Steps(Program(ProgramModule({}, graph), (InputSpec("x", (None, 4)),)))
    given = torch.zeros(2, 4)
    live = steps.begin([given])
    for _ in range(2):
        assert torch.equal(steps.outputs(live, steps.first_reader([]), {}), torch.ones(2, 4))
    assert not given.any()


def test_the_first_reader_is_that_of_the_named_tensors_alone(program: Program) -> None:
    steps, nodes = Steps(program), list(program.module.graph.nodes)
    readers = {name: nodes[steps.first_reader([name])].name for name in ("stem.weight", "head.weight", "norm.bias")}
    assert readers == {"stem.weight": "conv2d", "head.weight": "linear", "norm.bias": "batch_norm"}
    assert steps.first_reader([]) == steps.end - 1


def test_too_few_inputs_are_refused(program: Program) -> None:
    with pytest.raises(ModelError, match="1 inputs, the data give 0"):
        Steps(program).begin([])


def test_live_bytes_are_those_of_one_sample(program: Program) -> None:
    values = 4 * 6 * 6
    assert 3 * values * 4 <= live_bytes(program) <= 6 * values * 4


class Widening(nn.Module):
    """10 numbers, four times as many, and these in two parts of which one is read."""

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(1, 4).chunk(2, 1)[0].relu()


@pytest.mark.parametrize("batch", [None, 3])
def test_live_bytes_by_hand(batch: int | None) -> None:
    program = capture(Widening(), [InputSpec("x", (batch, 10))])
    wide = 4 * 10 * 4
    assert live_bytes(program) == wide + wide, "the wide value and its parts, of one sample"
