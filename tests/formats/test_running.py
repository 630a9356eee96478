"""One question at both ends: what may be run is written, and what was written is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.formats import budget, check_storable, from_bytes, save, to_bytes
from compressor.formats.running import check_running
from compressor.program import InputSpec, Program, capture, families
from tests.formats.test_budget import program_of


def whole(rounding: str) -> Program:
    """A network that divides whole numbers by others."""
    return program_of(lambda x, w: x * torch.div(x.long(), w.long() + 1, rounding_mode=rounding), 4)


def test_a_size_that_depends_on_values_is_refused_when_it_is_written() -> None:
    program = program_of(lambda x, w: (x * w).masked_select(x > 0).sum() + x, 4)
    with pytest.raises(ModelError, match="its size depends on values"):
        check_running(program)


def test_what_could_not_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the work, and when it is done; every part of the question is asked."""
    assert from_bytes(to_bytes(whole("floor"))).n_parameters == 4
    for refuses in (check_storable, check_running, to_bytes, lambda program: save(program, tmp_path / "m.pt")):
        with pytest.raises(ModelError, match=r"div\.Tensor_mode: whole numbers are divided by what may be -1"):
            refuses(whole("trunc"))
    program = whole("floor")
    monkeypatch.setattr(budget, "_SOME_WORK", 1)
    monkeypatch.setattr(budget, "_WORK_PER_ELEMENT", 1)
    monkeypatch.setattr(budget, "_WORK_PER_PAIR", 0)
    for refuses in (check_storable, check_running, to_bytes):
        with pytest.raises(ModelError, match="running it takes more than"):
            refuses(program)
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_does_not_fit_is_told_by_the_users_line() -> None:
    program = program_of(lambda x, w: (x * w).transpose(1, 2), 4)
    node = next(n for n in program.module.graph.nodes if n.target in families.TRANSPOSE)
    node.args = (node.args[0], "1", 2)
    with pytest.raises(ModelError, match=r"^test_\w+\.py:\d+ .*transpose.*: dim0 must be int"):
        check_running(program)


def test_networks_of_every_kind_may_run(small: Program) -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x.flatten(1, 2))[0]

    lstm = capture(Reads(), [InputSpec("x", (None, 3, 4, 4))])
    for program in (small, lstm):
        assert check_running(program) is None
        assert check_running(from_bytes(to_bytes(program))) is None
    read = from_bytes(to_bytes(lstm))
    assert dict(read.shapes) == dict(read.replace(traced=None, module=lstm.module).shapes)
    assert [s.sizes for s in read.shapes["lstm"]] == [(2, 12, 4), (1, 2, 4), (1, 2, 4)]
