"""What onnxruntime tells its maker is turned off; nothing is written for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import compressor

ASKS = "import onnxruntime, pathlib, sys; print([str(p) for p in pathlib.Path(sys.argv[1]).rglob('*') if p.is_file()])"


def left_behind(home: Path, code: str) -> str:
    """Files below an empty home after the code was run in it, with none of the variables that turn telemetry off."""
    home.mkdir()
    off = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME", "GITHUB_ACTIONS")
    environment = {name: value for name, value in os.environ.items() if name not in off} | {"HOME": str(home)}
    command = [sys.executable, "-c", code, str(home)]
    root = Path(compressor.__file__).parents[1]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


def test_nothing_is_kept_for_telemetry(tmp_path: Path) -> None:
    assert left_behind(tmp_path / "ours", f"import compressor.timing.providers; {ASKS}") == "[]"


def test_twin_without_it_onnxruntime_keeps_something(tmp_path: Path) -> None:
    found = left_behind(tmp_path / "plain", ASKS)
    if found == "[]":
        pytest.skip("this onnxruntime has no telemetry, or it is turned off for the whole machine")
    assert ".onnxruntime" in found


def test_what_the_user_says_stays(tmp_path: Path) -> None:
    said = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '0'; import compressor; "
    assert left_behind(tmp_path / "said", said + "print(os.environ['ORT_DISABLE_TELEMETRY'])") == "0"
