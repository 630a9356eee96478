"""The check that a hosted machine and a hook run is the one that everybody runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_hosted_workflow_runs_the_same_script_with_the_same_torch() -> None:
    workflow = text(".github/workflows/ci.yml")
    assert re.findall(r"- run: (.+)", workflow) == [".ci/run"] and os.access(ROOT / ".ci/run", os.X_OK)
    (default,) = re.findall(r"^TORCH_SPEC \?= (\S+)", text("Makefile"), re.M)
    assert re.findall(r"TORCH_SPEC: (\S+)", workflow) == [default]


def test_hooks_use_the_tools_of_the_environment() -> None:
    entries = re.findall(r"entry: (\S+)", text(".pre-commit-config.yaml"))
    assert len(entries) == 3 and all(entry.startswith(".venv/bin/") for entry in entries)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(("browser", "installs"), [(True, False), (False, True)])
def test_a_browser_is_installed_only_where_there_is_none(browser: bool, installs: bool, tmp_path: Path) -> None:
    """The script beside stand-ins for the programs that it calls."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("apt-get", "make", "sudo", *(["chromium"] if browser else [])):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/called"\n', encoding="utf-8")
        (tools / name).chmod(0o755)
    for name in ("bash", "dirname", "timeout", "id", "sh"):
        (tools / name).symlink_to(str(shutil.which(name)))
    subprocess.run([tools / "bash", tmp_path / ".ci/run"], env={"PATH": str(tools)}, check=True, timeout=120)
    called = (tmp_path / "called").read_text(encoding="utf-8").splitlines()
    assert [line for line in called if line.startswith("make")] == ["make lint", "make test"]
    assert any("apt-get" in line and "install" in line and "chromium" in line for line in called) == installs
