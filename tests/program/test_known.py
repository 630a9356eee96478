"""Numbers that a network's code reads out of its constants: numbers in the graph, whatever reads them and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

import compressor
from compressor.errors import ModelError
from compressor.program import Program, capture, parse_input
from compressor.program.items import reads_a_number
from compressor.program.shapes import infer_shapes

Code = Callable[[Any, Tensor], Tensor]


class Network(nn.Module):
    """Two convolutions, and behind them what `code` makes of their result with the constants here."""

    def __init__(self, code: Code) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.code = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1), code
        self.norm = nn.BatchNorm2d(8)
        self.stride, self.count, self.flag = torch.tensor([2.0, 4.0]), torch.tensor(4), torch.tensor(True)
        self.register_buffer("pair", torch.tensor([2, 2]))
        self.register_buffer("once", torch.tensor([1]), persistent=False)
        self.fixed = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.learned = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, self.second(self.norm(self.first(x)).relu()))


def changed_in_place(net: Any, y: Tensor) -> Tensor:
    scales = torch.zeros(2)
    scales[1] = net.stride[0] * 3
    scales.add_(1)
    return y * scales[1].item()


def levels(net: Any, y: Tensor) -> Tensor:
    """Deformable attention keeps the sizes of its levels in a tensor."""
    sizes = torch.tensor([[y.shape[2], y.shape[3]]])
    return torch.cat([part * 2 for part in y.flatten(2).split([int(h * w) for h, w in sizes], 2)], 2)


READS: dict[str, Code] = {
    "item": lambda net, y: y * net.stride[1].item(),
    "item of a buffer": lambda net, y: y * net.once.item(),
    "item of a fixed parameter": lambda net, y: y * net.fixed.item(),
    "float": lambda net, y: y * float(net.stride.max()),
    "int in a shape": lambda net, y: y.reshape(y.shape[0], int(net.count), -1),
    "product in a shape": lambda net, y: y.reshape(y.shape[0], net.pair.prod(), -1),
    "tolist of a buffer": lambda net, y: torch.cat(y.split(net.pair.tolist(), 1)[::-1], 1),
    "fill value": lambda net, y: y.flatten(2) * y.new_full((y.shape[2] * y.shape[3],), net.stride[0]),
    "full": lambda net, y: y + torch.full((int(net.count), 1, 1), net.stride[1]),
    "arange": lambda net, y: y + torch.arange(start=0, end=net.count.item()).view(1, -1, 1, 1),
    "range": lambda net, y: sum((y * i for i in range(net.count)), y),
    "loop over a tensor": lambda net, y: sum((y * float(s) for s in net.stride), y),
    "slice": lambda net, y: y[:, net.pair[0] :],
    "index": lambda net, y: y[:, net.once],
    "padding": lambda net, y: F.pad(y, net.pair.tolist()),
    "scale factor": lambda net, y: F.interpolate(y, scale_factor=net.stride[0].item()),
    "condition": lambda net, y: y * 2 if net.flag else y,
    "comparison": lambda net, y: y * 2 if net.stride.max() > 3 else y,
    "equal": lambda net, y: y * 2 if torch.equal(net.stride, torch.tensor([2.0, 4.0])) else y,
    "made in forward": lambda net, y: y * torch.tensor([1.0, 2.0]).max().item(),
    "new tensor": lambda net, y: y * y.new_tensor([3.0, 4.0]).sum().item(),
    "numpy": lambda net, y: y * float(net.stride.numpy()[0]),
    "sizes of an image": lambda net, y: y.reshape(y.shape[0], -1, int(torch.tensor(y.shape[2:]).prod())),
    "levels": levels,
    "changed in place": changed_in_place,
    "roll": lambda net, y: y.roll(net.pair.tolist(), (2, 3)),
    "top": lambda net, y: y.topk(net.pair[0], 1)[0],
    "passed on": lambda net, y: y[:, net.pair[0] :].relu().flatten(1) * 2,
}


def captured(code: Code) -> Program:
    return capture(Network(code), [parse_input("3x8x8")])


@pytest.mark.parametrize("name", READS)
def test_a_number_out_of_a_constant_is_a_number_in_the_graph(name: str) -> None:
    program = captured(READS[name])
    assert program.has_dynamic_batch
    assert not [node for node in program.module.graph.nodes if reads_a_number(node)]
    assert infer_shapes(program.module, program.inputs, 5)
    leaves = tree_leaves([node.meta.get("val") for node in program.module.graph.nodes])
    assert not any(free_unbacked_symbols(leaf) for leaf in leaves if isinstance(leaf, Tensor)), "noted anew, all of it"


@pytest.mark.parametrize("name", ["fill value", "product in a shape", "slice"])
def test_what_was_read_inside_torch_is_compact_as_masked(name: str) -> None:
    pruned, _ = compressor.prune(captured(READS[name]), compressor.PruneSettings(ratio=1.3, round_to=1))
    smaller, proof = compressor.compact(pruned)
    assert proof.agreement is not None and smaller.n_parameters < pruned.n_parameters


REFUSED: dict[str, tuple[Code, str]] = {
    "of the input": (lambda net, y: y * y.mean().item(), "depends on the input"),
    "of what training changes": (lambda net, y: y * net.learned.item(), "learned, which training changes"),
    "of running statistics": (
        lambda net, y: y * net.norm.running_var.sum().item(),
        "norm.running_var, which training changes",
    ),
    "of random numbers": (lambda net, y: y * torch.rand_like(net.stride).sum().item(), "a random tensor"),
    "after a write of data": (
        lambda net, y: y * torch.zeros(1).copy_(y.mean()).item(),
        "depends on the input",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_number_that_is_not_constant_is_refused_with_the_line(name: str) -> None:
    code, reason = REFUSED[name]
    with pytest.raises(ModelError, match=reason) as raised:
        captured(code)
    assert "test_known.py" in str(raised.value) and "bug in compress" not in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 3


def test_the_module_is_left_as_it_was() -> None:
    module = Network(READS["changed in place"])
    before = module.stride.clone()
    capture(module, [parse_input("3x8x8")])
    assert torch.equal(module.stride, before) and not module._forward_pre_hooks
