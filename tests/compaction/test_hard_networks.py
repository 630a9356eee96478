"""Networks that pruners stumble over, from pruning through a file to the compact model that is proven equal."""

from __future__ import annotations

import contextlib
import importlib
import io

import pytest
import torch
from torch import Tensor, nn

from compressor.asking import PruneSettings
from compressor.compaction import compact
from compressor.errors import ModelError
from compressor.formats import load, save
from compressor.program import Program, capture
from compressor.pruning import prune
from tests.axes.test_hard_cases import CASES, TOKENS, Case


def stored(program: Program) -> Program:
    """The program as the next command of a pipeline would find it."""
    file = io.BytesIO()
    save(program, file)
    file.seek(0)
    return load(file)


def pruned(case: Case, pattern: str, ratio: float = 1.5) -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = case.model().eval()
    settings = PruneSettings(ratio=ratio, method="magnitude", pattern=pattern)
    return stored(prune(capture(net, list(case.inputs)), settings)[0])


@pytest.mark.parametrize("name", CASES)
def test_a_hard_network_is_compacted(name: str) -> None:
    program = pruned(CASES[name], "channel", SO_FAR.get(name, 1.5))
    small, report = compact(program, lowering="dense")
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    assert small.n_parameters < program.n_parameters and report.n_units_removed > 0


SO_FAR = {"LSTM": 1.1, "GRU": 1.1}
"""Ratios of networks that have too much pinned for a third of their parameters to go."""


@pytest.mark.parametrize("pattern", ["filter", "channel+shape"])
def test_gates_by_the_largest_value(pattern: str) -> None:
    """CBAM pools by `adaptive_max_pool2d`, which says as well where it found what it returns."""
    program = pruned(CASES["CBAM"], pattern)
    small, report = compact(program, lowering="gather")
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    assert small.n_parameters < program.n_parameters


class OwnCell(nn.Module):
    """A recurrent cell as people write it: its first state is made without a type, its steps are spelled out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.cell = nn.Linear(16, 12), nn.Linear(12, 8), nn.Linear(16, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.embed(x).relu())
        state = torch.zeros(x.shape[0], 8)
        for t in range(5):
            state = self.cell(torch.cat([x[:, t], state], 1)).tanh()
        return self.out(state + torch.arange(8) * 0.5)


class OwnState(nn.Module):
    """A packaged cell that is handed its first state, made without a type."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell, self.hidden = nn.Linear(16, 8), nn.LSTM(8, 9, batch_first=True), nn.Linear(9, 10)
        self.out = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(1, x.shape[0], 9), torch.ones(1, x.shape[0], 9)
        return self.out(self.hidden(self.cell(self.embed(x), state)[0][:, -1]).relu())


@pytest.mark.parametrize("model", [OwnCell, OwnState])
def test_states_without_a_type(model: type[nn.Module]) -> None:
    program = pruned(Case(model, (TOKENS,)), "channel", 1.1)
    small, report = compact(program, lowering="dense")
    assert report.agreement is not None and report.agreement.float64_relative < 1e-12
    assert small.n_parameters < program.n_parameters


def test_twin_a_state_of_another_type_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    program = pruned(Case(OwnState, (TOKENS,)), "channel", 1.1)
    monkeypatch.setattr(
        importlib.import_module("compressor.program.runs"), "default_type", lambda dtype: contextlib.nullcontext()
    )
    with pytest.raises(ModelError, match=r"torch cannot run the model at batch 1: .*dtype"):
        compact(program, lowering="dense")
