"""The time of every layer before and after: what is put on the stopwatch, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from compressor.analysis import layer_latencies
from compressor.cost import count_macs
from compressor.program import InputSpec, Program, capture, find_layers
from compressor.timing import OperatorClock
from compressor.timing.operator_onnx import operator_model


class ByWork:
    """A stopwatch by which a program takes a nanosecond per multiply-add, for all that lies along its batch."""

    def __init__(self) -> None:
        self.calls: list[list[Program]] = []

    def seconds(self, programs: Sequence[Program], batch: int = 1) -> tuple[float, ...]:
        self.calls.append(list(programs))
        for program in programs:
            operator_model(program, batch)  # all of them can be measured
        return tuple(1e-9 * count_macs(program) * (program.fixed_batch or 1) for program in programs)


class Net(nn.Module):
    """A padding, slices that come together again, a shared layer, and a concat of two values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, width, 3), nn.Conv2d(width, 4, 1)
        self.shared, self.out = nn.Linear(4, 4), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(nn.functional.pad(x, (0, 1, 0, 1))).relu()
        x = self.second(torch.cat([x[:, 1:], x[:, :1]], 1)).mean((2, 3))
        return self.out(torch.cat([self.shared(x), self.shared(x.relu())], 1))


def program(width: int) -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return capture(Net(width).eval(), [InputSpec("x", (None, 3, 8, 8))])


@pytest.fixture(scope="module")
def dense() -> Program:
    return program(6)


def test_every_layer_is_timed_side_by_side_with_what_is_left_of_it(dense: Program) -> None:
    clock = ByWork()
    found = {each.name: each for each in layer_latencies(dense, program(3), clock)}
    assert list(found) == ["first", "second", "shared", "out"]
    assert found["first"].before_s == pytest.approx(7 * 7 * 6 * 27e-9)
    assert found["second"].before_s == pytest.approx(7 * 7 * 4 * 6e-9)
    assert found["shared"].before_s == pytest.approx(2 * 16e-9), "both uses"
    assert found["out"].before_s == pytest.approx(16e-9)
    halved = [name for name, each in found.items() if each.after_s == pytest.approx(each.before_s / 2)]
    assert halved == ["first", "second"] and found["out"].after_s == found["out"].before_s
    assert [len(call) for call in clock.calls] == [2, 2, 4, 2]


def test_moves_of_one_value_belong_to_the_layer_behind_them(dense: Program) -> None:
    clock = ByWork()
    layer_latencies(dense, dense, clock)
    operators = [[n.target.__name__ for n in call[0].module.graph.nodes if callable(n.target)] for call in clock.calls]
    assert operators[0] == ["pad.default", "conv2d.default"]
    assert operators[1][-2:] == ["cat.default", "conv2d.default"] and operators[1].count("slice.Tensor") >= 2
    assert operators[3] == ["linear.default"], "what several values make is an input"


def test_a_layer_that_is_gone_has_no_time(dense: Program) -> None:
    small = capture(nn.Sequential(nn.Conv2d(3, 2, 3)).eval(), [InputSpec("x", (None, 3, 8, 8))])
    (only, *rest) = layer_latencies(dense, small, ByWork())
    assert (only.name, only.after_s) == ("first", None) and len(rest) == 3
    assert layer_latencies(small, small, ByWork())[0].after_s is not None


def test_tokens_that_lie_along_the_batch_are_all_counted() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x.reshape(-1, 4))

    tokens = capture(Tokens().eval(), [InputSpec("x", (None, 5, 4))])
    (one,) = layer_latencies(tokens, tokens, ByWork())
    assert one.before_s == pytest.approx(5 * 12e-9)
    (three,) = layer_latencies(tokens, tokens, ByWork(), batch=3)
    assert three.before_s == pytest.approx(15 * 12e-9)


def test_the_operators_of_onnxruntime_are_timed_and_equal_layers_once(dense: Program) -> None:
    taken: list[int] = []

    def take(models: Sequence[bytes], threads: int) -> tuple[float, ...]:
        taken.append(len(models))
        return tuple(float(len(model)) for model in models)

    clock = OperatorClock(take=take)
    assert all(each.after_s is not None for each in layer_latencies(dense, dense, clock))
    assert taken == [2, 2, 4, 2]
    layer_latencies(dense, dense, clock)
    assert len(taken) == 4, "known by then"
    assert len(find_layers(dense)) == 5
