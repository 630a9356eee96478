"""A network computes in another precision, whatever types its graph names or leaves out, and holds no second copy."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.program import InputSpec, Program, ProgramModule, capture, default_type
from compressor.program import module as program_module

aten = torch.ops.aten


class Maker(nn.Module):
    """Makes tensors in every way there is, with and without a type, and contracts all of them with its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRU(6, 6, batch_first=True), nn.Linear(6, 3)
        self.named = torch.float32

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        state = torch.zeros(1, b, 6)
        places = torch.arange(0.0, 6.0) + torch.full((6,), 0.5) + torch.linspace(0, 1, 6)
        named = torch.ones(6, dtype=self.named) + torch.arange(6).to(self.named) + torch.arange(6, dtype=x.dtype)
        like = torch.zeros_like(x[0, 0]) + x.new_full((6,), 2.0) + torch.tensor([1.0, 2, 3, 4, 5, 6])
        whole = F.one_hot(torch.arange(6), 6).to(self.named) @ torch.eye(6)
        y, _ = self.cell(torch.cat([x, torch.ones(b, t, 6)], 1), state)
        terms = (F.linear(term, self.out.weight) for term in (places, named, like, whole[0], torch.full((6,), 3) * 0.5))
        return self.out(y[:, -1]) + torch.stack(list(terms)).sum(0)


def made() -> tuple[Maker, Program]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = Maker().eval()
    return net, capture(net, [InputSpec("x", (None, 4, 6))])


@torch.no_grad()
def difference(net: Maker, module: ProgramModule, x: Tensor) -> float:
    """How far the program is from what the network itself computes where torch's default is float64."""
    double = copy.deepcopy(net).double()
    double.named = torch.float64
    with default_type(torch.float64):
        expected, got = double(x.double()), module(x.double())
    assert got.dtype == torch.float64 and torch.get_default_dtype() == torch.float32
    return float((got - expected).abs().max())


@pytest.mark.parametrize("way", ["clone", "in_precision"])
def test_everything_that_is_floating_follows(way: str) -> None:
    net, program = made()
    assert difference(net, getattr(program.module, way)(torch.float64), program.example_inputs(3)[0]) < 1e-12


def test_twin_types_that_stay_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    net, program = made()
    x = program.example_inputs(3)[0]
    with pytest.raises(ModelError, match=r"dtype|same type|float"), torch.no_grad():
        program.module.in_precision(torch.float64)(x.double())  # those that the graph leaves out
    monkeypatch.setattr(program_module, "recast", lambda graph, dtype: None)
    with pytest.raises(ModelError, match=r"dtype|same type|float"):
        difference(net, program.module.in_precision(torch.float64), x)


def test_the_default_type_comes_back_after_an_error() -> None:
    with pytest.raises(KeyError, match="gone"), default_type(torch.float64):
        assert torch.zeros(1).dtype == torch.float64
        raise KeyError("gone")
    assert torch.zeros(1).dtype == torch.float32


@torch.no_grad()
def test_tensors_are_shared_and_others_stand_instead_of_them() -> None:
    _, program = made()
    x = program.example_inputs(2)[0].double()
    before = {name: tensor.clone() for name, tensor in program.module.tensors().items()}
    module = program.module.in_precision(torch.float64)
    for name, tensor in module.tensors().items():
        assert tensor.data_ptr() == program.module.tensors()[name].data_ptr()
    moved = program.module.in_precision(torch.float64, {"out.bias": before["out.bias"].double() + 1e-9})
    with default_type(torch.float64):
        assert (moved(x) - module(x)).sub(1e-9).abs().max() < 1e-14
    assert all(torch.equal(tensor, before[name]) for name, tensor in program.module.tensors().items())
    same = program.module.in_precision(torch.float32).graph.nodes
    assert [node.target for node in same] == [node.target for node in program.module.graph.nodes]


class Writer(nn.Module):
    """Writes into its own buffer, through a view that another view sees."""

    def __init__(self) -> None:
        super().__init__()
        self.total: Tensor
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.total


def writer() -> Program:
    """A program as a hand or another tool may have made it: `torch.export` turns such writes into outputs."""
    program = capture(Writer(), [InputSpec("x", (None, 4))])
    graph = copy.deepcopy(program.module.graph)
    (buffer,) = (node for node in graph.nodes if node.op == "get_attr")
    with graph.inserting_after(buffer):
        graph.call_function(aten.add_.Tensor, (buffer, 1.0))
    return program.replace(module=ProgramModule(program.module.tensors(), graph))


def test_what_writes_in_place_does_not_write_into_what_is_shared() -> None:
    program = writer()
    x = program.example_inputs(1)[0]
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(program.module.in_precision(dtype)(x.to(dtype)), x.to(dtype) + 1)
    assert not program.module.tensors()["total"].any()


def test_twin_a_write_that_is_not_looked_for_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    program = writer()
    monkeypatch.setattr(program_module, "writes_in_place", lambda graph: False)
    program.module.in_precision(torch.float32)(*program.example_inputs(1))
    assert program.module.tensors()["total"].all()
