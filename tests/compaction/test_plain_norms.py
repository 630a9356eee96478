"""Norms without a mean that lose positions stay what they are: a norm of the new width."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from compressor.asking.prune import PruneSettings
from compressor.compaction import compact
from compressor.exporting import export_onnx
from compressor.program import Program, capture, families, parse_input
from compressor.pruning import prune

EPS = 0.01


class Written(nn.Module):
    """As transformers writes it; `offset` is what Gemma adds to the weight."""

    def __init__(self, width: int, offset: float = 0.0) -> None:
        super().__init__()
        self.weight, self.offset = nn.Parameter(torch.rand(width) + 0.5), offset

    def forward(self, x: Tensor) -> Tensor:
        normal = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)
        return (self.offset + self.weight) * normal if self.offset else self.weight * normal


NORMS = {
    "written": lambda: Written(16),
    "written with an offset": lambda: Written(16, 1.0),
    "torch's": lambda: nn.RMSNorm(16, eps=EPS),
}


class Stream(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.into, self.norm, self.up, self.down = nn.Linear(5, 16), norm, nn.Linear(16, 12), nn.Linear(12, 16)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        return self.out(self.norm(x + self.down(torch.relu(self.up(self.norm(x))))))


def cut(program: Program, ratio: float) -> Program:
    settings = PruneSettings(method="magnitude", ratio=ratio, through_norm="exact", round_to=1)
    return compact(prune(program, settings)[0])[0]  # compared with the masked network there


def operators(program: Program) -> Counter[str]:
    nodes = (node for node in program.module.graph.nodes if node.op == "call_function")
    return Counter(families.operator_name(node.target) for node in nodes)


@pytest.mark.parametrize("name", NORMS)
def test_it_stays_a_norm_and_can_be_cut_again(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    dense = capture(Stream(NORMS[name]()), [parse_input("5")])
    once = cut(dense, 1.5)
    assert once.parameters["norm.weight"].numel() < 16
    more = operators(once) - operators(dense)
    assert set(more) == {"mul"} and not operators(dense) - operators(once)
    twice = cut(once, 1.3)
    assert twice.n_parameters < once.n_parameters
    kinds = []
    for i, program in enumerate((dense, once)):
        export_onnx(program, tmp_path / f"{i}.onnx")
        kinds.append(Counter(node.op_type for node in onnx.load(tmp_path / f"{i}.onnx").graph.node))
    assert kinds[0] == kinds[1]  # the exporter computes what is the same for every input


def test_twin_a_norm_with_a_mean_is_written_out(tmp_path: Path) -> None:
    torch.manual_seed(1)
    dense = capture(Stream(nn.LayerNorm(16)), [parse_input("5")])
    assert operators(cut(dense, 1.5))["layer_norm"] == 0 < operators(dense)["layer_norm"]
