"""Counts of a program as it stands."""

from __future__ import annotations

import torch
from torch import nn

from compressor.cost import count_macs
from compressor.cost.count import count_activations
from compressor.program import InputSpec, capture


def test_a_network_of_two_layers_is_counted_by_hand() -> None:
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 25, 7))
    program = capture(net, [InputSpec("x", (None, 3, 5, 5))])
    assert count_macs(program) == 4 * 25 * 3 * 9 + 7 * 100
    assert count_activations(program) == 100 + 100 + 100 + 7
