"""Archives of torch.export: written, read back, compared."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from compressor.data.arrays import ArraySource
from compressor.errors import GateError, UsageError, VerificationError
from compressor.exporting import archive, export_pt2
from compressor.exporting.exported import ExportReport
from compressor.program import Program

Build = Callable[[str], Program]


def test_the_archive_computes_the_program_at_any_batch(program_of: Build, data: ArraySource, tmp_path: Path) -> None:
    program = program_of("normalised")
    report = export_pt2(program, tmp_path / "m.pt2", data=data, metadata={"why": "a test"})
    assert (report.format, report.opset, report.max_rel) == ("pt2", None, 0.0)
    assert (report.n_params, report.top1_agreement) == (program.n_parameters, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]
    notes = {"why.txt": "", "version.txt": ""}
    loaded = torch.export.load(tmp_path / "m.pt2", extra_files=notes)
    (x,) = program.example_inputs(7)
    with torch.no_grad():
        assert torch.equal(loaded.module()(x), program.module.eval()(x))
    assert notes["why.txt"] == "a test" and notes["version.txt"]


def test_the_batch_can_be_fixed_and_a_stream_be_the_target(program_of: Build) -> None:
    stream = io.BytesIO()
    report = export_pt2(program_of("plain"), stream, batch=2)
    assert (report.batch_sizes, report.path, report.size_bytes) == ((2,), None, len(stream.getvalue()))
    with pytest.raises(UsageError, match="fixes the batch at 1"):
        export_pt2(program_of("fixed-batch"), io.BytesIO(), batch=2)


def test_an_archive_that_computes_something_else_is_not_written(
    program_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = archive._save

    def damaged(exported: torch.export.ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
        with torch.no_grad():
            exported.state_dict["out.bias"].add_(1)
        genuine(exported, path, metadata)

    def copied(program: Program, module: torch.nn.Module, batch: int | None) -> torch.export.ExportedProgram:
        return to_exported(program, program.clone().module.eval(), batch)

    to_exported = archive.to_exported
    monkeypatch.setattr(archive, "to_exported", copied)
    monkeypatch.setattr(archive, "_save", damaged)
    with pytest.raises(VerificationError, match=r"differ by .* on a random batch of 1"):
        export_pt2(program_of("plain"), tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_accepted_is_not_written(program_of: Build, tmp_path: Path) -> None:
    def refuse(report: ExportReport) -> None:
        raise GateError(f"{report.size_bytes} bytes are too many")

    with pytest.raises(GateError, match="bytes are too many"):
        export_pt2(program_of("plain"), tmp_path / "m.pt2", accept=refuse)
    assert list(tmp_path.iterdir()) == []
