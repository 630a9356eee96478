"""The runnable form: training and evaluation modes reach into the graph, and copies are independent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from compressor.errors import ModelError
from compressor.program import InputSpec, Program, ProgramModule, capture


class Modes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.conv(x)))


def program_of(module: nn.Module, *shape: int) -> Program:
    return capture(module, [InputSpec("x", (None, *shape))])


def test_training_uses_the_statistics_of_the_batch_and_dropout() -> None:
    program = program_of(Modes(), 1, 6, 6)
    x = program.example_inputs(8)[0]
    running = program.module.tensors()["norm.running_mean"]
    before = running.clone()
    assert torch.equal(program.module(x), program.module(x)) and torch.equal(before, running)
    program.module.train()
    with torch.random.fork_rng(devices=[]):
        first, second = program.module(x), program.module(x)
    assert not torch.equal(first, second) and (first == 0).float().mean() > 0.3
    assert not torch.equal(before, running), "running statistics are updated"
    program.module.eval()
    assert torch.equal(program.module(x), program.module(x))


def test_training_equals_the_eager_module() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    program = program_of(module, 1, 6, 6)
    module.train()
    program.module.train()
    x = program.example_inputs(8)[0]
    for net in (module, program.module):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    state = module.state_dict()
    for name, tensor in program.module.tensors().items():
        if not name.endswith("num_batches_tracked"):  # nothing reads it: no part of the graph
            assert torch.allclose(tensor, state[name], atol=1e-6), name


def test_batch_norm_without_running_statistics_always_uses_the_batch() -> None:
    module = nn.BatchNorm2d(4, track_running_stats=False)
    program = program_of(nn.Sequential(nn.Conv2d(1, 4, 1), module), 1, 6, 6)
    x = program.example_inputs(5)[0]
    evaluated = program.module(x)
    program.module.train()
    assert torch.equal(evaluated, program.module(x))
    program.module.eval()
    assert torch.equal(evaluated, program.module(x))


def test_instance_norm_is_the_same_in_both_modes() -> None:
    program = program_of(nn.Sequential(nn.Conv2d(1, 4, 1), nn.InstanceNorm2d(4, affine=True)), 1, 6, 6)
    x = program.example_inputs(5)[0]
    evaluated = program.module(x)
    program.module.train()
    assert torch.equal(evaluated, program.module(x))


def test_a_clone_shares_nothing_and_keeps_its_mode() -> None:
    program = program_of(Modes(), 1, 6, 6)
    program.module.train()
    other = program.module.clone()
    assert other.training
    other.eval()
    with torch.no_grad():
        for tensor in other.tensors().values():
            tensor.zero_()
    assert program.module.tensors()["conv.weight"].any()
    flags = [n.args[5] for n in program.module.graph.nodes if "batch_norm" in str(n.target)]
    assert program.module.training and flags == [True], "the graph of the original still trains"


def test_a_clone_in_another_precision() -> None:
    program = program_of(Modes(), 1, 6, 6)
    double = program.module.clone(torch.float64)
    assert {t.dtype for t in double.tensors().values() if t.is_floating_point()} == {torch.float64}
    x = program.example_inputs(2)[0]
    assert torch.allclose(double(x.double()).float(), program.module(x), atol=1e-6)
    assert isinstance(double.tensors()["conv.weight"], nn.Parameter)


def test_frozen_parameters_stay_frozen() -> None:
    module = Modes()
    module.conv.weight.requires_grad_(False)
    program = program_of(module, 1, 6, 6)
    assert not program.parameters["conv.weight"].requires_grad
    assert not program.clone().parameters["conv.weight"].requires_grad


def test_a_program_counts_its_parameters_and_zeros() -> None:
    program = program_of(Modes(), 1, 6, 6)
    assert program.n_parameters == 40 + 8 and program.n_zeroed == 0
    mask = torch.ones(4, 1, 3, 3, dtype=torch.bool)
    mask[0] = False
    masked = program.replace(masks={"conv.weight": mask})
    assert masked.n_zeroed == 9 and masked.n_parameters == 48
    copy = masked.clone()
    copy.masks["conv.weight"].fill_(True)
    assert masked.n_zeroed == 9


class Looks(nn.Module):
    """Looks its largest number up in a table that is too short for some."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.table.index_select(0, (x.amax() > 100).long().reshape(1) * 9) + x


def test_a_network_that_raises_on_its_values_is_told_in_words_and_memory_is_not_its_fault() -> None:
    program = capture(Looks(), [InputSpec("x", (None, 3, 4, 4))])
    assert program.module(*program.example_inputs(2)).shape == (2, 3, 4, 4)
    with pytest.raises(ModelError, match=r"cannot be run on these values: .*index out of range"):
        program.module(torch.full((2, 3, 4, 4), 1000.0))

    graph = fx.Graph()
    graph.output(graph.call_function(torch.ops.aten.linalg_cholesky.default, (graph.placeholder("x"),)))
    assert torch.equal(ProgramModule({}, graph)(torch.eye(2)), torch.eye(2))
    with pytest.raises(ModelError, match=r"cannot be run on these values: .*not positive-definite"):
        ProgramModule({}, graph)(-torch.eye(2))

    graph = fx.Graph()
    graph.output(graph.call_function(torch.ops.aten.ones.default, ([2**50],)))
    with pytest.raises(RuntimeError, match="allocate memory"):
        ProgramModule({}, graph)()
