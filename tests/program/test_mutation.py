"""Writes through slices become data movement, or stay when another name of the memory would see them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.program import InputSpec, Program, capture


class Written(nn.Module):
    def __init__(self, write: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        return self.write(self.conv(x))


def fill(x: Tensor) -> Tensor:
    x[:, 1:3] = 0.5
    return x


def move(x: Tensor) -> Tensor:
    """The temporal shift: two slices of one tensor copied into another."""
    y = torch.zeros_like(x)
    y[:, :3] = x[:, 3:]
    y[:, 3:, 1:] = x[:, :3, :-1]
    return y


def scale_one(x: Tensor) -> Tensor:
    x[:, -1] *= 2.0
    x[0] += 1.0
    return x


def broadcast(x: Tensor) -> Tensor:
    x[:, 2:] = x[:, :1]
    return x


def clear(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 2:4, :, 1].zero_()
    return y + x


def seen_elsewhere(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    x[:, 2:4] += 1.0
    return flat.sum(-1)


def captured(write: Callable[[Tensor], Tensor]) -> tuple[nn.Module, Program]:
    torch.manual_seed(0)
    model = Written(write).eval()
    return model, capture(model, [InputSpec("x", (None, 3, 5, 5))])


def writes(program: Program) -> list[str]:
    schemas = (getattr(node.target, "_schema", None) for node in program.module.graph.nodes)
    return [schema.name for schema in schemas if schema is not None and schema.is_mutable]


@pytest.mark.parametrize("write", [fill, move, scale_one, broadcast, clear])
def test_writes_vanish_and_nothing_else_changes(write: Callable[[Tensor], Tensor]) -> None:
    model, program = captured(write)
    assert writes(program) == []
    for batch in (1, 3):
        x = torch.randn(batch, 3, 5, 5)
        torch.testing.assert_close(program.module(x), model(x), rtol=0, atol=0)


def test_the_trace_still_knows_every_shape() -> None:
    _, program = captured(move)
    assert program.traced is not None
    assert program.replace(module=program.module).shapes == program.traced


def test_a_write_that_another_view_reads_stays() -> None:
    """The twin: had it been written out, `flat` would miss it."""
    model, program = captured(seen_elsewhere)
    assert "aten::add_" in writes(program)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(program.module(x), model(x), rtol=0, atol=0)
