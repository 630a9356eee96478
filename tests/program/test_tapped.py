"""A network that returns what it computes on the way, and where to look."""

import pytest
import torch
from torch import Tensor, nn

from compressor import capture
from compressor.models import build
from compressor.program import InputSpec, Program, families, is_same_graph, landmarks, tapped


class Residual(nn.Module):
    """A position table, a residual sum of two layers, and a sum with a number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.end = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.position = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) + self.position
        x = x + self.second(x.relu())
        return self.end(x.relu() + 1.0)


def program_of(module: nn.Module, *shape: int) -> Program:
    torch.manual_seed(0)
    return capture(module.eval(), InputSpec("x", (None, *shape)))


def test_landmarks_are_residual_sums_and_no_other_additions() -> None:
    program = program_of(Residual(), 4, 6)
    (name,) = landmarks(program)
    additions = [node for node in program.module.graph.nodes if node.target in families.ADD]
    assert [node.name for node in additions].index(name) == 1 and len(additions) == 3
    assert len(landmarks(program_of(build("resnet20", {}).module, 3, 32, 32))) == 9


def test_without_residual_sums_they_are_the_layers_that_are_not_returned() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5), nn.Linear(5, 2)
    )
    assert landmarks(program_of(net, 1, 4, 4)) == ("conv2d", "linear")


@pytest.mark.parametrize("training", [False, True])
def test_a_tapped_network_returns_the_same_and_trains_the_same_tensors(training: bool) -> None:
    program = program_of(build("resnet20", {}).module, 3, 32, 32)
    program.module.train(training)
    both = tapped(program.module, landmarks(program))
    (x,) = program.example_inputs(2)
    before = program.module(x)
    returned, values = both(x)
    torch.testing.assert_close(returned, before, rtol=0, atol=0)
    assert len(values) == 9 and values[0].shape == (2, 16, 32, 32)
    assert all(both.tensors()[name] is tensor for name, tensor in program.module.tensors().items())
    both.train(not training)
    assert program.module.training is training and both.training is not training


def test_the_same_graph_is_one_with_the_same_shapes() -> None:
    program = program_of(Residual(), 4, 6)
    assert is_same_graph(program.module, program.clone().module)
    assert is_same_graph(program.module, program_of(Residual(), 4, 6).module)
    wider, narrower = (program_of(nn.Sequential(nn.Linear(6, n), nn.Linear(n, 2)), 6) for n in (5, 4))
    assert not is_same_graph(wider.module, narrower.module)
    assert not is_same_graph(wider.module, program.module)
