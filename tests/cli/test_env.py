"""`compress env`: what a bug report says, without importing what it speaks of and without what is nobody's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import compressor
from tests.cli.conftest import Run


def test_versions_and_where_it_lies(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_SEED", "hunter2")
    (here / "compress.toml").write_text("seed = 3\n")
    done = run("env")
    assert done.code == 0
    assert f"compress   {compressor.__version__}" in done.out and str(Path(compressor.__file__).parent) in done.out
    assert "COMPRESS_SEED" in done.out and "hunter2" not in done.out
    assert str(here / "compress.toml") in done.out
    found = run("env", "--json").json
    assert found["schema"] == "compress.env/1" and found["packages"]["typer"]
    assert found["packages"]["onnxruntime-gpu"] is None or isinstance(found["packages"]["onnxruntime-gpu"], str)


def test_a_broken_torch_can_be_reported(environment: dict[str, str]) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom compressor.cli.main import main\nmain(['env', '--json'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["packages"]["torch"]
