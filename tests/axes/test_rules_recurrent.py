"""Hidden units of recurrent layers and cells: cut at random they leave what the masked layer computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import make_difficult, random_keep, removal_error, train_one_step
from compressor.axes import UnitMap, find_units, rules_recurrent
from compressor.compaction import compact
from compressor.errors import ModelError
from compressor.exporting import export_onnx
from compressor.program import InputSpec, Program, capture, find_layers
from compressor.sparsity import apply_masks, mask_units
from compressor.sparsity.select_units import _slice_choice

STEPS = InputSpec("x", (None, 5, 6))


class Layer(nn.Module):
    """A recurrent layer between linear ones; what reads its output, its last states, and their sums."""

    def __init__(self, kind: Any, state: str = "zeros", summed: bool = False, **options: Any) -> None:
        super().__init__()
        width = options.get("proj_size") or 10
        directions = 2 if options.get("bidirectional") else 1
        n = directions * options.get("num_layers", 1)
        self.embed, self.rnn = nn.Linear(6, 8), kind(8, 10, batch_first=True, **options)
        self.hidden, self.out, self.last = nn.Linear(directions * width, 7), nn.Linear(7, 3), nn.Linear(width, 3)
        self.cell = nn.Linear(10, 2)
        self.h0, self.c0 = nn.Parameter(torch.randn(n, 1, width)), nn.Parameter(torch.randn(n, 1, 10))
        self.state, self.summed, self.is_lstm = state, summed, kind is nn.LSTM

    def start(self, x: Tensor) -> Any:
        h, c = (t.expand(-1, x.shape[0], -1).contiguous() for t in (self.h0, self.c0))
        if self.state == "ones":
            h, c = (x.new_ones(t.shape[0], x.shape[0], t.shape[2]) for t in (self.h0, self.c0))
        if self.state == "zeros":
            return None
        return (h, c) if self.is_lstm else h

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x)
        y, states = self.rnn(x, self.start(x))
        h, c = states if self.is_lstm else (states, None)
        made = [self.out(self.hidden(y).relu()), self.last(h[-1])]
        made += [self.cell(c[0])] if c is not None else []
        return (*made, y.sum(-1)) if self.summed else tuple(made)


class Cells(nn.Module):
    """A cell that the network steps by itself."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.embed, self.cell, self.out = nn.Linear(6, 8), kind(8, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        h = c = x.new_zeros(x.shape[0], 10)
        for step in range(x.shape[1]):
            if isinstance(self.cell, nn.LSTMCell):
                h, c = self.cell(x[:, step], (h, c))
            else:
                h = self.cell(x[:, step], h)
        return self.out(h)


class Translator(nn.Module):
    """A decoder that goes on from the encoder's state."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = kind(6, 10, batch_first=True), kind(6, 10, batch_first=True)
        self.out = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.encoder(x)
        return self.out(self.decoder(x.flip(1), state)[0])


CASES: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: Layer(nn.LSTM),
    "GRU": lambda: Layer(nn.GRU),
    "RNN": lambda: Layer(nn.RNN),
    "RNN with relu": lambda: Layer(nn.RNN, nonlinearity="relu"),
    "LSTM, stacked, both directions": lambda: Layer(nn.LSTM, num_layers=2, bidirectional=True),
    "GRU, stacked, both directions": lambda: Layer(nn.GRU, num_layers=3, bidirectional=True),
    "LSTM with projections": lambda: Layer(nn.LSTM, proj_size=4),
    "LSTM with projections, stacked, both directions": lambda: Layer(
        nn.LSTM, proj_size=4, num_layers=2, bidirectional=True
    ),
    "LSTM without biases": lambda: Layer(nn.LSTM, bias=False),
    "GRU without biases": lambda: Layer(nn.GRU, bias=False),
    "LSTM with learned states": lambda: Layer(nn.LSTM, "learned", num_layers=2),
    "GRU with learned states": lambda: Layer(nn.GRU, "learned"),
    "LSTM, states of ones": lambda: Layer(nn.LSTM, "ones"),
    "GRU, states of ones": lambda: Layer(nn.GRU, "ones"),
    "RNN, states of ones, summed": lambda: Layer(nn.RNN, "ones", summed=True),
    "LSTM, summed": lambda: Layer(nn.LSTM, summed=True),
    "GRU with learned states, summed": lambda: Layer(nn.GRU, "learned", summed=True),
    "LSTM cells": lambda: Cells(nn.LSTMCell),
    "GRU cells": lambda: Cells(nn.GRUCell),
    "RNN cells": lambda: Cells(nn.RNNCell),
    "LSTM, encoder and decoder": lambda: Translator(nn.LSTM),
    "GRU, encoder and decoder": lambda: Translator(nn.GRU),
}


def analysed(model: nn.Module) -> tuple[Program, UnitMap]:
    program = capture(model, [STEPS])
    make_difficult(program, zero_biases=False)
    return program, find_units(program)


def made(name: str) -> tuple[Program, UnitMap]:
    torch.manual_seed(0)
    return analysed(CASES[name]())


def is_caught(program: Program, units: UnitMap) -> bool:
    """Whether a random cut does not fit together, or computes something else."""
    try:
        return removal_error(program, units, random_keep(units), torch.float64)[0] > 1e-6
    except (ModelError, RuntimeError, ValueError):
        return True


def recurrent_weight(program: Program) -> str:
    return next(layer.weight for layer in find_layers(program) if layer.kind in ("lstm", "gru", "rnn_tanh", "rnn_relu"))


@pytest.mark.parametrize("name", CASES)
def test_hidden_units_go_exactly(name: str) -> None:
    program, units = made(name)
    of_rows = units.axes[recurrent_weight(program), 0]
    assert (of_rows >= 0).all() and len(np.unique(of_rows)) == 10
    for seed in range(2):
        difference, smaller = removal_error(program, units, random_keep(units, seed=seed), torch.float64)
        assert difference <= 1e-12
    train_one_step(smaller)


@pytest.mark.parametrize("name", ["LSTM, states of ones", "GRU, states of ones"])
def test_a_state_that_is_not_zero_is_not_summed_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates of zeros carry it on, so a sum over the output pins; the twin that believes it to be 0 is caught."""
    torch.manual_seed(0)
    model = Layer(nn.GRU if "GRU" in name else nn.LSTM, "ones", summed=True)
    program, units = analysed(model)
    assert "over 10 positions" in units.pin_at[recurrent_weight(program), 0].reason
    right = rules_recurrent._meet_state
    monkeypatch.setattr(rules_recurrent, "_meet_state", lambda ctx, part, state: bool(right(ctx, part, state)) or True)
    wrong = find_units(program)
    assert removal_error(program, wrong, random_keep(wrong), torch.float64)[0] > 1e-6


def test_twin_gates_that_are_not_tied_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def loose(ctx: Any, rows: Any, n_gates: int, n_units: int) -> Any:
        ids = rules_recurrent.ids_along(ctx, rows[0], 0)
        assert ids is not None
        return rules_recurrent._Features(ids.reshape(n_gates, n_units)[0], True)

    program, _ = made("LSTM")
    monkeypatch.setattr(rules_recurrent, "_gates", loose)
    units = find_units(program)
    assert is_caught(program, units)


def test_twin_directions_that_are_not_tied_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = made("LSTM, stacked, both directions")
    monkeypatch.setattr(rules_recurrent, "_tied", lambda ctx, parts: parts[0])
    units = find_units(program)
    assert is_caught(program, units)


def cut_to(program: Program, units: UnitMap, n_left: int) -> Program:
    """The program with masks that leave so many hidden units, and all else."""
    of_unit = units.axes[recurrent_weight(program), 0][:10]
    keep = np.ones(units.n_units, dtype=bool)
    keep[of_unit[n_left:]] = False
    masked = program.replace(masks=mask_units(program.module, units, keep))
    apply_masks(masked.module, masked.masks)
    return masked


@pytest.mark.parametrize("masks_only", [False, True])
def test_a_projected_lstm_never_has_as_many_units_as_projections(masks_only: bool) -> None:
    program, units = made("LSTM with projections")
    smaller, report = compact(cut_to(program, units, 4), masks_only=masks_only)
    assert smaller.parameters["rnn.weight_hr_l0"].shape == (4, 5)
    assert any("as many hidden units as projections" in told for told in report.skipped)
    assert compact(cut_to(program, units, 3))[0].parameters["rnn.weight_hr_l0"].shape == (4, 3)


def test_units_that_nobody_reads_go_without_masks() -> None:
    """Zeros of another tool: columns of the readers, the recurrent matrix among them."""
    program, _ = made("GRU")
    with torch.no_grad():
        for name, columns in (("rnn.weight_hh_l0", [1, 7]), ("hidden.weight", [1, 7]), ("last.weight", [1, 7])):
            program.parameters[name][:, columns] = 0
        program.parameters["rnn.weight_ih_l0"][:, 2] = 0  # and a feature that only zeros read
    smaller, _ = compact(program)
    assert smaller.parameters["rnn.weight_hh_l0"].shape == (24, 8)
    assert smaller.parameters["rnn.weight_ih_l0"].shape == (24, 7)


def test_a_layer_is_told_as_one() -> None:
    program, _ = made("LSTM, stacked, both directions")
    (layer,) = (layer for layer in find_layers(program) if layer.kind == "lstm")
    assert layer.name == "rnn" and len(layer.tensors) == 16


def test_hidden_units_have_a_score_of_their_own_under_the_pattern_filter() -> None:
    program, units = made("LSTM")
    layers = find_layers(program)
    counts = _slice_choice(units, layers, "filter", "l2")
    assert counts("rnn.weight_ih_l0", 0) and counts("hidden.weight", 0) and not counts("hidden.weight", 1)


def test_a_projected_lstm_is_no_onnx_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no LSTM with projections"):
        export_onnx(made("LSTM with projections")[0], tmp_path / "m.onnx")
    assert export_onnx(made("LSTM, stacked, both directions")[0], tmp_path / "m.onnx").n_nodes
