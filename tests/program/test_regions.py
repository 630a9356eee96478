"""Regions without gradients or mixed precision are part of the graph again, and mean what they meant."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.program import InputSpec, capture


class Regions(nn.Module):
    def __init__(self, gradients: bool, autocast: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)
        self.gradients, self.autocast = gradients, autocast

    def forward(self, x: Tensor) -> Any:
        with torch.set_grad_enabled(self.gradients):
            scale = self.a(x).abs() + 1.0
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            y = self.b(scale) + 1.0
        return y, scale


@pytest.mark.parametrize("gradients", [True, False])
def test_regions_are_inlined(gradients: bool) -> None:
    torch.manual_seed(0)
    model = Regions(gradients, autocast=False).eval()
    program = capture(model, [InputSpec("x", (None, 4))])
    assert not any("wrap_with" in str(node.target) for node in program.module.graph.nodes)
    x = torch.randn(3, 4)
    for ours, theirs in zip(program.module(x), model(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    program.module(x)[0].sum().backward()
    assert (program.parameters["a.weight"].grad is not None) is gradients
    assert program.parameters["b.weight"].grad is not None


def test_mixed_precision_of_its_own_is_refused() -> None:
    with pytest.raises(ModelError, match="autocast of its own"):
        capture(Regions(True, autocast=True), [InputSpec("x", (None, 4))])
