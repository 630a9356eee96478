"""Small networks and ways to forge checkpoints for the tests of file formats."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.formats.checkpoint import to_bytes
from compressor.formats.digest import digest
from compressor.program import InputSpec, Program, Record, capture


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn(self.conv(x)))
        return self.fc(self.drop(y).flatten(1))


def _small(seed: int = 0) -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Small()
        net.bn.running_mean.normal_()
        net.bn.running_var.uniform_(0.5, 2)
    return capture(net, [InputSpec("x", (None, 1, 6, 6))], record=Record(arch="small", arch_args={"width": 4}))


@pytest.fixture(scope="session")
def _small_once() -> Program:
    return _small()


@pytest.fixture
def small(_small_once: Program) -> Program:
    """Convolution, batch norm, dropout, linear; a fresh copy."""
    return _small_once.clone()


@pytest.fixture
def small_module() -> nn.Module:
    """The module behind `small`, untrained."""
    return Small()


@pytest.fixture
def content(small: Program) -> dict[str, Any]:
    """The dictionary inside the checkpoint of `small`."""
    return torch.load(io.BytesIO(to_bytes(small)), weights_only=True)


@pytest.fixture
def forged() -> Callable[[dict[str, Any]], io.BytesIO]:
    """A file of an edited checkpoint whose digest was computed anew, as an attacker would."""

    def forge(edited: dict[str, Any]) -> io.BytesIO:
        metadata = edited["compressor"]
        held = metadata.get("aliases", {})
        aliases = held if isinstance(held, dict) else {}
        state = {name: tensor for name, tensor in edited["state_dict"].items() if name not in aliases}
        metadata["sha256"] = digest(edited["graph"], metadata, state, edited["masks"])
        buffer = io.BytesIO()
        torch.save(edited, buffer)
        buffer.seek(0)
        return buffer

    return forge
