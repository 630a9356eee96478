"""What must be 0 so that a value is 0: checked by setting it to 0, and refused where nothing does it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.axes.zeros import Zeros
from compressor.program import InputSpec, Program, capture


class Ending(nn.Module):
    """Two layers, a norm and a scale; `behind` makes the output of them."""

    def __init__(self, behind: Callable[[Ending, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.norm = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.bare, self.group = nn.BatchNorm2d(4, affine=False), nn.GroupNorm(2, 4, affine=False)
        self.scale, self.matrix, self.behind = nn.Parameter(torch.rand(4, 1, 1)), nn.Parameter(torch.rand(6, 5)), behind

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self, self.first(x).relu())


LAST = {"last.weight", "last.bias"}
MADE_ZERO: dict[str, tuple[Callable[[Ending, Tensor], Tensor], set[str]]] = {
    "a layer": (lambda net, y: net.last(y), LAST),
    "a norm behind it": (lambda net, y: net.norm(net.last(y)), {*LAST, "norm.weight", "norm.bias"}),
    "a norm of what others read": (lambda net, y: net.norm(y) * net.last(y).sigmoid(), {"norm.weight", "norm.bias"}),
    "a group norm without weights": (lambda net, y: net.group(net.last(y)), LAST),
    "a scale": (lambda net, y: net.scale * net.last(y), {*LAST, "scale"}),
    "moved, padded, pooled": (
        lambda net, y: F.max_pool2d(F.pad(net.last(y).permute(0, 1, 3, 2).roll(1, 2), [1] * 4), 2),
        LAST,
    ),
    "a product of matrices": (lambda net, y: (net.last(y) @ net.matrix).tanh(), {"matrix"}),
    "a part of one": (lambda net, y: net.last(y).chunk(2, 1)[0], LAST),
    "several": (lambda net, y: torch.cat([net.last(y), net.norm(y)], 1), {*LAST, "norm.weight", "norm.bias"}),
    "divided": (lambda net, y: net.last(y) / (1 + y.abs()), LAST),
    "activated": (lambda net, y: F.gelu(F.dropout(net.last(y), 0.2)), LAST),
    "added up": (lambda net, y: net.last(y) + net.norm(y), {*LAST, "norm.weight", "norm.bias"}),
}  # fmt: skip

NEVER_ZERO: dict[str, Callable[[Ending, Tensor], Tensor]] = {
    "a sigmoid": lambda net, y: net.last(y).sigmoid(),
    "a number added": lambda net, y: net.last(y) + 1,
    "an exponential": lambda net, y: net.last(y).exp(),
    "softmax": lambda net, y: net.last(y).softmax(1),
    "running statistics without scale": lambda net, y: net.bare(net.last(y)),
    "padded with ones": lambda net, y: F.pad(net.last(y), [1] * 4, value=1.0),
    "divided by itself": lambda net, y: net.last(y) / net.last(y).norm(),
    "an input": lambda net, y: y.cos(),
}


def program_of(behind: Callable[[Ending, Tensor], Tensor]) -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return capture(Ending(behind).eval(), [InputSpec("x", (None, 2, 6, 6))])


def found(program: Program) -> frozenset[str] | None:
    (output,) = (node for node in program.module.graph.nodes if node.op == "output")
    (value,) = output.all_input_nodes
    return Zeros(program).of(value)


@pytest.mark.parametrize("name", MADE_ZERO)
@torch.no_grad()
def test_these_weights_and_no_fewer_layers_make_it_zero(name: str) -> None:
    behind, expected = MADE_ZERO[name]
    program = program_of(behind)
    assert found(program) == expected
    x = program.example_inputs(2)
    assert program.module(*x).abs().max() > 0
    for tensor in expected:
        program.module.get_parameter(tensor).zero_()
    assert torch.equal(program.module(*x), torch.zeros_like(program.module(*x)))


@pytest.mark.parametrize("name", NEVER_ZERO)
def test_what_no_weights_make_zero_has_none(name: str) -> None:
    assert found(program_of(NEVER_ZERO[name])) is None
