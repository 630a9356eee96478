"""A small pruned network for the tests of compaction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.axes import find_units
from compressor.program import InputSpec, Program, capture
from compressor.sparsity import apply_masks, mask_units


class Small(nn.Module):
    """Convolution, batch norm, convolution, flatten, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)
        self.hidden, self.out = nn.Linear(4 * 16, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.norm(self.one(x)).relu()).relu()
        return self.out(self.hidden(x.view(-1, 64)).relu())


@pytest.fixture
def dense() -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = Small()
        assert net.norm.running_mean is not None and net.norm.running_var is not None
        net.norm.running_mean.normal_()
        net.norm.running_var.uniform_(0.5, 2)
    return capture(net, [InputSpec("x", (None, 1, 8, 8))])


@pytest.fixture
def masked(dense: Program) -> Program:
    """Filters 1 and 4 of `one`, 2 of `two`, and half of `hidden` are cut."""
    units = find_units(dense)
    keep = np.ones(units.n_units, dtype=bool)
    for name, gone in (("one.weight", [1, 4]), ("two.weight", [2]), ("hidden.weight", [0, 2, 4, 6, 8])):
        keep[units.axes[name, 0][gone]] = False
    masks = mask_units(dense.module, units, keep)
    apply_masks(dense.module, masks)
    return dense.replace(masks=masks)
