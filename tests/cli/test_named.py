"""What is not there is said before torch is imported, and a checkpoint is read without torch's compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compressor.architectures import BUNDLED
from compressor.data_reference import DATA_KINDS
from compressor.input_text import INPUT_TYPES

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\nfrom compressor.cli.main import main\n"

WRONG = {
    "a model": (["analyze", "nope.pt"], "nope.pt: no such file"),
    "a model, nearly": (["prune", "modle.pt", "-r", "2x"], "did you mean model.pt?"),
    "a directory": (["compact", "folder"], "folder: is a directory without a model file in it"),
    "one of several models": (["bench", "model.pt", "nope.onnx"], "nope.onnx: no such file"),
    "a teacher": (["retrain", "model.pt", "--teacher", "nope.pth"], "nope.pth: no such file"),
    "weights to adopt": (["retrain", "model.pt", "--adopt", "nope.pth"], "nope.pth: no such file"),
    "a file to check": (["export", "nope.pt", "--check-only"], "nope.pt: no such file"),
    "a sweep": (["prune", "nope.pt", "-r", "2x,4x", "-o", "s"], "nope.pt: no such file"),
    "a kind of data": (["retrain", "model.pt", "--data", "mnst:x"], "unknown kind of data `mnst`; did you mean mnist"),
    "a directory of data": (
        ["prune", "model.pt", "-r", "2x", "--data", "mnist:nowhere"],
        "mnist:nowhere: no directory",
    ),
    "a file of data": (["analyze", "model.pt", "--data", "nope.npz"], "nope.npz: no such file or directory"),
    "code of data": (["retrain", "model.pt", "--data", "nope.py:make"], "nope.py:make: no such file"),
    "code of a task": (["retrain", "model.pt", "--task", "nope.py:Task"], "nope.py:Task: no such file"),
    "code of an architecture": (["analyze", "model.pt", "--arch", "nope.py:Net"], "nope.py:Net: no such file"),
    "an architecture": (["analyze", "init", "--arch", "resnet21"], "unknown architecture; did you mean resnet20"),
    "initial weights of nothing": (["analyze", "init"], "init: needs --arch"),
    "a plugin": (["analyze", "model.pt", "--plugin", "nope.py"], "nope.py: no such file"),
    "an input": (["analyze", "model.pt", "--input", "3*28*28"], "--input 3*28*28: not a shape"),
    "an argument": (["analyze", "model.pt", "--arch-arg", "width"], "--arch-arg width: write it as name=value"),
    "a ratio": (["prune", "model.pt", "-r", "half"], "--ratio half: not a ratio"),
    "a rate": (["retrain", "model.pt", "--lr", "-1"], "--lr -1: must be above 0"),
    "a gate": (["compact", "model.pt", "--require", "speed>2"], "--require speed>2"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_without_torch(what: str, here: Path, environment: dict[str, str]) -> None:
    words, told = WRONG[what]
    (here / "folder").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", f"{WITHOUT_TORCH}sys.exit(main({words!r}))"],
        cwd=here, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2), done.stderr
    assert told in done.stderr and "bug in compress" not in done.stderr, done.stderr


def test_twin_what_is_right_gets_to_torch(here: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{WITHOUT_TORCH}sys.exit(main(['analyze', 'model.pt']))"],
        cwd=here, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "torch" in done.stderr


def test_a_checkpoint_is_read_without_torchs_compiler(here: Path, environment: dict[str, str]) -> None:
    code = (
        "import sys\nfrom compressor.cli.main import main\n"
        "assert main(['analyze', 'model.pt', '-q', '--json']) == 0\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, timeout=120, check=False)
    assert done.returncode == 0


def test_names_that_are_known_without_torch_are_those_there_are() -> None:
    from compressor.data import KINDS
    from compressor.models import ARCHITECTURES
    from compressor.program.element_types import ELEMENT_TYPES

    assert tuple(ARCHITECTURES) == BUNDLED
    assert tuple(KINDS) == DATA_KINDS
    assert tuple(kind.name for kind in ELEMENT_TYPES if kind.is_input) == INPUT_TYPES
