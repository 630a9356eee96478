"""Who speaks and writes, of several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from compressor.launched import is_first_process
from compressor.program import InputSpec, capture
from compressor.pruning.run import ResumeFile


@pytest.mark.parametrize(("rank", "first"), [(None, True), ("0", True), ("1", False), ("10", False)])
def test_one_alone_and_the_first_of_several_write(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, first: bool
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_first_process() == first


@pytest.mark.parametrize(("rank", "written"), [("0", True), ("1", False)])
def test_a_resume_point_is_written_by_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: str, written: bool
) -> None:
    monkeypatch.setenv("RANK", rank)
    program = capture(nn.Linear(3, 2), [InputSpec("x", (None, 3))])
    ResumeFile(tmp_path / "run.resume", "id").write(0, None, program, (), {})
    assert (tmp_path / "run.resume").exists() == written
