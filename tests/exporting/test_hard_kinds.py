"""Networks that torch and onnxruntime answer differently are exported, checked, and told from wrong ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnx
import pytest

from compressor.errors import VerificationError
from compressor.exporting import check_onnx, export_onnx
from compressor.exporting.exported import ExportReport
from tests.program.faults import Fault, faults_of, noise_stronger
from tests.program.hard_to_compare import KINDS, captured


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


@cache
def exported(name: str, folder: Path) -> tuple[Path, ExportReport]:
    path = folder / f"{name}.onnx"
    return path, export_onnx(captured(name), path)


JUDGED = {
    "probabilities near 1e-5": "sensitivity",
    "probabilities near 1e-7": "sensitivity",
    "deep": "own rounding",
}
TAKEN_OVER = {
    "probabilities near 1e-5": {"sigmoid"},
    "probabilities near 1e-7": {"sigmoid"},
    "random in evaluation": {"randn_like", "rand_like"},
}


@pytest.mark.parametrize("name", KINDS)
def test_a_right_file_is_written_and_checked(name: str, folder: Path) -> None:
    path, report = exported(name, folder)
    again = check_onnx(captured(name), path)
    for found in (report, again):
        assert found.max_rel <= found.limit and [check.batch for check in found.checks] == [1, 2, 5]
        if name in JUDGED:
            worst = found.verification.worst
            assert worst.judgment == JUDGED[name] and worst.noise
        if name in TAKEN_OVER:
            assert {part for check in found.checks for part in check.decisions} >= TAKEN_OVER[name]


CASES = [(name, fault) for name in KINDS for fault in faults_of(name)]


@pytest.mark.parametrize(("name", "fault"), CASES, ids=[f"{name}-{fault.__name__}" for name, fault in CASES])
def test_a_file_of_another_network_is_refused(name: str, fault: Fault, folder: Path) -> None:
    path, _ = exported(name, folder)
    wrong = captured(name).clone()
    fault(name, wrong)
    with pytest.raises(VerificationError, match="the file and torch differ"):
        check_onnx(wrong, path)


def test_random_numbers_of_another_spread_are_refused(folder: Path) -> None:
    path, _ = exported("random in evaluation", folder)
    model = onnx.load(path)
    for node in model.graph.node:
        for entry in node.attribute:
            if node.op_type.startswith("RandomNormal") and entry.name == "scale":
                entry.f = 1.5
    onnx.save(model, folder / "louder.onnx")
    with pytest.raises(VerificationError, match=r"randn_like gives what it cannot: .* numbers of another distribution"):
        check_onnx(captured("random in evaluation"), folder / "louder.onnx")
    assert noise_stronger in faults_of("random in evaluation")


@pytest.mark.parametrize("name", ["top-k queries", "two selections", "sort"])
def test_near_ties_are_found_in_some_file_and_named(name: str, folder: Path) -> None:
    """Which of them differ is onnxruntime's affair; what was taken over stands in the report."""
    _, report = exported(name, folder)
    kinds = {part.split("_")[0] for check in report.checks for part in check.decisions}
    assert kinds and kinds <= {"topk", "sort", "sigmoid"}
